package panics

import (
	"errors"
	"strings"
	"testing"
)

func TestCatch(t *testing.T) {
	boom := errors.New("boom")
	if err := Catch(func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	err := Catch(func() error { panic("boom") })
	var caught *Error
	if !errors.As(err, &caught) || caught.Value != "boom" || !strings.Contains(err.Error(), "panics_test.go") {
		t.Errorf("got %v", err)
	}
}
