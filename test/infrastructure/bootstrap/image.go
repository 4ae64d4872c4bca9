package bootstrap

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Builder is what this package needs of a container engine.
type Builder interface {
	Build(ctx context.Context, dir, ref, target string, labels ...string) error
	RunPrivileged(ctx context.Context, ref string, volumes, mounts []string, stdout io.Writer, entrypoint string, args ...string) error
	Remove(ctx context.Context, refs ...string) error
}

// Job is one image to make.
type Job struct {
	Source string // folder with the Dockerfile, below docker/
	Work   string // folder for the build context; emptied first
	Ref    string // reference the image gets
	Label  string // label the image gets
	Status func(format string, args ...any)
}

// Packages makes an image of Debian's packages: a root file system and the folder's
// Dockerfile.
func Packages(ctx context.Context, runner command.Runner, engine Builder, job Job) error {
	if err := job.prepare(); err != nil {
		return err
	}
	job.Status("installing Debian packages")
	if err := Rootfs(ctx, runner, job.Source, filepath.Join(job.Work, "rootfs.tar")); err != nil {
		return err
	}
	if err := readable(job.Work); err != nil {
		return err
	}
	job.Status("building the image")
	if err := engine.Build(ctx, job.Work, job.Ref, "", job.Label); err != nil {
		return err
	}
	return os.RemoveAll(job.Work)
}

// prepare copies the source folder's own files into an empty work folder.
func (j Job) prepare() error {
	if err := os.RemoveAll(j.Work); err != nil {
		return err
	}
	if err := os.MkdirAll(j.Work, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(j.Source)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if err := copyFile(filepath.Join(j.Source, entry.Name()), filepath.Join(j.Work, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// readable gives every file of a build context the modes that it has in a checkout made
// with the usual umask: COPY keeps them, and with umask 077 nobody but root could read or
// run what is copied.
func readable(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if entry.IsDir() || info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
