-- +goose Up

-- The server may not make tables; this function does it for it, as its owner. Nothing that the caller makes in its
-- temporary schema can take the place of what the function means.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION audit_events_add_month(date) SECURITY DEFINER SET search_path = %I, pg_temp', current_schema());
END
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION audit_events_add_month(date) FROM PUBLIC;
