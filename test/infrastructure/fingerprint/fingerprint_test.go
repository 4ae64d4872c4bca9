package fingerprint_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
)

func sum(t *testing.T, in *fingerprint.Inputs) string {
	t.Helper()
	sum, err := in.Sum()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// Images that are in a store are found by it: another way to count makes all of them anew.
func TestAFingerprintStaysWhatItWas(t *testing.T) {
	files := fstest.MapFS{"Dockerfile": {Data: []byte("FROM scratch\n")}}
	if got := sum(t, fingerprint.New().File(files, "Dockerfile").Text("variant", "standard")); got != "f57921359e04d140" {
		t.Errorf("got %s", got)
	}
}

func TestAFingerprintChangesWithEveryInput(t *testing.T) {
	base := func() fstest.MapFS {
		return fstest.MapFS{"d/Dockerfile": {Data: []byte("FROM scratch\n")}, "d/bin": {Data: []byte("1")}}
	}
	of := func(files fstest.MapFS, variant string) string {
		return sum(t, fingerprint.New().Dir(files, "d", nil).Text("variant", variant))
	}
	want := of(base(), "standard")
	if got := of(base(), "standard"); got != want {
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
		"content": of(changed, "standard"), "name": of(renamed, "standard"),
		"file added": of(added, "standard"), "variant": of(base(), "coverage"),
	} {
		if got == want {
			t.Errorf("%s changed, the fingerprint did not", name)
		}
	}
	kept := func(path string) bool { return !strings.HasSuffix(path, "more") }
	if sum(t, fingerprint.New().Dir(added, "d", kept)) != sum(t, fingerprint.New().Dir(base(), "d", nil)) {
		t.Error("a file that is not selected counts")
	}
}

func TestFramesKeepSequencesApart(t *testing.T) {
	if sum(t, fingerprint.New().Text("a", "b").Text("c", "d")) == sum(t, fingerprint.New().Text("a", "bc").Text("", "d")) {
		t.Error("two different sequences have one fingerprint")
	}
}

func TestMissingFileIsAnError(t *testing.T) {
	for name, in := range map[string]*fingerprint.Inputs{
		"file": fingerprint.New().File(fstest.MapFS{}, "gone"), "folder": fingerprint.New().Dir(fstest.MapFS{}, "gone", nil),
	} {
		if _, err := in.Sum(); err == nil {
			t.Errorf("got no error for a %s that is not there", name)
		}
	}
}
