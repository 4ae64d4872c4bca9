// Command mage is Mage as this repository runs it: `go tool mage`. Mage by itself
// takes SIGINT and does nothing, and on SIGTERM or SIGHUP it ends while its target
// goes on; here each of them ends the target as Ctrl-C does. And it asks the go command
// each time whether the targets are up to date, which takes half a second; here only when
// a file of the checkout or a setting of Go's has changed.
package main

import (
	"context"
	"errors"
	"fmt"
	"log" //nolint:depguard // mage.RunCompiled takes one
	"os"
	"slices"
	"strings"

	"github.com/magefile/mage/mage"

	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/signals"
)

func main() {
	stop := signals.PassOn()
	code := run(context.Background(), os.Args[1:])
	stop()
	os.Exit(code)
}

// run runs targets, with -v or without a flag; anything else is Mage's own affair.
func run(ctx context.Context, args []string) int {
	// Without either, Mage compiles into a folder where it does not look then.
	if os.Getenv("HOME") == "" && os.Getenv("MAGEFILE_CACHE") == "" {
		fmt.Fprintln(os.Stderr, "HOME is not set; set it, or MAGEFILE_CACHE to a folder for what mage compiles")
		return 1
	}
	asIs := func() int { return mage.ParseAndRun(os.Stdout, os.Stderr, os.Stdin, args) }
	if len(args) == 0 || slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-v" }) {
		return asIs()
	}
	targets, err := find(ctx)
	if err != nil {
		return asIs()
	}
	inv, _, err := mage.Parse(os.Stderr, os.Stdout, args)
	if err != nil {
		return asIs()
	}
	inv.Stderr, inv.Stdin = os.Stderr, os.Stdin
	if !targets.current() {
		inv := inv
		inv.CompileOut, inv.HashFast = targets.program, false // it would take the old program for the new one
		switch code, err := targets.compile(ctx, inv); {
		case err != nil && code != 0: // a checkout that cannot be written
			return asIs()
		case code != 0:
			return code
		case err != nil:
			fmt.Fprintln(os.Stderr, err) // the next run compiles again
		}
	}
	return mage.RunCompiled(inv, targets.program, log.New(os.Stderr, "", 0))
}

// targets are the program that the magefiles become.
type targets struct {
	cluster checkout.Cluster // none, but it has a folder for what is compiled
	program string
	sources checkout.Sources
}

// find reads what the targets are made of now. In a workspace that is more than the
// checkout, which is an error.
func find(ctx context.Context) (targets, error) {
	own, err := checkout.At(".")
	if err != nil {
		return targets{}, err
	}
	t := targets{cluster: checkout.Cluster{Checkout: own, Name: "mage"}}
	t.program = t.cluster.Build("mage")
	if t.sources, err = own.Sources(); err != nil {
		return targets{}, err
	}
	settings, err := command.Output(ctx, command.Local{}, append([]string{"go", "env", "GOROOT", "GOWORK", "GOFLAGS", "CGO_ENABLED"}, checkout.GoSettings...)...)
	if err != nil {
		return targets{}, err
	}
	if workspace := strings.Split(settings, "\n")[1]; workspace != "" && workspace != "off" {
		return targets{}, fmt.Errorf("%s: is made of more than the checkout", workspace)
	}
	t.sources["go env"] = settings
	return t, nil
}

// compile makes the program, one process after the other: Mage writes a file into the folder
// of the magefiles, which it removes at its end.
func (t targets) compile(ctx context.Context, inv mage.Invocation) (code int, err error) {
	lock, err := t.cluster.Lock(ctx, "the compiler", func(holder checkout.Holder) error {
		fmt.Fprintf(os.Stderr, "waiting: %s\n", holder)
		return nil
	})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if t.current() { // another one has just made it
		return 0, nil
	}
	// Whoever ends this process meanwhile leaves a program of which nobody knows what it is
	// made of.
	if err := t.note(nil); err != nil {
		return 1, err
	}
	if code := mage.Invoke(inv); code != 0 {
		return code, nil
	}
	return 0, t.note(t.sources)
}

// note keeps what the program is made of; nil is not known.
func (t targets) note(sources checkout.Sources) error { return t.cluster.Built("targets", sources) }

// current tells whether the program is made of them.
func (t targets) current() bool {
	_, err := os.Stat(t.program)
	return err == nil && len(t.sources.Changed(t.cluster.BuiltOf("targets"))) == 0
}
