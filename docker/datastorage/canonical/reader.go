// Package canonical reads JSON and writes its one canonical form: members sorted, no
// white space, numbers without exponent, of members with the same name the last. What
// PostgreSQL's jsonb gives back has other text (members in another order) and the same
// canonical form, which is what lets a chain be computed again from the table.
//
// It goes over the text once and keeps no tree of it: what a text costs is a small
// multiple of its length, whatever its shape.
package canonical

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	// maxDepth is far more than events need and far less than what exhausts the
	// stack of PostgreSQL's parser.
	maxDepth = 64
	// maxValues bounds what one value costs PostgreSQL, which handles each value in it
	// by itself. A Kubernetes object of 250 KiB has about 10,000.
	maxValues = 100_000
	// maxDigits bounds a number that is written out: every float64 fits, and a few
	// bytes such as 1e100000 do not become a hundred kilobytes.
	maxDigits = 1000
	// freeGrowth is by how much a value may grow when its numbers are written out,
	// beyond its own length: a few numbers as large as they may be.
	freeGrowth = 4096

	nulReason = `holds the character \u0000`
)

// SyntaxError is a text that is not JSON.
type SyntaxError struct {
	Offset int // of the byte at fault, from 0
	Reason string
}

// Error names the place.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s, at byte %d", e.Reason, e.Offset) }

// ValueError is JSON that cannot be taken as it is.
type ValueError struct {
	Path   string // of the value at fault, such as .items[3]; "" is the whole value
	Reason string
}

// Error names the value and the reason.
func (e *ValueError) Error() string { return e.Path + ": " + e.Reason }

// Reader reads one JSON text from its beginning to its end. What it returns is valid for
// ever: nothing is read or written twice in the same place. It is not safe for
// concurrent use.
type Reader struct {
	in []byte
	at int

	out     []byte   // canonical text
	names   []byte   // decoded names of the members of the objects that are open
	members []member // of the objects that are open
	scratch []byte

	values, growth int // of the value in hand
}

// member is where a member of an open object stands.
type member struct {
	nameAt, nameEnd int32 // in names
	at, end         int32 // in out: name, colon and value
}

// NewReader returns a Reader of text, which must not change.
func NewReader(text []byte) *Reader { return &Reader{in: text} }

// Offset returns how many bytes were read.
func (r *Reader) Offset() int { return r.at }

func (r *Reader) syntax(reason string) error { return &SyntaxError{r.at, reason} }

