// Package panics turns a panic into an error where nothing else would: in goroutines
// that serve many, where it would end the process and the work of everybody.
package panics

import (
	"fmt"
	"runtime/debug"
)

// Error is a panic that was caught.
type Error struct {
	Value any
	Stack []byte // of the goroutine, where it panicked
}

// Error returns what was panicked with, and the stack.
func (e *Error) Error() string { return fmt.Sprintf("panicked: %v\n%s", e.Value, e.Stack) }

// Catch returns what call returns, or an *Error if it panics.
func Catch(call func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Error{value, debug.Stack()}
		}
	}()
	return call()
}
