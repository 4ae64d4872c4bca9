package bench

import (
	"fmt"
	"slices"
	"strings"
)

// What goals are about.
const (
	rate = "rate"
	p99  = "p99"
)

// memoryGoals are the most resident memory that the services may have under load, on
// any scenario, in MiB.
var memoryGoals = map[string]float64{"gateway": 64, "datastorage": 96}

// bound is a goal before anything was measured: at least, or at most, so much.
type bound struct {
	what        string
	least, most float64 // one of the two
	unit        string
}

// Goal is a goal with what came out.
type Goal struct {
	What  string  `json:"what"`
	Least float64 `json:"least,omitzero"`
	Most  float64 `json:"most,omitzero"`
	Unit  string  `json:"unit"`
	Got   float64 `json:"got"`
	Met   bool    `json:"met"`
}

func (b bound) judge(got float64) Goal {
	goal := Goal{What: b.what, Least: b.least, Most: b.most, Unit: b.unit, Got: got}
	goal.Met = got >= b.least && (b.most == 0 || got <= b.most)
	return goal
}

// String is the goal and whether it was met.
func (g Goal) String() string {
	verdict := "met"
	if !g.Met {
		verdict = "MISSED"
	}
	relation, bound := ">=", g.Least
	if g.Most != 0 {
		relation, bound = "<=", g.Most
	}
	return fmt.Sprintf("%s %.0f %s %.0f %s: %s", g.What, g.Got, relation, bound, g.Unit, verdict)
}

func sentence(goals []Goal) string {
	texts := make([]string, len(goals))
	for i, goal := range goals {
		texts[i] = goal.String()
	}
	return strings.Join(texts, "; ")
}

// judge fills in the goals that are about all scenarios.
func (r *Report) judge() {
	for _, service := range []string{"gateway", "datastorage"} {
		var resident []float64
		for _, s := range r.Scenarios {
			if s.Unit != requests {
				resident = append(resident, s.ResidentMiB[service])
			}
		}
		if len(resident) == 0 {
			return
		}
		r.Memory = append(r.Memory, bound{what: service + " memory", most: memoryGoals[service], unit: "MiB"}.judge(slices.Max(resident)))
	}
}
