package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/google/uuid"
)

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// After returns the place of the event in its chain after the given link: the zero
// Link for the first event. The hash is taken over the previous one and the
// canonical form of the event, which must be normalized.
func (e *Event) After(last Link) (Link, error) {
	form, err := encode(e)
	if err != nil {
		return Link{}, fmt.Errorf("event %s: canonical form: %w", e.ID, err)
	}
	sum := sha256.New()
	sum.Write(last.Hash[:])
	sum.Write(form)
	next := Link{Position: last.Position + 1, Previous: last.Hash}
	sum.Sum(next.Hash[:0])
	return next, nil
}

// Reasons why a chain is broken.
const (
	Changed = "changed" // the event is not the one that was written
	Missing = "missing" // an event that stood here is gone
	Unknown = "unknown" // an event stands here that was not written by this service
)

// Break is the first place at which a chain is not what was written.
type Break struct {
	Position int64
	EventID  uuid.UUID // the event found there; zero when there is none
	Reason   string    // Changed, Missing or Unknown
}

// Verifier computes a chain again from the events that are stored. Feed it each of
// them in the order of their positions, then ask for the Break.
type Verifier struct {
	end   Link  // the end of the chain as it was written
	last  Link  // the link computed last
	count int64 // events seen
	found *Break
}

// NewVerifier returns a Verifier for a chain that was written up to the given link;
// the zero Link when nothing was written.
func NewVerifier(end Link) *Verifier { return &Verifier{end: end} }

// Next looks at the next stored event.
func (v *Verifier) Next(event *Stored) error {
	v.count++
	if v.found != nil {
		return nil
	}
	position := v.last.Position + 1
	broken := func(reason string) { v.found = &Break{position, event.ID, reason} }
	if event.Position < position || event.Position > v.end.Position {
		broken(Unknown)
		return nil
	}
	if event.Position > position {
		broken(Missing)
		return nil
	}
	// PostgreSQL gives the data back in its own order of members.
	data, err := canonical(event.Data)
	if err != nil {
		broken(Changed)
		return nil
	}
	event.Data = data
	computed, err := event.After(v.last)
	if err != nil {
		return err
	}
	if computed != event.Link {
		broken(Changed)
		return nil
	}
	v.last = computed
	return nil
}

// Result returns how many events are stored and the first break, nil for a chain
// that is whole.
func (v *Verifier) Result() (length int64, broken *Break) {
	switch {
	case v.found != nil:
	case v.last.Position < v.end.Position:
		v.found = &Break{Position: v.last.Position + 1, Reason: Missing}
	case v.last.Hash != v.end.Hash:
		v.found = &Break{Position: v.last.Position, Reason: Changed}
	}
	return v.count, v.found
}
