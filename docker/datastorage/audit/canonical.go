package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// maxDepth is far more than events need and far less than what exhausts the
	// stack of PostgreSQL's parser.
	maxDepth = 64
	// maxDigits bounds a number that is written out: every float64 fits, and a
	// few bytes such as 1e100000 do not become a hundred kilobytes.
	maxDigits = 1000

	nulReason = `holds the character \u0000`
)

// canonical returns the one text for a JSON object: members sorted, no white space,
// numbers without exponent. PostgreSQL's jsonb gives other text back (members in
// another order), whose canonical text is the same: that is what lets a chain be
// computed again from the table. Of members with the same name the last counts, as
// in jsonb.
func canonical(data []byte) ([]byte, error) {
	const path = "event_data"
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil || object == nil {
		return nil, &InvalidError{path, "is not a JSON object"}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &InvalidError{path, "is not one JSON object"}
	}
	if _, err := normalize(path, object, 1); err != nil {
		return nil, err
	}
	return encode(object)
}

// normalize rewrites the numbers in a decoded value.
func normalize(path string, value any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, &InvalidError{path, fmt.Sprintf("is nested more than %d levels deep", maxDepth)}
	}
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			at := path + "." + name
			if strings.ContainsRune(name, 0) {
				return nil, &InvalidError{path, "has a member whose name " + nulReason}
			}
			normal, err := normalize(at, member, depth+1)
			if err != nil {
				return nil, err
			}
			v[name] = normal
		}
	case []any:
		for i, element := range v {
			normal, err := normalize(path+"["+strconv.Itoa(i)+"]", element, depth+1)
			if err != nil {
				return nil, err
			}
			v[i] = normal
		}
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, &InvalidError{path, nulReason}
		}
	case json.Number:
		plain, ok := plainNumber(string(v))
		if !ok {
			return nil, &InvalidError{path, fmt.Sprintf("is a number of more than %d digits", maxDigits)}
		}
		return json.Number(plain), nil
	}
	return value, nil
}

// plainNumber writes a JSON number the way PostgreSQL's numeric does: no exponent, no
// leading zeros, no negative zero, and as many decimals as were given.
func plainNumber(text string) (string, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	var exponent int
	if mantissa, after, ok := strings.Cut(strings.ToLower(digits), "e"); ok {
		n, err := strconv.Atoi(after)
		if err != nil || n > maxDigits || n < -maxDigits {
			return "", false
		}
		digits, exponent = mantissa, n
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	switch {
	case exponent > 0:
		fraction += strings.Repeat("0", max(0, exponent-len(fraction)))
		whole, fraction = whole+fraction[:exponent], fraction[exponent:]
	case exponent < 0:
		whole = strings.Repeat("0", max(0, -exponent-len(whole))) + whole
		at := len(whole) + exponent
		whole, fraction = whole[:at], whole[at:]+fraction
	}
	whole = strings.TrimLeft(whole, "0")
	if len(whole)+len(fraction) > maxDigits {
		return "", false
	}
	zero := whole == "" && strings.Trim(fraction, "0") == ""
	if whole == "" {
		whole = "0"
	}
	if fraction != "" {
		whole += "." + fraction
	}
	if negative && !zero {
		whole = "-" + whole
	}
	return whole, true
}

// Encode returns the event as JSON, for keeping it until Decode.
func (e *Event) Encode() ([]byte, error) { return encode(e) }

// Decode returns the normalized event that Encode wrote. It does not look at the
// event's time: what was accepted once stays accepted.
func Decode(text []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("not an event: %w", err)
	}
	if e.ID == uuid.Nil || e.CorrelationID == "" {
		return e, errors.New("not an event: no event_id or no correlation_id")
	}
	if err := e.checkTexts(); err != nil {
		return e, err
	}
	e.Timestamp = e.Timestamp.UTC().Truncate(time.Microsecond)
	data, err := canonical(e.Data)
	e.Data = data
	return e, err
}

// encode writes JSON without replacing <, > and &.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
