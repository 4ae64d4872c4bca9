package httpapi

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-chi/chi/v5"

	"kubernaut.ai/e2e/docker/internal/problem"
)

// refuseUnknown refuses query parameters that the document does not know, that are empty
// or given twice. One that is misspelt would otherwise select everything.
func refuseUnknown(spec *openapi3.T) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			known := map[string]bool{}
			if path := spec.Paths.Value(chi.RouteContext(r.Context()).RoutePattern()); path != nil {
				if operation := path.GetOperation(r.Method); operation != nil {
					for _, parameter := range operation.Parameters {
						known[parameter.Value.Name] = parameter.Value.In == openapi3.ParameterInQuery
					}
				}
			}
			if err := checkQuery(r.URL.RawQuery, known); err != nil {
				problem.Write(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func checkQuery(raw string, known map[string]bool) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return invalid("", "the query of the URL: "+err.Error())
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch values := query[name]; {
		case !known[name]:
			return invalid(name, "is not a query parameter of this path"+didYouMean(name, known))
		case len(values) > 1:
			return invalid(name, fmt.Sprintf("is given %d times", len(values)))
		case values[0] == "":
			return invalid(name, "is empty; leave it out to select all")
		}
	}
	return nil
}

// didYouMean names the nearest of what is known, when it is near.
func didYouMean[T any](name string, known map[string]T) string {
	const far = 3 // changes: a transposition is two
	best, least := "", far+1
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is how many characters have to be added, removed or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i]|0x20 == b[j]|0x20 {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
