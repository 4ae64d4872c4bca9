// Package problem is the one way in which the services answer what went wrong:
// RFC 9457 documents of type application/problem+json that tell the sender what to
// do and nothing about the inside.
package problem

import (
	"fmt"
	"maps"
	"net/http"
	"time"
)

// TypeBase is the start of every problem's type; its slug follows.
const TypeBase = "https://kubernaut.ai/problems/"

// Problem is an error that can be answered as it stands. It is not safe for
// concurrent change: make one per request.
type Problem struct {
	Type   string // TypeBase and a slug that senders may branch on
	Title  string // New fills it with the status in words
	Status int    // the HTTP status
	Detail string // what was wrong with this request, for a person; no internals

	Instance  string // the request's path; Write fills it when it is empty
	RequestID string // Write fills it when it is empty

	RetryAfter time.Duration  // when a retry makes sense; zero sends no Retry-After
	Header     http.Header    // further headers of the answer; nil for none
	Extensions map[string]any // further members of the document; nil for none

	cause error
}

// New returns a problem of the given status, type and detail.
func New(status int, slug, detail string) *Problem {
	return &Problem{Type: TypeBase + slug, Title: http.StatusText(status), Status: status, Detail: detail}
}

// Because keeps the cause of the problem for the log and for errors.Is. It is not
// part of the answer. It returns p.
func (p *Problem) Because(err error) *Problem {
	p.cause = err
	return p
}

// Error returns the detail and the cause.
func (p *Problem) Error() string {
	if p.cause != nil {
		return fmt.Sprintf("%d: %s: %v", p.Status, p.Detail, p.cause)
	}
	return fmt.Sprintf("%d: %s", p.Status, p.Detail)
}

// Unwrap returns the cause, or nil.
func (p *Problem) Unwrap() error { return p.cause }

// document returns the members of the answer. Extensions cannot replace the
// members that RFC 9457 defines.
func (p *Problem) document() map[string]any {
	doc := maps.Clone(p.Extensions)
	if doc == nil {
		doc = map[string]any{}
	}
	doc["type"] = p.Type
	doc["title"] = p.Title
	doc["status"] = p.Status
	doc["detail"] = p.Detail
	doc["instance"] = p.Instance
	doc["request_id"] = p.RequestID
	return doc
}
