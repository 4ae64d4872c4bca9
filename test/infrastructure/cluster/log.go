package cluster

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/kind/pkg/exec"
	"sigs.k8s.io/kind/pkg/log"
)

// logger writes what kind says, without its spinner, to a step's log.
type logger struct {
	w        io.Writer
	prepared func() // called when the nodes run and are configured
}

var _ log.Logger = logger{}

func (l logger) Warn(message string)               { fmt.Fprintln(l.w, "warning:", message) }
func (l logger) Warnf(format string, args ...any)  { l.Warn(fmt.Sprintf(format, args...)) }
func (l logger) Error(message string)              { fmt.Fprintln(l.w, "error:", message) }
func (l logger) Errorf(format string, args ...any) { l.Error(fmt.Sprintf(format, args...)) }
func (l logger) V(level log.Level) log.InfoLogger  { return info{l, level <= 1} }

type info struct {
	logger
	enabled bool
}

// configured begins what kind says when the nodes of a creation run, containerd with the
// configuration that stays: it has no other way to tell. Where it says something else,
// nothing is done early.
const configured = "✓ Writing configuration"

func (i info) Enabled() bool                    { return i.enabled }
func (i info) Infof(format string, args ...any) { i.Info(fmt.Sprintf(format, args...)) }
func (i info) Info(message string) {
	if i.enabled {
		fmt.Fprintln(i.w, message)
	}
	if strings.HasPrefix(strings.TrimSpace(message), configured) {
		i.prepared()
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
