#!/usr/bin/env bash
# fuzz.sh [TARGET] [SECONDS]: runs libFuzzer on every parser of external input, or on the named one,
# for this many seconds each. Prints inputs per minute. Fails if a parser panics, is slow or uses
# too much memory, and names the file with the input. Needs no sanitizer, so the stable toolchain is
# enough. CARGO_TARGET_DIR and XDG_CACHE_HOME move build output and downloads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name='' seconds=10
for word in "$@"; do
  case $word in
    *[!0-9]*) name=$word ;;
    0) echo "fuzz: 0 seconds means no limit; use at least 1" >&2 && exit 2 ;;
    *) seconds=$word ;;
  esac
done

RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/with-coverage.sh \
  cargo build --locked --profile fuzz -p hearth-fuzz --features guided
program=${CARGO_TARGET_DIR:-target}/fuzz/hearth-fuzz
kept=${XDG_CACHE_HOME:-$HOME/.cache}/hearth/fuzz
mkdir -p "$kept/found"

one() { # TARGET FOLDER...
  local target=$1 log=$kept/$1.log
  shift
  mkdir -p "$kept/corpus/$target"
  local was=0
  HEARTH_FUZZ=$target "$program" "$kept/corpus/$target" "$@" -max_total_time="$seconds" \
    -dict=tests/fuzz/json.dict -max_len=4096 -timeout=2 -rss_limit_mb=1024 \
    -artifact_prefix="$kept/found/$target-" -print_final_stats=1 >"$log" 2>&1 || was=$?
  local count
  count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ "$was" = 0 ]; then
    printf '%-24s %9d inputs\n' "$target" "$count"
  else
    printf '%-24s FOUND: %s\n' "$target" "$(grep -m1 -E 'panicked|ERROR' -A1 "$log" | tr '\n' ' ')"
    sed -n 's/^.*Test unit written to /  kept as /p' "$log"
    return 1
  fi
}
export -f one
export seconds program kept

began=$SECONDS
set +e
told=$("$program" 2>/dev/null | awk -v name="$name" 'name == "" || $1 == name' |
  xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one | tee /dev/stderr)
set -e
[ -n "$told" ] || { echo "fuzz: no target is called $name" >&2; exit 1; }
took=$((SECONDS - began))
awk -v took="$took" '
  /FOUND/ { found++ }
  / inputs$/ { sum += $2; targets++ }
  END {
    printf "%d inputs at %d readers in %d s: %d a minute, %d found\n", sum, targets, took, sum * 60 / (took ? took : 1), found
    exit found > 0
  }' <<<"$told"
