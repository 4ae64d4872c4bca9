package checkout

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// As in a folder that a virtual machine shares.
func TestARunNeedsNoLinks(t *testing.T) {
	before := symlink
	t.Cleanup(func() { symlink = before })
	symlink = func(to, at string) error {
		return &os.LinkError{Op: "symlink", Old: to, New: at, Err: syscall.EPERM}
	}
	dir, err := Cluster{Checkout: Checkout{t.TempDir()}, Name: "c"}.Begin(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
