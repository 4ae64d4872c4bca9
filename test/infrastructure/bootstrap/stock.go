package bootstrap

import (
	"context"
	_ "embed" // of what is done in a container of the node image
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// StockScript puts images into the store of a node image; what it makes is another when it is.
//
//go:embed stock.sh
var StockScript string

// Stock makes, of a node image that Node has made, one that holds other images as well: a
// cluster's node then has them from the start. save writes the archive of those. The job
// needs no Source.
func Stock(ctx context.Context, engine Builder, node string, save func(ctx context.Context, w io.Writer) error, job Job) error {
	if err := errors.Join(os.RemoveAll(job.Work), os.MkdirAll(job.Work, 0o755)); err != nil {
		return err
	}
	archive, script := filepath.Join(job.Work, "images.tar"), filepath.Join(job.Work, "stock.sh")
	err := errors.Join(
		written(archive, func(w io.Writer) error { return save(ctx, w) }),
		os.WriteFile(script, []byte(StockScript), 0o644),
		os.WriteFile(filepath.Join(job.Work, "Dockerfile"), fmt.Appendf(nil, "FROM %s\nADD stock.tar /\n", node), 0o644),
	)
	if err == nil {
		err = written(filepath.Join(job.Work, "stock.tar"), func(w io.Writer) error {
			return engine.RunPrivileged(ctx, node, []string{"/var"}, []string{archive + ":/images.tar", script + ":/stock.sh"}, w, "bash", "/stock.sh", "/images.tar")
		})
	}
	if err == nil {
		err = os.Remove(archive) // which need not be sent to the engine again
	}
	if err == nil {
		err = engine.Build(ctx, job.Work, job.Ref, "", job.Label)
	}
	return errors.Join(err, os.RemoveAll(job.Work))
}

// written makes a file of what write writes.
func written(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
