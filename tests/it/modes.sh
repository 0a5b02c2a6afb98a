#!/usr/bin/env bash
# Runs every integration test on each form of Redis named, and prints a line about each.
set -uo pipefail
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
# Built once; what goes wrong here goes wrong for all.
$cargo test --quiet --test it --no-run || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# modes.rs brings its own forms of Redis and runs with the other tests.
summaries=()
for mode in "$@"; do
  if $cargo nextest --version >/dev/null 2>&1; then
    TEST_REDIS=$mode $cargo nextest run --test it --no-fail-fast --status-level fail --final-status-level fail \
      -E 'not test(/^modes::/)' >"$log" 2>&1
  else
    TEST_REDIS=$mode $cargo test --test it --no-fail-fast -- --test-threads 2 --skip modes:: >"$log" 2>&1
  fi
  failed=$?
  summary=$(grep -E '^ +Summary|^test result:' "$log" | tail -n 1 | sed 's/^ *//')
  summaries+=("$(printf '%-9s %s' "$mode" "${summary:-no test ran}")")
  if [ $failed -ne 0 ]; then
    status=1
    grep -A14 -E '^ +FAIL |panicked at|^error' "$log" | tail -n 80
  fi
done
printf '%s\n' "${summaries[@]}"
exit $status
