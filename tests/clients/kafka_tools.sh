#!/usr/bin/env bash
# Kafka's own command line tools, and its DumpLogSegments on the segments that ottla sealed.
# Arguments: bootstrap address, topic, directory of the tools' jars, ottla's data directory.
set -uo pipefail
bootstrap=$1 topic=$2 jars=$3 data=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
records=20000
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

tool() { timeout 60 java -XX:TieredStopAtLevel=1 -cp "$jars/*" "$@"; }
topics() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" --topic "$topic" "$@"; }
offsets_of() { tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$bootstrap" --topic "$topic" --time "$1"; }
sum() { awk -F: '{ s += $3; n++ } END { print n, s + 0 }'; }

create() { topics --create --partitions 3 --config segment.bytes=1048576 --config retention.ms=-1; }

describe() {
  topics --describe | tee "$work/topic"
  grep -q "PartitionCount: 3" "$work/topic" && grep -q "segment.bytes=1048576" "$work/topic"
}

configs() {
  tool kafka.admin.ConfigCommand --bootstrap-server "$bootstrap" --describe --all --topic "$topic" | tee "$work/configs"
  grep -q "segment.bytes=1048576 .*DYNAMIC_TOPIC_CONFIG" "$work/configs" && grep -q "cleanup.policy=delete" "$work/configs"
}

features() {
  tool org.apache.kafka.tools.FeatureCommand --bootstrap-server "$bootstrap" describe | tee "$work/features"
  grep -q metadata.version "$work/features"
}

api_versions() {
  tool org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "$bootstrap" | tee "$work/versions"
  grep -q "Produce(0): 0 to" "$work/versions"
}

produce() {
  tool org.apache.kafka.tools.ProducerPerformance --topic "$topic" --num-records $records --record-size 500 \
    --throughput -1 --command-property "bootstrap.servers=$bootstrap" compression.type=lz4 | tee "$work/perf"
  grep -q "^$records records sent" "$work/perf"
}

offsets() {
  [ "$(offsets_of earliest | sum)" = "3 0" ] && [ "$(offsets_of latest | sum)" = "3 $records" ]
}

consume() {
  local count
  count=$(offsets_of latest | awk -F: '$2 == 1 { print $3 }')
  tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$bootstrap" --topic "$topic" --partition 1 \
    --offset earliest --max-messages "$count" --timeout-ms 20000 >"$work/console" 2>"$work/err"
  cat "$work/err"
  [ "$count" -gt 0 ] && [ "$(wc -l <"$work/console")" = "$count" ]
}

# Every sealed segment: each record is printed, none of a bad batch, offsets without a gap from the file's name to the
# next file's. (The tool of 4.3 names the pair of -1 and the first offset "non-consecutive"; that is no gap.)
dump() {
  local dir sealed names name next
  for dir in "$data"/topics/"$topic"-*; do
    names=$(cd "$dir" && ls ./*.log | sort)
    sealed=$(printf '%s\n' "$names" | sed '$d')
    [ -n "$sealed" ] || { echo "$dir has no sealed segment"; return 1; }
    for name in $sealed; do
      next=$(printf '%s\n' "$names" | grep -A1 -x "$name" | tail -1)
      tool org.apache.kafka.tools.DumpLogSegments --deep-iteration --files "$dir/${name#./}" >"$work/dump" || return 1
      grep -E 'isvalid: false|Found [0-9]+ invalid bytes' "$work/dump" && return 1
      grep -A1 '^Non-consecutive' "$work/dump" | grep 'is followed by' | grep -v '^ *-1 is' && return 1
      awk -v first="$(basename "$name" .log)" -v end="$(basename "$next" .log)" '
        BEGIN { want = first + 0 }
        /^\| offset: / { if ($3 + 0 != want) { print "offset " $3 " where " want " was due"; bad = 1; exit } want++ }
        END { if (!bad && want != end + 0) { print "ends at " want ", the next file begins at " end + 0; bad = 1 } exit bad }
      ' "$work/dump" || return 1
    done
  done
}

console() { # GROUP COUNT PROTOCOL
  tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$bootstrap" --topic "$topic" --group "$1" \
    --command-property auto.offset.reset=earliest --command-property group.protocol="$3" --max-messages "$2" --timeout-ms 20000
}
group_command() { tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$bootstrap" "$@"; }

# One reads a part and goes, the next one, of the other protocol, the rest.
commit() {
  console "$topic-group" 5000 classic >"$work/first" && [ "$(wc -l <"$work/first")" = 5000 ] || return 1
  console "$topic-group" $((records - 5000)) consumer >"$work/second" &&
    [ "$(wc -l <"$work/second")" = $((records - 5000)) ] || return 1
  group_command --list --type consumer | grep -qE "^$topic-group( |\$)"
}

# Lag of the partitions, as --describe shows it.
lags() { group_command --describe --group "$topic-group" 2>&1 | tee "$work/described" | awk -v t="$topic" '$2 == t { print $6 }'; }

groups() {
  group_command --list | grep -qx "$topic-group" || return 1
  [ "$(lags | sort -u)" = 0 ] || { cat "$work/described"; return 1; }
  group_command --reset-offsets --group "$topic-group" --topic "$topic" --to-earliest --execute || return 1
  [ "$(lags | awk '{ s += $1 } END { print s }')" = $records ] || { cat "$work/described"; return 1; }
  group_command --delete --group "$topic-group" && ! group_command --list | grep -qx "$topic-group"
}

alter() {
  local config=(kafka.admin.ConfigCommand --bootstrap-server "$bootstrap" --topic "$topic")
  tool "${config[@]}" --alter --add-config max.message.bytes=2000000 --delete-config segment.bytes || return 1
  tool "${config[@]}" --describe | tee "$work/configs"
  grep -q max.message.bytes=2000000 "$work/configs" && ! grep -q segment.bytes "$work/configs"
}

partitions() { topics --alter --partitions 5 && topics --describe | grep -q "PartitionCount: 5"; }

delete_records() {
  printf '{"partitions":[{"topic":"%s","partition":0,"offset":100}],"version":1}' "$topic" >"$work/records"
  tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$bootstrap" --offset-json-file "$work/records" &&
    offsets_of earliest | grep -qx "$topic:0:100"
}

delete() { topics --delete && ! tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" --list | grep -qx "$topic"; }

version=$(ls "$jars" | sed -n 's/^kafka-tools-\([0-9.]*\)\.jar$/\1/p')
printf "client\tKafka's tools\t%s\n" "$version"
for name in create describe configs features api_versions produce offsets consume dump commit groups alter partitions \
  delete_records delete; do step "$name" "$name"; done
exit $failed
