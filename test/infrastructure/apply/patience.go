package apply

import (
	"slices"
	"time"
)

// patience remembers how long symptoms have lasted, as seen by this process: times
// in the cluster come from another clock and are rounded to seconds.
type patience struct {
	since map[string]time.Time
	old   map[string]bool // symptoms that date from before the wait
	// excused are the restarts of containers that crashed while something else was still
	// coming up, which they may need.
	excused map[string]int32
}

// judge reports whether some symptom has lasted for too long, so that waiting on is
// useless. Otherwise it returns after what time to ask again if nothing happens;
// zero means never.
func (p *patience) judge(findings []finding, now time.Time) (final bool, again time.Duration) {
	first := p.since == nil
	since, old, excused := map[string]time.Time{}, map[string]bool{}, map[string]int32{}
	coming := slices.ContainsFunc(findings, finding.comingUp)
	for _, found := range findings {
		for _, symptom := range found.symptoms {
			key := found.object.String() + "/" + symptom.key()
			since[key] = now
			if began, ok := p.since[key]; ok {
				since[key] = began
			}
			// A Deployment keeps this condition from an earlier try until a pod is ready.
			if symptom.reason == deadlineExceeded && (first || p.old[key]) {
				old[key] = true
				continue
			}
			excused[key] = p.excused[key]
			if coming {
				excused[key] = max(excused[key], symptom.restarts)
			}
			if symptom.restarts-excused[key] >= finalCrashes {
				final = true
			}
			if symptom.patience == never {
				continue
			}
			left := symptom.patience - now.Sub(since[key])
			if left <= 0 {
				final = true
			} else if again == 0 || left < again {
				again = left
			}
		}
	}
	p.since, p.old, p.excused = since, old, excused
	return final, again
}

// comingUp tells whether an object runs something, or will, that may yet become ready
// by itself: none of its containers has crashed or been held back.
func (f finding) comingUp() bool {
	switch f.object.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Pod":
		return !slices.ContainsFunc(f.symptoms, func(s symptom) bool { return s.class != classWaiting })
	}
	return false
}
