package checkout

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources are the files of a checkout by path, relative and with slashes, with a hash of
// what is in each.
type Sources map[string]string

// GoSettings are what go env tells of by which the same files become other programs.
var GoSettings = []string{"GOVERSION", "GOEXPERIMENT", "GOAMD64", "GOARM64", "CC", "CGO_CFLAGS", "CGO_LDFLAGS", "PATH"}

// Sources reads all files of the checkout, but those in folders that begin with a dot.
func (c Checkout) Sources() (Sources, error) {
	sources := Sources{}
	root := os.DirFS(c.Root)
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		data, err := fs.ReadFile(root, path)
		if err != nil {
			return nil // a link to nothing or to a folder, a socket: nothing is compiled of it
		}
		sum := sha256.Sum256(data)
		sources[path] = hex.EncodeToString(sum[:8])
		return nil
	})
	return sources, err
}

// Changed returns the paths of files that are others than they were, in order.
func (s Sources) Changed(was Sources) []string {
	var changed []string
	for path, sum := range s {
		if was[path] != sum {
			changed = append(changed, path)
		}
	}
	for path := range was {
		if _, there := s[path]; !there {
			changed = append(changed, path)
		}
	}
	slices.Sort(changed)
	return changed
}

// Built notes of what sources the phase made what it made.
func (c Cluster) Built(phase string, sources Sources) error {
	return write(c.sourcesFile(phase), sources)
}

// BuiltOf returns what Built noted; nil when the phase has made nothing yet.
func (c Cluster) BuiltOf(phase string) Sources {
	var sources Sources
	if err := read(c.sourcesFile(phase), &sources); err != nil {
		return nil
	}
	return sources
}

func (c Cluster) sourcesFile(phase string) string {
	return c.Build("sources-" + strings.ReplaceAll(phase, "/", "-") + ".json")
}

func (c Cluster) deployedFile() string { return filepath.Join(c.Dir(), "deployed.json") }

// Deployed returns hashes of what the components that are deployed were made of, by name.
func (c Cluster) Deployed() map[string]string {
	deployed := map[string]string{}
	_ = read(c.deployedFile(), &deployed)
	return deployed
}

// NoteDeployed stores what Deployed returns.
func (c Cluster) NoteDeployed(deployed map[string]string) error {
	return write(c.deployedFile(), deployed)
}
