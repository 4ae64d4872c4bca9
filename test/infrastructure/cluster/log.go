package cluster

import (
	"errors"
	"fmt"
	"io"

	"sigs.k8s.io/kind/pkg/exec"
	"sigs.k8s.io/kind/pkg/log"
)

// logger writes what kind says, without its spinner, to a step's log.
type logger struct{ w io.Writer }

var _ log.Logger = logger{}

func (l logger) Warn(message string)               { fmt.Fprintln(l.w, "warning:", message) }
func (l logger) Warnf(format string, args ...any)  { l.Warn(fmt.Sprintf(format, args...)) }
func (l logger) Error(message string)              { fmt.Fprintln(l.w, "error:", message) }
func (l logger) Errorf(format string, args ...any) { l.Error(fmt.Sprintf(format, args...)) }
func (l logger) V(level log.Level) log.InfoLogger  { return info{l.w, level <= 1} }

type info struct {
	w       io.Writer
	enabled bool
}

func (i info) Enabled() bool                    { return i.enabled }
func (i info) Infof(format string, args ...any) { i.Info(fmt.Sprintf(format, args...)) }
func (i info) Info(message string) {
	if i.enabled {
		fmt.Fprintln(i.w, message)
	}
}

// outputOf returns what a failed command of kind's had printed.
func outputOf(err error) ([]byte, bool) {
	var failed *exec.RunError
	if errors.As(err, &failed) {
		return failed.Output, true
	}
	return nil, false
}
