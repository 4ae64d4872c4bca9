package datastorage_test

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"kubernaut.ai/e2e/test/e2e/audit"
)

// partitionOf is the name of the partition of a month.
func partitionOf(at time.Time) string { return "audit_events_" + at.UTC().Format("2006_01") }

// partitionWith finds the partition that an event lies in.
func partitionWith(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, event uuid.UUID) (string, error) {
	var name string
	err := db.QueryRow(ctx, "SELECT tableoid::regclass::text FROM audit_events WHERE event_id = $1", event).Scan(&name)
	return name, err
}

var _ = Describe("The partition", func() {
	It("of every month that an event may fall into is there before it is needed", SpecTimeout(brief), func(ctx SpecContext) {
		db, now := database(ctx), time.Now().UTC()
		for _, at := range []time.Time{now.AddDate(0, 0, -7), now, now.Add(time.Hour), time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)} {
			var found *string
			Expect(db.QueryRow(ctx, "SELECT to_regclass($1)::text", partitionOf(at)).Scan(&found)).To(Succeed())
			Expect(found).To(HaveValue(Equal(partitionOf(at))))
		}
	})

	DescribeTable("holds the events of its month:", func(ctx SpecContext, offset time.Duration) {
		event := audit.NewEvent(correlation())
		event.EventTimestamp = time.Now().Add(offset)
		stored(ctx, event)
		Expect(must(partitionWith(ctx, database(ctx), *event.EventID))).To(Equal(partitionOf(event.EventTimestamp)))
	},
		Entry("the oldest", SpecTimeout(brief), -7*24*time.Hour+time.Minute),
		Entry("this moment's", SpecTimeout(brief), time.Duration(0)),
		Entry("the newest", SpecTimeout(brief), 59*time.Minute),
	)

	// The API takes no event of these days, so they are written by SQL, and rolled back.
	DescribeTable("ends where its month does:", func(ctx SpecContext, at string) {
		when := must(time.Parse(time.RFC3339Nano, at)).UTC()
		undone := errors.New("undone")
		Expect(pgx.BeginFunc(ctx, database(ctx), func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT audit_events_add_month($1::date)", when); err != nil {
				return err
			}
			id := uuid.New()
			if _, err := tx.Exec(ctx, `INSERT INTO audit_events (event_date, event_id, version, event_type, event_timestamp, event_category, event_action,
				event_outcome, correlation_id, event_data, chain_position, previous_hash, event_hash)
				VALUES (($1::timestamptz AT TIME ZONE 'UTC')::date, $2, '1', 't', $1, 'c', 'a', 'success', $3, '{}', 1, '', '')`, when, id, correlation()); err != nil {
				return err
			}
			name, err := partitionWith(ctx, tx, id)
			Expect(name).To(Equal(partitionOf(when)))
			return errors.Join(err, undone)
		})).To(MatchError(undone))
	},
		Entry("the last moment of a month", SpecTimeout(brief), "2027-04-30T23:59:59.999999Z"),
		Entry("the first moment of the next", SpecTimeout(brief), "2027-05-01T00:00:00Z"),
		Entry("a leap day", SpecTimeout(brief), "2028-02-29T23:59:59.999999Z"),
		Entry("the day after a leap day", SpecTimeout(brief), "2028-03-01T00:00:00Z"),
		Entry("the end of February in other years", SpecTimeout(brief), "2027-02-28T23:59:59.999999Z"),
		Entry("the last moment of a year", SpecTimeout(brief), "2027-12-31T23:59:59.999999Z"),
		Entry("the first moment of a year", SpecTimeout(brief), "2028-01-01T00:00:00Z"),
		Entry("the next year in a zone that is ahead of UTC", SpecTimeout(brief), "2028-01-01T01:00:00+02:00"),
	)
})
