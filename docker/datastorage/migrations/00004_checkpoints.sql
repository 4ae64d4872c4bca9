-- +goose Up

-- The order of insertion, in which checkpoints close events. The index by resource served no query.
DROP INDEX audit_events_resource;
CREATE INDEX audit_events_insertion ON audit_events (sequence);

-- What there was, signed with a key that is not in the database. A checkpoint closes the events of one month whose
-- sequences lie after one number and up to another, or says that a month was removed by policy.
CREATE TABLE audit_checkpoints (
    number         bigint      PRIMARY KEY, -- from 1, without gaps
    taken_at       timestamptz NOT NULL,
    month          date        NOT NULL, -- its first day
    removed        boolean     NOT NULL,
    after_sequence bigint      NOT NULL,
    upto_sequence  bigint      NOT NULL,
    events         bigint      NOT NULL,
    digest         bytea       NOT NULL,
    previous_mac   bytea       NOT NULL,
    mac            bytea       NOT NULL
);

-- Where chains ended when checkpoints were taken, each signed by itself.
CREATE TABLE audit_signed_ends (
    correlation_id varchar(255),
    length         bigint,
    mac            bytea NOT NULL,
    PRIMARY KEY (correlation_id, length)
);

-- Which parts of chains were removed by policy, each signed by itself.
CREATE TABLE audit_removed_runs (
    correlation_id varchar(255),
    first_position bigint,
    last_position  bigint NOT NULL,
    last_hash      bytea  NOT NULL,
    mac            bytea  NOT NULL,
    PRIMARY KEY (correlation_id, first_position)
);

CREATE TRIGGER audit_checkpoints_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_signed_ends_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_signed_ends
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

CREATE TRIGGER audit_removed_runs_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_removed_runs
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

-- The id of an event whose month was removed may go.
-- +goose StatementBegin
CREATE FUNCTION audit_event_ids_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('audit_events_' || to_char(OLD.event_timestamp AT TIME ZONE 'UTC', 'YYYY_MM')) IS NULL THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% of % refused: audit events are immutable', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'check_violation';
END
$$;
-- +goose StatementEnd
DROP TRIGGER audit_event_ids_immutable ON audit_event_ids;
CREATE TRIGGER audit_event_ids_immutable BEFORE UPDATE OR TRUNCATE ON audit_event_ids
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_event_ids_kept BEFORE DELETE ON audit_event_ids
    FOR EACH ROW EXECUTE FUNCTION audit_event_ids_keep();
