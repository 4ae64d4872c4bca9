package infrastructure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/e2e/target"
	"kubernaut.ai/e2e/test/infrastructure/checkout"
	"kubernaut.ai/e2e/test/infrastructure/image"
)

// Status prints what of the plan's environment is there: cluster, nodes and endpoints.
// It changes nothing and needs no lock.
func Status(ctx context.Context, plan *Plan, adapters Adapters, out io.Writer) error {
	if holder := plan.cluster().Holder(); holder.PID != 0 {
		fmt.Fprintf(out, "busy        %s\n", holder)
	}
	all, err := adapters.Cluster.All(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintf(out, "cluster     %s: not there; make it: %s\n", plan.ClusterName, plan.command("cluster:create"))
		return nil
	}
	running, err := adapters.Cluster.Nodes(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster     %s (%s, %s)\nnodes       %s, running: %s\nkubeconfig  %s\n",
		plan.ClusterName, adapters.EngineName, plan.Variant, strings.Join(all, " "), strings.Join(running, " "), plan.cluster().Kubeconfig())
	if made, err := plan.cluster().Record(); err == nil {
		fmt.Fprintf(out, "made        %s by %s, of %s\n", made.Made.Format("2006-01-02 15:04:05"), made.By, made.Spec["node image"])
		if made.Kept != nil {
			fmt.Fprintf(out, "kept        as it was %s, %s; %s\n", made.Kept.At.Format(time.DateTime), megabytes(made.Kept.Bytes), map[bool]string{
				true: "parked: the next run restores it", false: "restore it: " + plan.command("cluster:reset"),
			}[made.Parked])
		}
	} else {
		fmt.Fprintf(out, "made        not to the end; the next run makes it anew\n")
	}
	t, err := target.Read(func(string) string { return plan.cluster().TargetFile() }, plan.Root)
	if err != nil {
		fmt.Fprintf(out, "deployed    nothing that a suite could test: %v\n", err)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(t.Endpoints)) {
		fmt.Fprintf(out, "endpoint    %-32s %s\n", name, t.Endpoints[name])
	}
	return nil
}

// Look returns the real adapters of the plan's cluster for looking at it, without a probe
// of the engine.
func Look(ctx context.Context, plan *Plan) (Adapters, error) {
	name, err := engineOf(ctx, plan)
	if err != nil {
		return Adapters{}, err
	}
	return RealAdapters(plan, name), nil
}

// Clean removes .e2e and the services' images that this checkout has made. Its clusters
// must be gone. Images that take long to make, and what other checkouts share, stay,
// unless E2E_CLEAN=all: then every image of this project goes, the clusters whose
// checkouts are gone, and the results of past runs. What cannot be removed is named in the
// error and keeps nothing else from being removed.
func Clean(ctx context.Context, plan *Plan, adapters Adapters, say func(format string, args ...any)) error {
	label := image.Label + ".checkout=" + plan.cluster().ID()
	if plan.CleanAll {
		label = image.Label
	}
	var problems []error
	refs, err := adapters.Engine.Images(ctx, label)
	problems = append(problems, err)
	removed := 0
	for _, ref := range refs {
		if !strings.HasPrefix(ref, image.Repository) {
			continue
		}
		if err := adapters.Engine.Remove(ctx, ref); err != nil {
			problems = append(problems, err)
			continue
		}
		removed++
	}
	say("removed %d images; %s", removed, map[bool]string{
		true: "none of this project is left", false: "third-party images stay for other checkouts; E2E_CLEAN=all removes them",
	}[plan.CleanAll])
	// Before Orphans is asked: what a benchmark that was killed has left is this checkout's.
	problems = append(problems, plan.cluster().Checkout.Remove())
	orphans, err := Orphans()
	problems = append(problems, err)
	for _, orphan := range orphans {
		if !plan.CleanAll && orphan.Root != plan.Root {
			say("cluster %s: %s; E2E_CLEAN=all removes it, or: %s", orphan.Name, orphan.Orphan(), orphan.Remove())
			continue
		}
		other := *plan
		other.ClusterName = orphan.Name
		if err := RealAdapters(&other, orphan.Engine).Cluster.Delete(ctx); err != nil {
			problems = append(problems, fmt.Errorf("cluster %s: %w", orphan.Name, err))
			continue
		}
		say("removed cluster %s: %s", orphan.Name, orphan.Orphan())
		problems = append(problems, orphan.Forget())
	}
	if store, err := plan.history(); plan.CleanAll && err == nil {
		runs, err := store.Remove()
		say("removed the results of %d runs of suites", runs)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Orphans are the clusters of this user whose checkouts are gone or know them no longer.
func Orphans() ([]checkout.Entry, error) {
	entries, err := checkout.Registered()
	return slices.DeleteFunc(entries, func(entry checkout.Entry) bool { return entry.Orphan() == "" }), err
}
