package config

import (
	"errors"
	"fmt"
)

// Problems collects what is wrong with a configuration, so that one start tells
// all of it. The zero value is ready to use.
type Problems struct {
	found []error
}

// Add records that field has a value that is not allowed. A nil value is left out
// of the message.
func (p *Problems) Add(field string, value any, allowed string) {
	if field == "" {
		field = "document"
	}
	switch v := value.(type) {
	case nil:
		p.found = append(p.found, fmt.Errorf("%s: not allowed; allowed: %s", field, allowed))
	case string:
		p.found = append(p.found, fmt.Errorf("%s: %q not allowed; allowed: %s", field, v, allowed))
	default:
		p.found = append(p.found, fmt.Errorf("%s: %v not allowed; allowed: %s", field, v, allowed))
	}
}

// Check records a problem unless ok.
func (p *Problems) Check(ok bool, field string, value any, allowed string) {
	if !ok {
		p.Add(field, value, allowed)
	}
}

// Err returns every recorded problem in one error, or nil.
func (p *Problems) Err() error {
	return errors.Join(p.found...)
}
