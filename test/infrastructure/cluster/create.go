package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	kind "sigs.k8s.io/kind/pkg/cluster"
)

// transient are the errors of a creation that are worth one more try, and no
// others: each is a race of the host, not a fault of the configuration.
var transient = regexp.MustCompile(strings.Join([]string{
	`port is already allocated`, `address already in use`, // the port was free when it was chosen
	`could not find a log line that matches`,                              // systemd's boot message was late
	`network name .* already used`, `network with name .* already exists`, // two first clusters at once
	`OCI runtime.*(text file busy|device or resource busy)`,
	`wait-control-plane`,
}, "|"))

// Progress is told how a creation goes on. Neither function may be nil.
type Progress struct {
	// Retried is called before a second try, whose nodes are others.
	Retried func(error)
	// Prepared is called in each try when its nodes run and are configured, before there is a
	// control plane: they take images. It must not block.
	Prepared func()
}

// Create makes the cluster and returns when its API server answers. When ctx ends
// first, the cluster's containers and volumes are removed and kind is waited for,
// within a few seconds. After a failure the half-made cluster is kept for
// diagnosis; the caller deletes it. What it tells, it tells before it returns.
func (k Kind) Create(ctx context.Context, spec Spec, tell Progress) error {
	err := k.create(ctx, spec, tell)
	if err != nil && ctx.Err() == nil && transient.MatchString(fullText(err)) {
		tell.Retried(err)
		if err := k.Delete(ctx); err != nil {
			return err
		}
		err = k.create(ctx, spec, tell)
	}
	return err
}

func (k Kind) create(ctx context.Context, spec Spec, tell Progress) error {
	// kind merges into a file that is there; this one is private and of this cluster only.
	if err := k.removeKubeconfig(); err != nil {
		return err
	}
	provider, err := k.provider(ctx, tell.Prepared)
	if err != nil {
		return err
	}
	var created error
	done := make(chan struct{})
	go func() {
		defer close(done)
		created = provider.Create(k.Name,
			kind.CreateWithV1Alpha4Config(spec.config()),
			kind.CreateWithKubeconfigPath(k.Kubeconfig),
			kind.CreateWithRetain(true), // diagnostics come before removal
			kind.CreateWithDisplayUsage(false),
			kind.CreateWithDisplaySalutation(false),
		)
	}()
	select {
	case <-done:
		if created != nil {
			return fmt.Errorf("cluster %s: %s", k.Name, fullText(created))
		}
		// Canceled by now, it is removed as one that was canceled before.
		if err := errors.Join(os.Chmod(k.Kubeconfig, 0o600), k.setKernel(ctx)); ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
	}
	// kind takes no context (kubernetes-sigs/kind#1545): without its containers it
	// comes to its end by itself. What it starts in between is removed by the
	// second round.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	err = k.Delete(cleanup)
	select {
	case <-done: // of a creation whose containers are gone, an error of no interest
		err = errors.Join(err, k.Delete(cleanup))
	case <-cleanup.Done():
		err = errors.Join(err, fmt.Errorf("cluster %s: kind did not end within %s of being canceled; run: go tool mage cluster:delete", k.Name, cancelTimeout))
	}
	return errors.Join(fmt.Errorf("cluster %s: creation canceled, its containers removed: %w", k.Name, context.Cause(ctx)), err)
}

// cancelTimeout fits the five seconds that Mage gives an interrupted target.
const cancelTimeout = 4500 * time.Millisecond

func (k Kind) provider(ctx context.Context, prepared func()) (*kind.Provider, error) {
	log := io.Discard
	if k.Log != nil {
		log = k.Log(ctx)
	}
	options := []kind.ProviderOption{kind.ProviderWithLogger(logger{log, prepared})}
	switch k.Engine {
	case "podman":
		options = append(options, kind.ProviderWithPodman())
	case "docker":
		options = append(options, kind.ProviderWithDocker())
	default:
		return nil, fmt.Errorf("engine %q: kind knows podman and docker", k.Engine)
	}
	return kind.NewProvider(options...), nil
}

// fullText is an error with the last lines of the command that caused it, which
// kind keeps apart.
func fullText(err error) string {
	text := err.Error()
	if out, ok := outputOf(err); ok && len(bytes.TrimSpace(out)) > 0 {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		text += ": " + strings.Join(lines[max(0, len(lines)-15):], "\n")
	}
	return text
}
