package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func sample() Event {
	return Event{
		ID: uuid.MustParse("6f1f0c5e-0000-4000-8000-000000000001"), Version: "1.0", Type: "gateway.signal.received",
		Timestamp: now, Category: "gateway", Action: "received", Outcome: "success", CorrelationID: "rr-1",
		Data: json.RawMessage(`{"b":1,"a":"<x>"}`),
	}
}

func TestNormalize(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 80) + "1" + strings.Repeat("}", 80)
	for name, c := range map[string]struct {
		change func(*Event)
		path   string // "" means valid
	}{
		"as it is":           {func(*Event) {}, ""},
		"60 minutes ahead":   {func(e *Event) { e.Timestamp = now.Add(60 * time.Minute) }, ""},
		"more ahead":         {func(e *Event) { e.Timestamp = now.Add(60*time.Minute + time.Microsecond) }, "event_timestamp"},
		"7 days back":        {func(e *Event) { e.Timestamp = now.Add(-168 * time.Hour) }, ""},
		"more back":          {func(e *Event) { e.Timestamp = now.Add(-168*time.Hour - time.Microsecond) }, "event_timestamp"},
		"a NUL in a text":    {func(e *Event) { e.ActorID = "a\x00b" }, "actor_id"},
		"a NUL in the data":  {func(e *Event) { e.Data = json.RawMessage(`{"a":[1,"\u0000"]}`) }, "event_data.a[1]"},
		"a NUL in a name":    {func(e *Event) { e.Data = json.RawMessage(`{"\u0000":1}`) }, "event_data"},
		"no data":            {func(e *Event) { e.Data = nil }, "event_data"},
		"null for data":      {func(e *Event) { e.Data = json.RawMessage("null") }, "event_data"},
		"a list for data":    {func(e *Event) { e.Data = json.RawMessage("[1]") }, "event_data"},
		"two objects":        {func(e *Event) { e.Data = json.RawMessage("{}{}") }, "event_data"},
		"deep nesting":       {func(e *Event) { e.Data = json.RawMessage(deep) }, "event_data"},
		"an absurd exponent": {func(e *Event) { e.Data = json.RawMessage(`{"n":1e99999999}`) }, "event_data.n"},
		"a large exponent":   {func(e *Event) { e.Data = json.RawMessage(`{"n":1.7e308}`) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := sample()
			c.change(&e)
			err := e.Normalize(now)
			var invalid *InvalidError
			if c.path == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if c.path != "" && (!errors.As(err, &invalid) || !strings.HasPrefix(invalid.Path, c.path)) {
				t.Errorf("got %v, want %s", err, c.path)
			}
		})
	}
}

func TestNormalizeBringsIntoOneForm(t *testing.T) {
	e := sample()
	e.ID = uuid.Nil
	e.Timestamp = time.Date(2026, 11, 23, 13, 0, 0, 123456789, time.FixedZone("", 3600))
	if err := e.Normalize(now); err != nil {
		t.Fatal(err)
	}
	if e.ID == uuid.Nil || e.Timestamp != time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC) || string(e.Data) != `{"a":"<x>","b":1}` {
		t.Errorf("got %+v %s", e, e.Data)
	}
}

// TestHashOfAnEvent pins the canonical form: when it fails, chains that are stored
// can no longer be verified.
func TestHashOfAnEvent(t *testing.T) {
	e := sample()
	if err := e.Normalize(now); err != nil {
		t.Fatal(err)
	}
	form := e.Encode()
	const want = `{"event_id":"6f1f0c5e-0000-4000-8000-000000000001","version":"1.0","event_type":"gateway.signal.received",` +
		`"event_timestamp":"2026-11-23T12:00:00Z","event_category":"gateway","event_action":"received","event_outcome":"success",` +
		`"correlation_id":"rr-1","event_data":{"a":"<x>","b":1}}`
	if string(form) != want {
		t.Errorf("got %s\nwant %s", form, want)
	}
	first := e.After(Link{})
	if first.Position != 1 || first.Previous != (Hash{}) {
		t.Fatalf("got %+v", first)
	}
	second := e.After(first)
	if second.Position != 2 || second.Previous != first.Hash || second.Hash == first.Hash {
		t.Errorf("got %+v", second)
	}
}

// TestFormIsThatOfEncodingJSON guards the form that chains are made of against the
// library by which it was defined.
func TestFormIsThatOfEncodingJSON(t *testing.T) {
	full := sample()
	for i, field := range TextFields {
		*field.Of(&full) = field.Name + " <&>\u2028\n\"\xff" + strings.Repeat("é", i)
	}
	full.DurationMS, full.ParentID = new(int64(-7)), new(uuid.New())
	full.Timestamp = full.Timestamp.Add(123 * time.Microsecond)
	if fields := reflect.TypeFor[Event]().NumField(); fields != len(TextFields)+5 {
		t.Errorf("an event has %d fields, TextFields %d", fields, len(TextFields))
	}
	for _, e := range []Event{sample(), full} {
		if err := e.normalizeData(); err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
		if got := string(e.Encode()) + "\n"; got != want.String() {
			t.Errorf("got  %s\nwant %s", got, want.String())
		}
	}
}

