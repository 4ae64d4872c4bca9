package infrastructure

import (
	"context"
	"fmt"
	"io"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/host"
	"kubernaut.ai/e2e/test/infrastructure/testservers"
)

// Doctor prints what this machine has and lacks for the plan, and returns an error
// if an end-to-end run would fail on it. It changes nothing.
func Doctor(ctx context.Context, plan *Plan, out io.Writer, terminal bool) error {
	opts, err := plan.hostOptions()
	if err != nil {
		return err
	}
	report := host.Inspect(ctx, opts)
	if err := report.Table(out, terminal); err != nil {
		return err
	}
	orphans, err := Orphans()
	for _, orphan := range orphans {
		fmt.Fprintf(out, "cluster %s: %s; remove it: %s\n", orphan.Name, orphan.Orphan(), orphan.Remove())
	}
	if err != nil {
		fmt.Fprintf(out, "clusters of other checkouts: %v\n", err)
	}
	return report.Err()
}

// Setup makes this machine able to carry out the plan, as far as it may, and says
// each thing that it changes.
func Setup(ctx context.Context, plan *Plan, out io.Writer) error {
	opts, err := plan.hostOptions()
	if err != nil {
		return err
	}
	return host.Setup(ctx, opts, func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) })
}

func (p *Plan) hostOptions() (host.Options, error) {
	images, err := p.thirdParty()
	return host.Options{
		Runner: command.Local{}, Engine: p.Config.Engine, Policy: string(p.ImagePolicy), Images: images, Checkout: p.Root,
		Labels: []string{testservers.Label}, Folders: []string{testservers.FolderPrefix},
	}, err
}
