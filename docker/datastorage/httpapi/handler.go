package httpapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/api/server"
	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// handler implements the generated interface. Errors are turned into problems by
// answerError.
type handler struct {
	accepter accepter
	reader   reader
	now      func() time.Time
}

var _ server.StrictServerInterface = (*handler)(nil)

// CreateEvent stores one event.
func (h *handler) CreateEvent(ctx context.Context, req server.CreateEventRequestObject) (server.CreateEventResponseObject, error) {
	event := fromRequest(req.Body)
	if err := event.Normalize(h.now()); err != nil {
		return nil, atPath("", err)
	}
	receipts, queued, err := h.accepter.Accept(ctx, []audit.Event{event})
	if err != nil {
		return nil, err
	}
	if queued {
		return server.CreateEvent202JSONResponse{AcceptedJSONResponse: accepted(receipts)}, nil
	}
	return server.CreateEvent201JSONResponse{EventID: receipts[0].ID, EventTimestamp: receipts[0].Timestamp}, nil
}

// CreateEvents stores a batch.
func (h *handler) CreateEvents(ctx context.Context, req server.CreateEventsRequestObject) (server.CreateEventsResponseObject, error) {
	events := make([]audit.Event, len(*req.Body))
	now := h.now()
	for i := range *req.Body {
		events[i] = fromRequest(&(*req.Body)[i])
		if err := events[i].Normalize(now); err != nil {
			return nil, atPath(fmt.Sprintf("[%d].", i), err)
		}
	}
	receipts, queued, err := h.accepter.Accept(ctx, events)
	if err != nil {
		return nil, err
	}
	if queued {
		return server.CreateEvents202JSONResponse{AcceptedJSONResponse: accepted(receipts)}, nil
	}
	return server.CreateEvents201JSONResponse{EventIds: idsOf(receipts)}, nil
}

// GetEvent answers one event.
func (h *handler) GetEvent(ctx context.Context, req server.GetEventRequestObject) (server.GetEventResponseObject, error) {
	event, err := h.reader.Get(ctx, req.EventID)
	if err != nil {
		return nil, err
	}
	return server.GetEvent200JSONResponse(toResponse(&event)), nil
}

// ListEvents answers a page.
func (h *handler) ListEvents(ctx context.Context, req server.ListEventsRequestObject) (server.ListEventsResponseObject, error) {
	query, err := queryOf(req.Params, h.now())
	if err != nil {
		return nil, err
	}
	found, err := h.reader.Find(ctx, query)
	if err != nil {
		return nil, err
	}
	page := server.ListEvents200JSONResponse{
		Data: make([]server.Event, len(found.Events)),
		Pagination: server.Pagination{
			Limit: query.Limit, Offset: query.Offset, Total: found.Total, HasMore: found.Next != nil,
		},
	}
	for i := range found.Events {
		page.Data[i] = toResponse(&found.Events[i])
	}
	if found.Next != nil {
		page.Pagination.NextCursor = new(encodeCursor(*found.Next))
	}
	return page, nil
}

// VerifyChain answers whether a chain is whole.
func (h *handler) VerifyChain(ctx context.Context, req server.VerifyChainRequestObject) (server.VerifyChainResponseObject, error) {
	if err := checkText("correlation_id", req.Body.CorrelationID); err != nil {
		return nil, err
	}
	length, broken, err := h.reader.VerifyChain(ctx, req.Body.CorrelationID)
	if err != nil {
		return nil, err
	}
	report := server.VerifyChain200JSONResponse{Valid: broken == nil, Length: length}
	if broken != nil {
		report.FirstBroken = &server.ChainBreak{Position: broken.Position, Reason: server.ChainBreakReason(broken.Reason)}
		if broken.EventID != uuid.Nil {
			report.FirstBroken.EventID = &broken.EventID
		}
	}
	return report, nil
}

// atPath turns an invalid event into its problem.
func atPath(prefix string, err error) error {
	var at *audit.InvalidError
	if errors.As(err, &at) {
		return invalid(prefix+at.Path, at.Reason).Because(err)
	}
	return err
}

func accepted(receipts []audit.Receipt) server.AcceptedJSONResponse {
	return server.AcceptedJSONResponse{Status: server.EventsAcceptedStatusAccepted, EventIds: idsOf(receipts)}
}

func idsOf(receipts []audit.Receipt) []server.UUID {
	ids := make([]server.UUID, len(receipts))
	for i, receipt := range receipts {
		ids[i] = receipt.ID
	}
	return ids
}

// fromRequest takes over what was sent.
func fromRequest(r *server.EventRequest) audit.Event {
	e := audit.Event{
		Version: r.Version, Type: r.EventType, Timestamp: r.EventTimestamp, Category: r.EventCategory,
		Action: r.EventAction, Outcome: string(r.EventOutcome), CorrelationID: r.CorrelationID,
		ActorType: value(r.ActorType), ActorID: value(r.ActorID), ResourceType: value(r.ResourceType), ResourceID: value(r.ResourceID),
		Namespace: value(r.Namespace), ClusterID: value(r.ClusterID), Severity: value(r.Severity), DurationMS: r.DurationMs,
		ErrorCode: value(r.ErrorCode), ErrorMessage: value(r.ErrorMessage), ParentID: r.ParentEventID, Data: r.EventData,
	}
	if r.EventID != nil {
		e.ID = *r.EventID
	}
	return e
}

// toResponse gives an event back.
func toResponse(e *audit.Stored) server.Event {
	return server.Event{
		EventID: e.ID, Version: e.Version, EventType: e.Type, EventTimestamp: e.Timestamp, EventCategory: e.Category,
		EventAction: e.Action, EventOutcome: server.Outcome(e.Outcome), CorrelationID: e.CorrelationID,
		ActorType: given(e.ActorType), ActorID: given(e.ActorID), ResourceType: given(e.ResourceType), ResourceID: given(e.ResourceID),
		Namespace: given(e.Namespace), ClusterID: given(e.ClusterID), Severity: given(e.Severity), DurationMs: e.DurationMS,
		ErrorCode: given(e.ErrorCode), ErrorMessage: given(e.ErrorMessage), ParentEventID: e.ParentID, EventData: e.Data,
		ChainPosition: e.Position, PreviousHash: e.Previous.String(), EventHash: e.Hash.String(),
	}
}

// value returns a text that may not have been given.
func value(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// given returns a text, or nil when there is none.
func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
