package host

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// absentImages returns those third-party images that the engine's store has under
// no reference that the policy accepts.
func (o Options) absentImages(ctx context.Context, engine string) ([]Image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, fmt.Errorf("no answer within %s", checkTimeout))
	defer cancel()
	out, err := command.Output(ctx, o.Runner, engine, "images", "--format", "{{.Repository}}:{{.Tag}}")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", engine, brief{err})
	}
	present := strings.Fields(out)
	return slices.DeleteFunc(slices.Clone(o.Images), func(img Image) bool {
		return o.Policy != "build" && has(present, img.Pull) || o.Policy != "pull" && has(present, img.Built)
	}), nil
}

// has tells whether the list names ref: docker leaves out its own registry and the
// library, podman a digest behind a tag.
func has(present []string, ref string) bool {
	if ref == "" {
		return false
	}
	ref, _, _ = strings.Cut(ref, "@")
	short := strings.TrimPrefix(ref, "docker.io/")
	return slices.Contains(present, ref) || slices.Contains(present, short) || slices.Contains(present, strings.TrimPrefix(short, "library/"))
}

// mustBuild returns the names of the images that a run would build from packages,
// and why: because that is the policy, or because a registry does not answer. An
// engine that is empty has no images.
func (o Options) mustBuild(ctx context.Context, engine string) (images []string, why string, err error) {
	if o.Policy == "pull" || len(o.Images) == 0 {
		return nil, "", nil
	}
	absent := o.Images
	if engine != "" {
		if absent, err = o.absentImages(ctx, engine); err != nil || len(absent) == 0 {
			return nil, "", err
		}
	}
	if o.Policy == "build" {
		return names(absent), "E2E_IMAGES=build", nil
	}
	for _, host := range o.registries() {
		if err := o.machine.reach(ctx, "https://"+host+"/v2/"); err != nil {
			return names(absent), host + ": " + err.Error(), nil
		}
	}
	return nil, "", nil
}
