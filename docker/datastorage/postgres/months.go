package postgres

import (
	"context"
	"log/slog"
	"time"

	"kubernaut.ai/e2e/docker/datastorage/audit"
	"kubernaut.ai/e2e/docker/datastorage/migrations"
)

// monthsAhead is how many months beyond those that writes can reach get their
// partition in advance: the service may be down for all of that time and still find
// its partition when it comes back.
const monthsAhead = 2

// monthsInterval is how often the partitions are looked after. It only has to be
// much shorter than monthsAhead.
const monthsInterval = time.Hour

// monthsRetry is how soon a failed attempt is repeated.
const monthsRetry = 5 * time.Second

// months returns the first day of each month that has to have a partition: from the
// oldest event that is accepted to monthsAhead beyond the newest.
func months(now time.Time) []time.Time {
	from, to := now.Add(-audit.MaxBack).UTC(), now.Add(audit.MaxAhead).UTC()
	last := time.Date(to.Year(), to.Month()+monthsAhead, 1, 0, 0, 0, 0, time.UTC)
	var list []time.Time
	for month := time.Date(from.Year(), from.Month(), 1, 0, 0, 0, 0, time.UTC); !month.After(last); month = month.AddDate(0, 1, 0) {
		list = append(list, month)
	}
	return list
}

// AddMonths makes the partitions that writes at now and in the next months need. Each has
// the time of a drain.
func (s *Store) AddMonths(ctx context.Context, now time.Time) error {
	for _, month := range months(now) {
		if err := s.drains.call(ctx, "partitions", func(ctx context.Context) error { return s.drains.addMonth(ctx, month) }); err != nil {
			return err
		}
	}
	return nil
}

// addMonth makes the partition of the month that day lies in. The first of a table changes
// what the catalog says of the table, as a migration may in the same moment.
func (p pool) addMonth(ctx context.Context, day time.Time) error {
	return migrations.Again(ctx, func() error {
		_, err := p.Exec(ctx, "SELECT audit_events_add_month($1)", date(day))
		return err
	})
}

// KeepMonths looks after the partitions until ctx ends, and returns nil then. A month
// that is missing nevertheless is made by the write that needs it.
func (s *Store) KeepMonths(ctx context.Context, log *slog.Logger) error {
	for told := false; ; {
		wait := monthsInterval
		if err := s.AddMonths(ctx, time.Now()); err != nil {
			wait = monthsRetry
			if !told && ctx.Err() == nil {
				log.Warn("partitions are not made yet", "error", err)
			}
			told = true
		} else if told {
			log.Info("partitions are made")
			told = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
