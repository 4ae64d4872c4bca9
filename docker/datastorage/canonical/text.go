package canonical

import (
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a string and appends what it says to dst. What is no UTF-8, or half a
// surrogate pair, becomes U+FFFD, as in encoding/json.
func (r *Reader) text(dst *[]byte) error {
	if r.at >= len(r.in) || r.in[r.at] != '"' {
		return r.unexpected()
	}
	var buffer [utf8.UTFMax]byte
	for i := r.at + 1; ; {
		plain, char, next, err := r.part(i, buffer[:0])
		if err != nil {
			return err
		}
		*dst = append(append(*dst, plain...), char...)
		if i = next; i == 0 {
			return nil
		}
	}
}

// part reads a part of a string from i on: text that stands for itself, and one character
// that does not, which it appends to buffer. Next is the place behind it, and 0 behind the
// end of the string, where the reader is then.
func (r *Reader) part(i int, buffer []byte) (plain, char []byte, next int, err error) {
	from := i
	for i < len(r.in) && r.in[i] >= ' ' && r.in[i] < utf8.RuneSelf && r.in[i] != '"' && r.in[i] != '\\' {
		i++
	}
	plain = r.in[from:i]
	if i == len(r.in) {
		r.at = i
		return nil, nil, 0, r.syntax("unexpected end of a string")
	}
	switch c := r.in[i]; {
	case c == '"':
		r.at = i + 1
		return plain, nil, 0, nil
	case c < ' ':
		r.at = i
		return nil, nil, 0, r.syntax("control character in a string")
	case c == '\\':
		var ok bool
		if char, next, ok = unescape(buffer, r.in, i); !ok {
			r.at = min(next, len(r.in))
			return nil, nil, 0, r.syntax("bad escape in a string")
		}
		return plain, char, next, nil
	default:
		wide, size := utf8.DecodeRune(r.in[i:])
		return plain, utf8.AppendRune(buffer, wide), i + size, nil
	}
}

// unescape appends what the escape at i says, and returns the place behind it.
func unescape(out, in []byte, i int) ([]byte, int, bool) {
	if i+1 >= len(in) {
		return out, i, false
	}
	switch c := in[i+1]; c {
	case '"', '\\', '/':
		return append(out, c), i + 2, true
	case 'b':
		return append(out, '\b'), i + 2, true
	case 'f':
		return append(out, '\f'), i + 2, true
	case 'n':
		return append(out, '\n'), i + 2, true
	case 'r':
		return append(out, '\r'), i + 2, true
	case 't':
		return append(out, '\t'), i + 2, true
	case 'u':
		char, ok := unit(in, i)
		if !ok {
			return out, i, false
		}
		i += 6
		if utf16.IsSurrogate(char) {
			second, ok := unit(in, i)
			if pair := utf16.DecodeRune(char, second); ok && pair != utf8.RuneError {
				return utf8.AppendRune(out, pair), i + 6, true
			}
			char = utf8.RuneError
		}
		return utf8.AppendRune(out, char), i, true
	}
	return out, i, false
}

// unit reads \uXXXX.
func unit(in []byte, i int) (rune, bool) {
	if i+6 > len(in) || in[i] != '\\' || in[i+1] != 'u' {
		return 0, false
	}
	var char rune
	for _, c := range in[i+2 : i+6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		char = char<<4 | rune(c)
	}
	return char, true
}

// quoted reads a string and writes its canonical form, piece by piece.
func (r *Reader) quoted() error {
	mark := len(r.out)
	r.out = append(r.out, '"')
	var buffer [utf8.UTFMax]byte
	for i := r.at + 1; ; {
		plain, char, next, err := r.part(i, buffer[:0])
		if err != nil {
			return err
		}
		r.out = append(r.out, plain...)
		if next == 0 {
			r.out = append(r.out, '"')
			return nil
		}
		if char[0] == 0 {
			r.out = r.out[:mark]
			return &ValueError{Reason: nulReason}
		}
		if i = next; cap(r.out)-len(r.out) < 2*len(char)+2 {
			r.out = slices.Grow(r.out, 3*(len(r.in)-i)+maxDigits)
		}
		r.out = appendEscaped(r.out, char)
	}
}

const hex = "0123456789abcdef"

// AppendString appends text as a JSON string, as encoding/json writes it when it does
// not escape for HTML.
func AppendString[T string | []byte](dst []byte, text T) []byte {
	return append(appendEscaped(append(dst, '"'), text), '"')
}

// appendEscaped appends text as it stands between the quotes of a JSON string.
func appendEscaped[T string | []byte](dst []byte, text T) []byte {
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, text[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, '\\', 'b')
			case '\f':
				dst = append(dst, '\\', 'f')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
			}
			i++
			from = i
			continue
		}
		char, size := utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
		switch {
		case char == utf8.RuneError && size == 1:
			dst = append(append(dst, text[from:i]...), `\ufffd`...)
			from = i + size
		case char == '\u2028' || char == '\u2029':
			dst = append(append(dst, text[from:i]...), '\\', 'u', '2', '0', '2', hex[char&0xf])
			from = i + size
		}
		i += size
	}
	return append(dst, text[from:]...)
}
