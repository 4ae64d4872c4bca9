// Command mage is Mage as this repository runs it: `go tool mage`. Mage by itself
// takes SIGINT and does nothing, and on SIGTERM or SIGHUP it ends while its target
// goes on; here each of them ends the target as Ctrl-C does.
package main

import (
	"os"

	"github.com/magefile/mage/mage"

	"kubernaut.ai/e2e/test/infrastructure/signals"
)

func main() {
	stop := signals.PassOn()
	code := mage.ParseAndRun(os.Stdout, os.Stderr, os.Stdin, os.Args[1:])
	stop()
	os.Exit(code)
}
