// Package config reads a service's YAML configuration strictly: what is not
// understood is refused, with the field, the value and what is allowed, and every
// problem is told at once.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load decodes the YAML file at path over the defaults that into, a pointer to a
// struct, already holds. Keys are the yaml tags of the fields; durations are
// written with a unit. A key that is not known, is written twice or has no value,
// and a value of another type, are errors; all of them are reported together.
func Load(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := Decode(data, into); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// Decode is Load for YAML that is in memory. An empty document leaves the
// defaults as they are.
func Decode(data []byte, into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("%T: not a pointer to a struct", into)
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return syntaxError(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return fmt.Errorf("line %d: a second document; allowed: one", doc.Body.GetToken().Position.Line)
		}
		body = doc.Body
	}
	if body == nil {
		return nil
	}
	var found Problems
	inspect(&found, "", body, target.Type().Elem())
	if err := found.Err(); err != nil {
		return err
	}
	return yaml.NodeToValue(body, into, yaml.Strict())
}

// syntaxError puts a YAML syntax error on one line.
func syntaxError(err error) error {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil {
		position := at.GetToken().Position
		return fmt.Errorf("line %d, column %d: %s", position.Line, position.Column, at.GetMessage())
	}
	return err
}

var durationType = reflect.TypeFor[time.Duration]()

// inspect compares a node with the type that it will be decoded into, so that
// every problem is found with its path. The decoder alone stops at the first, and
// does not say where a bad duration stands.
func inspect(found *Problems, path string, node ast.Node, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case node.Type() == ast.NullType:
		found.Add(path, nil, "a value; leave the key out to get its default")
	case t.Kind() == reflect.Struct:
		entries, ok := node.(ast.MapNode)
		if !ok {
			found.Add(path, node.String(), "a mapping with "+strings.Join(slices.Sorted(maps.Keys(fieldsOf(t))), ", "))
			return
		}
		inspectStruct(found, path, entries, t)
	case t.Kind() == reflect.Slice:
		list, ok := node.(*ast.SequenceNode)
		if !ok {
			found.Add(path, node.String(), "a list")
			return
		}
		for i, value := range list.Values {
			inspect(found, fmt.Sprintf("%s[%d]", path, i), value, t.Elem())
		}
	default:
		if err := yaml.NodeToValue(node, reflect.New(t).Interface(), yaml.Strict()); err != nil {
			found.Add(path, node.String(), allowed(t))
		}
	}
}

// inspectStruct looks at each key of a mapping. Keys written twice never get
// here: the parser refuses them.
func inspectStruct(found *Problems, path string, entries ast.MapNode, t reflect.Type) {
	fields := fieldsOf(t)
	for entry := entries.MapRange(); entry.Next(); {
		key := entry.Key().GetToken().Value
		at := strings.TrimPrefix(path+"."+key, ".")
		field, known := fields[key]
		if !known {
			found.Add(at, nil, "only "+strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			continue
		}
		inspect(found, at, entry.Value(), field)
	}
}

// fieldsOf maps the keys of a struct to the types of its fields.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for field := range t.Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if key != "" && key != "-" {
			fields[key] = field.Type
		}
	}
	return fields
}

// allowed says in words what a scalar of type t may be.
func allowed(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration with a unit, such as 500ms, 10s or 2m"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a " + t.String()
}
