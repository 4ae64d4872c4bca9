#!/bin/bash
# Makes the database on the first start and runs the server. Of the well-known image's variables it understands
# POSTGRES_USER, POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD), POSTGRES_DB and PGDATA, and of what lies in
# /docker-entrypoint-initdb.d the SQL, in which a blank line follows each statement and no other semicolon.
set -euo pipefail

if [ "${1-}" != postgres ]; then
  exec "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  database=${POSTGRES_DB:-$user}
  if [ -n "${POSTGRES_PASSWORD_FILE-}" ]; then
    POSTGRES_PASSWORD=$(< "$POSTGRES_PASSWORD_FILE")
  fi
  : "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD_FILE to a file with the password of $user}"
  # Made beside its place and moved when whole: a pod killed half-way starts over. An empty one lies in the image,
  # because initdb takes seconds.
  next=$PGDATA.next
  rm -rf "$next"
  mkdir -m 0700 "$next"
  tar --extract --gzip --file /usr/local/share/postgresql/empty.tar.gz --directory "$next"
  printf 'local all all trust\nhost all all all scram-sha-256\n' > "$next/pg_hba.conf"
  printf "listen_addresses = '*'\njit = off\n" >> "$next/postgresql.conf"
  {
    [ "$user" = postgres ] || echo "CREATE ROLE \"$user\" SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS LOGIN"
    echo "ALTER ROLE \"$user\" PASSWORD '${POSTGRES_PASSWORD//\'/\'\'}'"
    [ "$database" = postgres ] || echo "CREATE DATABASE \"$database\" OWNER \"$user\""
  } | postgres --single -c exit_on_error=on -D "$next" postgres > /dev/null
  for file in /docker-entrypoint-initdb.d/*.sql; do
    [ ! -e "$file" ] || postgres --single -j -c exit_on_error=on -D "$next" "$database" < "$file" > /dev/null
  done
  mkdir -p "$PGDATA"
  if [ -n "$(ls -A "$PGDATA")" ]; then
    echo "$PGDATA: holds files but no database; empty it" >&2
    exit 1
  fi
  rmdir "$PGDATA"
  mv "$next" "$PGDATA"
  sync -f "$PGDATA"
  unset POSTGRES_PASSWORD
fi
exec "$@"
