-- Run once, in the new database, by the superuser. A blank line ends each statement.
DO $$
BEGIN
    EXECUTE format('CREATE ROLE datastorage LOGIN PASSWORD %L', pg_read_file('/run/secrets/owner/password'));
    EXECUTE format('CREATE ROLE datastorage_server LOGIN PASSWORD %L', pg_read_file('/run/secrets/server/password'));
END
$$;

ALTER DATABASE datastorage OWNER TO datastorage;
