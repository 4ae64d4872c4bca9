package testservers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Label marks the containers of this package. Its value stands for the folder of the
// servers, so that what a run left that was killed can be told from what another
// checkout is using.
const Label = "e2e.kubernaut.ai/test-server"

// FolderPrefix begins the names of folders with a server's data, among the temporary
// files.
const FolderPrefix = "kubernaut-e2e-"

// identity stands for the folder of the servers.
func identity(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:4])
}

// hold makes this process the only one that runs servers of dir until release is
// called or it ends, however it does.
func hold(dir string) (release func() error, err error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = errors.Join(err, file.Close())
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another process runs the integration tests of this checkout; wait until it has ended", dir)
		}
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	return file.Close, nil
}

// removeFolders removes the data that killed runs left. The caller holds dir.
func removeFolders(dir string) error {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), FolderPrefix+identity(dir)+"-*"))
	for _, folder := range found {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
}

// removeContainers removes the containers that killed runs left. The caller holds dir.
func removeContainers(ctx context.Context, runner command.Runner, engine, dir string) error {
	out, err := command.Output(ctx, runner, engine, "ps", "--all", "--quiet", "--filter", "label="+Label+"="+identity(dir))
	if err != nil {
		return err
	}
	if ids := strings.Fields(out); len(ids) > 0 {
		return runner.Run(ctx, command.Cmd{Args: append([]string{engine, "rm", "--force", "--volumes"}, ids...)})
	}
	return nil
}

// endOrphans ends the programs of a folder that tests have started and outlived them: envtest
// gives kube-apiserver and etcd process groups of their own, so what ends a test that hangs
// or is interrupted does not reach them. A program whose parent is a test still serves it.
// Where there is no /proc nothing is found.
func endOrphans(programs string) error {
	processes, _ := procfs.AllProcs()
	var err error
	for _, process := range processes {
		program, _ := process.Executable() // another's, or gone by now
		if filepath.Dir(program) != programs {
			continue
		}
		stat, gone := process.Stat()
		if gone != nil {
			continue
		}
		parent, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", stat.PPID))
		if strings.HasSuffix(strings.TrimSuffix(parent, " (deleted)"), ".test") {
			continue
		}
		if killed := syscall.Kill(process.PID, syscall.SIGKILL); killed != nil && !errors.Is(killed, syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("%s, process %d, of tests that have ended: %w", program, process.PID, killed))
		}
	}
	return err
}
