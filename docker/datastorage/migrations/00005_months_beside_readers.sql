-- +goose Up

-- CREATE TABLE ... PARTITION OF takes the lock that nobody else may hold: the first event of a month waited for
-- whoever read, and all writers waited behind it. To attach a table takes one that readers and writers do not mind.
-- It still looks before it makes anything, and says whether there was no partition.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit_events_add_month(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', day::timestamp)::date;
    partition text := 'audit_events_' || to_char(first_day, 'YYYY_MM');
BEGIN
    IF to_regclass(quote_ident(partition)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('audit_events_add_month')); -- one maker at a time
    EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)', partition);
    -- Triggers for each row are inherited by partitions, those for a statement are not.
    EXECUTE format('CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON %I
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()', partition);
    EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition, first_day, (first_day + interval '1 month')::date);
    RETURN true;
EXCEPTION WHEN duplicate_table THEN
    RETURN false; -- somebody was faster
END
$$;
-- What is replaced forgets whose rights it has (00003).
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION audit_events_add_month(date) SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END
$$;
-- +goose StatementEnd
