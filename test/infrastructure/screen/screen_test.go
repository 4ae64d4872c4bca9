package screen_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"kubernaut.ai/e2e/test/infrastructure/screen"
)

// terminal shows what is written to it as one of that many columns does.
type terminal struct {
	columns int
	rows    []string
	at      int // column of the cursor, in the last row
}

func (t *terminal) Write(p []byte) (int, error) {
	text := string(p)
	for len(text) > 0 {
		if len(t.rows) == 0 {
			t.rows = []string{""}
		}
		row := &t.rows[len(t.rows)-1]
		if rest, ok := strings.CutPrefix(text, "\x1b[K"); ok {
			*row, text = string([]rune(*row)[:t.at]), rest
			continue
		}
		r, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		switch r {
		case '\n':
			t.rows, t.at = append(t.rows, ""), 0
		case '\r':
			t.at = 0
		default:
			if t.at == t.columns {
				t.rows, t.at = append(t.rows, ""), 0
				row = &t.rows[len(t.rows)-1]
			}
			runes := []rune(*row)
			*row = string(append(runes[:t.at:t.at], append([]rune{r}, runes[min(t.at+1, len(runes)):]...)...))
			t.at++
		}
	}
	return len(p), nil
}

func TestTheLiveLineLeavesNoRows(t *testing.T) {
	running := []screen.Item{
		{Name: "build/gateway 12s"},
		{Name: "build/datastorage 12s", Status: "compiling"},
		{Name: "build/größe 12s", Status: "trying once more: exit 1:\nline two\nline three"},
		{Name: "build/kind-node 12s", Status: "compiling k8s.io/kubernetes/pkg/controlplane/apiserver\ttwo\rthree"},
		{Name: "build/suite-gateway 12s"},
	}
	for _, columns := range []int{1, 2, 10, 40, 80, 200} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			shown := &terminal{columns: columns}
			s := screen.New(shown, func() int { return columns })
			for n := range running {
				for range 4 {
					s.Draw(running[:n+1])
				}
				s.Print("x", running[:n+1])
			}
			s.Print("end", nil)
			if want := []string{"x", "x", "x", "x", "x", "end", ""}; !slices.Equal(shown.rows, want) && columns > 2 {
				t.Errorf("got %q, want %q", shown.rows, want)
			} else if columns <= 2 && strings.Join(shown.rows, "") != "xxxxxend" {
				t.Errorf("got %q", shown.rows)
			}
		})
	}
}

func TestFit(t *testing.T) {
	one := []screen.Item{{Name: "build/node 5s", Status: "compiling\nmore"}}
	three := []screen.Item{{Name: "build/a 5s", Status: "status of a"}, {Name: "build/b 5s", Status: "status of b"}, {Name: "build/c 5s"}}
	tests := []struct {
		name    string
		running []screen.Item
		columns int
		want    string
	}{
		{"names with what they are at", one, 80, "… build/node 5s (compiling)"},
		{"a status that is cut", []screen.Item{{Name: "build/node 5s", Status: "compiling the API server"}}, 30, "… build/node 5s (compiling t…)"},
		{"a status without room", one, 20, "… build/node 5s"},
		{"names before statuses", three, 40, "… build/a 5s  build/b 5s  build/c 5s"},
		{"the first status before the others", three, 52, "… build/a 5s (status of a)  build/b 5s  build/c 5s"},
		{"as many names as fit", three, 20, "… build/a 5s  +2"},
		{"a name that is cut", one, 10, "… build/n…"},
		{"letters, not bytes", []screen.Item{{Name: "größe"}}, 7, "… größe"},
		{"nothing of no width", one, 0, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := screen.Fit(test.running, test.columns); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestPlainOutputHasWholeLinesOnly(t *testing.T) {
	var out strings.Builder
	s := screen.On(&out, false)
	s.Draw([]screen.Item{{Name: "build/a"}})
	s.Print("done", []screen.Item{{Name: "build/a"}})
	if out.String() != "done\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestWhatIsNoTerminal(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if screen.Terminal(file, func(string) string { return "xterm" }) {
		t.Error("a file is taken for a terminal")
	}
}

func TestLines(t *testing.T) {
	tests := []struct {
		name   string
		writes []string
		want   []string
	}{
		{"whole lines", []string{"a\nb\n"}, []string{"a", "b"}},
		{"a line in pieces", []string{"a", "b", "\nc\n"}, []string{"ab", "c"}},
		{"a last line without an end", []string{"a\nb"}, []string{"a", "b"}},
		{"empty lines", []string{"\n\na\n"}, []string{"", "", "a"}},
		{"a line that is written over", []string{"10 %\r", "20 %\rdone\r\n"}, []string{"done"}},
		{"a line that does not end", []string{strings.Repeat("x", 40<<10)}, []string{strings.Repeat("x", 16<<10), strings.Repeat("x", 16<<10), strings.Repeat("x", 8<<10)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			lines := &screen.Lines{Emit: func(line string) { got = append(got, line) }}
			for _, text := range test.writes {
				if n, err := lines.Write([]byte(text)); n != len(text) || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
			}
			lines.Flush()
			lines.Flush()
			if !slices.Equal(got, test.want) {
				t.Errorf("got %d lines %.60q, want %d", len(got), got, len(test.want))
			}
		})
	}
}
