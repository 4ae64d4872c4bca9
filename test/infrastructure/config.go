package infrastructure

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/report"
)

// Variant is how the services are built and deployed.
type Variant string

// The variants.
const (
	Standard Variant = "standard"
	Coverage Variant = "coverage" // instrumented binaries that write coverage counters
)

// suffix tells the clusters of one checkout apart.
func (v Variant) suffix() string {
	if v == Standard {
		return ""
	}
	return string(v)
}

// ImagePolicy says how images that are not of this project's own source are got.
type ImagePolicy string

// The policies.
const (
	ImagesAuto  ImagePolicy = "auto"  // the engine's store, else pull, else build from packages
	ImagesPull  ImagePolicy = "pull"  // never build from packages
	ImagesBuild ImagePolicy = "build" // never pull
)

// KeepPolicy says when the cluster outlives an end-to-end run.
type KeepPolicy string

// The policies.
const (
	KeepFailure KeepPolicy = "failure"
	KeepAlways  KeepPolicy = "always"
	KeepNever   KeepPolicy = "never"
)

// ParkPolicy says whether the state of a cluster is kept when it is first deployed, and the
// cluster parked where an end-to-end run would delete it.
type ParkPolicy string

// The policies.
const (
	ParkAuto   ParkPolicy = "auto" // not in CI
	ParkAlways ParkPolicy = "always"
	ParkNever  ParkPolicy = "never"
)

// Config is what the process environment says. It is read and checked once and
// does not change afterwards.
type Config struct {
	Engine      string         // E2E_ENGINE: podman or docker; empty takes the first that works
	ImagePolicy ImagePolicy    // E2E_IMAGES: auto (default), pull or build
	Keep        KeepPolicy     // E2E_KEEP: failure, always or never; default failure, in CI never
	Park        ParkPolicy     // E2E_PARK: auto (default), always or never
	Variant     Variant        // E2E_COVERAGE: true selects Coverage
	CoverageMin float64        // E2E_COVERAGE_MIN: percent of statements that the tested services must have covered; 0 asks for none
	Budgets     report.Budgets // E2E_BUDGET: how long parts of a run may take, e.g. setup=45s,gateway=100s; empty bounds nothing
	Suite       SuiteConfig
	// Deadlines are E2E_TIMEOUT_BUILD, _OBTAIN, _CLUSTER, _LOAD, _DEPLOY, _SUITE, _PROGRAM,
	// _GATHER, _COLLECT and _DELETE by the ends of their names; those that are missing have the
	// defaults, see Timeouts.
	Deadlines   map[string]time.Duration
	FailBusy    bool   // E2E_LOCK: fail ends at once when another process works on the cluster; default wait
	CleanAll    bool   // E2E_CLEAN: all has clean remove what other checkouts share or left; default own
	Mutants     string // E2E_MUTANTS: regular expression of the mutants to try; empty tries all
	History     string // E2E_HISTORY: folder of what past runs of suites came to, from the checkout; empty is the user's
	Rounds      int    // E2E_BENCH_ROUNDS: how often bench:orderings measures each thing; default 5
	Changed     int    // E2E_CHANGED: how often specs that are new or changed run again after their suite has passed; 0 for not
	Since       string // E2E_CHANGED_SINCE: branch since which they are; empty is origin/main, else main
	Load        bool   // E2E_SOAK_LOAD: 1 keeps all cores busy beside a soak
	CI          bool   // CI: set by every CI system
	Annotate    bool   // GITHUB_ACTIONS: true writes what failed as annotations
	Job         string // where CI shows the run, of GITHUB_SERVER_URL and its like; empty elsewhere
	StepSummary string // GITHUB_STEP_SUMMARY: a file that the run's summary is added to; empty for none
	// Ordering is how building and the cluster follow each other. No variable sets it.
	Ordering Ordering
}

// SuiteConfig is what reaches Ginkgo.
type SuiteConfig struct {
	Focus  string // E2E_FOCUS: regular expression of the specs to run; empty runs all
	Skip   string // E2E_SKIP: regular expression of the specs to leave out
	Labels string // E2E_LABELS: Ginkgo label filter
	Procs  int    // E2E_PROCS: parallel processes; 0 chooses by the number of cores
	Seed   int64  // E2E_SEED: order of the specs; 0 takes a new one each run
}