func TestContentTellsEventsApart(t *testing.T) {
	e := sample()
	if err := e.normalizeData(); err != nil {
		t.Fatal(err)
	}
	same, other, data := e, e, e
	same.RecordedBy, other.Outcome, data.Data = "somebody", "failure", json.RawMessage(`{}`)
	if e.Content() != same.Content() || e.Content() == other.Content() || e.Content() == data.Content() {
		t.Errorf("got %d, %d, %d, %d", e.Content(), same.Content(), other.Content(), data.Content())
	}
}

// chainOf returns n stored events of one chain and its end.
func chainOf(t *testing.T, n int) ([]*Stored, Link) {
	t.Helper()
	var events []*Stored
	var last Link
	for range n {
		e := sample()
		e.ID = uuid.New()
		if err := e.Normalize(now); err != nil {
			t.Fatal(err)
		}
		link := e.After(last)
		last = link
		events = append(events, &Stored{e, link})
	}
	return events, last
}

func TestVerifierFindsTheFirstBreak(t *testing.T) {
	for name, c := range map[string]struct {
		tamper   func(events []*Stored, end *Link) []*Stored
		position int64 // 0 means valid
		reason   string
		named    bool
	}{
		"as written":                 {func(e []*Stored, _ *Link) []*Stored { return e }, 0, "", false},
		"other order of members":     {func(e []*Stored, _ *Link) []*Stored { e[2].Data = json.RawMessage(`{ "b" : 1, "a":"<x>"}`); return e }, 0, "", false},
		"a changed field":            {func(e []*Stored, _ *Link) []*Stored { e[2].Outcome = "failure"; return e }, 3, Changed, true},
		"changed data":               {func(e []*Stored, _ *Link) []*Stored { e[2].Data = json.RawMessage(`{"b":2}`); return e }, 3, Changed, true},
		"data of another kind":       {func(e []*Stored, _ *Link) []*Stored { e[2].Data = json.RawMessage(`[]`); return e }, 3, Changed, true},
		"the last changed with hash": {func(e []*Stored, _ *Link) []*Stored { rehash(e[4], e[3].Link); return e }, 5, Changed, false},
		"one changed with hash":      {func(e []*Stored, _ *Link) []*Stored { rehash(e[2], e[1].Link); return e }, 4, Changed, true},
		"the first removed":          {func(e []*Stored, _ *Link) []*Stored { return e[1:] }, 1, Missing, true},
		"one removed":                {func(e []*Stored, _ *Link) []*Stored { return append(e[:2], e[3:]...) }, 3, Missing, true},
		"the last removed":           {func(e []*Stored, _ *Link) []*Stored { return e[:4] }, 5, Missing, false},
		"all removed":                {func([]*Stored, *Link) []*Stored { return nil }, 1, Missing, false},
		"two swapped": {func(e []*Stored, _ *Link) []*Stored {
			e[1].Position, e[2].Position = 3, 2
			e[1], e[2] = e[2], e[1]
			return e
		}, 2, Changed, true},
		"one added at the end": {func(e []*Stored, end *Link) []*Stored {
			forged := &Stored{Event: sample()}
			rehash(forged, *end)
			return append(e, forged)
		}, 6, Unknown, true},
		"one added at a place that is taken": {func(e []*Stored, _ *Link) []*Stored {
			forged := &Stored{Event: sample(), Link: e[1].Link}
			return append(e[:2:2], append([]*Stored{forged}, e[2:]...)...)
		}, 3, Unknown, true},
		"events and no chain": {func(e []*Stored, end *Link) []*Stored { *end = Link{}; return e }, 1, Unknown, true},
	} {
		t.Run(name, func(t *testing.T) {
			events, end := chainOf(t, 5)
			events = c.tamper(events, &end)
			got := verify(events, Ends{Written: end})
			length, broken := got.Length, got.Broken
			if length != int64(len(events)) {
				t.Errorf("got length %d, want %d", length, len(events))
			}
			if c.position == 0 && broken != nil {
				t.Errorf("got %+v, want a whole chain", broken)
			}
			if c.position != 0 && (broken == nil || broken.Position != c.position || broken.Reason != c.reason || (broken.EventID != uuid.Nil) != c.named) {
				t.Errorf("got %+v, want %s at %d", broken, c.reason, c.position)
			}
		})
	}
}

// rehash changes an event and gives it a hash that fits.
func rehash(e *Stored, last Link) {
	e.Outcome = "failure"
	if err := e.normalizeData(); err != nil {
		panic(err)
	}
	e.Link = e.After(last)
}

func verify(events []*Stored, ends Ends) Verified {
	v := NewVerifier(Verified{}, ends)
	for _, e := range events {
		v.Next(e)
	}
	return v.Result()
}

func TestVerifierOfNothing(t *testing.T) {
	if got := verify(nil, Ends{}); got.Length != 0 || got.Broken != nil {
		t.Errorf("got %+v", got)
	}
}

