// Package jsonbody decodes request bodies so that a refusal says where the fault is.
package jsonbody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"kubernaut.ai/e2e/docker/gateway/signal"
)

const (
	// maxDepth is far beyond any alert or event, which nest about ten deep.
	maxDepth = 100
	// maxMembers is how many members one object may have. The largest that people send
	// are labels, of which an alert has some twenty; each member costs some hundred
	// bytes of memory while a body is read.
	maxMembers = 1000
)

// Arrays says what is known of the arrays of the outermost object, by their keys.
type Arrays map[string]Array

// Array is one of them.
type Array struct {
	// Most is how many elements it may have; any number if 0, as for what is not kept.
	Most int
	// Of is a value of the type that its elements are decoded into later, by Part.
	Of any
}

// Decode decodes one JSON document into a pointer to a struct. Unknown members are
// ignored, so that senders may be newer than the Gateway; a key written twice is
// refused, because two readers of such a body may understand two different things.
// A member that the struct knows is the same one in any case, as for the decoder. An
// array with too many elements is refused before memory is spent on it. Every error is
// a *signal.Invalid.
func Decode(body []byte, into any, arrays Arrays) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return &signal.Invalid{Reason: "the body is empty"}
	}
	if err := scan(body, reflect.TypeOf(into), arrays); err != nil {
		return err
	}
	return unmarshal(body, into, "")
}

// Part decodes an element of an array that Decode was told of. Its errors are those of
// Decode, with the path of the element before the field.
func Part(part json.RawMessage, into any, path string) error { return unmarshal(part, into, path) }

// unmarshal decodes and words what is wrong.
func unmarshal(body []byte, into any, path string) error {
	err := json.Unmarshal(body, into)
	if err == nil {
		return nil
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		field := strings.Trim(path+"."+kind.Field, ".")
		return &signal.Invalid{Field: field, Reason: fmt.Sprintf("%s at byte %d, expected %s", kind.Value, kind.Offset, expected(kind))}
	}
	return malformed(err, len(body))
}

// expected says in JSON's words what a Go type is filled from.
func expected(err *json.UnmarshalTypeError) string {
	switch kind := err.Type.Kind().String(); kind {
	case "struct", "map":
		return "an object"
	case "slice":
		return "an array"
	case "bool":
		return "true or false"
	case "string":
		return "a string"
	default:
		return "a number"
	}
}

// malformed tells a syntax error with its position.
func malformed(err error, length int) error {
	var syntax *json.SyntaxError
	at := int64(length)
	reason := "unexpected end of JSON input"
	if errors.As(err, &syntax) {
		at, reason = syntax.Offset, strings.TrimPrefix(syntax.Error(), "json: ")
	}
	return &signal.Invalid{Reason: fmt.Sprintf("malformed JSON at byte %d: %s", at, reason)}
}

// object is an object or array that is open.
type object struct {
	keys  map[string]bool // nil for an array
	known reflect.Type    // what it is decoded into, nil if into nothing or a map
	value reflect.Type    // what the next value is decoded into
	next  bool            // the next token is a value, not a key
	limit int             // how many elements an array may have; 0 for any number
	count int
	name  string // of the array that has a limit
}

// member returns the key under which a member is compared with others: members of a
// struct are matched in any case. It also returns the type of the member's value.
func (o *object) member(key string) (string, reflect.Type) {
	if o.known == nil {
		return key, nil
	}
	for field := range o.known.Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); strings.EqualFold(name, key) {
			return name, field.Type
		}
	}
	return key, nil
}

// inside returns the type of an open value's members or elements.
func inside(t reflect.Type) reflect.Type {
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

// scan looks for what json.Unmarshal lets pass: keys written twice, depth and size.
func scan(body []byte, into reflect.Type, arrays Arrays) error {
	tokens := json.NewDecoder(bytes.NewReader(body))
	tokens.UseNumber()
	var open []object
	for {
		token, err := tokens.Token()
		if err == io.EOF && len(open) == 0 {
			return nil
		}
		if err != nil {
			return malformed(err, len(body))
		}
		begins := token == json.Delim('{') || token == json.Delim('[')
		ends := token == json.Delim('}') || token == json.Delim(']')
		if ends {
			open = open[:len(open)-1]
			continue
		}
		at, name := into, ""
		if len(open) > 0 {
			top := &open[len(open)-1]
			if top.keys != nil && !top.next {
				if err := top.key(token, tokens.InputOffset()); err != nil {
					return err
				}
				continue
			}
			if top.count++; top.limit > 0 && top.count > top.limit {
				return &signal.Invalid{Field: top.name, Reason: fmt.Sprintf("more than %d in one body; let the sender send fewer at once", top.limit)}
			}
			at, name, top.next = top.value, top.name, false
		}
		if !begins {
			continue
		}
		o := object{known: inside(at), value: at}
		if token == json.Delim('{') {
			o.keys = map[string]bool{}
		} else if array, told := arrays[name]; told && len(open) == 1 {
			o.name, o.limit, o.value = name, array.Most, reflect.TypeOf(array.Of)
		}
		if open = append(open, o); len(open) > maxDepth {
			return &signal.Invalid{Reason: fmt.Sprintf("JSON nested deeper than %d at byte %d", maxDepth, tokens.InputOffset())}
		}
	}
}

// key takes the key of the next member.
func (o *object) key(token json.Token, offset int64) error {
	written, _ := token.(string)
	key, value := o.member(written)
	if o.keys[key] {
		return &signal.Invalid{Reason: fmt.Sprintf("key %.80q written twice at byte %d", written, offset)}
	}
	if len(o.keys) == maxMembers {
		return &signal.Invalid{Reason: fmt.Sprintf("an object with more than %d members at byte %d", maxMembers, offset)}
	}
	o.keys[key] = true
	o.name, o.value, o.next = key, value, true
	return nil
}
