package checkout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is a process that works on a cluster.
type Holder struct {
	PID    int       `json:"pid"`
	Target string    `json:"target"` // what it was told to do
	Since  time.Time `json:"since"`
}

// String says who it is and for how long.
func (h Holder) String() string {
	if h.PID == 0 {
		return "another process works here"
	}
	return fmt.Sprintf("pid %d has run %s for %s here", h.PID, h.Target, time.Since(h.Since).Round(time.Second))
}

// Lock is the right to change a cluster. It ends with the process that has it, however
// that ends.
type Lock struct{ file *os.File }

// Lock takes the cluster's lock for a process that runs target. While another process
// has it, busy is called once with its holder; an error of busy is returned, otherwise
// Lock waits until ctx ends. The lock of the process that started this one counts as
// this one's.
func (c Cluster) Lock(ctx context.Context, target string, busy func(Holder) error) (*Lock, error) {
	if err := os.MkdirAll(c.Dir(), 0o755); err != nil {
		return nil, err
	}
	// Close-on-exec, as Go opens all files: no child keeps the lock of one that is gone.
	file, err := os.OpenFile(filepath.Join(c.Dir(), "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = flock(file, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := c.Holder()
		switch holder.PID {
		case os.Getppid():
			return &Lock{}, file.Close()
		case os.Getpid():
			return nil, errors.Join(fmt.Errorf("cluster %s: this process has its lock already", c.Name), file.Close())
		}
		if err = busy(holder); err == nil {
			if err := wait(ctx, file); err != nil {
				return nil, fmt.Errorf("cluster %s: %s: %w", c.Name, holder, err)
			}
		}
	}
	if err == nil {
		err = note(file, Holder{PID: os.Getpid(), Target: target, Since: time.Now()})
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return &Lock{file}, nil
}

// Holder returns who has the lock, as far as it says; the zero value if nobody does.
func (c Cluster) Holder() Holder {
	var holder Holder
	_ = read(filepath.Join(c.Dir(), "lock"), &holder)
	return holder
}

// Release gives the lock up; a second time it does nothing.
func (l *Lock) Release() error {
	if l == nil || l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return errors.Join(file.Truncate(0), file.Close())
}

// wait blocks until the lock is free, and closes the file if that comes to nothing. The
// kernel cannot be told to stop waiting, so when ctx ends first the file is closed once
// the lock has been got.
func wait(ctx context.Context, file *os.File) error {
	locked := make(chan error, 1)
	go func() { locked <- flock(file, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			file.Close()
		}
		return err
	case <-ctx.Done():
		go func() {
			_ = errors.Join(<-locked, file.Close()) // locked or not, it is of no more use
		}()
		return context.Cause(ctx)
	}
}

func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// note writes the holder into the file itself: it is the file that is locked, not its
// name.
func note(file *os.File, holder Holder) error {
	data, err := json.Marshal(holder)
	if err != nil {
		return err
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = file.WriteAt(append(data, '\n'), 0)
	return err
}
