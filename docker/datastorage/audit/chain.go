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

// Whole reports whether the event is the one that its hash was computed of. The data become
// canonical: PostgreSQL gives them back in its own order of members.
func (e *Stored) Whole() bool {
	return e.normalizeData() == nil && e.After(Link{Position: e.Position - 1, Hash: e.Previous}) == e.Link
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

// Ends is what is known of a chain beside its events.
type Ends struct {
	Written Link            // its end as audit_chains has it; the zero Link when nothing was written
	Signed  int64           // the position of the newest end that was signed; 0 when none was
	Valid   func(Link) bool // whether a link is the end that was signed
	Removed []Run           // which parts were removed by policy, in their order
}

// Run is a part of a chain without a gap.
type Run struct {
	First int64 // the position of its first event
	Last  Link  // its last event, whose Previous is not set
}

// Verifier computes a chain again from the events that are stored. Feed it each of
// them in the order of their positions, then ask for the Break.
type Verifier struct {
	ends Ends
	from Link // verified before, and the event at it not yet seen
	at   Verified
}

// NewVerifier returns a Verifier that goes on behind from, up to which the chain was
// verified before and the event at which is fed again; the zero Verified begins at the
// beginning.
func NewVerifier(from Verified, ends Ends) *Verifier {
	return &Verifier{ends: ends, from: from.Last, at: Verified{Length: from.Last.Position - from.Removed, Last: from.Last, Removed: from.Removed}}
}

// Next looks at the next stored event.
func (v *Verifier) Next(event *Stored) {
	if v.from.Position > 0 && event.Position == v.from.Position && event.Hash == v.from.Hash {
		v.from = Link{}
		return
	}
	v.at.Length++
	if v.at.Broken != nil {
		return
	}
	position := v.at.Last.Position + 1
	broken := func(reason string) { v.at.Broken = &Break{position, event.ID, reason} }
	if event.Position < position || event.Position > v.ends.Written.Position {
		broken(Unknown)
		return
	}
	if event.Position > position {
		removed := v.gap(event.Position - 1)
		if position = v.at.Last.Position + 1; !removed {
			broken(Missing)
			return
		}
	}
	if event.Previous != v.at.Last.Hash || !event.Whole() || event.Position == v.ends.Signed && !v.ends.Valid(event.Link) {
		broken(Changed)
		return
	}
	v.at.Last = event.Link
}

// gap reports whether all events up to a position were removed by policy, and goes behind
// those that were.
func (v *Verifier) gap(upto int64) bool {
	for ; len(v.ends.Removed) > 0; v.ends.Removed = v.ends.Removed[1:] {
		run := v.ends.Removed[0]
		if run.First <= v.at.Last.Position {
			continue // verified before
		}
		if run.First > v.at.Last.Position+1 || run.Last.Position > upto {
			break
		}
		v.at.Removed += run.Last.Position - v.at.Last.Position
		v.at.Last = run.Last
	}
	return v.at.Last.Position == upto
}

// SoFar returns what was found, when more events follow.
func (v *Verifier) SoFar() Verified { return v.at }

// Result returns what was found, when no event follows.
func (v *Verifier) Result() Verified {
	v.at.Complete = true
	written := v.ends.Written
	switch {
	case v.at.Broken != nil:
	case !v.gap(max(written.Position, v.ends.Signed)):
		v.at.Broken = &Break{Position: v.at.Last.Position + 1, Reason: Missing}
	case v.at.Last.Hash != written.Hash:
		v.at.Broken = &Break{Position: v.at.Last.Position, Reason: Changed}
	}
	return v.at
}

// Verified is how far a chain was verified.
type Verified struct {
	Length   int64  // events seen, those of earlier parts included
	Removed  int64  // events that are gone by policy
	Last     Link   // up to which the chain is whole
	Broken   *Break // the first break, or nil
	Complete bool   // the end of the chain was reached
}
