package bootstrap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// Node makes the Kubernetes node image of Kind. root is the checkout, whose go.mod
// chooses the kind library that will run the node: the files of the image that are
// kind's own are taken from that very version. The first time on a machine it
// compiles Kubernetes, about 15 minutes on two cores; the Go build cache makes it
// a minute afterwards.
func Node(ctx context.Context, runner command.Runner, engine Builder, root string, job Job) (err error) {
	if err := job.prepare(); err != nil {
		return err
	}
	version, err := ask(ctx, runner, job.Source, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	programs := filepath.Join(job.Work, "bin")
	job.Status("compiling Kubernetes %s (about 15 minutes the first time) and installing Debian packages", version)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		// The programs whose source is not here are the module's tools.
		tools, err := ask(groupCtx, runner, job.Source, "list", "tool")
		if err != nil {
			return err
		}
		packages := append([]string{"./kube", "./coredns", "./pause"}, strings.Fields(tools)...)
		if err := compile(groupCtx, runner, job.Source, programs, version, packages...); err != nil {
			return err
		}
		// etcd's main package is called server.
		return os.Rename(filepath.Join(programs, "server"), filepath.Join(programs, "etcd"))
	})
	group.Go(func() error { return Rootfs(groupCtx, runner, job.Source, filepath.Join(job.Work, "rootfs.tar")) })
	group.Go(func() error { return kindFiles(groupCtx, runner, root, filepath.Join(job.Work, "kind")) })
	if err := group.Wait(); err != nil {
		return err
	}
	if err := readable(job.Work); err != nil {
		return err
	}

	job.Status("building the image")
	// store.tar is an input of the last stage only, but the engine wants every
	// file that is named to be there.
	store := filepath.Join(job.Work, "store.tar")
	if err := os.WriteFile(store, nil, 0o644); err != nil {
		return err
	}
	// A name of its own: two checkouts may make the same image at once.
	repository, tag, _ := strings.Cut(job.Ref, ":")
	base := repository + "-base:" + tag + "-" + strings.ToLower(rand.Text()[:8])
	if err := engine.Build(ctx, job.Work, base, "base", job.Label); err != nil {
		return err
	}
	defer func() { // nobody else knows the name
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, engine.Remove(ctx, base))
	}()
	job.Status("importing the control plane's images")
	err = written(store, func(w io.Writer) error {
		return engine.RunPrivileged(ctx, base,
			[]string{"/var"}, []string{programs + ":/programs", filepath.Join(job.Work, "images.sh") + ":/images.sh"},
			w, "bash", "/images.sh", "/programs", version)
	})
	if err != nil {
		return err
	}
	job.Status("building the image")
	if err := engine.Build(ctx, job.Work, job.Ref, "node", job.Label); err != nil {
		return err
	}
	return os.RemoveAll(job.Work)
}

// APIServer compiles kube-apiserver and etcd of the node image's module into dir,
// where controller-runtime's envtest looks for them. What the node image's build
// has compiled is not compiled again.
func APIServer(ctx context.Context, runner command.Runner, source, dir string) error {
	version, err := ask(ctx, runner, source, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	if err := compile(ctx, runner, source, dir, version, "./kube", "go.etcd.io/etcd/server/v3"); err != nil {
		return err
	}
	for _, link := range []struct{ name, to string }{{"kube-apiserver", "kube"}, {"kubectl", "kube"}, {"etcd", "server"}} {
		path := filepath.Join(dir, link.name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink(link.to, path); err != nil {
			return err
		}
	}
	return nil
}

// compile builds programs of the node's module with one go build: they share most
// of their packages.
func compile(ctx context.Context, runner command.Runner, source, out, version string, packages ...string) error {
	major, minor, ok := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if !ok {
		return fmt.Errorf("k8s.io/kubernetes: version %q: not of the form v1.2.3", version)
	}
	minor, _, _ = strings.Cut(minor, ".")
	const variables = "k8s.io/component-base/version."
	flags := []string{
		"-s", "-w",
		// Without these the node reports v0.0.0-master.
		"-X", variables + "gitVersion=" + version,
		"-X", variables + "gitMajor=" + major,
		"-X", variables + "gitMinor=" + minor,
		"-X", variables + "gitTreeState=archive",
	}
	args := []string{"go", "-C", source, "build", "-trimpath", "-buildvcs=false",
		"-tags", "no_btrfs no_devmapper no_zfs no_aufs", // snapshotters that kind never selects
		"-ldflags", strings.Join(flags, " "),
		"-o", out + string(filepath.Separator)}
	return runner.Run(ctx, command.Cmd{Args: append(args, packages...), Env: command.GoEnv("CGO_ENABLED=0")})
}

// ask asks the go command about the module in dir, whatever workspace of the user's it lies in.
func ask(ctx context.Context, runner command.Runner, dir string, args ...string) (string, error) {
	var out strings.Builder
	err := runner.Run(ctx, command.Cmd{Args: append([]string{"go", "-C", dir}, args...), Env: command.GoEnv(), Stdout: &out})
	return strings.TrimSpace(out.String()), err
}

// kindFiles copies the files that kind's module holds for its base image.
func kindFiles(ctx context.Context, runner command.Runner, root, to string) error {
	dir, err := ask(ctx, runner, root, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind")
	if err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(filepath.Join(dir, "images", "base", "files")))
}
