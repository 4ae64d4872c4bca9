package image_test

import (
	"fmt"
	"testing"
	"testing/fstest"

	"kubernaut.ai/e2e/test/infrastructure/image"
)

func ExampleImage_Ref() {
	files := fstest.MapFS{"Dockerfile": {Data: []byte("FROM scratch\n")}}
	gateway := image.Image{Name: "gateway", Inputs: image.NewInputs().File(files, "Dockerfile").Text("variant", "standard")}
	fmt.Println(gateway.Ref())
	// Output: localhost/kubernaut-e2e/gateway:f57921359e04d140
}

func TestRefChangesWithEveryInput(t *testing.T) {
	base := func() fstest.MapFS {
		return fstest.MapFS{"d/Dockerfile": {Data: []byte("FROM scratch\n")}, "d/bin": {Data: []byte("1")}}
	}
	ref := func(files fstest.MapFS, variant string) string {
		return image.Image{Name: "x", Inputs: image.NewInputs().Dir(files, "d").Text("variant", variant)}.Ref()
	}
	want := ref(base(), "standard")
	if got := ref(base(), "standard"); got != want {
		t.Errorf("same inputs: got %s, want %s", got, want)
	}
	changed := base()
	changed["d/bin"].Data = []byte("2")
	renamed := base()
	renamed["d/bin2"] = renamed["d/bin"]
	delete(renamed, "d/bin")
	added := base()
	added["d/more"] = &fstest.MapFile{}
	for name, got := range map[string]string{
		"content": ref(changed, "standard"), "name": ref(renamed, "standard"),
		"file added": ref(added, "standard"), "variant": ref(base(), "coverage"),
	} {
		if got == want {
			t.Errorf("%s changed, the reference did not", name)
		}
	}
}

func TestFramesKeepSequencesApart(t *testing.T) {
	a := image.Image{Name: "x", Inputs: image.NewInputs().Text("a", "b").Text("c", "d")}.Ref()
	b := image.Image{Name: "x", Inputs: image.NewInputs().Text("a", "bc").Text("", "d")}.Ref()
	if a == b {
		t.Error("two different sequences have one reference")
	}
}

func TestMissingFileIsAnError(t *testing.T) {
	if err := image.NewInputs().File(fstest.MapFS{}, "gone").Err(); err == nil {
		t.Error("got no error for a file that is not there")
	}
}

func TestLoadable(t *testing.T) {
	for ref, want := range map[string]string{
		"docker.io/library/redis:8.2":                                          "docker.io/library/redis:8.2",
		"docker.io/library/redis:8.2@sha256:0123456789abcdef0123456789abcdef0": image.Repository + "redis:0123456789abcdef",
		"docker.io/library/redis@sha256:0123456789abcdef0123456789abcdef0":     image.Repository + "redis:0123456789abcdef",
	} {
		if got := image.Loadable("redis", ref); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
}
