package canonical

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// oracle writes the canonical form by way of encoding/json's maps.
func oracle(text []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one")
	}
	value, err := normalize(value, 1)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func normalize(value any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("deep")
	}
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			if strings.ContainsRune(name, 0) {
				return nil, errors.New("NUL")
			}
			normal, err := normalize(member, depth+1)
			if err != nil {
				return nil, err
			}
			v[name] = normal
		}
	case []any:
		for i, element := range v {
			normal, err := normalize(element, depth+1)
			if err != nil {
				return nil, err
			}
			v[i] = normal
		}
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, errors.New("NUL")
		}
	case json.Number:
		plain, ok := plainNumber(string(v))
		if !ok {
			return nil, errors.New("digits")
		}
		return json.Number(plain), nil
	}
	return value, nil
}

func plainNumber(text string) (string, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	var exponent int
	if mantissa, after, ok := strings.Cut(strings.ToLower(digits), "e"); ok {
		n, err := strconv.Atoi(after)
		if err != nil || n > maxDigits || n < -maxDigits {
			return "", false
		}
		digits, exponent = mantissa, n
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	switch {
	case exponent > 0:
		fraction += strings.Repeat("0", max(0, exponent-len(fraction)))
		whole, fraction = whole+fraction[:exponent], fraction[exponent:]
	case exponent < 0:
		whole = strings.Repeat("0", max(0, -exponent-len(whole))) + whole
		at := len(whole) + exponent
		whole, fraction = whole[:at], whole[at:]+fraction
	}
	whole = strings.TrimLeft(whole, "0")
	if len(whole)+len(fraction) > maxDigits {
		return "", false
	}
	zero := whole == "" && strings.Trim(fraction, "0") == ""
	if whole == "" {
		whole = "0"
	}
	if fraction != "" {
		whole += "." + fraction
	}
	if negative && !zero {
		whole = "-" + whole
	}
	return whole, true
}

// read reads a whole text.
func read(text []byte) ([]byte, error) {
	r := NewReader(text)
	form, err := r.Value()
	return form, errors.Join(err, r.End())
}

// compare checks the form of a text against the oracle's.
func compare(t *testing.T, text []byte) {
	t.Helper()
	got, err := read(text)
	want, wantErr := oracle(text)
	if wantErr != nil && err == nil {
		t.Fatalf("%q: got %q, want it refused: %v", text, got, wantErr)
	}
	if wantErr == nil && err != nil {
		var limit *ValueError
		if !errors.As(err, &limit) {
			t.Fatalf("%q: got %v, want %q", text, err, want)
		}
		return // members that are replaced, and limits, are the reader's own
	}
	if wantErr == nil && string(got) != string(want) {
		t.Fatalf("%q: got  %q\nwant %q", text, got, want)
	}
}

var seeds = []string{
	`{}`, `[]`, `null`, `true`, `""`, `0`, `-0`, `{"b":1,"a":2}`, `{"a":1,"b":2,"a":3}`, ` { "b" : [ 1 , 2 ] , "a" : { } } `,
	`"\ud83d\ude00"`, `"\ud800"`, `"\ud800\ud800"`, `"\ud800\u0041"`, `"\udc00\ud800"`, `"\u2028\u2029<&>\u007f"`, "\"\u2028\"", "\"\xff\xc3\"",
	`"\b\f\n\r\t\/\"\\"`, `"\u0001\u001f"`, `{"\u0000":1}`, `"\u0000"`, `1e3`, `1.50e1`, `-0.0e5`, `1e-7`, `0.1e-3`, `100e-2`, `1e1000`, `1e-1000`, `1e1001`, `0e1000`, `-1.0E+2`,
	`01`, `1.`, `.5`, `1e`, `-`, `+1`, `{"a"}`, `{"a":}`, `{,}`, `[1,]`, `{"a":1,}`, `tru`, `nul`, `"a`, "\"a\nb\"", `"\x"`, `"\u12"`, `[1 2]`, `{} {}`, ``, ` `,
	strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat("[", 70),
	`{"a":{"d":1,"c":{"z":1,"y":2}},"A":[{"b":1,"a":1}]}`, `{"é":1,"e":2,"\u00e9":3}`, `{"a\n":1,"a":2,"a!":3}`, "\x00", `{"a":1}x`,
}

func TestFormIsThatOfEncodingJSON(t *testing.T) {
	for _, text := range seeds {
		compare(t, []byte(text))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5_000 {
		compare(t, []byte(randomJSON(random, 5)))
	}
}

// randomJSON writes a value as careless senders do.
func randomJSON(random *rand.Rand, depth int) string {
	pick := func(options ...string) string { return options[random.IntN(len(options))] }
	text := func() string {
		return pick(`""`, `"a"`, `"B"`, `"aa"`, `"é"`, `"\u00e9"`, `"<&>"`, `"\u2028"`, `"\ud83d\ude00"`, `"😀"`, `"\ud800"`, `"\n\t\\\"\/"`, `"\u0001\u007f"`, `"Z"`, `"10"`, `"9"`)
	}
	var parts []string
	switch kind := random.IntN(8); {
	case kind < 3 && depth > 0:
		for range random.IntN(6) {
			parts = append(parts, text()+pick(":", " : ", ":\n")+randomJSON(random, depth-1))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case kind == 3 && depth > 0:
		for range random.IntN(5) {
			parts = append(parts, randomJSON(random, depth-1))
		}
		return "[" + strings.Join(parts, pick(",", " , ")) + "]"
	case kind == 4:
		return text()
	case kind == 5:
		return pick("true", "false", "null")
	default:
		whole := pick("0", "-0", "1", "-1", "10", "123456789012345678901234567890", fmt.Sprint(random.Int64()), fmt.Sprint(-random.Int64()))
		return whole + pick("", "", ".0", ".00", ".5", ".10", ".000001") + pick("", "", "", "e0", "e1", "E+2", "e-1", "e-7", "e20", "e300", "e-300")
	}
}

func FuzzForm(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) < 1<<16 {
			compare(t, text)
		}
	})
}

