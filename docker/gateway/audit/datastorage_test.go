package audit

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
)

func TestDataStorageWrite(t *testing.T) {
	var body []client.EventRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1/audit/events/batch" {
			t.Errorf("got %s %s", r.Method, r.URL.Path)
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"event_ids":[]}`)
	}))
	t.Cleanup(server.Close)
	store, err := NewDataStorage(server.URL, server.Client(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	created := Event{
		ID: uuid.New(), Type: RequestCreated, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), CorrelationID: "rr-1",
		Actor: "system:serviceaccount:demo:sender", Namespace: "demo", Severity: "critical",
		Data: Data{SignalName: "A", ResourceKind: "Pod", ResourceName: "web-1", OccurrenceCount: 1, OriginalPayload: `{"a":"b"}`, SignalLabels: map[string]string{"l": "v"}},
	}
	failed := Event{ID: uuid.New(), Type: RequestFailed, Time: created.Time, CorrelationID: "rr-2", Data: Data{ErrorDetails: strings.Repeat("é", 5000)}}
	if err := store.Write(t.Context(), []Event{created, failed}); err != nil {
		t.Fatal(err)
	}
	got := body[0]
	if *got.EventID != created.ID || got.EventType != "gateway.crd.created" || got.EventCategory != "gateway" || got.EventAction != "created" ||
		got.EventOutcome != client.Success || got.CorrelationID != "rr-1" || *got.ActorID != created.Actor || *got.ResourceType != "Pod" ||
		*got.ResourceID != "web-1" || *got.Namespace != "demo" || *got.Severity != "critical" || !got.EventTimestamp.Equal(created.Time) || got.ErrorMessage != nil {
		t.Errorf("got %+v", got)
	}
	var data Data
	if err := json.Unmarshal(got.EventData, &data); err != nil || data.OriginalPayload != `{"a":"b"}` || data.OccurrenceCount != 1 || data.SignalLabels["l"] != "v" {
		t.Errorf("got %s, %v", got.EventData, err)
	}
	if got := body[1]; got.EventOutcome != client.Failure || len([]rune(*got.ErrorMessage)) != maxErrorMessage || got.ActorID != nil {
		t.Errorf("got %+v", got)
	}
}

func TestDataStorageAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status           int
		accepted, refuse bool
	}{
		"created":          {201, true, false},
		"queued":           {202, true, false},
		"invalid":          {400, false, true},
		"another's id":     {409, false, true},
		"too large":        {413, false, true},
		"unprocessable":    {422, false, true},
		"no token":         {401, false, false},
		"not allowed":      {403, false, false},
		"another service":  {404, false, false},
		"too many":         {429, false, false},
		"broken":           {500, false, false},
		"both stores down": {503, false, false},
		"an odd success":   {204, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(c.status)
				if c.status != http.StatusNoContent {
					_, _ = io.WriteString(w, `{"detail":"because"}`)
				}
			}))
			t.Cleanup(server.Close)
			store, err := NewDataStorage(server.URL, server.Client(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			err = store.Write(t.Context(), []Event{{}})
			var refused *RefusedError
			if (err == nil) != c.accepted || errors.As(err, &refused) != c.refuse {
				t.Errorf("got %v", err)
			}
			if c.refuse && !strings.Contains(err.Error(), "because") {
				t.Errorf("got %v without the reason", err)
			}
		})
	}
}
