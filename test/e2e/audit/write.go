package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/test/e2e/answer"
)

// The paths of the API.
const (
	EventsPath = "/api/v1/audit/events"
	BatchPath  = "/api/v1/audit/events/batch"
	VerifyPath = "/api/v1/audit/verify-chain"
)

// NewEvent is a complete event of this moment, with an id of its own.
func NewEvent(correlationID string) client.EventRequest {
	return client.EventRequest{
		EventID: new(uuid.New()), Version: "1.0", EventType: "suite.event.written", EventCategory: "suite", EventAction: "written",
		EventOutcome: client.Outcome("success"), CorrelationID: correlationID, EventTimestamp: time.Now().UTC().Truncate(time.Microsecond),
		EventData: json.RawMessage(`{"written_by":"the suite"}`),
	}
}

// Events is n of them.
func Events(correlationID string, n int) []client.EventRequest {
	events := make([]client.EventRequest, n)
	for i := range events {
		events[i] = NewEvent(correlationID)
	}
	return events
}

// Write writes one event.
func (t *Trail) Write(ctx context.Context, event client.EventRequest) (*answer.Answer, error) {
	response, err := t.Client.CreateEvent(ctx, event)
	if err != nil {
		return nil, err
	}
	return answer.Read(response)
}

// WriteAll writes events in one batch.
func (t *Trail) WriteAll(ctx context.Context, events []client.EventRequest) (*answer.Answer, error) {
	response, err := t.Client.CreateEvents(ctx, events)
	if err != nil {
		return nil, err
	}
	return answer.Read(response)
}

// Post posts a body as it stands.
func (t *Trail) Post(ctx context.Context, path string, body []byte, options ...func(*http.Request)) (*answer.Answer, error) {
	return t.Do(ctx, http.MethodPost, path, body, options...)
}

// Do sends any request. An answer that refuses it is no error.
func (t *Trail) Do(ctx context.Context, method, path string, body []byte, options ...func(*http.Request)) (*answer.Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, t.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if t.token != "" {
		request.Header.Set("Authorization", "Bearer "+t.token)
	}
	for _, option := range options {
		option(request)
	}
	return answer.Send(t.HTTP, request)
}