// Next returns the first byte of the next value or mark without reading it; 0 at the
// end.
func (r *Reader) Next() byte {
	for r.at < len(r.in) {
		switch c := r.in[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// skip reads the mark c.
func (r *Reader) skip(c byte) error {
	if r.Next() != c || r.at == len(r.in) {
		return r.unexpected()
	}
	r.at++
	return nil
}

func (r *Reader) unexpected() error {
	if r.Next() == 0 && r.at == len(r.in) {
		return r.syntax("unexpected end")
	}
	return r.syntax(fmt.Sprintf("unexpected character %q", r.in[r.at]))
}

// End returns nil when nothing follows.
func (r *Reader) End() error {
	if r.Next(); r.at < len(r.in) {
		return r.unexpected()
	}
	return nil
}

// Object reads an object. For each member, fn must read the value; the name is valid until
// it does.
func (r *Reader) Object(fn func(name []byte) error) error {
	return r.list('{', '}', func(int) error {
		r.Next()
		mark := len(r.names)
		if err := r.text(&r.names); err != nil {
			return err
		}
		name := r.names[mark:]
		r.names = r.names[:mark]
		if err := r.skip(':'); err != nil {
			return err
		}
		return fn(name)
	})
}

// Array reads an array. For each element, fn must read it.
func (r *Reader) Array(fn func(i int) error) error { return r.list('[', ']', fn) }

func (r *Reader) list(open, end byte, fn func(i int) error) error {
	if err := r.skip(open); err != nil {
		return err
	}
	if r.Next() == end {
		r.at++
		return nil
	}
	for i := 0; ; i++ {
		if err := fn(i); err != nil {
			return err
		}
		switch r.Next() {
		case ',':
			r.at++
		case end:
			r.at++
			return nil
		default:
			return r.unexpected()
		}
	}
}

// Text reads a string.
func (r *Reader) Text() (string, error) {
	r.Next()
	mark := len(r.scratch)
	if err := r.text(&r.scratch); err != nil {
		return "", err
	}
	text := string(r.scratch[mark:])
	r.scratch = r.scratch[:mark]
	return text, nil
}

// Value reads a value of any kind and returns its canonical form. A *ValueError tells
// what cannot be taken in it.
func (r *Reader) Value() ([]byte, error) {
	if r.out == nil {
		r.out = make([]byte, 0, len(r.in)-r.at+1)
	}
	at, begin := len(r.out), r.at
	r.values, r.growth = 0, freeGrowth
	if err := r.value(1, begin); err != nil {
		return nil, err
	}
	return r.out[at:len(r.out):len(r.out)], nil
}

// room makes the canonical text's place larger at once than append would, step by step:
// what is no UTF-8 takes three times as much.
func (r *Reader) room() {
	if left := len(r.in) - r.at; cap(r.out)-len(r.out) < min(left, maxDigits) {
		r.out = slices.Grow(r.out, 3*left+maxDigits)
	}
}

// inside puts where something was found before the path of an error.
func inside(err error, name string, index int) error {
	at, ok := err.(*ValueError) //nolint:errorlint // made by this package and never wrapped
	switch {
	case !ok:
	case index >= 0:
		at.Path = "[" + strconv.Itoa(index) + "]" + at.Path
	default:
		at.Path = "." + name + at.Path
	}
	return err
}

// value writes a value's canonical form. Begin is where the outermost one began.
func (r *Reader) value(depth, begin int) error {
	c := r.Next()
	r.room()
	if depth > maxDepth {
		return &ValueError{Reason: fmt.Sprintf("is nested more than %d levels deep", maxDepth)}
	}
	if r.values++; r.values > maxValues {
		return &ValueError{Reason: fmt.Sprintf("is one of more than %d values", maxValues)}
	}
	switch {
	case c == '{':
		return r.object(depth, begin)
	case c == '[':
		r.out = append(r.out, '[')
		err := r.Array(func(i int) error {
			if i > 0 {
				r.out = append(r.out, ',')
			}
			if err := r.value(depth+1, begin); err != nil {
				return inside(err, "", i)
			}
			return nil
		})
		r.out = append(r.out, ']')
		return err
	case c == '"':
		if r.plain() {
			return nil
		}
		return r.quoted()
	case c == '-' || c >= '0' && c <= '9':
		return r.number(begin)
	default:
		for _, word := range []string{"true", "false", "null"} {
			if bytes.HasPrefix(r.in[r.at:], []byte(word)) {
				r.at += len(word)
				r.out = append(r.out, word...)
				return nil
			}
		}
		return r.unexpected()
	}
}

// object writes an object: its members as they come, sorted afterwards if need be.
func (r *Reader) object(depth, begin int) error {
	r.out = append(r.out, '{')
	first, names, sorted := len(r.members), len(r.names), true
	err := r.list('{', '}', func(i int) error {
		m := member{nameAt: int32(len(r.names)), at: int32(len(r.out))}
		r.Next()
		if err := r.text(&r.names); err != nil {
			return err
		}
		m.nameEnd = int32(len(r.names))
		name := r.names[m.nameAt:m.nameEnd]
		if bytes.IndexByte(name, 0) >= 0 {
			return &ValueError{Reason: "has a member whose name " + nulReason}
		}
		if i > 0 {
			last := r.members[len(r.members)-1]
			sorted = sorted && bytes.Compare(r.names[last.nameAt:last.nameEnd], name) < 0
		}
		r.out = append(AppendString(r.out, name), ':')
		if err := r.skip(':'); err != nil {
			return err
		}
		if err := r.value(depth+1, begin); err != nil {
			return inside(err, string(r.names[m.nameAt:m.nameEnd]), -1)
		}
		m.end = int32(len(r.out))
		r.out = append(r.out, ',')
		if len(r.members) == cap(r.members) {
			// Twice as many: append would grow by less each time, and copy more often.
			r.members = slices.Grow(r.members, max(16, len(r.members)))
		}
		r.members = append(r.members, m)
		return nil
	})
	if err != nil {
		return err
	}
	if !sorted {
		r.sort(r.members[first:])
	}
	if len(r.members) > first {
		r.out = r.out[:len(r.out)-1] // the last comma
	}
	r.out = append(r.out, '}')
	r.members, r.names = r.members[:first], r.names[:names]
	return nil
}

// sort brings the members at the end of out into their order; of those with the same
// name it leaves the last.
func (r *Reader) sort(members []member) {
	at, mark := members[0].at, len(r.scratch)
	name := func(m member) []byte { return r.names[m.nameAt:m.nameEnd] }
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(bytes.Compare(name(a), name(b)), cmp.Compare(a.at, b.at))
	})
	r.scratch = append(slices.Grow(r.scratch, len(r.out)-int(at)), r.out[at:]...)
	was := r.scratch[mark:]
	r.out = r.out[:at]
	for i, m := range members {
		if i+1 < len(members) && bytes.Equal(name(m), name(members[i+1])) {
			continue
		}
		r.out = append(append(r.out, was[m.at-at:m.end-at]...), ',')
	}
	r.scratch = r.scratch[:mark]
}

// plain copies a string that is canonical as it stands; it reports whether it was one.
func (r *Reader) plain() bool {
	for i := r.at + 1; i < len(r.in); i++ {
		switch c := r.in[i]; {
		case c == '"':
			r.out = append(r.out, r.in[r.at:i+1]...)
			r.at = i + 1
			return true
		case c < ' ' || c == '\\' || c >= utf8.RuneSelf:
			return false
		}
	}
	return false
}
