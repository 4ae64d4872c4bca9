package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// dropInFile is where podman is told what it cannot find out by itself.
const dropInFile = "etc/containers/containers.conf.d/50-kubernaut-e2e.conf"

// dropInMark begins the file: one without it was made by somebody else and is left
// alone.
const dropInMark = "# Written by `go tool mage setup` of kubernaut-e2e"

// podmanProcesses is the highest process limit that podman gives a container when
// it lacks CAP_SYS_RESOURCE: 4.3 lowers its own limit to this first, and cannot
// raise it again for the container.
const podmanProcesses = 32768

// kernelFiles is the highest limit of open files that a kernel allows by default
// (fs.nr_open), for a process that has no limit of its own.
const kernelFiles = 1 << 20

// dropIn is the configuration that podman needs on this machine, empty if it needs
// none.
func dropIn(root fs.FS) (string, error) {
	var b strings.Builder
	caps, err := capabilities(root)
	if err != nil {
		return "", err
	}
	if caps&(1<<capSysResource) == 0 {
		l, err := readLimits(root)
		if err != nil {
			return "", err
		}
		files, processes := min(l.openFiles, kernelFiles), min(l.processes, podmanProcesses)
		fmt.Fprintf(&b, "\n# Without CAP_SYS_RESOURCE a container gets no higher limits than the process that starts it has.\n"+
			"[containers]\ndefault_ulimits = [\"nofile=%d:%d\", \"nproc=%d:%d\"]\n", files, files, processes, processes)
	}
	if cgroups(root) == "hybrid" {
		b.WriteString("\n# crun refuses cgroups in hybrid mode.\n" +
			"[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n")
	}
	if b.Len() == 0 {
		return "", nil
	}
	return dropInMark + ":\n# podman ran no privileged container without these settings. It may be deleted; setup makes it again\n# where it is needed.\n" + b.String(), nil
}

// writeDropIn writes the drop-in and tells whether that changed anything. It never
// replaces a file that it did not make.
func writeDropIn(root, content string) (changed bool, err error) {
	path := filepath.Join(root, dropInFile)
	old, err := os.ReadFile(path)
	switch {
	case err == nil && string(old) == content:
		return false, nil
	case err == nil && !bytes.HasPrefix(old, []byte(dropInMark)):
		return false, fmt.Errorf("%s: was not written by this project; remove it, or add these settings to it:\n%s", path, content)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	return true, renameio.WriteFile(path, []byte(content), 0o644)
}
