// Package bootstrap makes container images where no registry has them: from
// Debian's packages and from Go modules, which reach many a site that no registry
// does.
package bootstrap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Suite is the Debian release that root file systems are made of: kind's own node
// image is built on it.
const Suite = "trixie"

// PackagesFile is the list, one name a line, of what a root file system holds.
const PackagesFile = "packages.txt"

// Rootfs writes a Debian root file system with the packages listed in dir as a tar
// archive. It needs mmdebstrap; packages come from the mirror that this host's own
// sources name, if it is a Debian host, else from Debian's default mirror.
func Rootfs(ctx context.Context, runner command.Runner, dir, archive string) error {
	packages, err := readList(filepath.Join(dir, PackagesFile))
	if err != nil {
		return err
	}
	if _, err := command.Find("mmdebstrap"); err != nil {
		return fmt.Errorf("%w; run: go tool mage setup", err)
	}
	args := []string{"mmdebstrap", "--variant=minbase", "--include=" + strings.Join(packages, ",")}
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	if _, err := os.Stat(keyring); err == nil {
		args = append(args, "--keyring="+keyring)
	}
	args = append(args, Suite, archive)
	if mirror := Mirror(os.DirFS("/")); mirror != "" {
		args = append(args, mirror)
	}
	return runner.Run(ctx, command.Cmd{Args: args})
}

var oneLine = regexp.MustCompile(`^deb\s+(?:\[[^\]]*\]\s+)?(\S+/debian)/?\s`)

// Mirror returns the Debian mirror of the host's apt sources, below root; empty if
// they name none.
func Mirror(root fs.FS) string {
	files, _ := fs.Glob(root, "etc/apt/sources.list.d/*")
	for _, path := range append([]string{"etc/apt/sources.list"}, files...) {
		file, err := root.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			continue // unreadable to this user: the default mirror will do
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			line := strings.TrimSpace(lines.Text())
			if match := oneLine.FindStringSubmatch(line); match != nil {
				return match[1]
			}
			if uris, ok := strings.CutPrefix(line, "URIs:"); ok {
				for _, uri := range strings.Fields(uris) {
					if strings.HasSuffix(strings.TrimSuffix(uri, "/"), "/debian") {
						return strings.TrimSuffix(uri, "/")
					}
				}
			}
		}
	}
	return ""
}

func readList(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	return strings.Fields(string(data)), err
}
