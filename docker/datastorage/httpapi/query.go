package httpapi

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"kubernaut.ai/e2e/docker/datastorage/api/server"
	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/postgres"
)

const defaultLimit = 100

// queryOf reads the parameters of a listing.
func queryOf(params server.ListEventsParams, now time.Time) (postgres.Query, error) {
	q := postgres.Query{
		CorrelationID: value(params.CorrelationID), Type: value(params.EventType), Category: value(params.EventCategory),
		Severity: value(params.Severity), Limit: defaultLimit,
	}
	if params.EventOutcome != nil {
		q.Outcome = string(*params.EventOutcome)
	}
	for name, text := range map[string]string{
		"correlation_id": q.CorrelationID, "event_type": q.Type, "event_category": q.Category, "severity": q.Severity,
	} {
		if err := checkText(name, text); err != nil {
			return q, err
		}
	}
	if params.Limit != nil {
		q.Limit = *params.Limit
	}
	if params.Offset != nil {
		q.Offset = *params.Offset
	}
	var err error
	if q.Since, _, err = parseTime("since", value(params.Since), now); err != nil {
		return q, err
	}
	var day bool
	if q.Until, day, err = parseTime("until", value(params.Until), now); err != nil {
		return q, err
	}
	if day {
		q.Until = q.Until.AddDate(0, 0, 1).Add(-time.Microsecond)
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && q.Since.After(q.Until) {
		return q, invalid("since", "lies after until")
	}
	if params.Cursor != nil {
		if q.Offset != 0 {
			return q, invalid("cursor", "cannot be combined with an offset")
		}
		cursor, err := decodeCursor(*params.Cursor)
		if err != nil {
			return q, invalid("cursor", "is not a nextCursor of this service")
		}
		q.After = &cursor
	}
	return q, nil
}

// checkText refuses what PostgreSQL cannot compare.
func checkText(name, text string) error {
	if strings.ContainsRune(text, 0) {
		return invalid(name, `holds the character \u0000`)
	}
	if !utf8.ValidString(text) {
		return invalid(name, "is not UTF-8")
	}
	return nil
}

// maxSpan keeps a time span far from where it would overflow.
const maxSpan = 1_000_000

// parseSpan reads a number of seconds, minutes, hours or days back from now.
func parseSpan(text string, now time.Time) (at time.Time, ok bool) {
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	if err != nil || n > maxSpan {
		return time.Time{}, false
	}
	switch text[len(text)-1] {
	case 's':
		return now.Add(-time.Duration(n) * time.Second), true
	case 'm':
		return now.Add(-time.Duration(n) * time.Minute), true
	case 'h':
		return now.Add(-time.Duration(n) * time.Hour), true
	case 'd':
		return now.AddDate(0, 0, -int(n)), true
	}
	return time.Time{}, false
}

// The years that PostgreSQL's dates and these queries have in common.
const (
	firstYear = 1
	lastYear  = 9999
)

// parseTime reads an RFC 3339 time, a date, or a time span back from now; day tells
// that it was a date. No text is the zero time.
func parseTime(name, text string, now time.Time) (at time.Time, day bool, err error) {
	if text == "" {
		return time.Time{}, false, nil
	}
	if at, ok := parseSpan(text, now); ok {
		return at, false, nil
	}
	if at, err := time.Parse(time.DateOnly, text); err == nil && at.Year() >= firstYear {
		return at, true, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.UTC().Year() >= firstYear && at.UTC().Year() <= lastYear {
		return at.UTC(), false, nil
	}
	return time.Time{}, false, invalid(name, "is none of: an RFC 3339 time, a date such as 2026-01-31, a time span such as 24h or 7d")
}

// encodeCursor writes a place in the listing; senders need not understand it.
func encodeCursor(c postgres.Cursor) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%d", c.Timestamp.UnixMicro(), c.Sequence))
}

func decodeCursor(text string) (postgres.Cursor, error) {
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return postgres.Cursor{}, err
	}
	before, after, _ := strings.Cut(string(plain), ".")
	micros, err := strconv.ParseInt(before, 10, 64)
	if err != nil {
		return postgres.Cursor{}, err
	}
	at := time.UnixMicro(micros).UTC()
	if at.Year() < firstYear || at.Year() > lastYear {
		return postgres.Cursor{}, fmt.Errorf("year %d", at.Year())
	}
	sequence, err := strconv.ParseInt(after, 10, 64)
	if err != nil {
		return postgres.Cursor{}, err
	}
	return postgres.Cursor{Timestamp: at, Sequence: sequence}, nil
}

// How far something was verified is written so; senders need not understand it. No text is
// the beginning.
const (
	verifiedFormat = "%d.%d.%x"       // position, removed, hash
	placeFormat    = "%d.%d.%d.%d.%x" // the fields of an audit.Place
)

func encodeVerified(v audit.Verified) string {
	return encoded(verifiedFormat, v.Last.Position, v.Removed, v.Last.Hash[:])
}

func decodeVerified(text string) (v audit.Verified, err error) {
	err = decode(text, verifiedFormat, &v.Last.Hash, &v.Last.Position, &v.Removed)
	return v, err
}

func encodePlace(p audit.Place) string {
	return encoded(placeFormat, p.Checkpoint, p.Total, p.Events, p.Sequence, p.Digest[:])
}

func decodePlace(text string) (p audit.Place, err error) {
	err = decode(text, placeFormat, &p.Digest, &p.Checkpoint, &p.Total, &p.Events, &p.Sequence)
	return p, err
}

func encoded(format string, values ...any) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, format, values...))
}

// decode reads numbers, none of them negative, and a hash.
func decode(text, format string, hash *audit.Hash, numbers ...any) error {
	if text == "" {
		return nil
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	var sum []byte
	if _, err := fmt.Sscanf(string(plain), format, append(slices.Clone(numbers), &sum)...); err != nil {
		return err
	}
	for _, number := range numbers {
		if *number.(*int64) < 0 {
			return errors.New("a negative number")
		}
	}
	if copy(hash[:], sum) != len(hash) || len(sum) != len(hash) {
		return fmt.Errorf("a hash of %d bytes", len(sum))
	}
	return nil
}
