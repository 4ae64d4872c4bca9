// Package jsonbody decodes request bodies so that a refusal says where the fault is.
package jsonbody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"kubernaut.ai/e2e/docker/gateway/signal"
)

// maxDepth is far beyond any alert or event, which nest about ten deep.
const maxDepth = 100

// Decode decodes one JSON document into a pointer. Unknown members are ignored, so
// that senders may be newer than the Gateway; a key written twice is refused, because
// two readers of such a body may understand two different things. Every error is a
// *signal.Invalid.
func Decode(body []byte, into any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return &signal.Invalid{Reason: "the body is empty"}
	}
	if err := scan(body); err != nil {
		return err
	}
	err := json.Unmarshal(body, into)
	if err == nil {
		return nil
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return &signal.Invalid{Field: kind.Field, Reason: fmt.Sprintf("%s at byte %d, expected %s", kind.Value, kind.Offset, expected(kind))}
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

// object is an object or array that is open: keys is nil for an array.
type object struct {
	keys  map[string]bool
	value bool // the next string is a value, not a key
}

// scan looks for what json.Unmarshal lets pass: keys written twice, and depth.
func scan(body []byte) error {
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
		switch token {
		case json.Delim('{'), json.Delim('['):
			o := object{}
			if token == json.Delim('{') {
				o.keys = map[string]bool{}
			}
			if open = append(open, o); len(open) > maxDepth {
				return &signal.Invalid{Reason: fmt.Sprintf("JSON nested deeper than %d at byte %d", maxDepth, tokens.InputOffset())}
			}
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		if len(open) == 0 {
			continue
		}
		top := &open[len(open)-1]
		if top.keys == nil {
			continue
		}
		if top.value || token == json.Delim('}') || token == json.Delim(']') {
			top.value = false
			continue
		}
		key, _ := token.(string)
		if top.keys[key] {
			return &signal.Invalid{Reason: fmt.Sprintf("key %.80q written twice at byte %d", key, tokens.InputOffset())}
		}
		top.keys[key] = true
		top.value = true
	}
}
