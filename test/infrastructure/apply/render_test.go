package apply

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var testImages = map[string]string{"web": "localhost/web:1a2b", "tools": "localhost/tools:3c4d"}

func render(t *testing.T, dir string, images map[string]string) []*unstructured.Unstructured {
	t.Helper()
	objs, err := Render(dir, images)
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

// imagesOf returns every image that an object's containers name.
func imagesOf(node any) []string {
	var found []string
	switch node := node.(type) {
	case []any:
		for _, item := range node {
			found = append(found, imagesOf(item)...)
		}
	case map[string]any:
		if image, ok := node["image"].(string); ok {
			found = append(found, image)
		}
		for _, item := range node {
			found = append(found, imagesOf(item)...)
		}
	}
	slices.Sort(found)
	return found
}

func TestRender(t *testing.T) {
	objs := render(t, "testdata/base", testImages)

	t.Run("replaces images in every kind that holds a pod template", func(t *testing.T) {
		want := map[string][]string{
			"Deployment/apps/web": {"localhost/tools:3c4d", "localhost/web:1a2b"},
			"CronJob/apps/sweep":  {"localhost/tools:3c4d"},
			"Fleet/apps/fleet":    {"localhost/web:1a2b"},
		}
		for _, obj := range objs {
			if got := imagesOf(obj.Object); !slices.Equal(got, want[RefOf(obj).String()]) {
				t.Errorf("%s: got %q, want %q", RefOf(obj), got, want[RefOf(obj).String()])
			}
		}
	})

	t.Run("orders objects as they are applied", func(t *testing.T) {
		var got []string
		for _, obj := range objs {
			got = append(got, RefOf(obj).String())
		}
		want := []string{"Namespace/apps", "Service/apps/web", "Service/apps/plain", "Deployment/apps/web", "CronJob/apps/sweep", "Fleet/apps/fleet"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})

	t.Run("names the image that is not in the catalog and those that are", func(t *testing.T) {
		_, err := Render("testdata/base", map[string]string{"web": "w", "redis": "r"})
		want := `Deployment/apps/web: container prepare: image "tools": not in the catalog; there are: redis, web`
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})

	t.Run("builds overlays", func(t *testing.T) {
		for _, obj := range render(t, "testdata/overlay", testImages) {
			if obj.GetKind() == "Deployment" && !strings.Contains(string(mustJSON(t, obj)), "GOCOVERDIR") {
				t.Error("the overlay's variable is missing")
			}
		}
	})

	t.Run("refuses a folder that is none", func(t *testing.T) {
		if _, err := Render("testdata/none", nil); err == nil {
			t.Error("got no error")
		}
	})
}

func mustJSON(t *testing.T, obj *unstructured.Unstructured) []byte {
	t.Helper()
	data, err := obj.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestNodePorts(t *testing.T) {
	got := NodePorts(render(t, "testdata/base", testImages))
	want := []NodePort{{Service: "web", Port: "api", NodePort: 30080, Protocol: "TCP"}, {Service: "plain", Port: "8081", NodePort: 30081, Protocol: "TCP"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestValidate(t *testing.T) {
	t.Run("accepts what is right", func(t *testing.T) {
		if err := Validate(render(t, "testdata/overlay", testImages)); err != nil {
			t.Error(err)
		}
	})

	t.Run("reports every problem of every object", func(t *testing.T) {
		err := Validate(render(t, "testdata/strict", testImages))
		if err == nil {
			t.Fatal("got no error")
		}
		got := strings.Split(err.Error(), "\n")
		for i := range got { // the decoder's own words on a wrong type are not ours to fix
			if head, _, ok := strings.Cut(got[i], "json: cannot unmarshal"); ok {
				got[i] = head + "..."
			}
		}
		want := []string{
			`CustomResourceDefinition/fleets.example.dev: unknown field "spec.scop"`,
			`Service/kubernaut-system/wrong-type: ...`,
			`Secret/kubernaut-system/wrong-annotation: annotation e2e.kubernaut.ai/certificate: only a Secret of type kubernetes.io/tls can have it`,
			`Secret/kubernaut-system/wrong-annotation: annotation e2e.kubernaut.ai/prepares: only a Job can have it`,
			`Deployment/kubernaut-system/gateway: unknown field "spec.replcas"`,
			`Deployment/kubernaut-system/gateway: unknown field "spec.template.spec.containers[0].securityContext.readOnlyRootFileSystem"`,
			`Deploymnet/kubernaut-system/typo: kind "Deploymnet": not in apps/v1`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestManifests renders and validates every component of this project, in every
// variant.
func TestManifests(t *testing.T) {
	dockerfiles, err := filepath.Glob("../../../docker/*/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]string{}
	for _, file := range dockerfiles {
		name := filepath.Base(filepath.Dir(file))
		images[name] = "example.test/" + name + ":1"
	}
	files, err := filepath.Glob("../../../manifests/*/*/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no component found")
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(strings.TrimPrefix(filepath.ToSlash(dir), "../../../manifests/"), func(t *testing.T) {
			objs := render(t, dir, images)
			if err := Validate(objs); err != nil {
				t.Error(err)
			}
			for _, obj := range objs {
				if data := mustJSON(t, obj); strings.Contains(string(data), "imagePullPolicy") {
					t.Errorf("%s: sets imagePullPolicy; the harness relies on the default", RefOf(obj))
				}
			}
		})
	}
	if _, err := os.Stat("../../../manifests/cluster/base"); err != nil {
		t.Error(err)
	}
}
