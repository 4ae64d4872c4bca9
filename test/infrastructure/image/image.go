// Package image names container images by what goes into them: an image whose
// inputs have not changed has the name it had, wherever it is looked for.
package image

import (
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/fingerprint"
)

// Repository is the prefix of every image this project makes. The registry name
// localhost makes the reference mean the same to podman, docker and containerd:
// docker would otherwise put docker.io/ in front, and podman localhost/.
const Repository = "localhost/kubernaut-e2e/"

// Label marks the images this project made, so that it removes no others.
const Label = "e2e.kubernaut.ai/image"

// Ref returns the reference of an image by its catalog name and the fingerprint of
// everything that goes into it.
func Ref(name, sum string) string { return Repository + name + ":" + sum }

// Loadable returns the reference by which nodes can hold an image: ref, but for one that is
// pinned by its digest a name of ours, with the digest as its tag. An archive gets a digest
// of its own when it is loaded, so that nodes would never find the image by the registry's.
func Loadable(name, ref string) string {
	_, digest, pinned := strings.Cut(ref, "@sha256:")
	if !pinned {
		return ref
	}
	return Ref(name, digest[:min(len(digest), fingerprint.Digits)])
}

// NameOf returns the catalog name of a reference that Ref made, empty for any other.
func NameOf(ref string) string {
	rest, own := strings.CutPrefix(ref, Repository)
	if !own {
		return ""
	}
	name, _, _ := strings.Cut(rest, ":")
	return name
}
