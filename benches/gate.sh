#!/bin/bash
# Counts the instructions of every case here and at a base, and fails where one has risen by more than 5 %.
#
# gate.sh BASE TARGET          builds both trees, the base in a worktree in the target folder
# gate.sh --compare BASE NOW   compares two lists of "case count"
# gate.sh --self-test          shows that a slower tree fails, and that noise and an unchanged tree do not
set -euo pipefail
LIMIT=1.05
GATE=$(realpath "$0")

compare() {
  awk -v limit="$LIMIT" '
    FNR == NR { base[$1] = $2; next }
    { seen[$1] }
    !($1 in base) { printf "%-16s %14s %14d %8s\n", $1, "-", $2, "new"; next }
    { ratio = $2 / base[$1]; bad = ratio > limit; failed += bad
      printf "%-16s %14d %14d %8.3f%s\n", $1, base[$1], $2, ratio, bad ? "  ROSE" : "" }
    END {
      for (name in base) if (!(name in seen)) printf "%-16s %14d %14s %8s\n", name, base[name], "-", "gone"
      exit failed > 0
    }' "$1" "$2"
}

# A package of one case that goes round so many times, and one that never changes.
write_package() {
  mkdir -p src benches
  printf '[package]\nname = "rounds"\nversion = "0.1.0"\nedition = "2021"\n' >Cargo.toml
  printf '[[bench]]\nname = "instructions"\nharness = false\n' >>Cargo.toml
  printf '/target\n' >.gitignore
  echo "pub fn go() { for round in 0..$1u64 { std::hint::black_box(round); } }" >src/lib.rs
  cat >benches/instructions.rs <<'RUST'
#[inline(never)]
fn measured(case: fn()) {
    case();
}
fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("list") => println!("rounds\nfixed"),
        Some("fixed") => measured(|| drop(std::hint::black_box(vec![0u8; 1000]))),
        _ => measured(rounds::go),
    }
}
RUST
}

self_test() {
  dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
  echo "a 1000" >"$dir/base"; echo "a 1049" >"$dir/noise"; echo "a 1060" >"$dir/rise"
  compare "$dir/base" "$dir/noise" || { echo "noise failed"; return 1; }
  if compare "$dir/base" "$dir/rise"; then echo "a rise passed"; return 1; fi

  mkdir -p "$dir/tree/target"; cd "$dir/tree"
  write_package 10000
  git init --quiet; git add .
  git -c user.name=gate -c user.email=gate@localhost commit --quiet --message base
  "$GATE" HEAD target || { echo "an unchanged tree failed"; return 1; }
  # Written before the base is checked out and built, as in a tree that somebody works in.
  write_package 11000
  if "$GATE" HEAD target; then echo "a slower tree passed"; return 1; fi
  sed -i 's/ go() {/ go() { panic!();/' src/lib.rs
  if "$GATE" HEAD target; then echo "a tree whose case does not run passed"; return 1; fi
  if "$GATE" nowhere target; then echo "a base that is not there passed"; return 1; fi
}

# The list of a tree, built in a folder. Without link-time optimisation: the counts are compared with each other only.
count() {
  local tree=$1 out=$3 bench
  export CARGO_TARGET_DIR=$2
  bench=$(cd "$tree" && CARGO_PROFILE_BENCH_LTO=off CARGO_PROFILE_BENCH_CODEGEN_UNITS=16 \
    ${CARGO:-cargo} bench --bench instructions --no-run 2>&1 | tee -a /dev/stderr | sed -n 's/.*(\(.*instructions-[0-9a-f]*\)).*/\1/p')
  : >"$out.failed"
  (cd "$tree"; bench=$(realpath "$bench"); "$bench" list | while read -r case; do
    if said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' "$bench" "$case" 2>&1); then
      awk -v name="$case" '/Collected/ { print name, $NF }' <<<"$said"
    else
      printf '%s\n%s does not run in %s\n' "$said" "$case" "$tree" | grep -v '^==' >&2
      echo "$case" >>"$out.failed"
    fi
  done) >"$out"
  [ -s "$out" ] || { echo "nothing was counted in $tree" >&2; return 1; }
  if grep ' 0$' "$out" >&2; then echo "callgrind did not find the measured function in $tree" >&2; return 1; fi
}

case ${1:?} in
  --compare) compare "$2" "$3" ;;
  --self-test) self_test ;;
  *)
    target=$(realpath "$2"); base=$target/bench-base
    git rev-parse --quiet --verify "$1^{commit}" >/dev/null || { echo "$1 is no commit of this repository" >&2; exit 2; }
    if ! git cat-file -e "$1:benches/instructions.rs" 2>/dev/null; then
      echo "$1 has no benches: nothing to compare with"; exit 0
    fi
    git worktree remove --force "$base" 2>/dev/null || true
    git worktree add --force --quiet --detach "$base" "$1"
    trap 'git worktree remove --force "$base"' EXIT
    # Each in a folder of its own: cargo names what it builds by the path within the workspace, so in a common folder it
    # takes the second tree for the first, finds it built, and the base is compared with itself.
    count "$base" "$target/bench-base-built" "$target/bench-base.txt"
    count . "$target" "$target/bench-now.txt"
    # At the base it is too late to mend it: the case counts as new.
    [ ! -s "$target/bench-now.txt.failed" ] || exit 1
    printf '%-16s %14s %14s %8s\n' case base now ratio
    compare "$target/bench-base.txt" "$target/bench-now.txt" ;;
esac
