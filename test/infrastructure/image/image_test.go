package image_test

import (
	"testing"

	"kubernaut.ai/e2e/test/infrastructure/image"
)

func TestLoadable(t *testing.T) {
	for ref, want := range map[string]string{
		"docker.io/library/redis:8.2":                                          "docker.io/library/redis:8.2",
		"docker.io/library/redis:8.2@sha256:0123456789abcdef0123456789abcdef0": image.Ref("redis", "0123456789abcdef"),
		"docker.io/library/redis@sha256:0123456789abcdef0123456789abcdef0":     image.Ref("redis", "0123456789abcdef"),
	} {
		if got := image.Loadable("redis", ref); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
}
