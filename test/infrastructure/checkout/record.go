package checkout

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
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
	// Kept is a state of the cluster that is put aside; nil when there is none. Parked says
	// that its nodes do not hold what they held: that state has to be restored first. When it
	// was put back and nothing has been started since, Filled is when its node was, last.
	Kept   *Kept     `json:"kept,omitempty"`
	Parked bool      `json:"parked,omitempty"`
	Filled time.Time `json:"filled,omitzero"`
}

// Kept is a state of a cluster that is put aside.
type Kept struct {
	Sum      string            `json:"sum"`   // identifies it
	Bytes    int64             `json:"bytes"` // on the engine's disk
	At       time.Time         `json:"at"`
	Deployed map[string]string `json:"deployed"`         // what Deployed returned then
	Target   json.RawMessage   `json:"target,omitempty"` // target.json of then; empty when there was none
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

// Keep adds to the record that a state of the cluster as it is now was put aside.
func (c Cluster) Keep(record Record, kept Kept) error {
	kept.Deployed = c.Deployed()
	target, err := os.ReadFile(c.TargetFile())
	if err != nil && !notThere(err) {
		return err
	}
	kept.Target, record.Kept = target, &kept
	return c.Made(record)
}

// Rewind stores the record of a cluster whose nodes are about to lose what they hold but for
// the state that is put aside: what is deployed is what was then, and no target is there.
func (c Cluster) Rewind(record Record) error {
	record.Parked, record.Filled = true, time.Time{}
	return errors.Join(c.Made(record), c.ForgetTarget(), c.NoteDeployed(record.Kept.Deployed))
}

// Park stores the record of a cluster that was rewound and whose state was put back, in a node
// that was started then.
func (c Cluster) Park(record Record, started time.Time) error {
	record.Parked, record.Filled = true, started
	return c.Made(record)
}

// Restored stores the record of a cluster whose state was put back, and the target of then.
func (c Cluster) Restored(record Record) error {
	record.Parked, record.Filled = false, time.Time{}
	if len(record.Kept.Target) > 0 {
		if err := write(c.TargetFile(), record.Kept.Target); err != nil {
			return err
		}
	}
	return c.Made(record)
}

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
