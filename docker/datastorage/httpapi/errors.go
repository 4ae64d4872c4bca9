package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/trace"
)

// retryAfter is what senders are told when no store answers: readiness and the drain
// look again as often.
const retryAfter = time.Second

// invalid is a request that breaks the contract at path, such as [3].event_type.
func invalid(path, reason string) *problem.Problem {
	p := problem.New(http.StatusBadRequest, "invalid-request", reason)
	if path != "" {
		p.Detail = path + ": " + reason
		p.Extensions = map[string]any{"path": path}
		var index int
		if n, _ := fmt.Sscanf(path, "[%d]", &index); n == 1 {
			p.Extensions["index"] = index
		}
	}
	return p
}

// badRequest answers a request that the OpenAPI document or the generated decoding
// refuses.
func badRequest(w http.ResponseWriter, r *http.Request, err error) {
	var schema *openapi3.SchemaError
	var at *openapi3filter.RequestError
	switch {
	case errors.As(err, &at) && at.Parameter != nil:
		reason := at.Reason
		if errors.As(err, &schema) {
			reason = schema.Reason
		}
		if reason == "" && at.Err != nil {
			reason = at.Err.Error()
		}
		problem.Write(w, r, invalid(at.Parameter.Name, reason))
	case errors.As(err, &schema):
		problem.Write(w, r, invalid(pathOf(append(schema.JSONPointer(), unsupported(schema)...)), schema.Reason))
	default:
		// What remains was decoded into Go types: a date such as February 30th.
		problem.Write(w, r, problem.New(http.StatusBadRequest, "invalid-request", "a value has the wrong form: "+lastLine(err)).Because(err))
	}
}

// unsupported returns the name of a member that the document does not know. The
// library's pointer ends at the object that holds it; only the reason has the name.
func unsupported(schema *openapi3.SchemaError) []string {
	var name string
	if n, _ := fmt.Sscanf(schema.Reason, "property %q is unsupported", &name); n == 1 && schema.SchemaField == "properties" {
		return []string{name}
	}
	return nil
}

// pathOf writes a JSON pointer the way programmers do: [3].event_data.name.
func pathOf(pointer []string) string {
	var b strings.Builder
	for _, part := range pointer {
		if _, err := strconv.Atoi(part); err == nil {
			b.WriteString("[" + part + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(part)
	}
	return b.String()
}

// lastLine returns the innermost text of err.
func lastLine(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// answerError answers what a handler returned.
func answerError(w http.ResponseWriter, r *http.Request, err error) {
	var answered *problem.Problem
	switch {
	case errors.As(err, &answered):
	case errors.Is(err, audit.ErrNotFound):
		err = problem.New(http.StatusNotFound, "event-not-found", "no event has this id").Because(err)
	case errors.Is(err, audit.ErrUnavailable):
		err = unavailable("PostgreSQL does not answer", err)
	case errors.Is(err, audit.ErrRejected):
		// The checks before should have found it: worth a line.
		trace.Log(r.Context()).Warn("PostgreSQL refused an event that passed the checks", "error", err)
		err = problem.New(http.StatusBadRequest, "invalid-request", "PostgreSQL cannot store this event").Because(err)
	}
	problem.Write(w, r, err)
}

// unavailable tells the sender to come back.
func unavailable(detail string, cause error) *problem.Problem {
	p := problem.New(http.StatusServiceUnavailable, "storage-unavailable", detail).Because(cause)
	p.RetryAfter = retryAfter
	return p
}
