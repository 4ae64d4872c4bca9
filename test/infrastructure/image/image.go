// Package image names container images by what goes into them: an image whose
// inputs have not changed has the name it had, wherever it is looked for. It is
// pure: it reads files and runs nothing.
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sort"
	"strings"
)

// Repository is the prefix of every image this project makes. The registry name
// localhost makes the reference mean the same to podman, docker and containerd:
// docker would otherwise put docker.io/ in front, and podman localhost/.
const Repository = "localhost/kubernaut-e2e/"

// Label marks the images this project made, so that it removes no others.
const Label = "e2e.kubernaut.ai/image"

// Image is one image that is made here.
type Image struct {
	Name   string  // catalog name, e.g. gateway
	Inputs *Inputs // everything that goes into it
}

// Ref returns the reference: repository, name, and a tag derived of the inputs.
func (i Image) Ref() string { return Repository + i.Name + ":" + i.Inputs.tag() }

// Loadable returns the reference by which nodes can hold an image: ref, but for one that is
// pinned by its digest a name of ours, with the digest as its tag. An archive gets a digest
// of its own when it is loaded, so that nodes would never find the image by the registry's.
func Loadable(name, ref string) string {
	_, digest, pinned := strings.Cut(ref, "@sha256:")
	if !pinned {
		return ref
	}
	return Repository + name + ":" + digest[:min(len(digest), tagDigits)]
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

// Inputs is everything that goes into an image, in the order it was added. Each
// part is framed by its name and length, so that two different sequences never
// hash alike.
type Inputs struct {
	hash hash.Hash
	err  error
}

// NewInputs returns empty inputs.
func NewInputs() *Inputs { return &Inputs{hash: sha256.New()} }

// Text adds a named setting.
func (in *Inputs) Text(name, value string) *Inputs {
	fmt.Fprintf(in.hash, "%d:%s=%d:", len(name), name, len(value))
	io.WriteString(in.hash, value)
	return in
}

// File adds the content of a file.
func (in *Inputs) File(fsys fs.FS, path string) *Inputs {
	sum, err := sumFile(fsys, path)
	if err != nil {
		in.err = err
		return in
	}
	return in.Text(path, sum)
}

// Dir adds every regular file below root, by path and content. Folders, modes and
// times do not count.
func (in *Inputs) Dir(fsys fs.FS, root string) *Inputs {
	var paths []string
	err := fs.WalkDir(fsys, root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		in.err = err
		return in
	}
	sort.Strings(paths)
	for _, path := range paths {
		in.File(fsys, path)
	}
	return in
}

// Err returns the first error of reading a file.
func (in *Inputs) Err() error { return in.err }

// tagDigits is the length of a tag: at a million images, two share one of 16 hexadecimal
// digits with a probability of three in a hundred million.
const tagDigits = 16

func (in *Inputs) tag() string { return hex.EncodeToString(in.hash.Sum(nil))[:tagDigits] }

func sumFile(fsys fs.FS, path string) (string, error) {
	file, err := fsys.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