// TestVerifierKnowsWhatWasSigned does what the owner of a database can: audit_chains says
// what the events say.
func TestVerifierKnowsWhatWasSigned(t *testing.T) {
	const signed = 4 // of 5
	removed := func(events []*Stored, first, last int64) []Run {
		return []Run{{First: first, Last: Link{Position: last, Hash: events[last-1].Hash}}}
	}
	for name, c := range map[string]struct {
		tamper   func(events []*Stored, ends *Ends) []*Stored
		position int64 // 0 means valid
		reason   string
		removed  int64
	}{
		"as written":                    {func(e []*Stored, _ *Ends) []*Stored { return e }, 0, "", 0},
		"cut off behind what is signed": {func(e []*Stored, ends *Ends) []*Stored { ends.Written = e[3].Link; return e[:4] }, 0, "", 0},
		"cut off":                       {func(e []*Stored, ends *Ends) []*Stored { ends.Written = e[2].Link; return e[:3] }, 4, Missing, 0},
		"gone":                          {func(_ []*Stored, ends *Ends) []*Stored { ends.Written = Link{}; return nil }, 1, Missing, 0},
		"written again": {func(e []*Stored, ends *Ends) []*Stored {
			for i := 2; i < 5; i++ {
				rehash(e[i], e[i-1].Link)
			}
			ends.Written = e[4].Link
			return e
		}, signed, Changed, 0},
		"the first removed by policy": {func(e []*Stored, ends *Ends) []*Stored { ends.Removed = removed(e, 1, 2); return e[2:] }, 0, "", 2},
		"one in between removed by policy": {func(e []*Stored, ends *Ends) []*Stored {
			ends.Removed = removed(e, 2, 2)
			return append(e[:1:1], e[2:]...)
		}, 0, "", 1},
		"by two policies, and one more": {func(e []*Stored, ends *Ends) []*Stored {
			ends.Removed = append(removed(e, 1, 1), append(removed(e, 2, 3), removed(e, 5, 5)...)...)
			return e[3:4]
		}, 0, "", 4},
		"all removed by policy": {func(e []*Stored, ends *Ends) []*Stored { ends.Removed = removed(e, 1, 5); return nil }, 0, "", 5},
		"removed, and then cut off": {func(e []*Stored, ends *Ends) []*Stored {
			ends.Removed, ends.Written = removed(e, 1, 2), e[2].Link
			return e[2:3]
		}, 4, Missing, 2},
		"more than by policy":             {func(e []*Stored, ends *Ends) []*Stored { ends.Removed = removed(e, 1, 2); return e[3:] }, 3, Missing, 2},
		"the first, and others by policy": {func(e []*Stored, ends *Ends) []*Stored { ends.Removed = removed(e, 2, 2); return e[2:] }, 1, Missing, 0},
		"the end, and others by policy":   {func(e []*Stored, ends *Ends) []*Stored { ends.Removed = removed(e, 1, 1); return e[1:4] }, 5, Missing, 1},
		"others than by policy": {func(e []*Stored, ends *Ends) []*Stored {
			ends.Removed = removed(e, 1, 2)
			ends.Removed[0].Last.Hash = Hash{1}
			return e[2:]
		}, 3, Changed, 2},
		"one that was removed by policy, there again": {func(e []*Stored, ends *Ends) []*Stored { ends.Removed = removed(e, 1, 2); return e[1:] }, 1, Missing, 0},
	} {
		t.Run(name, func(t *testing.T) {
			events, end := chainOf(t, 5)
			kept := events[signed-1].Link
			ends := Ends{Written: end, Signed: signed, Valid: func(l Link) bool { return l == kept }}
			events = c.tamper(events, &ends)
			got := verify(events, ends)
			if got.Length != int64(len(events)) || got.Removed != c.removed {
				t.Errorf("got %+v", got)
			}
			if c.position == 0 && got.Broken != nil {
				t.Errorf("got %+v, want a whole chain", got.Broken)
			}
			if c.position != 0 && (got.Broken == nil || got.Broken.Position != c.position || got.Broken.Reason != c.reason) {
				t.Errorf("got %+v, want %s at %d", got.Broken, c.reason, c.position)
			}
		})
	}
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	e := sample()
	e.ParentID, e.DurationMS = new(uuid.New()), new(int64(7))
	if err := e.Normalize(now); err != nil {
		t.Fatal(err)
	}
	text := e.Encode()
	got, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	want := e.After(Link{})
	if link := got.After(Link{}); link != want {
		t.Errorf("got %+v, want %+v", link, want)
	}
	// Other writers escape more; the event is the same.
	escaped, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err = Decode(escaped)
	if link := got.After(Link{}); err != nil || link != want {
		t.Errorf("escaped: got %+v, want %+v: %v", link, want, err)
	}
	for _, text := range []string{"", "{}", "[]", `{"event_id":"x"}`, strings.Replace(string(text), `"event_data":{`, `"event_data":[{`, 1),
		strings.Replace(string(text), "rr-1", `rr\u0000`, 1)} {
		if got, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want it refused", text, got)
		}
	}
}
