package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"kubernaut.ai/e2e/docker/datastorage/audit"
)

// copied are the columns of audit_events that a write fills, in the order in which
// appendRow writes them.
var copied = []string{
	"event_date", "event_id", "version", "event_type", "event_timestamp", "event_category", "event_action", "event_outcome",
	"correlation_id", "actor_type", "actor_id", "resource_type", "resource_id", "namespace", "cluster_id", "severity", "duration_ms",
	"error_code", "error_message", "parent_event_id", "recorded_by", "chain_position", "previous_hash", "event_hash", "event_data",
}

var copySQL = "COPY audit_events (" + strings.Join(copied, ", ") + ") FROM STDIN (FORMAT binary)"

// copyRows writes rows in their order, which is also that of their sequence. COPY takes
// PostgreSQL half of what an INSERT does. The rows are written in its binary format by
// hand: pgx would ask for the columns' types each time, and look up how to encode each
// value. https://www.postgresql.org/docs/current/sql-copy.html
func copyRows(ctx context.Context, conn *pgx.Conn, rows []audit.Stored) error {
	_, err := conn.PgConn().CopyFrom(ctx, &copyReader{rows: rows, head: []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")}, copySQL)
	return err
}

// copyReader reads rows as COPY wants them: a head, the rows, an end. Data is not copied
// before it is read.
type copyReader struct {
	rows    []audit.Stored
	head    []byte // to be read next
	data    []byte // and then
	buffer  []byte
	trailed bool
}

// Read reads what comes next.
func (r *copyReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		switch {
		case len(r.head) > 0:
			m := copy(p[n:], r.head)
			n, r.head = n+m, r.head[m:]
		case len(r.data) > 0:
			m := copy(p[n:], r.data)
			n, r.data = n+m, r.data[m:]
		case len(r.rows) > 0:
			r.buffer = appendRow(r.buffer[:0], &r.rows[0])
			r.head, r.data = r.buffer, r.rows[0].Data
			r.rows = r.rows[1:]
		case !r.trailed:
			r.head, r.trailed = []byte{0xff, 0xff}, true
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
	return n, nil
}

// epoch is PostgreSQL's.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// jsonbVersion begins a jsonb in binary format; text follows.
const jsonbVersion = 1

// appendRow appends a row up to the text of its data, which is the last column.
func appendRow(dst []byte, e *audit.Stored) []byte {
	order := binary.BigEndian
	text := func(value string) {
		dst = append(order.AppendUint32(dst, uint32(len(value))), value...)
	}
	optional := func(value string) {
		if value == "" {
			dst = order.AppendUint32(dst, 0xffffffff) // NULL
			return
		}
		text(value)
	}
	raw := func(value []byte) {
		dst = append(order.AppendUint32(dst, uint32(len(value))), value...)
	}
	number := func(value int64) {
		dst = order.AppendUint64(order.AppendUint32(dst, 8), uint64(value))
	}
	dst = order.AppendUint16(dst, uint16(len(copied)))
	dst = order.AppendUint32(order.AppendUint32(dst, 4), uint32(int32(date(e.Timestamp).Sub(epoch)/(24*time.Hour))))
	raw(e.ID[:])
	text(e.Version)
	text(e.Type)
	number(e.Timestamp.UnixMicro() - epoch.UnixMicro())
	text(e.Category)
	text(e.Action)
	text(e.Outcome)
	text(e.CorrelationID)
	optional(e.ActorType)
	optional(e.ActorID)
	optional(e.ResourceType)
	optional(e.ResourceID)
	optional(e.Namespace)
	optional(e.ClusterID)
	optional(e.Severity)
	if e.DurationMS == nil {
		optional("")
	} else {
		number(*e.DurationMS)
	}
	optional(e.ErrorCode)
	optional(e.ErrorMessage)
	if e.ParentID == nil {
		optional("")
	} else {
		raw(e.ParentID[:])
	}
	optional(e.RecordedBy)
	number(e.Position)
	raw(e.Previous[:])
	raw(e.Hash[:])
	return append(order.AppendUint32(dst, uint32(1+len(e.Data))), jsonbVersion)
}
