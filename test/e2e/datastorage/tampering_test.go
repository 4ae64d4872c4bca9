package datastorage_test

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/stores"
)

// immutable is the SQLSTATE with which PostgreSQL refuses to change an event.
const immutable = "23514"

// sqlState is the SQLSTATE of an error; empty when it has none.
func sqlState(err error) string {
	var refused *pgconn.PgError
	errors.As(err, &refused)
	if refused == nil {
		return ""
	}
	return refused.Code
}

// forgeries is the advisory lock that a spec has a share of while what it has forged is
// there, until its connection ends. Whoever has it alone finds the database as DataStorage
// left it.
const forgeries = 0x666f726765

// forge changes a chain as somebody can who owns the database: triggers are switched off.
// The statements get the chain. What they did is undone at the end of the spec, because
// everything is verified in others; so the chain must be signed before.
func forge(ctx context.Context, chain string, statements ...string) {
	GinkgoHelper()
	signed(ctx, chain)
	db := database(ctx)
	_, err := db.Exec(ctx, "SELECT pg_advisory_lock_shared($1)", forgeries)
	Expect(err).NotTo(HaveOccurred())
	owner := func(ctx context.Context, statements ...string) error {
		return stores.AsOwner(ctx, db, func(tx pgx.Tx) (err error) {
			for _, statement := range statements {
				if err == nil {
					_, err = tx.Exec(ctx, strings.ReplaceAll(statement, "$1", "'"+chain+"'"))
				}
			}
			return err
		})
	}
	// Checkpoints may be added meanwhile.
	keep := []string{"CREATE TEMPORARY TABLE kept_checkpoints AS SELECT * FROM audit_checkpoints"}
	restore := []string{"INSERT INTO audit_checkpoints SELECT * FROM kept_checkpoints ON CONFLICT DO NOTHING"}
	for _, table := range []string{"audit_events", "audit_chains", "audit_signed_ends"} {
		keep = append(keep, "CREATE TEMPORARY TABLE kept_"+table+" AS SELECT * FROM "+table+" WHERE correlation_id = $1")
		restore = append(restore, "DELETE FROM "+table+" WHERE correlation_id = $1", "INSERT INTO "+table+" SELECT * FROM kept_"+table)
	}
	Expect(owner(ctx, keep...)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) error { return owner(ctx, restore...) })
	Expect(owner(ctx, statements...)).To(Succeed())
}

// signed waits until checkpoints close all events of a chain.
func signed(ctx context.Context, chain string) {
	GinkgoHelper()
	db := database(ctx)
	var number *float64
	Eventually(func(ctx context.Context) (*float64, error) {
		err := db.QueryRow(ctx, `SELECT min(number)::float8 FROM audit_checkpoints
			WHERE upto_sequence >= (SELECT max(sequence) FROM audit_events WHERE correlation_id = $1)`, chain).Scan(&number)
		return number, err
	}).WithContext(ctx).ShouldNot(BeNil())
	// It is also known outside of the database then.
	Eventually(func(ctx context.Context) float64 { return counted(ctx).Value("datastorage_checkpoint_number") }).WithContext(ctx).
		Should(BeNumerically(">=", *number))
}

var _ = Describe("A stored event", func() {
	DescribeTable("cannot be changed by", func(ctx SpecContext, statement string) {
		event := audit.NewEvent(correlation())
		stored(ctx, event)
		_, err := database(ctx).Exec(ctx, statement, *event.EventID)
		Expect(sqlState(err)).To(Equal(immutable), "%v", err)
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(event.EventID.String()))
	},
		Entry("UPDATE", SpecTimeout(brief), "UPDATE audit_events SET event_type = 'forged' WHERE event_id = $1"),
		Entry("an UPDATE of its data", SpecTimeout(brief), "UPDATE audit_events SET event_data = '{}' WHERE event_id = $1"),
		Entry("DELETE", SpecTimeout(brief), "DELETE FROM audit_events WHERE event_id = $1"),
	)

	It("cannot be removed by TRUNCATE", SpecTimeout(brief), func(ctx SpecContext) {
		tx := must(database(ctx).Begin(ctx))
		_, err := tx.Exec(ctx, "TRUNCATE audit_events")
		Expect(sqlState(err)).To(Equal(immutable), "%v", err)
		Expect(tx.Rollback(ctx)).To(Succeed())
	})
})

