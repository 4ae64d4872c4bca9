// Package fingerprint tells whether something is what it was, by a hash of everything that
// goes into it. It reads files and runs nothing.
package fingerprint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
)

// Digits is the length of a fingerprint: of a million, two are alike with a probability of
// three in a hundred million.
const Digits = 16

// Inputs is everything that goes into something, in the order it was added. Each part is
// framed by its name and length, so that two different sequences never hash alike.
type Inputs struct {
	hash hash.Hash
	err  error
}

// New returns empty inputs.
func New() *Inputs { return &Inputs{hash: sha256.New()} }

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

// Dir adds the regular files below root whose paths keep selects, nil for all, by path and
// content. Folders, modes and times do not count.
func (in *Inputs) Dir(fsys fs.FS, root string, keep func(path string) bool) *Inputs {
	var paths []string
	err := fs.WalkDir(fsys, root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && (keep == nil || keep(path)) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		in.err = err
	}
	slices.Sort(paths)
	for _, path := range paths {
		in.File(fsys, path)
	}
	return in
}

// Sum returns the fingerprint, and an error if a file could not be read.
func (in *Inputs) Sum() (string, error) {
	return hex.EncodeToString(in.hash.Sum(nil))[:Digits], in.err
}

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
