package apply

import "time"

// patience remembers how long symptoms have lasted, as seen by this process: times
// in the cluster come from another clock and are rounded to seconds.
type patience struct {
	since map[string]time.Time
	old   map[string]bool // symptoms that date from before the wait
}

// judge reports whether some symptom has lasted for too long, so that waiting on is
// useless. Otherwise it returns after what time to ask again if nothing happens;
// zero means never.
func (p *patience) judge(findings []finding, now time.Time) (final bool, again time.Duration) {
	first := p.since == nil
	since, old := map[string]time.Time{}, map[string]bool{}
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
	p.since, p.old = since, old
	return final, again
}
