#!/usr/bin/env bash
# Holds a running backend against its own /openapi.json with schemathesis; the database is the one given.
#
#   tests/backend/contract.sh <roomcast> <schemathesis> <database URL>
set -euo pipefail
binary=$1 schemathesis=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") database=$3

dir=$(mktemp -d "${TMPDIR:-/tmp}/roomcast-contract-XXXXXX")
backend=
stop() {
  if [ -n "$backend" ]; then kill "$backend" 2>/dev/null || true; wait "$backend" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

case $database in
  sqlite) database="sqlite://$dir/backend.db" ;;
  postgres)
    name="contract_$$"
    server=${ROOMCAST_TEST_POSTGRES:?}
    psql -q "$server/postgres" -c "CREATE DATABASE $name"
    database="$server/$name" ;;
esac
for attempt in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 12000))
  JWT_SECRET=contract-test-secret-of-32-bytes-and-more ROOMCAST_LOG=warn \
    "$binary" backend --listen "127.0.0.1:$port" --database "$database" --open-login --seed-users 10 --seed-rooms 3 \
    >"$dir/log" 2>&1 &
  backend=$!
  for _ in $(seq 100); do
    kill -0 "$backend" 2>/dev/null || break
    if curl -fs "http://127.0.0.1:$port/healthz" >/dev/null 2>&1; then break 2; fi
    sleep 0.05
  done
  kill "$backend" 2>/dev/null || true
  [ "$attempt" -lt 5 ] || { cat "$dir/log" >&2; exit 69; }
done

config=$(cd "$(dirname "$0")" && pwd)/schemathesis.toml
cd "$dir"
# Left out: what a schema cannot say (an owner must be a participant, a gap needs its ends) is refused although it fits
# the schema, and the service token is optional (and its absence, where it is not, an outage and no refused user).
"$schemathesis" --config-file "$config" run "http://127.0.0.1:$port/openapi.json" \
  --exclude-checks positive_data_acceptance,ignored_auth,missing_required_header \
  --max-examples "${CONTRACT_EXAMPLES:-30}" --generation-deterministic --suppress-health-check all --warnings off --no-color \
  >"$dir/report" 2>&1 || { cat "$dir/report" >&2; exit 1; }
grep -E 'generated' "$dir/report" || true
# A refusal is an answer; whatever is logged as a warning or worse was none.
if grep -E 'ERROR|WARN.*status=5|panicked' "$dir/log" >&2; then exit 1; fi