// variable is one E2E_* variable: what it takes, and how it is read.
type variable struct {
	takes string
	read  func(*Config, string) error
}

// variables are all E2E_* variables there are but the timeouts. Those whose reader is nil
// are read elsewhere: by the suites and the integration tests.
var variables = map[string]variable{
	"E2E_ENGINE": {"podman or docker; default: the first that can run a privileged container", func(c *Config, v string) error {
		return choose(&c.Engine, v, "podman", "docker")
	}},
	"E2E_IMAGES": {"auto, pull or build; default auto", func(c *Config, v string) error {
		return choose(&c.ImagePolicy, v, ImagesAuto, ImagesPull, ImagesBuild)
	}},
	"E2E_KEEP": {"failure, always or never; default failure, in CI never", func(c *Config, v string) error {
		return choose(&c.Keep, v, KeepFailure, KeepAlways, KeepNever)
	}},
	"E2E_PARK": {"auto, always or never; default auto: not in CI and not with coverage", func(c *Config, v string) error {
		return choose(&c.Park, v, ParkAuto, ParkAlways, ParkNever)
	}},
	"E2E_COVERAGE": {"true or false; default false", func(c *Config, v string) error {
		coverage, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("is neither true nor false")
		}
		if coverage {
			c.Variant = Coverage
		}
		return nil
	}},
	"E2E_COVERAGE_MIN": {"a percentage, 0 to 100", func(c *Config, v string) error {
		percent, err := strconv.ParseFloat(v, 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return errors.New("is no number from 0 to 100")
		}
		c.CoverageMin = percent
		return nil
	}},
	"E2E_BUDGET": {"name=duration, with commas between, for setup, total, a suite or a step, e.g. setup=45s,gateway=100s,cluster/create=20s", func(c *Config, v string) (err error) {
		c.Budgets, err = report.ParseBudgets(v)
		return err
	}},
	"E2E_LOCK": {"wait or fail; default wait", func(c *Config, v string) error {
		var how string
		err := choose(&how, v, "wait", "fail")
		c.FailBusy = how == "fail"
		return err
	}},
	"E2E_CLEAN": {"own or all; default own", func(c *Config, v string) error {
		var what string
		err := choose(&what, v, "own", "all")
		c.CleanAll = what == "all"
		return err
	}},
	"E2E_FOCUS":  {"a regular expression of specs to run", func(c *Config, v string) error { return expression(&c.Suite.Focus, v) }},
	"E2E_SKIP":   {"a regular expression of specs to leave out", func(c *Config, v string) error { return expression(&c.Suite.Skip, v) }},
	"E2E_LABELS": {"a Ginkgo label filter", func(c *Config, v string) error { c.Suite.Labels = v; return nil }},
	"E2E_PROCS": {"a number of processes, 1 to 64", func(c *Config, v string) error {
		return number(&c.Suite.Procs, v, 1, 64)
	}},
	"E2E_SEED": {"a whole number", func(c *Config, v string) error {
		seed, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return errors.New("is no whole number")
		}
		c.Suite.Seed = seed
		return nil
	}},
	"E2E_MUTANTS": {"a regular expression of mutants to try", func(c *Config, v string) error {
		return expression(&c.Mutants, v)
	}},
	"E2E_BENCH_ROUNDS": {"a number of rounds, 1 to 100; default 5", func(c *Config, v string) error {
		return number(&c.Rounds, v, 1, 100)
	}},
	"E2E_HISTORY": {"a folder", func(c *Config, v string) error { c.History = v; return nil }},
	"E2E_CHANGED": {"a number of runs, 0 to 100", func(c *Config, v string) error {
		return number(&c.Changed, v, 0, 100)
	}},
	"E2E_CHANGED_SINCE": {"a branch or commit; default origin/main, else main", func(c *Config, v string) error { c.Since = v; return nil }},
	"E2E_SOAK_LOAD": {"1 or 0; default 0", func(c *Config, v string) error {
		var load string
		err := choose(&load, v, "0", "1")
		c.Load = load == "1"
		return err
	}},
	"E2E_ALONE":             {"set by e2e: for a suite that has the cluster for itself", nil},
	"E2E_TARGET":            {"the target.json of a deployed environment, for the suites", nil},
	"E2E_TEST_POSTGRES_DSN": {"set by test:integration", nil},
	"E2E_TEST_REDIS_ADDR":   {"set by test:integration", nil},
}

