package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Chains show what was changed inside them. Who owns the database can also cut off a chain's
// end, or remove all of it, and move what audit_chains says. Checkpoints show that: each
// closes the events that were inserted since the one before, by a digest over their hashes,
// and is signed (HMAC-SHA-256) with a key that is in a Secret and never in the database. The
// newest one is also kept outside of the database, so that the last ones cannot be cut off
// either. Beside each checkpoint, the ends of the chains that grew are signed, each by
// itself, so that one chain can be verified without reading everything.
//
// What is not found: the removal of events that no checkpoint closes yet (those of the last
// two intervals); that of a chain by VerifyChain when its signed ends were removed as well
// (verifying everything finds it); events that the database's owner adds, because the
// server would sign them like its own; anything at all when the key is known, or when what
// is kept outside is lost or changed at the same time. With another key, nothing that was
// signed before can be verified.
//
// A month of events is removed by policy with a checkpoint that says so. Chains then have
// gaps; where each begins and ends is signed, and no other gap is taken for one.

// Key signs checkpoints and the ends of chains.
type Key []byte

// Checkpoint closes the events of one month that were inserted since the checkpoint before.
type Checkpoint struct {
	Number   int64     // from 1, without gaps
	At       time.Time // UTC, whole microseconds
	Month    time.Time // its first day, UTC
	Removed  bool      // the month was removed by policy; Events says how many there were
	After    int64     // the events with sequences after this one
	Upto     int64     // up to this one, included
	Events   int64     // how many
	Digest   Hash      // over their sequences and hashes, see Extend
	Previous Hash      // the MAC of the checkpoint before; zero for the first
	MAC      Hash
}

// Sign returns what a checkpoint's MAC must be.
func (k Key) Sign(c *Checkpoint) Hash {
	return k.mac("checkpoint %d %d %s %t %d %d %d %s %s", c.Number, c.At.UnixMicro(), c.Month.Format(time.DateOnly), c.Removed,
		c.After, c.Upto, c.Events, c.Digest, c.Previous)
}

// SignEnd returns what the MAC of a chain's end must be.
func (k Key) SignEnd(correlation string, end Link) Hash {
	return k.mac("end %d %s %s", end.Position, end.Hash, correlation)
}

// SignRun returns what the MAC of a part of a chain must be that was removed by policy.
func (k Key) SignRun(correlation string, r Run) Hash {
	return k.mac("removed %d %d %s %s", r.First, r.Last.Position, r.Last.Hash, correlation)
}

func (k Key) mac(format string, args ...any) (sum Hash) {
	mac := hmac.New(sha256.New, k)
	fmt.Fprintf(mac, format, args...)
	mac.Sum(sum[:0])
	return sum
}

// Extend returns the digest over one event more.
func (h Hash) Extend(sequence int64, event Hash) Hash {
	var text [8 + 2*sha256.Size]byte
	copy(text[:], h[:])
	binary.BigEndian.PutUint64(text[sha256.Size:], uint64(sequence))
	copy(text[sha256.Size+8:], event[:])
	return sha256.Sum256(text[:])
}

// Place is how far everything was verified.
type Place struct {
	Checkpoint int64 // up to this one, included, all is whole
	Total      int64 // events in all
	Events     int64 // of them, those of the next checkpoint
	Sequence   int64 // of the last one of these
	Digest     Hash  // over these
}

// Report is what was found of all that is signed.
type Report struct {
	Place
	Broken   *Break // its position is the number of the checkpoint; nil when none was found
	Complete bool   // the newest checkpoint was reached
}
