package bootstrap

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestStockLeavesNothingBehind(t *testing.T) {
	work := filepath.Join(t.TempDir(), "work")
	broken := errors.New("no space left on device")
	for _, runs := range []error{nil, broken} {
		engine := builder{runs: runs}
		err := Stock(t.Context(), &engine, "localhost/node:1", func(_ context.Context, w io.Writer) error {
			_, err := w.Write([]byte("images"))
			return err
		}, Job{Work: work, Ref: "localhost/node-stocked:1"})
		if !errors.Is(err, runs) {
			t.Errorf("got %v, want %v", err, runs)
		}
		if _, err := os.Stat(work); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its folder is still there: %v", err)
		}
		if built := len(engine.built) == 1; built != (runs == nil) {
			t.Errorf("built %v after %v", engine.built, runs)
		}
		if _, sent := engine.modes["images.tar"]; sent {
			t.Error("the images are sent twice")
		}
	}
}
