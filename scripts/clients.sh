#!/usr/bin/env bash
# Unmodified Kafka clients against a fresh broker of three shards. Each makes the tour of tests/clients/python/tour.py:
# topics, every codec, reading, seeking, a group of three of which one leaves and one is killed, commits, administration.
#
#   scripts/clients.sh [CLIENT...]     kcat rdkafka confluent kafka-python aiokafka java tools franz-go sarama sarama-newest
#                                      kafkajs confluent-node; golden: the frames of tests/golden by kafka-python's codec
#
# confluent-node (@confluentinc/kafka-javascript) comes without a binary in its package: it is compiled, which takes
# three minutes of processor time, when it is asked for by name, and then kept.
#
# Runs the clients whose toolchain is on the machine (kcat; cargo; python3 with venv; java, javac and mvn; go; node and
# npm) and says which it skipped. Their packages come from the ordinary registries and are kept in clients/ of cargo's
# target directory; Go and Maven keep their usual caches. OTTLA=PATH names the binary to test, else cargo builds one
# (nothing to do after `cargo test`). JOBS=3 tours run at a time, each for 3 minutes at most. Exits 1 if a client failed.
set -uo pipefail
cd "$(dirname "$0")/.."
here=$PWD/tests/clients
export GROUP_SH=$here/group.sh
all=(tools java kcat rdkafka confluent kafka-python aiokafka franz-go sarama sarama-newest kafkajs confluent-node golden)
is_named=false
[ $# = 0 ] || { all=("$@") is_named=true; }

work=$(mktemp -d)
broker=
finish() {
  [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
if [ -z "${OTTLA:-}" ]; then
  # Together, as the tests do: alone, the binary has other features of its dependencies and is built anew.
  cargo build --locked --quiet --bin ottla --example client-rdkafka || exit 1
  OTTLA=$target/debug/ottla
fi
OTTLA=$(realpath "$OTTLA")
export OTTLA

# --- what is on the machine, and the packages of each language ---
kept=$target/clients

have() { local tool; for tool; do command -v "$tool" >/dev/null || { why="$tool is not installed"; return 1; }; done; }

# Runs `install_NAME` in a directory that is kept as long as the files that name the packages stay as they are. What it
# cannot install is skipped.
packages() { # NAME FILE...
  local name=$1 dir=$kept/$1 sum
  shift
  sum=$(cat "$@" | sha256sum)
  [ "$(cat "$dir/installed" 2>/dev/null)" = "$sum" ] && return
  [ ! -f "$work/$name.failed" ] || { why=$(cat "$work/$name.failed"); return 1; }
  rm -rf "$dir" && mkdir -p "$dir"
  export -f "install_$name"
  if here=$here dir=$dir timeout 500 bash -c "install_$name" >"$work/$name.log" 2>&1; then
    echo "$sum" >"$dir/installed"
  else
    why="its packages could not be installed: $(grep . "$work/$name.log" | tail -1)"
    echo "$why" >"$work/$name.failed"
    return 1
  fi
}

install_python() {
  python3 -m venv "$dir" &&
    "$dir/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 -r "$here/python/requirements.txt"
}
python() { have python3 && packages python "$here/python/requirements.txt"; }

install_java() {
  mvn --quiet --batch-mode --file "$here/java/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$dir/lib"
}
install_tools() {
  mvn --quiet --batch-mode --file "$here/java/pom.xml" -Ptools dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$dir/lib"
}
java_with() {
  have java javac mvn || return 1
  [ "$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')" -ge 17 ] 2>/dev/null || { why="javac is older than 17"; return 1; }
  packages "$1" "$here/java/pom.xml"
}

install_go() { cd "$here/go" && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod download; }
golang() { have go && packages go "$here/go/go.sum"; }

npm_install() { npm install --no-audit --no-fund --ignore-scripts --omit=dev --fetch-retries=1 --fetch-timeout=30000; }
export -f npm_install
install_node_source() {
  cd "$dir" && cp "$here/node/from-source/package.json" . && npm_install &&
    CKJS_LINKING=dynamic npm_config_build_from_source=true npm rebuild --foreground-scripts
}
install_node() { cd "$dir" && cp "$here/node/package.json" . && npm_install; }
node_js() { have node npm && packages node "$here/node/package.json"; }

bounded() { timeout --kill-after=5 180 "$@"; }

# --- three functions a client: `can_NAME` brings its packages, `build_NAME` compiles, `run_NAME BOOTSTRAP TOPIC` ---
can_kcat() { have kcat; }
run_kcat() { bounded "$here/kcat.sh" "$@"; }
can_rdkafka() { have cargo cc make; }
build_rdkafka() { cargo build --locked --quiet --example client-rdkafka; }
run_rdkafka() { bounded env RUST_BACKTRACE=0 "$target/debug/examples/client-rdkafka" "$@"; }
can_confluent() { python; }
run_confluent() { bounded "$kept/python/bin/python" "$here/python/confluent.py" "$@"; }
can_kafka-python() { python; }
run_kafka-python() { bounded "$kept/python/bin/python" "$here/python/kafka_python.py" "$@"; }
can_aiokafka() { python; }
run_aiokafka() { bounded "$kept/python/bin/python" "$here/python/aio.py" "$@"; }
can_golden() { python; }
run_golden() { bounded "$kept/python/bin/python" "$here/python/golden_frames.py"; }
can_java() { java_with java; }
build_java() { javac -d "$work/java" -cp "$kept/java/lib/*" "$here/java/Tour.java"; }
run_java() { bounded java -XX:TieredStopAtLevel=1 -cp "$work/java:$kept/java/lib/*" Tour "$@"; }
can_tools() { java_with tools; }
run_tools() { bounded "$here/kafka_tools.sh" "$@" "$kept/tools/lib" "$work/data"; }
can_franz-go() { golang; }
build_franz-go() { (cd "$here/go" && GOTOOLCHAIN=local go build -o "$work/" ./franz ./sarama); }
run_franz-go() { bounded "$work/franz" "$@"; }
# sarama speaks as old as it is told: once its default, once the newest it knows.
can_sarama() { golang; }
build_sarama() { [ -x "$work/sarama" ] || build_franz-go; }
run_sarama() { bounded "$work/sarama" "$@" default; }
can_sarama-newest() { golang; }
build_sarama-newest() { build_sarama; }
run_sarama-newest() { bounded "$work/sarama" "$@" 4.3.0; }
can_kafkajs() { node_js; }
# A tour in Node runs beside its packages.
build_kafkajs() { cp "$here"/node/*.js "$kept/node/"; }
can_confluent-node() {
  have node npm make c++ python3 || return 1
  why="compiled only when asked for by name: scripts/clients.sh confluent-node"
  { $is_named || [ -f "$kept/node_source/installed" ]; } && packages node_source "$here/node/from-source/package.json"
}
build_confluent-node() { cp "$here"/node/*.js "$kept/node_source/"; }
run_confluent-node() { bounded node "$kept/node_source/confluent.js" "$@"; }
run_kafkajs() { bounded node "$kept/node/kafkajs.js" "$@"; }

# --- the broker ---
"$OTTLA" serve --data-dir "$work/data" --listen 127.0.0.1:0 --shards 3 --set group.initial.rebalance.delay.ms=200 \
  --set group.consumer.session.timeout.ms=6000 --set group.consumer.min.session.timeout.ms=6000 \
  --set group.consumer.heartbeat.interval.ms=500 --set group.consumer.min.heartbeat.interval.ms=500 \
  >"$work/broker.log" 2>&1 &
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
row='%-19s %-28s %8s %8s  %s\n'
passed=0 failed=0 skipped=() ready=()
fail() { # CLIENT FILE WHAT
  failed=$((failed + 1))
  { echo; echo "== $1: $3"; tail -30 "$2"; } >>"$work/failures"
}

for client in "${all[@]}"; do
  why=
  declare -F "can_$client" >/dev/null || { echo "there is no client '$client'" >&2; exit 2; }
  "can_$client" || { skipped+=("$client: $why"); continue; }
  if declare -F "build_$client" >/dev/null && ! "build_$client" >"$work/$client.err" 2>&1; then
    fail "$client" "$work/$client.err" "it could not be compiled"
    continue
  fi
  ready+=("$client")
done

tour() { # CLIENT
  local began=$EPOCHREALTIME
  "run_$1" "$bootstrap" "tour-$1" >"$work/$1.out" 2>"$work/$1.err"
  echo $? >"$work/$1.code"
  awk -v from="$began" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }' >"$work/$1.seconds"
}

report() { # CLIENT
  local out=$work/$1.out steps ok bad name version code
  code=$(cat "$work/$1.code")
  steps=$(grep -c '^step' "$out")
  ok=$(awk -F'\t' '$1 == "step" && $3 == "ok"' "$out" | wc -l)
  bad=$(awk -F'\t' '$1 == "step" && $3 != "ok" { printf "%s%s", sep, $2; sep = ", " }' "$out")
  name=$(awk -F'\t' '$1 == "client" { print $2; exit }' "$out")
  version=$(awk -F'\t' '$1 == "client" { print $3; exit }' "$out")
  if [ "$code" = 0 ] && [ "$steps" = "$ok" ] && [ "$ok" -gt 0 ]; then
    passed=$((passed + 1))
  else
    [ "$code" != 124 ] || bad+=" not done in time"
    bad=${bad:-"ended with code $code"}
    awk -F'\t' '$1 == "step" && $3 != "ok"' "$out" >>"$work/$1.err"
    fail "$1" "$work/$1.err" "$bad"
  fi
  printf "$row" "${name:-$1}" "${version:-?}" "$ok/$steps" "$(cat "$work/$1.seconds")" "${bad:--}"
}

printf "$row" client version "steps ok" seconds failed
declare -A running=()
for client in "${ready[@]}" ''; do
  while [ ${#running[@]} -ge "${JOBS:-3}" ] || { [ -z "$client" ] && [ ${#running[@]} -gt 0 ]; }; do
    wait -n -p pid "${!running[@]}"
    report "${running[$pid]}"
    unset "running[$pid]"
  done
  [ -n "$client" ] || break
  tour "$client" &
  running[$!]=$client
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
echo "clients: $passed passed, $failed failed, ${#skipped[@]} skipped"
[ "$failed" = 0 ]
