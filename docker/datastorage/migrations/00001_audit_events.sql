-- +goose Up

-- Order of insertion over all chains: breaks ties between equal timestamps.
CREATE SEQUENCE audit_events_sequence AS bigint;

CREATE TABLE audit_events (
    event_date       date        NOT NULL, -- UTC date of event_timestamp
    sequence         bigint      NOT NULL DEFAULT nextval('audit_events_sequence'),
    event_id         uuid        NOT NULL,
    version          varchar(20) NOT NULL,
    event_type       varchar(100) NOT NULL,
    event_timestamp  timestamptz NOT NULL,
    event_category   varchar(50) NOT NULL,
    event_action     varchar(50) NOT NULL,
    event_outcome    varchar(20) NOT NULL CHECK (event_outcome IN ('success', 'failure', 'pending')),
    correlation_id   varchar(255) NOT NULL,
    actor_type       varchar(50),
    actor_id         varchar(255),
    resource_type    varchar(100),
    resource_id      varchar(255),
    namespace        varchar(253),
    cluster_id       varchar(255),
    severity         varchar(50),
    duration_ms      bigint,
    error_code       varchar(100),
    error_message    varchar(4096),
    parent_event_id  uuid,
    event_data       jsonb       NOT NULL,
    chain_position   bigint      NOT NULL, -- in the chain of correlation_id, from 1
    previous_hash    bytea       NOT NULL,
    event_hash       bytea       NOT NULL,
    PRIMARY KEY (event_date, event_id),
    CHECK (event_date = (event_timestamp AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (event_date);

-- The order in which events are listed.
CREATE INDEX audit_events_timestamp ON audit_events (event_timestamp, sequence);
-- A chain in its order; also the filter by correlation_id.
CREATE INDEX audit_events_correlation ON audit_events (correlation_id, chain_position);
CREATE INDEX audit_events_type ON audit_events (event_type, event_timestamp);
CREATE INDEX audit_events_resource ON audit_events (resource_type, resource_id);
-- fastupdate would let an insert now and then pay for many others.
CREATE INDEX audit_events_data ON audit_events USING gin (event_data jsonb_path_ops) WITH (fastupdate = off);

-- A unique index over a partitioned table must hold the partition key, so it cannot
-- keep an event_id unique over all months. This table does.
CREATE TABLE audit_event_ids (
    event_id        uuid        PRIMARY KEY,
    event_timestamp timestamptz NOT NULL
);

-- The end of each chain as it was written: without it, removing the last events of a
-- chain would leave a chain that looks whole.
CREATE TABLE audit_chains (
    correlation_id varchar(255) PRIMARY KEY,
    length         bigint NOT NULL,
    last_hash      bytea  NOT NULL
) WITH (fillfactor = 70); -- room on the page, so that updates need no new index entry

-- +goose StatementBegin
CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: audit events are immutable', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'check_violation';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER audit_events_immutable BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_event_ids_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event_ids
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_chains_kept BEFORE DELETE OR TRUNCATE ON audit_chains
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

-- audit_events_add_month makes the partition of the month that day lies in, and says
-- whether there was none. It looks before it locks: CREATE TABLE ... PARTITION OF
-- holds up every reader and writer while it waits for its lock, even when the
-- partition is there already.
-- +goose StatementBegin
CREATE FUNCTION audit_events_add_month(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', day::timestamp)::date;
    partition text := 'audit_events_' || to_char(first_day, 'YYYY_MM');
BEGIN
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('audit_events_add_month')); -- one maker at a time
    EXECUTE format('CREATE TABLE %I PARTITION OF audit_events FOR VALUES FROM (%L) TO (%L)',
        partition, first_day, (first_day + interval '1 month')::date);
    -- Triggers for each row are inherited by partitions, those for a statement are not.
    EXECUTE format('CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON %I
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()', partition);
    RETURN true;
EXCEPTION WHEN duplicate_table THEN
    RETURN false; -- somebody was faster
END
$$;
-- +goose StatementEnd
