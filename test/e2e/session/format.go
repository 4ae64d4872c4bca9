package session

import "github.com/onsi/gomega/format"

// Format sets how Gomega shows values in a failure, for the whole process: errors by their
// text alone, because the fields of some hold passwords and keys, and up to 8000 bytes of
// anything else.
func Format() {
	format.MaxLength = 8000
	format.RegisterCustomFormatter(func(value any) (string, bool) {
		if err, ok := value.(error); ok {
			return err.Error(), true
		}
		return "", false
	})
}
