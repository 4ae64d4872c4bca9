package canonical

import (
	"bytes"
	"fmt"
	"strconv"
)

// Number reads a number and returns it written out, without exponent.
func (r *Reader) Number() (string, error) {
	c := r.Next()
	if c != '-' && (c < '0' || c > '9') {
		return "", r.unexpected()
	}
	mark := len(r.out)
	r.growth = freeGrowth
	if err := r.number(r.at); err != nil {
		return "", err
	}
	text := string(r.out[mark:])
	r.out = r.out[:mark]
	return text, nil
}

// digits returns where the digits from i on end.
func (r *Reader) digits(i int) int {
	for i < len(r.in) && r.in[i] >= '0' && r.in[i] <= '9' {
		i++
	}
	return i
}

// number writes a number the way PostgreSQL's numeric does: no exponent, no leading
// zeros, no negative zero, and as many decimals as were given.
func (r *Reader) number(begin int) error {
	i := r.at
	negative := r.in[i] == '-'
	if negative {
		i++
	}
	bad := func(i int) error {
		r.at = min(i, len(r.in))
		return r.syntax("bad number")
	}
	end := r.digits(i)
	whole := r.in[i:end]
	if len(whole) == 0 || len(whole) > 1 && whole[0] == '0' {
		return bad(i)
	}
	var fraction []byte
	if i = end; i < len(r.in) && r.in[i] == '.' {
		end = r.digits(i + 1)
		if fraction = r.in[i+1 : end]; len(fraction) == 0 {
			return bad(end)
		}
		i = end
	}
	exponent := 0
	if i < len(r.in) && (r.in[i] == 'e' || r.in[i] == 'E') {
		at := i + 1
		i = at
		if i < len(r.in) && (r.in[i] == '+' || r.in[i] == '-') {
			i++
		}
		if end = r.digits(i); end == i {
			return bad(end)
		}
		i = end
		n, err := strconv.Atoi(string(r.in[at:end]))
		if err != nil || n > maxDigits || n < -maxDigits {
			return tooLong()
		}
		exponent = n
	}
	length := i - r.at
	mark := len(r.out)
	if negative && (len(bytes.Trim(whole, "0")) > 0 || len(bytes.Trim(fraction, "0")) > 0) {
		r.out = append(r.out, '-')
	}
	if !r.writeNumber(whole, fraction, exponent) {
		return tooLong()
	}
	if r.growth -= max(0, len(r.out)-mark-length); r.growth+r.at-begin < 0 {
		return &ValueError{Reason: "is too long when its numbers are written without exponent"}
	}
	r.at = i
	return nil
}

func tooLong() error {
	return &ValueError{Reason: fmt.Sprintf("is a number of more than %d digits", maxDigits)}
}

// writeNumber moves the point of a number by its exponent and writes it.
func (r *Reader) writeNumber(whole, fraction []byte, exponent int) bool {
	count := len(whole) + len(fraction)
	point := len(whole) + exponent
	// The digits that are written are those of whole and fraction, with zeros before
	// (place below 0) and behind.
	digit := func(place int) byte {
		switch {
		case place < 0 || place >= count:
			return '0'
		case place < len(whole):
			return whole[place]
		default:
			return fraction[place-len(whole)]
		}
	}
	first := min(0, point)
	last := max(count, point)
	for first < point && digit(first) == '0' {
		first++
	}
	if first > point {
		first = point
	}
	if last-first > maxDigits {
		return false
	}
	if first == point {
		r.out = append(r.out, '0')
	}
	for place := first; place < last; place++ {
		if place == point {
			r.out = append(r.out, '.')
		}
		r.out = append(r.out, digit(place))
	}
	return true
}
