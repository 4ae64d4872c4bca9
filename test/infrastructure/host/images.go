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

func (i *inspection) registry(ctx context.Context) Check {
	if len(i.Images) == 0 || i.Policy == "build" {
		return Check{}
	}
	check := Check{Name: "registry", Level: Advice, OK: true}
	if i.Policy == "pull" {
		check.Level = Required
	}
	if absent, err := i.absent(); err == nil && len(absent) == 0 {
		check.Found = "not needed: every image is there"
		return check
	}
	var reached []string
	for _, host := range i.registries() {
		if err := i.machine.reach(ctx, "https://"+host+"/v2/"); err != nil {
			check.OK, check.Found = false, fmt.Sprintf("%s: %v", host, err)
			check.Remedy = "images will be built from Debian packages and Go modules instead"
			if i.Policy == "pull" {
				check.Remedy = "open the network to it, or set E2E_IMAGES=auto to build the images here"
			}
			return check
		}
		reached = append(reached, host)
	}
	check.Found = strings.Join(reached, ", ") + " answers"
	return check
}

func (i *inspection) images(context.Context) Check {
	if len(i.Images) == 0 || i.chosen() == "" {
		return Check{}
	}
	check := Check{Name: "images", Level: Advice, OK: true}
	absent, err := i.absent()
	if err != nil {
		return unknown(check, err)
	}
	if len(absent) == 0 {
		check.Found = "all there: " + strings.Join(names(i.Images), ", ")
		return check
	}
	built, why, err := i.build()
	if err != nil {
		return unknown(check, err)
	}
	check.Found = "to be pulled: " + strings.Join(names(absent), ", ")
	if len(built) > 0 {
		check.Found = fmt.Sprintf("to be built (%s): %s; Kubernetes takes 15 min on two cores the first time", why, strings.Join(built, ", "))
	}
	return check
}

func names(images []Image) []string {
	list := make([]string, len(images))
	for i, img := range images {
		list[i] = img.Name
	}
	return list
}

func (i *inspection) builder(context.Context) Check {
	needed, why, err := i.build()
	if err != nil || len(needed) == 0 {
		return Check{}
	}
	check := Check{Name: "mmdebstrap", Level: Required, OK: true, Found: "there"}
	if _, err := i.machine.find("mmdebstrap"); err != nil {
		check.OK, check.Found, check.Remedy = false, "missing, and images must be built ("+why+")", "run: go tool mage setup"
	}
	return check
}
