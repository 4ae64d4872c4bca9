-- +goose Up

-- Who the writer was, as the API server knows him. Part of the hash of an event that has it.
ALTER TABLE audit_events ADD COLUMN recorded_by varchar(512);

-- By which two events with the same id are told apart; NULL of those that are older than this column.
ALTER TABLE audit_event_ids ADD COLUMN content bigint;

-- An index for each filter, in the order of the listing. The one over all keys and values inside event_data served
-- no query, and made an event with many of them take seconds.
DROP INDEX audit_events_data;
DROP INDEX audit_events_type;
CREATE INDEX audit_events_type ON audit_events (event_type, event_timestamp, sequence);
CREATE INDEX audit_events_category ON audit_events (event_category, event_timestamp, sequence);
CREATE INDEX audit_events_outcome ON audit_events (event_outcome, event_timestamp, sequence);
CREATE INDEX audit_events_severity ON audit_events (severity, event_timestamp, sequence);

-- audit_event_ids keeps ids unique over all months, and an event is found by its timestamp. A second index of random
-- ids cost each write as much as the first one.
ALTER TABLE audit_events DROP CONSTRAINT audit_events_pkey;
