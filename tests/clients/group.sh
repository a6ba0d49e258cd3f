#!/usr/bin/env bash
# A group of three: all share the topic, one leaves, one is killed, the last one has everything, and every record was
# read by somebody. The same for each client: what differs is the program that is one member.
#
#   group.sh RECORDS COMMAND...     COMMAND starts a member of a group that reads a topic of 6 partitions
#
# A member prints `assigned <TAB> 0,1,2` (all of its partitions) whenever they change and `read <TAB> PARTITION <TAB>
# OFFSET` for each record, commits what it has read, and when it gets SIGTERM leaves the group and exits with 0. Its
# session time-out is 6 s.
set -uo pipefail
records=$1
shift
work=$(mktemp -d)
pids=()
finish() {
  [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null
  wait 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

start() { # NUMBER COMMAND...
  local number=$1
  shift
  "$@" >"$work/$number.out" 2>"$work/$number.err" </dev/null &
  pids[number]=$!
}

share() { grep -a '^assigned' "$work/$1.out" | tail -1 | cut -f2; }

# All partitions, each with one of these members, and each member has some.
is_shared() { # NUMBER...
  local number share all=
  for number; do
    share=$(share "$number")
    [ -n "$share" ] || return 1
    all+=$share,
  done
  [ "$(tr ',' '\n' <<<"$all" | grep . | sort -n | paste -sd,)" = 0,1,2,3,4,5 ]
}

# What was read, each record once. The last line of a killed member may be cut.
read_once() { awk -F'\t' '$1 == "read" && NF == 3 && $3 ~ /^[0-9]+$/' "$work"/*.out | sort -u; }
is_all_read() { [ "$(read_once | wc -l)" = "$records" ]; }

until_true() { # WHAT COMMAND...
  local what=$1 number
  shift
  for _ in $(seq 200); do
    "$@" && return
    sleep 0.2
  done
  echo "not within 40 s: $what"
  for number in 1 2 3; do
    echo "member $number: assigned $(share $number), $(grep -ac '^read' "$work/$number.out") records read"
    tail -5 "$work/$number.err"
  done
  echo "records read of each partition, and the last offset:"
  read_once | awk '
    { count[$2]++; if ($3 > last[$2]) last[$2] = $3 } END { for (p in count) print p ": " count[p] ", " last[p] }'
  exit 1
}

leave() { # NUMBER
  local code
  kill -TERM "${pids[$1]}"
  for _ in $(seq 100); do kill -0 "${pids[$1]}" 2>/dev/null || break; sleep 0.1; done
  kill -0 "${pids[$1]}" 2>/dev/null && { echo "member $1 does not leave"; exit 1; }
  wait "${pids[$1]}"
  code=$?
  unset "pids[$1]"
  [ $code = 0 ] || { echo "member $1 ended with code $code"; tail -5 "$work/$1.err"; exit 1; }
}

for number in 1 2 3; do start $number "$@"; done
until_true "three share" is_shared 1 2 3
leave 1
until_true "two share after one left" is_shared 2 3
# One command: between two of them bash tells of a job that was killed, and what is printed here counts as a failure.
{ kill -KILL "${pids[2]}"; wait "${pids[2]}"; } 2>/dev/null
unset 'pids[2]'
until_true "the last one has all after one was killed" is_shared 3
until_true "every record is read" is_all_read
leave 3
