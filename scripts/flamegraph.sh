#!/usr/bin/env bash
# Where does the broker's time go under a workload? Makes flamegraphs/DATE-COMMIT-WORKLOAD.svg.
#
#   scripts/flamegraph.sh produce-small|produce-large|fetch-tail|fetch-catch-up [SECONDS] [-- SERVE-FLAGS...]
#
# Samples the broker's threads, its kernel workers among them, with perf's software clock, so it needs no counters of
# the CPU: virtual machines will do. Needs perf, python3 and the right to sample the kernel (root, or
# kernel.perf_event_paranoid=1). The binary is built with frame pointers beside the normal one; OTTLA=PATH names another
# that has them. LAB_DIR is where its data goes for the time (default: the working directory).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
workload=${1:-}; seconds=${2:-10}; shift $(($# < 2 ? $# : 2)); [ "${1:-}" = -- ] && shift
case $workload in
  produce-small) load="--batch-bytes 256 --connections 32 --in-flight 8" ;;
  produce-large) load="--batch-bytes 64KiB --connections 4 --in-flight 4" ;;
  fetch-tail | fetch-catch-up) ;; # four readers behind a producer; two readers of sealed segments
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
command -v perf >/dev/null || { echo "perf is not installed (Debian: linux-perf)" >&2; exit 2; }
if [ -z "${OTTLA:-}" ]; then
  target=$(cd "$here" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/flamegraph
  (cd "$here" && RUSTFLAGS="-C force-frame-pointers=yes" cargo build --locked --release --target-dir "$target")
  OTTLA=$target/release/ottla
fi
data=$(mktemp -d "${LAB_DIR:-.}/flamegraph-XXXXXX"); address=127.0.0.1:$((20000 + $$ % 20000)); broker=; client=
finish() {
  for pid in $client $broker; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT TERM

taskset -c 0 "$OTTLA" serve --data-dir "$data/d" --listen "$address" --shards 1 --log-level error \
  --set log.retention.check.interval.ms=1000 "$@" &
broker=$!
until "$OTTLA" topic list --bootstrap "$address" --timeout 1 >/dev/null 2>&1; do kill -0 $broker; sleep 0.2; done
bench() { "$OTTLA" bench "$@" --bootstrap "$address" --topic t --cpu 1 --json >/dev/null; }
long="--warm-up-ms 500 --duration-ms $((seconds * 1000 + 5000))"
case $workload in
  produce-*) # filled first, so that segments are reused
    bench produce --config segment.bytes=268435456 --config retention.bytes=1 --duration-ms 12000
    bench produce $load $long & ;;
  fetch-tail) bench mixed --partitions 4 --tail 4 --catch-up 0 --rate 4000 $long & ;;
  fetch-catch-up)
    until [ "$(du -sm "$data/d" | cut -f1)" -gt 1500 ]; do
      bench produce --partitions 2 --config segment.bytes=67108864 --duration-ms 2000
    done
    bench consume --consumers 2 --repeat $long & ;;
esac
client=$!
sleep 2
# A kernel worker that ends while perf looks for the threads makes it give up: then once more.
for _ in 1 2 3 4 5; do
  perf record -e cpu-clock -F 997 --call-graph fp -p $broker -o "$data/perf" -- sleep "$seconds" >"$data/log" 2>&1 && break
done
[ -s "$data/perf" ] || { cat "$data/log" >&2; exit 1; }
wait $client; client=
commit=$(git -C "$here" rev-parse --short=10 HEAD)
out=$here/flamegraphs/$(date -u +%F)-$commit-$workload.svg
perf script -i "$data/perf" --no-inline -F comm,ip,sym 2>/dev/null |
  python3 "$here/tuning/lab/flame.py" "$workload, $(date -u +%F), $commit" >"$out"
echo "$out"
