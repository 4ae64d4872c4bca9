package infrastructure_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"kubernaut.ai/e2e/test/infrastructure"
)

// workflow is the part of a GitHub workflow that this rehearses.
type workflow struct {
	Jobs map[string]struct {
		Steps []struct {
			Uses string
			With struct {
				Name   string
				Path   string
				Hidden bool `json:"include-hidden-files"`
			}
			Run string
		}
	}
}

func readWorkflow(t *testing.T) workflow {
	t.Helper()
	data, err := os.ReadFile("../../.github/workflows/e2e.yml")
	if err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(data, &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// patterns of the artifact with that name, which may hold an expression.
func (w workflow) patterns(t *testing.T, artifact string) []string {
	t.Helper()
	for _, job := range w.Jobs {
		for _, step := range job.Steps {
			if strings.HasPrefix(step.Uses, "actions/upload-artifact@") && step.With.Name == artifact {
				if !step.With.Hidden {
					t.Errorf("artifact %s: .e2e is a hidden folder, and hidden files are left out", artifact)
				}
				return strings.Fields(step.With.Path)
			}
		}
	}
	t.Fatalf("no artifact %s", artifact)
	return nil
}

// selects tells whether the action takes a file: the last pattern that matches it or a
// folder above it decides, and one with ! leaves out.
func selects(patterns []string, file string) bool {
	taken := false
	for _, pattern := range patterns {
		pattern, not := strings.CutPrefix(pattern, "!")
		if matches(strings.Split(pattern, "/"), strings.Split(file, "/")) {
			taken = !not
		}
	}
	return taken
}

func matches(pattern, file []string) bool {
	if len(pattern) == 0 {
		return true // a folder has what is below it
	}
	if pattern[0] == "**" {
		return matches(pattern[1:], file) || len(file) > 0 && matches(pattern, file[1:])
	}
	if len(file) == 0 {
		return false
	}
	ok, err := path.Match(pattern[0], file[0])
	return err == nil && ok && matches(pattern[1:], file[1:])
}

// upload copies what the patterns select, as the action does: links are followed, and
// names are relative to the folder that all files have in common.
func upload(t *testing.T, root string, patterns []string, common, to string) []string {
	t.Helper()
	var names []string
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			info, err := os.Stat(filepath.Join(root, name)) // the link's end
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(name)
				continue
			}
			if !selects(patterns, name) {
				continue
			}
			names = append(names, name)
			data, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(to, strings.TrimPrefix(name, common+"/"))
			if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(copied, data, 0o644); err != nil { // an archive keeps no modes
				t.Fatal(err)
			}
		}
	}
	walk(common)
	return names
}

// TestTheCoverageJobWorksOnWhatItDownloads rehearses what nobody can run but GitHub:
// the evidence of a run goes through an artifact into a fresh clone, where the job's
// commands are run.
func TestTheCoverageJobWorksOnWhatItDownloads(t *testing.T) {
	jobs := readWorkflow(t)
	w, plan, env := covered(t, infrastructure.Config{})
	w.Stopping = func(ctx context.Context, seen func(*corev1.Pod)) error { return runPod(ctx, plan, seen) }
	if err := env.CollectCoverage(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{".e2e/build/x": "program", ".e2e/" + plan.ClusterName + "/kubeconfig": "key", ".e2e/" + plan.ClusterName + "/kubeconfig.lock": ""} {
		file := filepath.Join(plan.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Lstat(filepath.Join(plan.Root, ".e2e", "last")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Fatalf("got %v, %v; want the link that uploading follows", info, err)
	}

	archive := t.TempDir()
	names := upload(t, plan.Root, jobs.patterns(t, "e2e-${{ matrix.engine }}"), ".e2e", archive)
	for _, name := range names {
		if strings.Contains(name, "kubeconfig") || strings.HasPrefix(name, ".e2e/build/") || strings.HasPrefix(name, ".e2e/last/") {
			t.Errorf("%s is in the artifact", name)
		}
	}

	// The same folder as before, as it is on GitHub, without what the run has left.
	if err := os.RemoveAll(filepath.Join(plan.Root, ".e2e")); err != nil {
		t.Fatal(err)
	}
	var downloads []string
	for _, step := range jobs.Jobs["coverage"].Steps {
		switch {
		case strings.HasPrefix(step.Uses, "actions/download-artifact@"):
			downloads = append(downloads, step.With.Name+" "+step.With.Path)
			if step.With.Name == "e2e-docker" {
				if err := os.CopyFS(filepath.Join(plan.Root, step.With.Path), os.DirFS(archive)); err != nil {
					t.Fatal(err)
				}
			}
		case step.Run == "go tool mage coverage:collect":
			w.StopNode() // in another job, and gone
			if err := reopened(t, w, plan, env).CollectCoverage(t.Context()); err != nil {
				t.Errorf("%s: %v", step.Run, err)
			}
			if _, err := os.Stat(filepath.Join(plan.Root, ".e2e", plan.ClusterName, "coverage", "coverage.md")); err != nil {
				t.Error(err)
			}
		case step.Run != "":
			t.Errorf("%s: not rehearsed", step.Run)
		}
	}
	if want := []string{"e2e-docker .e2e", "test-coverage .e2e/coverage"}; !slices.Equal(downloads, want) {
		t.Errorf("downloads %q, want %q", downloads, want)
	}
}

// TestARunOverAnUnpackedArtifact is about the copy that a link became there.
func TestARunOverAnUnpackedArtifact(t *testing.T) {
	w, plan, env := covered(t, infrastructure.Config{})
	last := filepath.Join(plan.Root, ".e2e", "last")
	if err := errors.Join(os.Remove(last), os.CopyFS(last, os.DirFS(filepath.Join(plan.Root, ".e2e", plan.ClusterName)))); err != nil {
		t.Fatal(err)
	}
	if err := reopened(t, w, plan, env).Do(t.Context(), infrastructure.Phase{Kind: infrastructure.BuildImage, Name: "node"}); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(last); err != nil || filepath.Dir(to) != filepath.Join(plan.ClusterName, "runs") {
		t.Errorf("got %q, %v", to, err)
	}
}
