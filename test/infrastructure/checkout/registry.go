package checkout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Entry is a cluster that some checkout of this user has begun to make and not removed.
type Entry struct {
	Name   string    `json:"name"`
	Root   string    `json:"root"`   // of its checkout
	Engine string    `json:"engine"` // whose containers its nodes are
	Begun  time.Time `json:"begun"`
}

// Orphan says why nobody looks after the cluster any more; empty if its checkout does.
func (e Entry) Orphan() string {
	if _, err := os.Stat(e.Root); notThere(err) {
		return "its checkout " + e.Root + " is gone"
	}
	if _, err := os.Stat(Checkout{e.Root}.Path(e.Name)); notThere(err) {
		return "its checkout " + e.Root + " knows it no longer"
	}
	return ""
}

// Remove is the command that removes the cluster by hand: its containers, with their
// volumes, by the label that kind puts on them.
func (e Entry) Remove() string {
	return fmt.Sprintf("%[1]s rm --force --volumes $(%[1]s ps --all --quiet --filter label=io.x-k8s.kind.cluster=%[2]s)", e.Engine, e.Name)
}

// Forget takes the cluster out of the registry.
func (e Entry) Forget() error {
	file, err := Cluster{Name: e.Name}.entryFile()
	if err != nil {
		return err
	}
	return remove(file)
}

// Cache is a folder in the user's cache, which checkouts share. A user without a home has
// none.
func Cache(name string) (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "kubernaut-e2e", name), err
}

// registry is the folder of the entries.
func registry() (string, error) { return Cache("clusters") }

func (c Cluster) entryFile() (string, error) {
	dir, err := registry()
	return filepath.Join(dir, c.Name+".json"), err
}

// Register notes in the user's registry that the cluster is about to be made, so that it
// can be found when its checkout is gone. Where there is no cache folder, or none that
// can be written, nothing is noted: no run needs it.
func (c Cluster) Register(engine string, now time.Time) {
	if file, err := c.entryFile(); err == nil {
		_ = write(file, Entry{Name: c.Name, Root: c.Root, Engine: engine, Begun: now})
	}
}

// unregister takes the cluster out of the registry, if it is this checkout's there.
func (c Cluster) unregister() error {
	file, err := c.entryFile()
	if err != nil {
		return nil // nothing was noted
	}
	var entry Entry
	if err := read(file, &entry); err != nil || entry.Root != c.Root {
		return nil
	}
	return remove(file)
}

// Registered returns the clusters of this user's checkouts, by name. Damaged entries are
// left out and named in the error.
func Registered() ([]Entry, error) {
	dir, err := registry()
	if err != nil {
		return nil, nil
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		if notThere(err) {
			return nil, nil
		}
		return nil, err
	}
	var entries []Entry
	var problems []error
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".json") {
			continue
		}
		var entry Entry
		if err := read(filepath.Join(dir, file.Name()), &entry); err != nil {
			problems = append(problems, err)
			continue
		}
		entries = append(entries, entry)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, errors.Join(problems...)
}
