package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
)

// limits of DataStorage's API, in characters.
const (
	maxActor        = 255
	maxErrorMessage = 4096
)

// DataStorage is the Store behind DataStorage's API.
type DataStorage struct {
	client  *client.ClientWithResponses
	timeout time.Duration
}

// NewDataStorage returns a store at url. The HTTP client adds the bearer token; each
// write ends after timeout.
func NewDataStorage(url string, httpClient *http.Client, timeout time.Duration) (*DataStorage, error) {
	c, err := client.NewClientWithResponses(url, client.WithHTTPClient(httpClient))
	if err != nil {
		return nil, fmt.Errorf("DataStorage %s: %w", url, err)
	}
	return &DataStorage{client: c, timeout: timeout}, nil
}

// Write stores events in one request; see Store.
func (d *DataStorage) Write(ctx context.Context, events []Event) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	body := make([]client.EventRequest, len(events))
	for i, event := range events {
		wire, err := encode(event)
		if err != nil {
			return &RefusedError{Reason: err.Error()}
		}
		body[i] = wire
	}
	answer, err := d.client.CreateEventsWithResponse(ctx, body)
	if err != nil {
		return fmt.Errorf("DataStorage: %w", err)
	}
	reason := answer.Status()
	if p := answer.ApplicationProblemJSONDefault; p != nil {
		reason = p.Detail
	}
	switch answer.StatusCode() {
	case http.StatusCreated, http.StatusAccepted:
		return nil
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return &RefusedError{Reason: reason}
	}
	// Whatever else it says, a missing permission included, the events are not at fault.
	return fmt.Errorf("DataStorage: status %d: %s", answer.StatusCode(), reason)
}

// encode puts an event into DataStorage's form.
func encode(event Event) (client.EventRequest, error) {
	data, err := json.Marshal(event.Data)
	if err != nil {
		return client.EventRequest{}, fmt.Errorf("event data: %w", err)
	}
	wire := client.EventRequest{
		Version:        "1.0",
		EventID:        &event.ID,
		EventType:      string(event.Type),
		EventTimestamp: event.Time,
		EventCategory:  Category,
		EventAction:    event.Type.Action(),
		EventOutcome:   client.Success,
		CorrelationID:  event.CorrelationID,
		EventData:      data,
		ActorType:      optional("user"),
		ActorID:        optional(truncate(event.Actor, maxActor)),
		ResourceType:   optional(event.Data.ResourceKind),
		ResourceID:     optional(event.Data.ResourceName),
		Namespace:      optional(event.Namespace),
		ClusterID:      optional(event.Cluster),
		Severity:       optional(event.Severity),
	}
	if event.Type == RequestFailed {
		wire.EventOutcome = client.Failure
		wire.ErrorMessage = optional(truncate(event.Data.ErrorDetails, maxErrorMessage))
	}
	return wire, nil
}

// optional returns nil for an empty text, which DataStorage then does not store.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// truncate cuts a text to at most n characters.
func truncate(text string, n int) string {
	if characters := []rune(text); len(characters) > n {
		return string(characters[:n])
	}
	return text
}
