// Package target is the contract between an environment and the suites that test
// it: one JSON document, written when an environment has been deployed and read
// by every suite process. Suites know nothing else of how a cluster came to be.
package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// EnvFile is the environment variable that names the document. Without it, the
// checkout's most recent environment is taken: .e2e/last/target.json.
const EnvFile = "E2E_TARGET"

// Target is one deployed environment.
type Target struct {
	Cluster    string   `json:"cluster"`    // name of the Kind cluster
	Variant    string   `json:"variant"`    // standard or coverage
	Engine     string   `json:"engine"`     // podman or docker: whose containers the nodes are
	Nodes      []string `json:"nodes"`      // container names of the nodes
	Kubeconfig string   `json:"kubeconfig"` // absolute path, mode 0600
	Namespace  string   `json:"namespace"`  // where the services run
	Artifacts  string   `json:"artifacts"`  // absolute path of the run's evidence folder

	// Endpoints maps "<service>/<port name>" to the "127.0.0.1:port" that reaches it.
	Endpoints map[string]string `json:"endpoints"`
	// Images maps catalog names to the references that were deployed.
	Images map[string]string `json:"images"`
}

// Address returns the host:port of a Service's named port.
func (t *Target) Address(service, port string) (string, error) {
	key := service + "/" + port
	address, ok := t.Endpoints[key]
	if !ok {
		return "", fmt.Errorf("endpoint %q: not in the environment; there are: %s",
			key, strings.Join(slices.Sorted(maps.Keys(t.Endpoints)), ", "))
	}
	return address, nil
}

// Write stores the document at path with mode 0600, whole or not at all.
func (t *Target) Write(path string) error {
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o600)
}

// Read returns the environment that EnvFile names, else the most recent one of the
// checkout that dir lies in, which must be that checkout's own. Its error says how to make
// an environment.
func Read(getenv func(string) string, dir string) (*Target, error) {
	path, own := getenv(EnvFile), ""
	if path == "" {
		root, err := moduleRoot(dir)
		if err != nil {
			return nil, err
		}
		if own, err = filepath.EvalSymlinks(root); err != nil {
			return nil, err
		}
		path = filepath.Join(root, ".e2e", "last", "target.json")
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no environment is deployed; make one and keep it: E2E_KEEP=always go tool mage e2e:gateway", path)
	}
	if err != nil {
		return nil, err
	}
	t := &Target{}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if own != "" && !strings.HasPrefix(t.Kubeconfig, own+string(filepath.Separator)) {
		return nil, fmt.Errorf("%s: is of another checkout's cluster, %s, and came here by copying; make one here: E2E_KEEP=always go tool mage e2e:gateway", path, t.Kubeconfig)
	}
	if _, err := os.Stat(t.Kubeconfig); err != nil {
		return nil, fmt.Errorf("%s: its cluster %s is gone (%w); make one and keep it: E2E_KEEP=always go tool mage e2e:gateway", path, t.Cluster, err)
	}
	return t, nil
}

// moduleRoot is the nearest folder at or above dir that holds a go.mod.
func moduleRoot(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s: no go.mod here or above; run the suite inside the checkout or set %s", dir, EnvFile)
		}
	}
}
