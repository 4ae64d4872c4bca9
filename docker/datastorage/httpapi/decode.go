package httpapi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/canonical"
)

// decoder reads events as the OpenAPI document describes them. Events do not pass
// through the generated code: its way over maps costs sixty times a body's size, and
// most of the time that a write takes.
type decoder struct {
	fields   map[string]*field
	required []string
	most     int // events in a batch
	longest  int // bytes of an event's data in its canonical form
}

// field is a member of an event, and what the document says of it.
type field struct {
	name   string
	bit    uint64 // its own, in a set of members
	schema *openapi3.Schema
	read   func(r *canonical.Reader, schema *openapi3.Schema, e *audit.Event) error
}

// newDecoder reads the rules from the document. It fails when the document has a member
// that no event has. Longest bounds the data of an event once it is written out, because
// that is what readers and the drain hold in memory.
func newDecoder(spec *openapi3.T, longest int64) (*decoder, error) {
	const batchPath = "/api/v1/audit/events/batch"
	schema := spec.Components.Schemas["EventRequest"].Value
	d := &decoder{fields: map[string]*field{}, required: schema.Required, longest: int(longest)}
	batch := spec.Paths.Value(batchPath).Post.RequestBody.Value.Content["application/json"].Schema.Value
	if batch.MaxItems == nil {
		return nil, errors.New("OpenAPI document: a batch has no maxItems")
	}
	d.most = int(*batch.MaxItems)
	readers := map[string]func(*canonical.Reader, *openapi3.Schema, *audit.Event) error{
		"event_id": func(r *canonical.Reader, _ *openapi3.Schema, e *audit.Event) error {
			id, err := readUUID(r)
			if err == nil && id == uuid.Nil {
				return &audit.InvalidError{Reason: "is the UUID of zeros, which is no event's"}
			}
			e.ID = id
			return err
		},
		"parent_event_id": func(r *canonical.Reader, _ *openapi3.Schema, e *audit.Event) error {
			id, err := readUUID(r)
			e.ParentID = &id
			return err
		},
		"event_timestamp": func(r *canonical.Reader, _ *openapi3.Schema, e *audit.Event) error {
			text, err := readText(r)
			if err == nil && e.Timestamp.UnmarshalText([]byte(text)) != nil {
				return &audit.InvalidError{Reason: "is not an RFC 3339 time such as 2026-01-31T12:00:00Z"}
			}
			return err
		},
		"duration_ms": func(r *canonical.Reader, schema *openapi3.Schema, e *audit.Event) (err error) {
			e.DurationMS, err = readInteger(r, schema)
			return err
		},
		"event_data": func(r *canonical.Reader, _ *openapi3.Schema, e *audit.Event) (err error) {
			if r.Next() != '{' {
				return wrong(r, "must be an object")
			}
			if e.Data, err = r.Value(); err == nil && len(e.Data) > d.longest {
				return &audit.InvalidError{Reason: fmt.Sprintf("has more than %d bytes when it is written out", d.longest)}
			}
			return err
		},
	}
	for _, text := range audit.TextFields {
		readers[text.Name] = func(r *canonical.Reader, schema *openapi3.Schema, e *audit.Event) (err error) {
			*text.Of(e), err = readBounded(r, schema)
			return err
		}
	}
	for name, property := range schema.Properties {
		read, ok := readers[name]
		if !ok {
			return nil, fmt.Errorf("OpenAPI document: EventRequest.%s is no member of an event", name)
		}
		d.fields[name] = &field{name, 1 << len(d.fields), property.Value, read}
	}
	return d, nil
}

// one reads a body that is one event.
func (d *decoder) one(body []byte) ([]audit.Event, error) {
	r := canonical.NewReader(body)
	events := make([]audit.Event, 1)
	if err := d.event(r, &events[0]); err != nil {
		return nil, asked("", err)
	}
	return events, asked("", r.End())
}

// batch reads a body that is an array of events.
func (d *decoder) batch(body []byte) ([]audit.Event, error) {
	r := canonical.NewReader(body)
	if r.Next() != '[' {
		return nil, asked("", wrong(r, "the body must be an array of events"))
	}
	var events []audit.Event
	err := r.Array(func(i int) error {
		if i == d.most {
			return &audit.InvalidError{Reason: fmt.Sprintf("the maximum number of items is %d", d.most)}
		}
		if i == cap(events) {
			// What the first ones took tells how many there are, about.
			events = slices.Grow(events, min(d.most-i, 1+i*(len(body)-r.Offset())/r.Offset()))
		}
		events = append(events, audit.Event{})
		if err := d.event(r, &events[i]); err != nil {
			return asked("["+strconv.Itoa(i)+"]", err)
		}
		return nil
	})
	if err == nil && len(events) == 0 {
		err = &audit.InvalidError{Reason: "the minimum number of items is 1"}
	}
	if err != nil {
		return nil, asked("", err)
	}
	return events, asked("", r.End())
}

