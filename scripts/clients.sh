#!/usr/bin/env bash
# Unmodified Kafka clients against a fresh broker of three shards: each creates a topic, produces with every codec it
# has, reads all back by assigned partitions, seeks by time, describes, lists offsets and deletes (tests/clients).
#
#   scripts/clients.sh [CLIENT...]     kcat confluent kafka-python aiokafka java tools franz-go sarama kafkajs
#
# Runs the clients whose toolchain is on the machine (kcat; python3 with venv; java, javac and mvn; go; node and npm) and
# says which it skipped. Their packages come from the ordinary registries into a temporary directory; Go and Maven
# keep their usual caches. OTTLA=PATH names the binary to test, else cargo builds one. Exits 1 if a client failed.
set -uo pipefail
cd "$(dirname "$0")/.."
here=$PWD/tests/clients
all=(kcat confluent kafka-python aiokafka java tools franz-go sarama kafkajs)
[ $# = 0 ] || all=("$@")

work=$(mktemp -d)
broker=
finish() {
  [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ -z "${OTTLA:-}" ]; then
  cargo build --locked --quiet || exit 1
  OTTLA=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/ottla
fi
OTTLA=$(realpath "$OTTLA")
export OTTLA

# --- what is on the machine, and the packages of each language, once ---
have() { local tool; for tool; do command -v "$tool" >/dev/null || { why="$tool is not installed"; return 1; }; done; }

once() { # MARK COMMAND...: runs the command the first time and remembers how it went
  local mark=$1
  shift
  [ -f "$work/$mark.rc" ] || { "$@" >"$work/$mark.log" 2>&1; echo $? >"$work/$mark.rc"; }
  [ "$(cat "$work/$mark.rc")" = 0 ] || { why="its packages could not be installed: $(grep . "$work/$mark.log" | tail -1)"; return 1; }
}

python() { have python3 && once python install_python; }
install_python() {
  python3 -m venv "$work/python" &&
    "$work/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/python/requirements.txt"
}

java_with() { have java javac mvn && once "java$1" install_java "$1"; }
install_java() { # PROFILE
  mkdir -p "$work/java$1" && cp "$here/java/pom.xml" "$work/java$1/" &&
    mvn --quiet --batch-mode --file "$work/java$1/pom.xml" ${1:+-P"$1"} dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$work/java$1/lib" || return 1
  [ -n "$1" ] || javac -d "$work/java" -cp "$work/java/lib/*" "$here/java/Tour.java"
}

golang() { have go && once go install_go; }
install_go() { cp -r "$here/go" "$work/go" && cd "$work/go" && mkdir bin && go build -o bin/ ./franz ./sarama; }

node_js() { have node npm && once node install_node; }
install_node() {
  cp -r "$here/node" "$work/node" && cd "$work/node" && npm install --no-audit --no-fund --ignore-scripts
}

# --- one function a client: `can_NAME` prepares, `run_NAME BOOTSTRAP TOPIC` runs ---
can_kcat() { have kcat; }
run_kcat() { timeout 120 "$here/kcat.sh" "$@"; }
can_confluent() { python; }
run_confluent() { timeout 120 "$work/python/bin/python" "$here/python/confluent.py" "$@"; }
can_kafka-python() { python; }
run_kafka-python() { timeout 120 "$work/python/bin/python" "$here/python/kafka_python.py" "$@"; }
can_aiokafka() { python; }
run_aiokafka() { timeout 120 "$work/python/bin/python" "$here/python/aio.py" "$@"; }
can_java() { java_with ""; }
run_java() { timeout 120 java -cp "$work/java:$work/java/lib/*" Tour "$@"; }
can_tools() { java_with tools; }
run_tools() { timeout 120 "$here/kafka_tools.sh" "$@" "$work/javatools/lib" "$work/data"; }
can_franz-go() { golang; }
run_franz-go() { timeout 120 "$work/go/bin/franz" "$@"; }
can_sarama() { golang; }
# sarama speaks as old as it is told: once its default, once the newest it knows.
run_sarama() { timeout 120 "$work/go/bin/sarama" "$@" && timeout 120 "$work/go/bin/sarama" "$@" 4.3.0; }
can_kafkajs() { node_js && { python || true; }; }
run_kafkajs() { # It cannot consume without a group: another client reads what it wrote.
  (cd "$work/node" && timeout 120 node kafkajs.js "$@") || return 1
  if python; then
    if timeout 120 "$work/python/bin/python" "$here/python/read_back.py" "$@" 1500; then
      printf 'step\tread back by confluent-kafka\tok\n'
    else
      printf 'step\tread back by confluent-kafka\tfailed\n'
      return 1
    fi
  fi
}

# --- the broker ---
"$OTTLA" serve --data-dir "$work/data" --listen 127.0.0.1:0 --shards 3 >"$work/broker.log" 2>&1 &
broker=$!
for _ in $(seq 100); do
  bootstrap=$(grep -oE 'address="?127\.0\.0\.1:[0-9]+' "$work/broker.log" | grep -oE '127.*' | head -1)
  [ -z "$bootstrap" ] && kill -0 "$broker" 2>/dev/null || break
  sleep 0.1
done
[ -n "$bootstrap" ] || { echo "the broker did not start:"; cat "$work/broker.log"; exit 1; }
echo "$("$OTTLA" --version), 3 shards, first at $bootstrap"
echo

# --- the tours ---
row='%-19s %-42s %9s %8s  %s\n'
printf "$row" client version "steps ok" seconds failed
passed=0 failed=0 skipped=()
for client in "${all[@]}"; do
  why=
  declare -F "can_$client" >/dev/null || { echo "there is no client '$client'" >&2; exit 2; }
  "can_$client" || { skipped+=("$client: $why"); continue; }
  began=$(date +%s%N)
  "run_$client" "$bootstrap" "tour-$client" >"$work/out" 2>"$work/err"
  code=$?
  seconds=$(awk -v ns=$(($(date +%s%N) - began)) 'BEGIN { printf "%.1f", ns / 1e9 }')
  steps=$(grep -c '^step' "$work/out")
  ok=$(awk -F'\t' '$1 == "step" && $3 == "ok"' "$work/out" | wc -l)
  bad=$(awk -F'\t' '$1 == "step" && $3 != "ok" { printf "%s%s", sep, $2; sep = ", " }' "$work/out")
  name=$(awk -F'\t' '$1 == "client" { print $2; exit }' "$work/out")
  version=$(awk -F'\t' '$1 == "client" { printf "%s%s", sep, $3; sep = ", " }' "$work/out")
  if [ $code = 0 ] && [ "$steps" = "$ok" ] && [ "$ok" -gt 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    bad=${bad:-"ended with code $code"}
    { echo; echo "== $client"; awk -F'\t' '$1 == "step" && $3 != "ok"' "$work/out"; tail -30 "$work/err"; } >>"$work/failures"
  fi
  printf "$row" "${name:-$client}" "${version:-?}" "$ok/$steps" "$seconds" "${bad:--}"
done
[ ! -f "$work/failures" ] || cat "$work/failures"

# --- the broker's own view: nothing of it broke, and it stops when asked ---
echo
kill -TERM "$broker"
wait "$broker"
code=$?
broker=
if [ $code != 0 ] || grep -E ' ERROR |panicked' "$work/broker.log"; then
  failed=$((failed + 1))
  echo "the broker logged errors or ended with code $code:"
  tail -20 "$work/broker.log"
fi
for line in "${skipped[@]}"; do echo "skipped $line"; done
echo "not tried: @confluentinc/kafka-javascript (npm has no built binary of it; it is the librdkafka of confluent-kafka)"
echo "clients: $passed passed, $failed failed, ${#skipped[@]} skipped"
[ "$failed" = 0 ]