var _ = Describe("DataStorage's account of the database", func() {
	It("owns nothing and is no superuser", SpecTimeout(brief), func(ctx SpecContext) {
		stored(ctx, audit.NewEvent(correlation())) // so that it is connected
		db := database(ctx)
		var superuser, creates bool
		var owned int
		Expect(db.QueryRow(ctx, `SELECT bool_or(rolsuper), bool_or(rolcreaterole OR rolcreatedb), count(c.oid) FROM pg_stat_activity AS a
			JOIN pg_roles AS r ON r.oid = a.usesysid LEFT JOIN pg_class AS c ON c.relowner = r.oid
			WHERE a.usename = 'datastorage_server'`).Scan(&superuser, &creates, &owned)).To(Succeed())
		Expect(superuser || creates).To(BeFalse())
		Expect(owned).To(BeZero())
	})

	DescribeTable("may not", func(ctx SpecContext, statement string) {
		event := audit.NewEvent(correlation())
		stored(ctx, event)
		tx := must(database(ctx).Begin(ctx))
		_, err := tx.Exec(ctx, "SET LOCAL ROLE datastorage_server")
		Expect(err).NotTo(HaveOccurred())
		_, err = tx.Exec(ctx, statement)
		Expect(sqlState(err)).To(Equal("42501"), "%v", err)
		Expect(tx.Rollback(ctx)).To(Succeed())
	},
		Entry("switch off what keeps events as they are", SpecTimeout(brief), "ALTER TABLE audit_events DISABLE TRIGGER USER"),
		Entry("remove events", SpecTimeout(brief), "DELETE FROM audit_events"),
		Entry("remove a chain", SpecTimeout(brief), "DELETE FROM audit_chains"),
		Entry("run a program", SpecTimeout(brief), "COPY (SELECT 1) TO PROGRAM 'true'"),
	)
})

var _ = Describe("An event that was written", func() {
	It("names the writer, as the API server knows him", SpecTimeout(brief), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		event.ActorID = new("somebody else")
		stored(ctx, event)
		events := must(storage.Of(ctx, event.CorrelationID))
		Expect(events).To(HaveLen(1))
		Expect(events[0].RecordedBy).To(HaveValue(And(HavePrefix("system:serviceaccount:"), ContainSubstring("both"))))
	})
})

var _ = Describe("A chain", func() {
	It("is valid as it was written", SpecTimeout(brief), func(ctx SpecContext) {
		chain := correlation()
		stored(ctx, audit.Events(chain, 10)...)
		Expect(must(storage.Write(ctx, audit.NewEvent(chain))).Code).To(Equal(201))
		Expect(must(storage.Verify(ctx, chain))).To(HaveValue(Equal(client.ChainReport{Valid: true, Length: 11})))
	})

	It("of nothing is valid and empty", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(must(storage.Verify(ctx, correlation()))).To(HaveValue(Equal(client.ChainReport{Valid: true})))
	})

	It("links every event to the one before", SpecTimeout(brief), func(ctx SpecContext) {
		chain := correlation()
		stored(ctx, audit.Events(chain, 5)...)
		events := must(storage.Of(ctx, chain))
		Expect(events[0].PreviousHash).To(MatchRegexp(`^0{64}$`))
		for i := 1; i < len(events); i++ {
			Expect(events[i].PreviousHash).To(Equal(events[i-1].EventHash))
			Expect(events[i].ChainPosition).To(BeEquivalentTo(i + 1))
		}
	})

	DescribeTable("shows where", func(ctx SpecContext, statement string, position int64, reason client.ChainBreakReason) {
		chain := correlation()
		stored(ctx, audit.Events(chain, 6)...)
		forge(ctx, chain, statement)
		report := must(storage.Verify(ctx, chain))
		Expect(report.Valid).To(BeFalse())
		Expect(report.FirstBroken).To(HaveValue(And(HaveField("Position", position), HaveField("Reason", reason))))
	},
		Entry("an event was changed", SpecTimeout(brief),
			"UPDATE audit_events SET event_outcome = 'failure' WHERE correlation_id = $1 AND chain_position = 4", int64(4), client.ChainBreakReason("changed")),
		Entry("an event's data was changed", SpecTimeout(brief),
			"UPDATE audit_events SET event_data = '{}' WHERE correlation_id = $1 AND chain_position = 2", int64(2), client.ChainBreakReason("changed")),
		Entry("an event was removed", SpecTimeout(brief),
			"DELETE FROM audit_events WHERE correlation_id = $1 AND chain_position = 3", int64(3), client.ChainBreakReason("missing")),
		Entry("the first event was removed", SpecTimeout(brief),
			"DELETE FROM audit_events WHERE correlation_id = $1 AND chain_position = 1", int64(1), client.ChainBreakReason("missing")),
		Entry("the end was cut off", SpecTimeout(brief),
			"DELETE FROM audit_events WHERE correlation_id = $1 AND chain_position >= 5", int64(5), client.ChainBreakReason("missing")),
	)

	It("is not touched by a forgery in another", SpecTimeout(brief), func(ctx SpecContext) {
		forged, honest := correlation(), correlation()
		stored(ctx, append(audit.Events(forged, 3), audit.Events(honest, 3)...)...)
		forge(ctx, forged, "UPDATE audit_events SET event_type = 'forged' WHERE correlation_id = $1 AND chain_position = 2")
		Expect(must(storage.Verify(ctx, honest)).Valid).To(BeTrue())
		Expect(must(storage.Verify(ctx, forged)).Valid).To(BeFalse())
	})
})
