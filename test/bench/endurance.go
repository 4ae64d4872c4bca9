package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/signals"
)

const (
	// attackers is how many requests are on their way at once.
	attackers = 24
	// The most that each service takes of a body, and a little more is sent.
	largestSignal, largestEvent = 2 << 20, 5 << 20
)

// requests is the unit of what is sent to do harm, for which no goal of memory holds but
// that no process ends.
const requests = "requests"

// endurance sends both services what a sender, a reader, a writer and a stranger can, valid
// and not, for that long. It looks for nothing but that each is the same process afterwards,
// and does its work: what is refused, and what is cut by its sender, is no failure.
// Each request is made from its number, so that the nth is the same in every run.
func (g *gateway) endurance(d time.Duration) scenario {
	plan := planFor(attackers)
	plan.Duration, plan.MaxCalls = d, 100_000_000
	return scenario{
		name: fmt.Sprintf("endurance, %g minutes", d.Minutes()), unit: requests, perCall: 1, plan: plan,
		call: func(ctx context.Context, _, n int) error { return g.attack(ctx, rand.New(rand.NewPCG(0, uint64(n)))) },
		check: func(ctx context.Context) (problems []string, err error) {
			if err := g.repeat(ctx, g.storm); err != nil {
				problems = append(problems, "gateway: "+err.Error())
			}
			got, err := g.trail.Write(ctx, audit.NewEvent("bench-"+g.run.Run+"-after"))
			if err == nil && got.Code != http.StatusCreated {
				problems = append(problems, "datastorage: "+got.String())
			}
			return problems, err
		},
	}
}

// attack sends one request of many kinds.
func (g *gateway) attack(ctx context.Context, rng *rand.Rand) (err error) {
	sending := ctx
	if rng.IntN(10) == 0 { // some do not wait
		var cancel context.CancelFunc
		sending, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Millisecond)
		defer cancel()
	}
	// One token has all roles; strangers' are none, of nobody, and like the cluster's.
	token := oneOf(rng, g.sender.Token, g.sender.Token, g.sender.Token, "", "x", g.sender.Token[:len(g.sender.Token)-4]+"AAAA")
	if rng.IntN(2) == 0 {
		_, err = g.sender.As(token).Post(sending, oneOf(rng, signals.PrometheusPath, signals.PrometheusPath, signals.EventPath), mangled(rng, g.hook(rng)))
	} else if trail, failed := g.trail.As(token); failed == nil {
		switch rng.IntN(5) {
		case 0:
			_, err = trail.Do(sending, http.MethodGet, audit.EventsPath+oneOf(rng, "", "?limit=1000", "?limit=1000&offset=9000", "?event_category=bench", "?limit=x", "?correlation_id=%00"), nil)
		case 1:
			_, err = trail.Post(sending, audit.VerifyPath, []byte(oneOf(rng, `{}`, `{"correlation_id":"x"}`, `{"resume":"x"}`, `[`)))
		default:
			_, err = trail.Post(sending, oneOf(rng, audit.EventsPath, audit.BatchPath), mangled(rng, g.record(rng)))
		}
	} else {
		err = failed
	}
	if err == nil || sending.Err() != nil {
		return nil
	}
	// Only the text of the innermost does not name the connection.
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("no answer to %s: %w", map[bool]string{true: "a sender", false: "a stranger"}[token == g.sender.Token], err)
}

// hook is a body for the Gateway.
func (g *gateway) hook(rng *rand.Rand) []byte {
	labels := `{"alertname":"Down","namespace":"` + g.namespace + `","deployment":"workload-0"}`
	switch size := sizeUpTo(rng, largestSignal); rng.IntN(6) {
	case 0:
		return filled(`{"commonLabels":`+labels+`,"alerts":[`, `{},`, `{"startsAt":"2026-01-01T00:00:00Z"}]}`, size)
	case 1:
		return filled(`{"alerts":[{"labels":`+labels+`,"x":[`, shape(rng), `0]}]}`, size)
	case 2:
		return filled(`{"alerts":[{"labels":{"alertname":"Down","x":"`, letter(rng), `"}}]}`, size)
	case 3:
		return filled(`{"alerts":`, `[`, ``, size)
	}
	alert := g.problems[rng.IntN(len(g.problems))].alert
	alerts := make([]signals.Alert, 1+rng.IntN(50))
	for i := range alerts {
		alerts[i] = alert.With(fmt.Sprint("label", i), strings.Repeat("x", rng.IntN(4<<10)))
	}
	valid, _ := json.Marshal(signals.Notify(alerts...)) // text only
	return valid
}

// record is a body for DataStorage.
func (b *bed) record(rng *rand.Rand) []byte {
	size := sizeUpTo(rng, largestEvent)
	events := audit.Events(fmt.Sprintf("bench-%s-%d", b.run.Run, rng.IntN(1000)), 1+rng.IntN(100))
	switch rng.IntN(6) {
	case 0:
		return filled(``, `[`, ``, size)
	case 1:
		events[0].EventData = filled(`{"list":[`, shape(rng), `0]}`, size)
	case 2:
		events[0].EventData = filled(`{"text":"`, letter(rng), `"}`, size)
	case 3:
		valid, _ := json.Marshal(events) // made of what is valid
		return valid
	}
	valid, _ := json.Marshal(events[0])
	return valid
}

// shape is what costs most for its length.
func shape(rng *rand.Rand) string {
	return oneOf(rng, `{},`, `{"":{}},`, `1,`, `1e9,`, `"",`, `[[[[]]]],`, fmt.Sprintf(`{"%d":%d},`, rng.Int(), rng.Int()))
}

// letter is what a text is made of, and may not be.
func letter(rng *rand.Rand) string { return oneOf(rng, "x", `\u0000`, "\xff", "語") }

// filled is a body of about that size.
func filled(head, unit, tail string, size int) []byte {
	return []byte(head + strings.Repeat(unit, max(0, size-len(head)-len(tail))/len(unit)) + tail)
}

// sizeUpTo is mostly small, and sometimes more than is taken.
func sizeUpTo(rng *rand.Rand, largest int) int {
	return oneOf(rng, 100, 10_000, rng.IntN(largest), largest-1000, largest+1)
}

// mangled breaks some bodies: a byte is another one, or the end is missing.
func mangled(rng *rand.Rand, body []byte) []byte {
	switch rng.IntN(10) {
	case 0:
		body[rng.IntN(len(body))] = byte(rng.IntN(256))
	case 1:
		body = body[:rng.IntN(len(body))]
	}
	return body
}

func oneOf[T any](rng *rand.Rand, all ...T) T { return all[rng.IntN(len(all))] }
