-- Run once, in the new database, by the superuser. A blank line ends each statement. The owner makes the role that
-- DataStorage uses.
DO $$
BEGIN
    EXECUTE format('CREATE ROLE datastorage LOGIN CREATEROLE PASSWORD %L', pg_read_file('/run/secrets/owner/password'));
END
$$;

ALTER DATABASE datastorage OWNER TO datastorage;
