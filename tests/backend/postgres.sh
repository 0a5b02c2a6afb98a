#!/usr/bin/env bash
# Runs a command with a private PostgreSQL whose address is in ROOMCAST_TEST_POSTGRES; nothing of it stays behind.
#
#   tests/backend/postgres.sh cargo test --lib backend::
set -euo pipefail

# Debian keeps the server's programs out of the path, one folder a version.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
[ -n "$bin" ] || bin=$(dirname "$(readlink -f "$(command -v initdb || command -v pg_ctl || true)")")
[ -x "$bin/initdb" ] || { echo "initdb is missing: install PostgreSQL" >&2; exit 69; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/roomcast-postgres-XXXXXX")
# PostgreSQL refuses to run as root.
run() { "$@"; }
if [ "$(id -u)" -eq 0 ]; then
  chown postgres "$dir"
  run() { runuser -u postgres -- "$@"; }
fi
stop() {
  cd /
  if [ -f "$dir/data/postmaster.pid" ]; then
    run "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
  fi
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

quietly() { run "$@" >"$dir/out" 2>&1 || { cat "$dir/out" "$dir/log" >&2 2>/dev/null; exit 69; }; }
here=$PWD
cd "$dir"
quietly "$bin/initdb" -D "$dir/data" -U test --auth=trust --no-sync --encoding=UTF8 --no-locale
# A free port can be taken between asking and using: then another one.
for attempt in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 12000))
  # Durability is not what is tested; the connections are those of many tests at once, each with a pool.
  options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c full_page_writes=off"
  options="$options -c synchronous_commit=off -c max_connections=500 -c shared_buffers=64MB"
  if run "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -o "$options" -w start >"$dir/out" 2>&1; then break; fi
  [ "$attempt" -lt 5 ] || { cat "$dir/out" "$dir/log" >&2; exit 69; }
done
cd "$here"
ROOMCAST_TEST_POSTGRES="postgres://test@127.0.0.1:$port" "$@"
