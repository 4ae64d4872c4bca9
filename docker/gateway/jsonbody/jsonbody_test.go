package jsonbody

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kubernaut.ai/e2e/docker/gateway/signal"
)

func TestDecode(t *testing.T) {
	type inner struct {
		Text string            `json:"text"`
		Map  map[string]string `json:"map"`
		List []int             `json:"list"`
		Yes  bool              `json:"yes"`
		In   []struct {
			Name string `json:"name"`
		} `json:"in"`
		Raw []json.RawMessage `json:"raw"`
	}
	for name, c := range map[string]struct{ body, want string }{
		"a document":                  {`{"text":"a","map":{"text":"b"},"list":[1,2],"more":{"x":[{"x":1},{"x":2}]}}`, ""},
		"the same key in two objects": {`{"map":{"a":"1"},"other":{"a":"1"}}`, ""},
		"a value that is a key":       {`{"text":"map","map":{}}`, ""},
		"nothing":                     {``, "the body is empty"},
		"space":                       {" \n", "the body is empty"},
		"no JSON":                     {`text=1`, "malformed JSON at byte 2"},
		"a truncated document":        {`{"text":"a`, "malformed JSON at byte"},
		"a truncated object":          {`{"text":"a"`, "malformed JSON at byte 11: unexpected end"},
		"two documents":               {`{} {}`, "malformed JSON at byte 4"},
		"a trailing comma":            {`{"text":"a",}`, "malformed JSON at byte 12"},
		"a key written twice":         {`{"text":"a","text":"b"}`, `key "text" written twice at byte 18`},
		"a key twice in depth":        {`{"more":[{"a":{},"a":1}]}`, `key "a" written twice`},
		"a known key in two cases":    {`{"text":"a","Text":"b"}`, `key "Text" written twice at byte 18`},
		"a known key, folded":         {`{"list":[],"liſt":[]}`, `written twice`},
		"a known key in an element":   {`{"in":[{"name":"a"},{"name":"a","NAME":"b"}]}`, `key "NAME" written twice`},
		"a known key in a part":       {`{"raw":[{"name":"a"},{"name":"a","NAME":"b"}]}`, `key "NAME" written twice`},
		"another case in a map":       {`{"map":{"Hostname":"a","hostname":"b"}}`, ""},
		"another case, not known":     {`{"more":1,"More":2}`, ""},
		"one known key in a case":     {`{"Text":"a"}`, ""},
		"as many as are allowed":      {`{"list":[1,2,3],"more":[1,2,3,4]}`, ""},
		"more than are allowed":       {`{"list":[1,2,3,4]}`, "list: more than 3"},
		"more, in another case":       {`{"LIST":[1,2,3,4]}`, "list: more than 3"},
		"many members":                {`{"map":{` + members(1000) + `}}`, ""},
		"too many members":            {`{"more":{` + members(1001) + `}}`, "more than 1000 members at byte"},
		"too deep":                    {strings.Repeat("[", 101) + strings.Repeat("]", 101), "nested deeper than 100"},
		"very deep":                   {strings.Repeat(`{"a":`, 50_000), "nested deeper than 100"},
		"a number for a text":         {`{"text":1}`, "text: number at byte 9, expected a string"},
		"a text for an object":        {`{"map":"x"}`, "map: string at byte 10, expected an object"},
		"an object for a list":        {`{"list":{}}`, "list: object at byte 9, expected an array"},
		"a text in a list":            {`{"list":["x"]}`, "expected a number"},
		"a text for a boolean":        {`{"yes":"x"}`, "expected true or false"},
		"a list for the document":     {`[]`, "array at byte 1, expected an object"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode([]byte(c.body), &inner{}, Arrays{"list": {Most: 3}, "raw": {Of: part{}}})
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var invalid *signal.Invalid
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// members returns n members of an object.
func members(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `,"%d":""`, i)
	}
	return text.String()[1:]
}

type part struct {
	Name string `json:"name"`
}

func TestPart(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"a"}`: "",
		`null`:         "",
		`{"name":1}`:   "items[3].name: number at byte 9, expected a string",
		`[]`:           "items[3]: array at byte 1, expected an object",
	} {
		err := Part(json.RawMessage(body), &part{}, "items[3]")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
}
