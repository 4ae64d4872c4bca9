package checkout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// keptRuns is how many runs of a cluster keep their evidence: enough to compare a flake
// with the runs around it, a few megabytes each.
const keptRuns = 5

func (c Cluster) runs() string { return filepath.Join(c.Dir(), "runs") }

// Begin makes the evidence folder of a new run, removes the oldest ones and points
// .e2e/last at it. The caller holds the cluster's lock.
func (c Cluster) Begin(now time.Time) (string, error) {
	name := now.UTC().Format("20060102-150405")
	dir := filepath.Join(c.runs(), name)
	for i := 2; ; i++ {
		err := os.MkdirAll(c.runs(), 0o755)
		if err == nil {
			err = os.Mkdir(dir, 0o755)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return "", err
		}
		dir = filepath.Join(c.runs(), fmt.Sprintf("%s-%d", name, i))
	}
	// So that .e2e/last leads to what is deployed as well; while nothing is, it leads
	// nowhere.
	if err := link(filepath.Join("..", "..", filepath.Base(c.TargetFile())), filepath.Join(dir, filepath.Base(c.TargetFile()))); err != nil {
		return "", err
	}
	if err := c.prune(); err != nil {
		return "", err
	}
	return dir, c.point(dir)
}

// prune removes the evidence of all but the newest runs.
func (c Cluster) prune() error {
	runs, err := c.Runs()
	if err != nil {
		return err
	}
	for _, run := range runs[min(len(runs), keptRuns):] {
		if err := os.RemoveAll(run); err != nil {
			return err
		}
	}
	return nil
}

// Runs returns the folders of the runs whose evidence is there, the newest first.
func (c Cluster) Runs() ([]string, error) {
	entries, err := os.ReadDir(c.runs())
	if notThere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var runs []string
	for _, entry := range slices.Backward(entries) {
		if entry.IsDir() {
			runs = append(runs, filepath.Join(c.runs(), entry.Name()))
		}
	}
	return runs, nil
}

// Latest returns the folder of the newest run, which what ends a run adds to; made if
// there is none.
func (c Cluster) Latest(now time.Time) (string, error) {
	runs, err := c.Runs()
	if err != nil || len(runs) == 0 {
		if err == nil {
			return c.Begin(now)
		}
		return "", err
	}
	return runs[0], nil
}

// point makes .e2e/last the run. A folder of that name is a copy that came with an
// artifact, in which links are followed.
func (c Cluster) point(dir string) error {
	if info, err := os.Lstat(c.Last()); err == nil && info.IsDir() {
		if err := os.RemoveAll(c.Last()); err != nil {
			return err
		}
	}
	to, err := filepath.Rel(c.Path(), dir)
	if err != nil {
		return err
	}
	return link(to, c.Last())
}

// symlink is what a file system without links has not.
var symlink = renameio.Symlink

// link makes a link, or none in a shared folder without links: the runs lie where they lie.
func link(to, at string) error {
	err := symlink(to, at)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}
