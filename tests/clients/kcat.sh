#!/usr/bin/env bash
# The tour with kcat. It cannot create or delete topics, nor set timestamps: the first two are done with ottla's own
# command line, and the seek uses the timestamps that were read back. It administers nothing.
# Arguments: bootstrap address, topic; as a member of a group: `member`, bootstrap address, topic, group. OTTLA: the
# ottla binary; GROUP_SH: where group.sh is.
set -uo pipefail

if [ "$1" = member ]; then
  # It tells its assignment on standard error: "% Group g rebalanced (memberid m): assigned: t [0], t [1]". It commits
  # nothing: a record that it is given while it is told to end is dropped, and would be committed.
  exec kcat -b "$2" -G "$4" -u -X auto.offset.reset=earliest -X session.timeout.ms=6000 -X heartbeat.interval.ms=500 \
    -X enable.auto.offset.store=false -f 'read\t%p\t%o\n' "$3" \
    2> >(sed -u -n 's/^% Group .*: revoked: .*/assigned\t/p
      /^% Group .*: assigned: /{s///;s/[^][]*\[\([0-9]*\)\]/,\1/g;s/^,/assigned\t/p}')
fi
bootstrap=$1 topic=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
codecs=(none gzip snappy lz4 zstd)
failed=0

step() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    printf 'step\t%s\tok\n' "$name"
  else
    failed=1
    cat "$work/out" >&2
    printf 'step\t%s\tfailed\t%s\n' "$name" "$(tail -1 "$work/out")"
  fi
}

create() { "$OTTLA" topic create "$topic" --bootstrap "$bootstrap" --partitions 6 --config retention.ms=9000000000000; }

# 50 records a codec and partition; every 5th value is null, every 7th key is.
lines() { # CODEC PARTITION
  seq 0 49 | awk -v c="$1" -v p="$2" '{
    key = $1 % 7 ? "key-" c "-" p "-" $1 : ""; value = $1 % 5 || !($1 % 7) ? "value of " $1 : ""; print key "|" value
  }'
}

produce() { # CODEC
  local p
  for p in 0 1 2 3 4 5; do
    lines "$1" "$p" | kcat -q -b "$bootstrap" -P -t "$topic" -p "$p" -z "$1" -Z -K '|' -H "codec=$1" -H empty= || return 1
  done
}

# Rows of partition, offset, length of the key, key, length of the value, value, headers; -1 is the length of null.
wanted() {
  local p c
  for p in 0 1 2 3 4 5; do
    for c in "${codecs[@]}"; do lines "$c" "$p" | sed "s/$/|$c/"; done | awk -F'|' -v OFS='|' -v p="$p" '{
      print p, NR - 1, $1 == "" ? -1 : length($1), $1, $2 == "" ? -1 : length($2), $2, "codec=" $3 ",empty="
    }'
  done
}

consume() {
  kcat -q -b "$bootstrap" -C -t "$topic" -o beginning -e -X check.crcs=true -f '%p|%o|%K|%k|%S|%s|%h\n' |
    sort -t'|' -k1,1n -k2,2n >"$work/have"
  wanted >"$work/want"
  diff "$work/have" "$work/want"
}

seek() {
  local at
  at=$(kcat -q -b "$bootstrap" -C -t "$topic" -p 3 -o 125 -c 1 -f '%T')
  kcat -q -b "$bootstrap" -C -t "$topic" -p 3 -o beginning -e -f '%T|%o\n' |
    awk -F'|' -v at="$at" '$1 >= at' >"$work/want"
  kcat -q -b "$bootstrap" -C -t "$topic" -p 3 -o "s@$at" -e -f '%T|%o\n' >"$work/have"
  diff "$work/have" "$work/want" || return 1
  [ "$(kcat -q -b "$bootstrap" -Q -t "$topic:3:$at")" = "$topic [3] offset $(head -1 "$work/want" | cut -d'|' -f2)" ]
}

describe() {
  kcat -b "$bootstrap" -L -t "$topic" >"$work/list" || return 1
  cat "$work/list"
  grep -q ' brokers:$' "$work/list" && grep -q "topic \"$topic\" with 6 partitions" "$work/list" &&
    [ "$(grep -c 'partition .*, leader ' "$work/list")" = 6 ]
}

offsets() {
  local p
  for p in 0 1 2 3 4 5; do
    [ "$(kcat -q -b "$bootstrap" -Q -t "$topic:$p:-2")" = "$topic [$p] offset 0" ] || return 1
    [ "$(kcat -q -b "$bootstrap" -Q -t "$topic:$p:-1")" = "$topic [$p] offset 250" ] || return 1
  done
}

group() { "$GROUP_SH" 1500 "$0" member "$bootstrap" "$topic" "$topic-group"; }

# One reads a part and goes, the next one the rest: together all, nothing twice.
commit() {
  local reader=(kcat -q -b "$bootstrap" -G "$topic-commit" -X auto.offset.reset=earliest -f '%p|%o\n')
  "${reader[@]}" -c 400 "$topic" >"$work/first" && [ "$(wc -l <"$work/first")" = 400 ] || return 1
  "${reader[@]}" -c 1100 "$topic" >"$work/second" || return 1
  [ "$(sort -u "$work/first" "$work/second" | wc -l)" = 1500 ]
}

delete() {
  "$OTTLA" topic delete "$topic" --bootstrap "$bootstrap" && ! kcat -b "$bootstrap" -L | grep -q "topic \"$topic\""
}

printf 'client\tkcat\t%s\n' "$(kcat -V | sed -n 's/^Version \([^ ]*\).*\(librdkafka [0-9.]*\).*/\1 (\2)/p')"
step create create
for codec in "${codecs[@]}"; do step "produce $codec" produce "$codec"; done
step consume consume
step seek seek
step describe describe
step offsets offsets
step group group
step commit commit
step delete delete
exit $failed
