package httpapi

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/api/server"
	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// answerTime is how long a sender may take to read an answer. It holds its part of what may
// be read at once for so long.
const answerTime = 10 * time.Second

// page answers a listing. It writes event by event: the generated code would hold the
// whole answer, escaped for HTML, a second time.
type page struct {
	events     []audit.Stored
	pagination server.Pagination
}

// VisitListEventsResponse writes the page.
func (p page) VisitListEventsResponse(w http.ResponseWriter) error {
	pagination, err := json.Marshal(p.pagination)
	if err != nil {
		return err
	}
	out := begin(w)
	_, _ = out.WriteString(`{"data":[`) // a bufio.Writer keeps its error until the end
	for i := range p.events {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		writeEvent(out, &p.events[i])
	}
	_, _ = out.WriteString(`],"pagination":`)
	_, _ = out.Write(pagination)
	_ = out.WriteByte('}')
	return out.Flush()
}

// one answers an event.
type one struct{ event audit.Stored }

// VisitGetEventResponse writes the event.
func (o one) VisitGetEventResponse(w http.ResponseWriter) error {
	out := begin(w)
	writeEvent(out, &o.event)
	return out.Flush()
}

// begin begins an answer of JSON.
func begin(w http.ResponseWriter) *bufio.Writer {
	// A recorder in tests has no deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	return bufio.NewWriterSize(w, 16<<10)
}

// writeEvent writes an event and its place in the chain. Errors stay in out.
func writeEvent(out *bufio.Writer, e *audit.Stored) {
	head := e.Head(make([]byte, 0, 1024))
	_, _ = out.Write(head)
	_, _ = out.Write(e.Data)
	_, _ = out.WriteString(`,"chain_position":` + strconv.FormatInt(e.Position, 10) +
		`,"previous_hash":"` + e.Previous.String() + `","event_hash":"` + e.Hash.String() + `"}`)
}
