package canonical

import (
	"fmt"
	"strings"
)

// worst returns texts of n bytes whose shapes are dear for those who build trees.
func worst(n int) map[string][]byte {
	list := func(element string) []byte {
		return []byte("[" + strings.Repeat(element+",", n/(len(element)+1)) + "0]")
	}
	var members, late strings.Builder
	for i := 0; members.Len() < n; i++ {
		fmt.Fprintf(&members, `"%x":1,`, i)
		fmt.Fprintf(&late, `"%x":1,`, 1<<24-i)
	}
	deep := strings.Repeat(`{"b":0,"a":`, 60) + "0" + strings.Repeat("}", 60)
	return map[string][]byte{
		"empty objects":    list("{}"),
		"empty names":      list(`{"":{}}`),
		"small numbers":    list("1"),
		"exponents":        list("1e9"),
		"long exponents":   list("1e999"),
		"escapes":          list(`"\n"`),
		"wide characters":  list("\"\u2028\u2028\u2028\""),
		"no UTF-8":         []byte(`["` + strings.Repeat("\xff", n) + `"]`),
		"one long text":    []byte(`["` + strings.Repeat("x", n) + `"]`),
		"members":          []byte("{" + members.String() + `"z":0}`),
		"members unsorted": []byte("{" + late.String() + `"0":0}`),
		"deep unsorted":    list(deep),
	}
}