// event reads one event, completely, and checks it.
func (d *decoder) event(r *canonical.Reader, e *audit.Event) error {
	if r.Next() != '{' {
		return wrong(r, "must be an object")
	}
	var seen uint64
	err := r.Object(func(name []byte) error {
		f, ok := d.fields[string(name)]
		switch {
		case !ok:
			return &audit.InvalidError{Path: string(name), Reason: "is not a member of an event" + didYouMean(string(name), d.fields)}
		case seen&f.bit != 0:
			return &audit.InvalidError{Path: f.name, Reason: "is given twice"}
		}
		seen |= f.bit
		return within(f.name, f.read(r, f.schema, e))
	})
	if err != nil {
		return err
	}
	for _, name := range d.required {
		if seen&d.fields[name].bit == 0 {
			return &audit.InvalidError{Path: name, Reason: "is required"}
		}
	}
	return nil
}

// within puts the name of a member before what was found in it.
func within(name string, err error) error {
	var invalid *audit.InvalidError
	var value *canonical.ValueError
	switch {
	case errors.As(err, &value):
		return &audit.InvalidError{Path: name + value.Path, Reason: value.Reason}
	case errors.As(err, &invalid):
		return &audit.InvalidError{Path: name, Reason: invalid.Reason}
	}
	return err
}

// asked turns what was found in a body into the problem that answers it.
func asked(prefix string, err error) error {
	var syntax *canonical.SyntaxError
	var invalidEvent *audit.InvalidError
	switch {
	case errors.As(err, &syntax):
		return malformed(syntax)
	case errors.As(err, &invalidEvent):
		path := invalidEvent.Path
		if prefix != "" && path != "" {
			path = "." + path
		}
		return invalid(prefix+path, invalidEvent.Reason)
	}
	return err
}

// wrong is a value of another kind than it must be, or none at all.
func wrong(r *canonical.Reader, reason string) error {
	var syntax *canonical.SyntaxError
	if _, err := r.Value(); errors.As(err, &syntax) {
		return err
	}
	return &audit.InvalidError{Reason: reason}
}

// readText reads a text; null is none.
func readText(r *canonical.Reader) (string, error) {
	if r.Next() != '"' {
		return "", wrong(r, "must be a string")
	}
	return r.Text()
}

// readBounded reads a text that the document bounds.
func readBounded(r *canonical.Reader, schema *openapi3.Schema) (string, error) {
	text, err := readText(r)
	if err != nil {
		return "", err
	}
	switch n := uint64(utf8.RuneCountInString(text)); {
	case n < schema.MinLength:
		return "", &audit.InvalidError{Reason: "must not be empty"}
	case schema.MaxLength != nil && n > *schema.MaxLength:
		return "", &audit.InvalidError{Reason: fmt.Sprintf("has %d characters, the maximum is %d", n, *schema.MaxLength)}
	case len(schema.Enum) > 0 && !slices.Contains(schema.Enum, any(text)):
		return "", &audit.InvalidError{Reason: fmt.Sprintf("must be one of %v", schema.Enum)}
	}
	return text, nil
}

// uuidLength is that of the one form that the document allows.
const uuidLength = 36

func readUUID(r *canonical.Reader) (uuid.UUID, error) {
	text, err := readText(r)
	if err != nil {
		return uuid.Nil, err
	}
	id, err := uuid.Parse(text)
	if err != nil || len(text) != uuidLength {
		return uuid.Nil, &audit.InvalidError{Reason: "is not a UUID"}
	}
	return id, nil
}

// readInteger reads a whole number, in whatever form JSON lets it be written.
func readInteger(r *canonical.Reader, schema *openapi3.Schema) (*int64, error) {
	if c := r.Next(); c != '-' && (c < '0' || c > '9') {
		return nil, wrong(r, "must be an integer")
	}
	text, err := r.Number()
	if err != nil {
		return nil, err
	}
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	switch {
	case strings.Trim(fraction, "0") != "":
		return nil, &audit.InvalidError{Reason: "must be an integer"}
	case err != nil:
		return nil, &audit.InvalidError{Reason: "does not fit into 64 bits"}
	case schema.Min != nil && float64(n) < *schema.Min:
		return nil, &audit.InvalidError{Reason: fmt.Sprintf("must be %v or more", *schema.Min)}
	}
	return &n, nil
}
