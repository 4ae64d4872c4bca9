package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
)

// flushTimeout bounds the wait for one process to write its coverage counters,
// which takes milliseconds.
const flushTimeout = 10 * time.Second

// flush has an instrumented pod write its coverage counters, because it is about to
// be killed. The pod's folder of counters is one of the host's, so the file that says
// it is done can be watched for here. A pod that is not instrumented is left alone.
func (i *Injector) flush(ctx context.Context, pod *corev1.Pod, container string) error {
	folder, instrumented := counters(pod)
	if !instrumented {
		return nil
	}
	dir := filepath.Join(i.Cluster.Target.Artifacts, "coverage", "raw", folder, pod.Name)
	done := filepath.Join(dir, "flushed")
	if err := os.Remove(done); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := watcher.Add(dir); err != nil {
		return err
	}
	if err := i.signal(ctx, pod.Spec.NodeName, container, "SIGUSR1"); err != nil {
		return err
	}
	timeout := time.NewTimer(flushTimeout)
	defer timeout.Stop()
	for {
		select {
		case event := <-watcher.Events:
			if event.Name == done {
				return nil
			}
		case err := <-watcher.Errors:
			return err
		case <-timeout.C:
			return fmt.Errorf("coverage counters were not written within %s; is the image built with -tags coverage?", flushTimeout)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// counters is the folder below /coverage that an instrumented pod mounts.
func counters(pod *corev1.Pod) (folder string, instrumented bool) {
	instrumented = slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Env, func(env corev1.EnvVar) bool { return env.Name == "GOCOVERDIR" })
	})
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == "coverage" && volume.HostPath != nil {
			return filepath.Base(volume.HostPath.Path), instrumented
		}
	}
	return "", false
}
