// Package signals makes every way of ending a run one way: what Ctrl-C on a terminal
// does. Mage cancels its target on SIGINT alone, in the process that runs the target
// alone, and does not notice that whoever started it is gone.
package signals

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// once is this process's only handler.
var once sync.Once

// AsInterrupt makes SIGTERM, SIGHUP and the end of the mage that started this process
// one SIGINT to this process, whose handler stays Mage's: it cancels the target and
// leaves it five seconds. It tells say why. Only the first call does anything; the
// handler stays until the process ends.
//
// A target calls it before it starts anything: until then the signals end the
// process at once, which has nothing to end.
func AsInterrupt(say func(line string)) {
	once.Do(func() {
		got := notify(syscall.SIGINT)
		parent := parentEnd()
		go func() {
			var why string
			select {
			case sig := <-got:
				if sig == syscall.SIGINT {
					return // Mage has it too; a second one would end the process at once
				}
				why = name(sig)
			case <-parent:
				why = "the process that started this one is gone"
			}
			say(why + ": ending as on Ctrl-C")
			_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
		}()
	})
}

// PassOn hands SIGINT, SIGTERM and SIGHUP on to what this process has started, as
// SIGTERM, until the function it returns is called. So it does the end of the go
// command that started it.
func PassOn() (stop func()) {
	got := notify(syscall.SIGINT)
	parent := parentEnd()
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		select {
		case <-got:
		case <-parent:
		case <-done:
			return
		}
		end(done)
	})
	return func() {
		close(done)
		group.Wait()
		signal.Stop(got)
	}
}

// notify is told of the signals that are to end this process, and of others.
func notify(others ...os.Signal) chan os.Signal {
	got := make(chan os.Signal, 8)
	signal.Notify(got, append(others, syscall.SIGTERM)...)
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup
		signal.Notify(got, syscall.SIGHUP)
	}
	return got
}

func name(sig os.Signal) string {
	if sig == syscall.SIGHUP {
		return "SIGHUP"
	}
	return "SIGTERM"
}