// timeoutPrefix is that of a variable which sets a deadline.
const timeoutPrefix = "E2E_TIMEOUT_"

// known returns the variable of a name.
func known(name string) (variable, bool) {
	if deadline, ok := strings.CutPrefix(name, timeoutPrefix); ok {
		_, ok = (&Timeouts{}).named()[deadline]
		return variable{"a duration, e.g. 90s or 5m", func(c *Config, v string) error {
			value, err := time.ParseDuration(v)
			if err != nil || value <= 0 {
				return errors.New("is no duration above 0")
			}
			if c.Deadlines == nil {
				c.Deadlines = map[string]time.Duration{}
			}
			c.Deadlines[deadline] = value
			return nil
		}}, ok
	}
	found, ok := variables[name]
	return found, ok
}

// suggest names the variable that was probably meant, else all.
func suggest(name string) string {
	names := slices.Collect(maps.Keys(variables))
	for deadline := range (&Timeouts{}).named() {
		names = append(names, timeoutPrefix+deadline)
	}
	slices.Sort(names)
	for _, known := range names {
		if strings.HasPrefix(known, name) || strings.HasPrefix(name, known) || oneApart(known, name) {
			return "did you mean " + known + "?"
		}
	}
	return "there are: " + strings.Join(names, ", ")
}

// oneApart tells whether two names of the same length differ in one letter, or in two
// that were swapped.
func oneApart(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	var at []int
	for i := range len(a) {
		if a[i] != b[i] {
			at = append(at, i)
		}
	}
	switch len(at) {
	case 1:
		return true
	case 2:
		return a[at[0]] == b[at[1]] && a[at[1]] == b[at[0]]
	default:
		return false
	}
}

// expression takes a regular expression. What is wrong with one is said here, and not
// when a suite starts.
func expression(to *string, value string) error {
	_, err := regexp.Compile(value)
	var wrong *syntax.Error
	if errors.As(err, &wrong) {
		return fmt.Errorf("is no regular expression: %s", wrong.Code)
	}
	*to = value
	return err
}

func number(to *int, value string, least, most int) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return fmt.Errorf("is no number from %d to %d", least, most)
	}
	*to = n
	return nil
}

func choose[T ~string](to *T, value string, allowed ...T) error {
	if !slices.Contains(allowed, T(value)) {
		return errors.New("unknown value")
	}
	*to = T(value)
	return nil
}

// ReadConfig reads the configuration from environ, a list of KEY=value as
// os.Environ returns it. An unknown E2E_ variable is an error: a misspelt one
// would otherwise be a setting that silently does nothing. Its error names every
// variable at fault, one a line. Empty values count as unset.
func ReadConfig(environ []string) (Config, error) {
	config := Config{ImagePolicy: ImagesAuto, Keep: KeepFailure, Park: ParkAuto, Variant: Standard, Rounds: 5}
	values := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if value != "" {
			values[name] = value
		}
	}
	if ci := values["CI"]; ci != "" && ci != "false" && ci != "0" {
		config.CI, config.Keep = true, KeepNever
	}
	config.Annotate, config.StepSummary = values["GITHUB_ACTIONS"] == "true", values["GITHUB_STEP_SUMMARY"]
	if config.Annotate {
		config.Job = fmt.Sprintf("%s/%s/actions/runs/%s", values["GITHUB_SERVER_URL"], values["GITHUB_REPOSITORY"], values["GITHUB_RUN_ID"])
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !strings.HasPrefix(name, "E2E_") {
			continue
		}
		variable, ok := known(name)
		if !ok {
			problems = append(problems, fmt.Errorf("%s: unknown variable; %s", name, suggest(name)))
			continue
		}
		if variable.read == nil {
			continue
		}
		if err := variable.read(&config, values[name]); err != nil {
			problems = append(problems, fmt.Errorf("%s=%s: %w; it takes %s", name, values[name], err, variable.takes))
		}
	}
	return config, errors.Join(problems...)
}
