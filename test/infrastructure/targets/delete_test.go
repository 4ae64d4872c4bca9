package targets_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
	"kubernaut.ai/e2e/test/infrastructure/targets"
)

// engine stands for podman and docker: one container, until it is removed, and no answer
// while it is stopped.
const engine = `
cd "$(dirname "$0")/.." || exit 1
if test -e "stopped-$(basename "$0")"; then echo "cannot connect to its socket" >&2; exit 125; fi
case "$1" in
ps) cat "containers-$(basename "$0")" 2>/dev/null ;;
rm) rm -f "containers-$(basename "$0")" ;;
esac
exit 0
`

func TestWhatNeedsNoManifestWorksWhileOneIsBroken(t *testing.T) {
	root := t.TempDir()
	filetest.Put(t, root, "go.mod", "module x\n\nrequire sigs.k8s.io/kind v0.33.0\n")
	filetest.Put(t, root, "docker/kind-node/go.mod", "module y\n\nrequire k8s.io/kubernetes v1.37.2\n")
	filetest.Put(t, root, "manifests/gateway/base/kustomization.yaml", ": no manifest")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	project := targets.Of(infrastructure.Kubernaut())
	project.Root, project.Variant = root, infrastructure.Standard
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is asked for is not to be done
	for name, target := range map[string]func(context.Context) error{
		"cluster:status": project.Status, "cluster:delete": project.DeleteCluster, "clean": project.Clean, "doctor": project.Doctor,
		"lint": project.Lint, "generate": project.Generate, "report": project.Report, "test:unit": project.UnitTests, "test:integration": project.IntegrationTests,
	} {
		if err := target(ctx); err != nil && strings.Contains(err.Error(), "manifest") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := project.EndToEnd(ctx); err == nil || !strings.Contains(err.Error(), "manifests/gateway/base") {
		t.Errorf("e2e:all: got %v, want the broken manifest", err)
	}
}

func TestAClusterIsDeletedWhateverIsBroken(t *testing.T) {
	const node = "the-node"
	tests := []struct {
		name   string
		damage func(put func(path, text string), cluster checkout.Cluster)
		in     string // engine that the cluster is in
		want   string // part of the error; empty when the cluster is deleted
	}{
		{"nothing", func(func(string, string), checkout.Cluster) {}, "podman", ""},
		{"a manifest", func(put func(string, string), _ checkout.Cluster) {
			put("manifests/gateway/base/kustomization.yaml", ": no manifest")
		}, "podman", ""},
		{"a custom resource definition is missing", func(put func(string, string), _ checkout.Cluster) {
			put("manifests/cluster/base/kustomization.yaml", "resources: [../../crds/gone.yaml]\n")
		}, "podman", ""},
		{"the record is lost", func(_ func(string, string), cluster checkout.Cluster) { _ = cluster.Unmade() }, "podman", ""},
		{"the record is lost, the cluster in the other engine", func(_ func(string, string), cluster checkout.Cluster) { _ = cluster.Unmade() }, "docker", ""},
		{"the record is damaged", func(put func(string, string), cluster checkout.Cluster) {
			put(filepath.Join(".e2e", cluster.Name, "cluster.json"), "{")
		}, "podman", ""},
		{"the engine that made it is stopped", func(put func(string, string), _ checkout.Cluster) { put("stopped-podman", "") }, "podman",
			"cannot connect to its socket; is podman running? The cluster stays until it can be asked"},
		{"the other engine made it, and is stopped", func(put func(string, string), cluster checkout.Cluster) {
			put("stopped-docker", "")
			_ = cluster.Made(checkout.Record{Engine: "docker", Nodes: []string{node}})
		}, "docker", "cannot connect to its socket; is docker running? The cluster stays until it can be asked"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			own, err := checkout.At(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			put := func(path, text string) {
				t.Helper()
				filetest.Put(t, own.Root, path, text)
			}
			put("go.mod", "module x\n\nrequire sigs.k8s.io/kind v0.33.0\n")
			put("docker/kind-node/go.mod", "module y\n\nrequire k8s.io/kubernetes v1.37.2\n")
			for _, program := range []string{"bin/podman", "bin/docker"} {
				filetest.Program(t, own.Root, program, engine)
			}
			put("containers-"+test.in, node+"\n")
			t.Setenv("PATH", filepath.Join(own.Root, "bin")+":"+os.Getenv("PATH"))
			t.Setenv("XDG_CACHE_HOME", t.TempDir())
			cluster := own.Cluster("")
			if err := cluster.Made(checkout.Record{Engine: "podman", Nodes: []string{node}}); err != nil {
				t.Fatal(err)
			}
			test.damage(put, cluster)
			project := targets.Of(infrastructure.Kubernaut())
			project.Root, project.Variant = own.Root, infrastructure.Standard

			err = project.DeleteCluster(t.Context())
			_, gone := os.Stat(filepath.Join(own.Root, "containers-"+test.in))
			if test.want == "" && (err != nil || !os.IsNotExist(gone)) {
				t.Errorf("got %v, %v; want the cluster to be deleted", err, gone)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || gone != nil) {
				t.Errorf("got %v, %v; want %s, and the cluster to stay", err, gone, test.want)
			}
		})
	}
}
