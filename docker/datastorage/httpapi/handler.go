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
	reader reader
	now    func() time.Time
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

// VerifyChain answers whether a chain is whole, or how far it is.
func (h *handler) VerifyChain(ctx context.Context, req server.VerifyChainRequestObject) (server.VerifyChainResponseObject, error) {
	if err := checkText("correlation_id", req.Body.CorrelationID); err != nil {
		return nil, err
	}
	var from audit.Link
	if req.Body.Resume != nil {
		var err error
		if from, err = decodeLink(*req.Body.Resume); err != nil {
			return nil, invalid("resume", "is not a resume of this service")
		}
	}
	found, err := h.reader.VerifyChain(ctx, req.Body.CorrelationID, from)
	if err != nil {
		return nil, err
	}
	report := server.VerifyChain200JSONResponse{Valid: found.Complete && found.Broken == nil, Length: found.Length}
	if !found.Complete && found.Broken == nil {
		report.Resume = new(encodeLink(found.Last))
	}
	if broken := found.Broken; broken != nil {
		report.FirstBroken = &server.ChainBreak{Position: broken.Position, Reason: server.ChainBreakReason(broken.Reason)}
		if broken.EventID != uuid.Nil {
			report.FirstBroken.EventID = &broken.EventID
		}
	}
	return report, nil
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
