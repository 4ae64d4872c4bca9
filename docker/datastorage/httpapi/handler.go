package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"

	"kubernaut.ai/e2e/docker/datastorage/api/server"
	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// handler implements the generated interface. Errors are turned into problems by
// answerError.
type handler struct {
	reader   reader
	verifier verifier
	now      func() time.Time
}

var _ server.StrictServerInterface = (*handler)(nil)

// GetEvent answers one event.
func (h *handler) GetEvent(ctx context.Context, req server.GetEventRequestObject) (server.GetEventResponseObject, error) {
	event, err := h.reader.Get(ctx, req.EventID)
	if err != nil {
		return nil, err
	}
	return one{event}, nil
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
	answer := page{events: found.Events, pagination: server.Pagination{
		Limit: query.Limit, Offset: query.Offset, Total: found.Total, HasMore: found.Next != nil,
	}}
	if found.More {
		answer.pagination.TotalIsMinimum = new(true)
	}
	if found.Next != nil {
		answer.pagination.NextCursor = new(encodeCursor(*found.Next))
	}
	return answer, nil
}

// VerifyChain answers whether a chain, or all that is signed, is whole, or how far it is.
func (h *handler) VerifyChain(ctx context.Context, req server.VerifyChainRequestObject) (server.VerifyChainResponseObject, error) {
	if err := checkText("correlation_id", req.Body.CorrelationID); err != nil {
		return nil, err
	}
	resume := value(req.Body.Resume)
	if req.Body.CorrelationID == "" {
		from, err := decodePlace(resume)
		if err != nil {
			return nil, invalid("resume", "is not a resume of this service, without a correlation_id")
		}
		found, err := h.verifier.VerifyAll(ctx, from)
		return reportOf(found.Total, found.Broken, found.Complete, encodePlace(found.Place)), err
	}
	from, err := decodeVerified(resume)
	if err != nil {
		return nil, invalid("resume", "is not a resume of this service, with a correlation_id")
	}
	found, err := h.verifier.VerifyChain(ctx, req.Body.CorrelationID, from)
	report := reportOf(found.Length, found.Broken, found.Complete, encodeVerified(found))
	if found.Removed > 0 {
		report.Removed = &found.Removed
	}
	return report, err
}

func reportOf(length int64, broken *audit.Break, complete bool, resume string) server.VerifyChain200JSONResponse {
	report := server.VerifyChain200JSONResponse{Valid: complete && broken == nil, Length: length}
	switch {
	case broken != nil:
		report.FirstBroken = &server.ChainBreak{Position: broken.Position, Reason: server.ChainBreakReason(broken.Reason)}
		if broken.EventID != uuid.Nil {
			report.FirstBroken.EventID = &broken.EventID
		}
	case !complete:
		report.Resume = &resume
	}
	return report
}

func idsOf(receipts []audit.Receipt) []server.UUID {
	ids := make([]server.UUID, len(receipts))
	for i, receipt := range receipts {
		ids[i] = receipt.ID
	}
	return ids
}

// value returns a text that may not have been given.
func value(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
