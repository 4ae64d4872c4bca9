// Package checkout owns .e2e, the folder of a checkout that is not under version
// control: where everything in it lies, who works on a cluster, what a cluster was made
// of, which evidence is kept and which clusters this user's checkouts have. It starts no
// program and knows no cluster's words.
//
//	.e2e/build/<cluster>/             what was compiled; mage/ is the targets, which .e2e/mage/lock lets one compile
//	.e2e/coverage/<tier>/             what tests without a cluster have counted
//	.e2e/<cluster>/lock               who works on it
//	.e2e/<cluster>/cluster.json       what it was made of
//	.e2e/<cluster>/kubeconfig         mode 0600
//	.e2e/<cluster>/deployed.json      hashes of the components that are deployed
//	.e2e/<cluster>/target.json        what is deployed in it, for the suites
//	.e2e/<cluster>/coverage/          what its pods have counted
//	.e2e/<cluster>/runs/<time>/       the evidence of a run; the newest are kept
//	.e2e/last                         the newest run, of whichever cluster
//
// Outside of the checkout there are one small file a cluster, and one a run of a suite, in the
// user's cache folder.
package checkout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Checkout is a working copy of a repository, by its one true path.
type Checkout struct{ Root string }

// At returns the checkout whose root is dir. One that is reached through a symbolic
// link is the same checkout; a copy is another.
func At(dir string) (Checkout, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return Checkout{}, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return Checkout{}, err
	}
	return Checkout{root}, nil
}

// ID tells the checkouts of a machine apart, in names and labels.
func (c Checkout) ID() string {
	sum := sha256.Sum256([]byte(c.Root))
	return hex.EncodeToString(sum[:4])
}

// Dir is .e2e.
func (c Checkout) Dir() string { return filepath.Join(c.Root, ".e2e") }

// Path is a path below .e2e.
func (c Checkout) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir()}, elem...)...)
}

// Last is the link to the newest run.
func (c Checkout) Last() string { return c.Path("last") }

// Remove removes .e2e. No cluster of the checkout may be left: its kubeconfig and record
// would be gone.
func (c Checkout) Remove() error { return os.RemoveAll(c.Dir()) }

// Cluster returns the checkout's cluster of a variant. Its name is the same for the same
// checkout and differs between two, so that both can run at once on one machine. suffix
// tells the clusters of one checkout apart; empty is the usual one's.
func (c Checkout) Cluster(suffix string) Cluster {
	name := "e2e-" + c.ID()
	if suffix != "" {
		name += "-" + suffix
	}
	return Cluster{Checkout: c, Name: name}
}

// Cluster is what a checkout keeps of one of its clusters, there or not.
type Cluster struct {
	Checkout
	Name string
}

// Dir is the cluster's folder.
func (c Cluster) Dir() string { return c.Path(c.Name) }

// Kubeconfig is the file with the key to the cluster, for nobody else.
func (c Cluster) Kubeconfig() string { return filepath.Join(c.Dir(), "kubeconfig") }

// TargetFile describes what is deployed, see test/e2e/target.
func (c Cluster) TargetFile() string { return filepath.Join(c.Dir(), "target.json") }

// Coverage is the folder of what the cluster's pods have counted.
func (c Cluster) Coverage() string { return filepath.Join(c.Dir(), "coverage") }

// Build is a path below the folder of what is compiled for the cluster.
func (c Cluster) Build(elem ...string) string {
	return c.Path(append([]string{"build", c.Name}, elem...)...)
}

// Forget removes what describes the cluster once it is gone: its record, its target and
// its kubeconfig, with the lock that kubectl's library may have left beside it. Evidence
// stays.
func (c Cluster) Forget() error {
	return errors.Join(c.ForgetTarget(), remove(c.recordFile()), remove(c.deployedFile()), remove(c.Kubeconfig()), remove(c.Kubeconfig()+".lock"), c.unregister())
}

// ForgetTarget removes target.json: what it describes is gone or not yet complete.
func (c Cluster) ForgetTarget() error { return remove(c.TargetFile()) }

func remove(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// read decodes a JSON file. Its error names the file.
func read(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// write stores a JSON file, whole or not at all, and makes its folder.
func write(file string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(file, append(data, '\n'), 0o644)
}
