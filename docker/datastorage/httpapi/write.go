package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/api/server"
	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/intake"
	"kubernaut.ai/e2e/docker/internal/access"
	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/trace"
)

// accepter takes events in.
type accepter interface {
	// Accept stores or queues normalized events, all or none.
	Accept(ctx context.Context, events []audit.Event) (receipts []audit.Receipt, queued bool, err error)
}

// writer serves the paths that store events.
type writer struct {
	decoder  *decoder
	lanes    *lanes
	accepter accepter
	now      func() time.Time
}

// handle serves one of them. Its body is decoded by decode; at tells where in it an
// event stands.
func (h *writer) handle(decode func([]byte) ([]audit.Event, error), at func(i int) string, answer func([]audit.Receipt) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		receipts, queued, err := h.accept(w, r, decode, at)
		switch {
		case err != nil:
			answerError(w, r, err)
		case queued:
			write(w, r, http.StatusAccepted, server.EventsAccepted{Status: server.EventsAcceptedStatusAccepted, EventIds: idsOf(receipts)})
		default:
			write(w, r, http.StatusCreated, answer(receipts))
		}
	}
}

func (h *writer) accept(w http.ResponseWriter, r *http.Request, decode func([]byte) ([]audit.Event, error), at func(i int) string) ([]audit.Receipt, bool, error) {
	body, done, err := h.lanes.body(w, r)
	if err != nil {
		return nil, false, err
	}
	defer done()
	events, err := decode(body)
	if err != nil {
		return nil, false, err
	}
	now, user := h.now(), access.User(r.Context())
	for i := range events {
		events[i].RecordedBy = user
		if err := events[i].Complete(now); err != nil {
			var found *audit.InvalidError
			if errors.As(err, &found) {
				return nil, false, invalid(at(i)+found.Path, found.Reason).Because(err)
			}
			return nil, false, err
		}
	}
	receipts, queued, err := h.accepter.Accept(r.Context(), events)
	return receipts, queued, placed(err, events, at)
}

// placed tells a sender where in his request the fault is.
func placed(err error, events []audit.Event, at func(i int) string) error {
	var conflict *audit.ConflictError
	if errors.As(err, &conflict) {
		p := problem.New(http.StatusConflict, "event-id-taken", at(conflict.Index)+conflict.Error()).Because(err)
		p.Extensions = map[string]any{"path": at(conflict.Index) + "event_id", "event_ids": []any{conflict.ID}}
		if at(0) != "" {
			p.Extensions["index"] = conflict.Index
		}
		return p
	}
	if errors.Is(err, intake.ErrRefused) {
		ids := make([]any, len(events))
		for i := range events {
			ids[i] = events[i].ID
		}
		p := unavailable("neither PostgreSQL nor Redis has confirmed the events; send them again, with these event_ids", err)
		p.Extensions = map[string]any{"event_ids": ids}
		return p
	}
	return err
}

// write answers with JSON.
func write(w http.ResponseWriter, r *http.Request, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		trace.Log(r.Context()).Debug("the sender left before the answer", "error", err)
	}
}

// inBatch is where event i of a batch stands.
func inBatch(i int) string { return fmt.Sprintf("[%d].", i) }

// alone is where the only event stands.
func alone(int) string { return "" }
