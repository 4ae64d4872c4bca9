// Package answer is what a service answered, in the form that specs ask about it and
// failures show it.
package answer

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	"github.com/onsi/gomega/gcustom"
	"github.com/onsi/gomega/types"
)

// problemBase is what every problem's type begins with.
const problemBase = "https://kubernaut.ai/problems/"

// Answer is one HTTP response, its body read.
type Answer struct {
	Code   int
	Header http.Header
	Body   []byte
}

// Problem is the RFC 9457 body that stands for every error.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Instance  string `json:"instance"`
	RequestID string `json:"request_id"`
}

// Send sends the request and reads the whole answer.
func Send(client *http.Client, request *http.Request) (*Answer, error) {
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	return Read(response)
}

// Read reads the whole answer and closes its body.
func Read(response *http.Response) (*Answer, error) {
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading an answer %d: %w", response.StatusCode, err)
	}
	return &Answer{Code: response.StatusCode, Header: response.Header, Body: body}, nil
}

// RequestID is the id under which the service logged the request.
func (a *Answer) RequestID() string { return a.Header.Get("X-Request-ID") }

// RetryAfter is the number of whole seconds in Retry-After; 0 when it says none.
func (a *Answer) RetryAfter() int {
	seconds, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	return seconds
}

// Problem returns the error that the answer states. Its fields are empty when the
// answer is no problem document.
func (a *Answer) Problem() Problem {
	var p Problem
	if media, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type")); media != "application/problem+json" {
		return p
	}
	_ = json.Unmarshal(a.Body, &p)
	return p
}

// Decode reads the body as JSON.
func (a *Answer) Decode(into any) error {
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}

// String is the answer as a failure shows it.
func (a *Answer) String() string {
	return fmt.Sprintf("%d (request id %s): %s", a.Code, a.RequestID(), a.Body)
}

// GomegaString implements format.GomegaStringer.
func (a *Answer) GomegaString() string { return a.String() }

// Answered is anything that holds an answer.
type Answered interface{ Got() *Answer }

// Got implements Answered.
func (a *Answer) Got() *Answer { return a }

// HaveStatus succeeds when the answer has this code.
func HaveStatus(code int) types.GomegaMatcher {
	return gcustom.MakeMatcher(func(a Answered) (bool, error) {
		return a.Got().Code == code, nil
	}).WithTemplate("Expected the answer {{.To}} have status {{.Data}}, got {{.Actual.Got}}", code)
}

// BeProblem succeeds when the answer is a complete problem document of this code and
// slug: content type, type, title, status, detail, and the request id of the header.
func BeProblem(code int, slug string) types.GomegaMatcher {
	return gcustom.MakeMatcher(func(a Answered) (bool, error) {
		got := a.Got()
		p := got.Problem()
		return got.Code == code && p.Status == code && p.Type == problemBase+slug && p.Title != "" &&
			p.Detail != "" && p.Instance != "" && p.RequestID != "" && p.RequestID == got.RequestID(), nil
	}).WithTemplate("Expected the answer {{.To}} be a problem {{.Data}}, got {{.Actual.Got}}", fmt.Sprintf("%d %s with title, detail, instance and the request id", code, slug))
}
