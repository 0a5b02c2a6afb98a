#!/bin/bash
# Counts the instructions of every case here and at a base, and fails where one has risen by more than 5 %.
#
# gate.sh BASE TARGET          builds both trees, the base in a worktree in the target folder
# gate.sh --compare BASE NOW   compares two lists of "case count"
# gate.sh --self-test          shows that a rise fails and noise does not
set -euo pipefail
LIMIT=1.05

compare() {
  awk -v limit="$LIMIT" '
    FNR == NR { base[$1] = $2; next }
    !($1 in base) { printf "%-16s %14s %14d %8s\n", $1, "-", $2, "new"; next }
    { ratio = $2 / base[$1]; bad = ratio > limit; failed += bad
      printf "%-16s %14d %14d %8.3f%s\n", $1, base[$1], $2, ratio, bad ? "  ROSE" : "" }
    END { exit failed > 0 }' "$1" "$2"
}

self_test() {
  local dir; dir=$(mktemp -d); trap 'rm -rf "$dir"' RETURN
  echo "a 1000" >"$dir/base"; echo "a 1049" >"$dir/noise"; echo "a 1060" >"$dir/rise"
  compare "$dir/base" "$dir/noise" || { echo "noise failed"; return 1; }
  if compare "$dir/base" "$dir/rise"; then echo "a rise passed"; return 1; fi
}

# The list of a tree. Without link-time optimisation: the counts are compared with each other only.
count() {
  local tree=$1 out=$2 bench
  bench=$(cd "$tree" && CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 \
    ${CARGO:-cargo} bench --bench instructions --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*(\(.*instructions-[0-9a-f]*\)).*/\1/p')
  (cd "$tree"; bench=$(realpath "$bench"); "$bench" list | while read -r case; do
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' "$bench" "$case" 2>&1 |
      awk -v name="$case" '/Collected/ { print name, $NF }'
  done) >"$out"
  [ -s "$out" ] || { echo "nothing was counted in $tree" >&2; return 1; }
}

case ${1:?} in
  --compare) compare "$2" "$3" ;;
  --self-test) self_test ;;
  *)
    target=$(realpath "$2"); base=$target/bench-base
    if ! git cat-file -e "$1:benches/instructions.rs" 2>/dev/null; then
      echo "$1 has no benches: nothing to compare with"; exit 0
    fi
    git worktree remove --force "$base" 2>/dev/null || true
    git worktree add --quiet --detach "$base" "$1"
    trap 'git worktree remove --force "$base"' EXIT
    export CARGO_TARGET_DIR=$target
    count "$base" "$target/bench-base.txt"; count . "$target/bench-now.txt"
    printf '%-16s %14s %14s %8s\n' case base now ratio
    compare "$target/bench-base.txt" "$target/bench-now.txt" ;;
esac
