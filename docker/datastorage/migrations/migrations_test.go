package migrations

import (
	"io/fs"
	"strconv"
	"strings"
	"testing"
)

func TestVersionIsTheLastFile(t *testing.T) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("got %v, %v", names, err)
	}
	number, _, _ := strings.Cut(names[len(names)-1], "_")
	if last, err := strconv.ParseInt(number, 10, 64); err != nil || last != Version {
		t.Errorf("the last file is %s, Version is %d", names[len(names)-1], Version)
	}
}
