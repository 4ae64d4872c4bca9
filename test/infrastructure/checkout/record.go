package checkout

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"
)

// Record is what a cluster was made of. It is written when its creation has come to the
// end, so a cluster without one is a half-made one.
type Record struct {
	Spec   map[string]string `json:"spec"`   // everything that its maker was told, by subject
	Engine string            `json:"engine"` // whose containers its nodes are
	Nodes  []string          `json:"nodes"`  // names of the containers
	Made   time.Time         `json:"made"`
	By     string            `json:"by"` // target that was run
}

func (c Cluster) recordFile() string { return filepath.Join(c.Dir(), "cluster.json") }

// Record returns what the cluster was made of. An error that is fs.ErrNotExist says that
// it was not made to the end, any other that the record is damaged.
func (c Cluster) Record() (Record, error) {
	var record Record
	err := read(c.recordFile(), &record)
	return record, err
}

// Made stores the record.
func (c Cluster) Made(record Record) error { return write(c.recordFile(), record) }

// Unmade removes the record: the cluster is about to be removed or made anew.
func (c Cluster) Unmade() error {
	return errors.Join(remove(c.recordFile()), remove(c.Kubeconfig()+".lock"))
}

// Engine is the engine that the cluster was last made with, empty if nobody knows.
func (c Cluster) Engine() string {
	if record, err := c.Record(); err == nil && record.Engine != "" {
		return record.Engine
	}
	var entry Entry
	if file, err := c.entryFile(); err == nil && read(file, &entry) == nil && entry.Root == c.Root {
		return entry.Engine
	}
	return ""
}

// notThere tells whether err says that a file is missing.
func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }
