package infrastructure_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"kubernaut.ai/e2e/test/infrastructure"
	"kubernaut.ai/e2e/test/infrastructure/filetest"
)

func TestANodeImageThatIsBuiltHereHoldsTheThirdPartyImages(t *testing.T) {
	r := newRig(t, "E2E_IMAGES=build")
	r.plan.Images = append(r.plan.Images, infrastructure.ImageSpec{Name: "db", Pull: "docker.io/db:1"})
	filetest.Put(t, r.plan.Root, "docker/db/Dockerfile", "FROM scratch\n")
	goals := []infrastructure.Phase{{Kind: infrastructure.BuildImage, Name: "node"}, {Kind: infrastructure.BuildImage, Name: "db"}, {Kind: infrastructure.CreateCluster}}
	create := func() {
		t.Helper()
		env := r.open()
		var err error
		for _, goal := range goals {
			err = errors.Join(err, env.Do(t.Context(), goal))
		}
		if err := errors.Join(err, env.Close()); err != nil {
			t.Fatal(err)
		}
	}
	// Those that were built from packages, without the building.
	env := r.open()
	_ = env.Do(t.Context(), goals[0])
	if err := env.Close(); err != nil {
		t.Fatal(err)
	}
	for _, ref := range strings.Fields(r.world.Find("exists ")) {
		if strings.HasPrefix(ref, "localhost/") {
			_ = r.world.Build(t.Context(), "", ref, "")
		}
	}

	broken := errors.New("no space left on device")
	r.world.Fail = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "privileged ") {
			return broken
		}
		return nil
	}
	create()
	if !strings.HasPrefix(r.world.NodesOf, "localhost/kubernaut-e2e/node:") {
		t.Errorf("created of %s, want the node image where no other can be made", r.world.NodesOf)
	}
	plain := r.world.NodesOf

	r.world.Fail = nil
	env = r.open()
	if err := errors.Join(env.DeleteCluster(t.Context()), env.Close()); err != nil {
		t.Fatal(err)
	}
	create()
	if !strings.HasPrefix(r.world.NodesOf, "localhost/kubernaut-e2e/node-stocked:") || !r.world.Called("privileged "+plain) || !strings.HasPrefix(r.world.Find("save "), "save localhost/kubernaut-e2e/db:") {
		t.Errorf("created of %s, want one with db: %v", r.world.NodesOf, r.world.Calls())
	}
	r.world.Forget()
	create()
	if r.world.Called("create") || r.world.Called("privileged ") {
		t.Errorf("made again although nothing has changed: %v", r.world.Calls())
	}
}
