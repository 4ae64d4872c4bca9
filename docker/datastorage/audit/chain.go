package audit

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/google/uuid"
)

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// After returns the place of the event in its chain after the given link: the zero
// Link for the first event. The hash is taken over the previous one and the
// canonical form of the event, which must be normalized.
func (e *Event) After(last Link) Link {
	sum := sha256.New()
	sum.Write(last.Hash[:])
	sum.Write(e.Head(make([]byte, 0, 1024)))
	sum.Write(e.Data)
	sum.Write([]byte{'}'})
	next := Link{Position: last.Position + 1, Previous: last.Hash}
	sum.Sum(next.Hash[:0])
	return next
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

// NewVerifier returns a Verifier for a chain that was written up to the link end; the zero
// Link when nothing was written. It goes on behind from, up to which the chain was
// verified before; the zero Link begins at the beginning.
func NewVerifier(from, end Link) *Verifier {
	return &Verifier{end: end, last: from, count: from.Position}
}

// Last returns the link up to which the chain is whole.
func (v *Verifier) Last() Link { return v.last }

// Next looks at the next stored event.
func (v *Verifier) Next(event *Stored) {
	v.count++
	if v.found != nil {
		return
	}
	position := v.last.Position + 1
	broken := func(reason string) { v.found = &Break{position, event.ID, reason} }
	if event.Position < position || event.Position > v.end.Position {
		broken(Unknown)
		return
	}
	if event.Position > position {
		broken(Missing)
		return
	}
	// PostgreSQL gives the data back in its own order of members.
	if event.normalizeData() != nil {
		broken(Changed)
		return
	}
	computed := event.After(v.last)
	if computed != event.Link {
		broken(Changed)
		return
	}
	v.last = computed
}

// SoFar returns how many events there were and the first break among them, or nil.
func (v *Verifier) SoFar() (length int64, broken *Break) { return v.count, v.found }

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

// Verified is how far a chain was verified.
type Verified struct {
	Length   int64  // events seen, those of earlier parts included
	Last     Link   // up to which the chain is whole
	Broken   *Break // the first break, or nil
	Complete bool   // the end of the chain was reached
}