func TestErrorsNameThePlace(t *testing.T) {
	for text, want := range map[string]string{
		`{"items":[1,2,{"a":"\u0000"}]}`:       `.items[2].a: holds the character \u0000`,
		`{"a":{"\u0000":1}}`:                   `.a: has a member whose name holds the character \u0000`,
		`{"a":[1e2000]}`:                       `.a[0]: is a number of more than 1000 digits`,
		`{"a":`:                                `unexpected end, at byte 5`,
		`{"a":x}`:                              `unexpected character 'x', at byte 5`,
		`[` + strings.Repeat("1,", 1e5) + "1]": `[99999]: is one of more than 100000 values`,
		"[" + strings.TrimSuffix(strings.Repeat("1e999,", 1000), ",") + "]": `[4]: is too long when its numbers are written without exponent`,
	} {
		_, err := NewReader([]byte(text)).Value()
		if err == nil || err.Error() != want {
			t.Errorf("%.40s: got %v, want %s", text, err, want)
		}
	}
}

// TestWhatATextCosts is the promise that budgets of memory rest on: no shape of a text
// takes more than a few times its length.
func TestWhatATextCosts(t *testing.T) {
	for name, text := range worst(1 << 20) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = NewReader(text).Value()
		runtime.ReadMemStats(&after)
		if factor := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(text)); factor > CostFactor {
			t.Errorf("%s: takes %.1f times its length, want at most %d", name, factor, CostFactor)
		} else {
			t.Logf("%s: takes %.1f times its length", name, factor)
		}
	}
}

func BenchmarkWorst(b *testing.B) {
	for name, text := range worst(1 << 20) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = NewReader(text).Value()
			}
		})
	}
}
