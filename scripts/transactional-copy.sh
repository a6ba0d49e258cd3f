#!/usr/bin/env bash
# Exactly-once under kills for ten minutes: workers that copy one topic into another in transactions are killed, stopped
# and replaced at random, and the broker is killed with -9 every 30 seconds. tests/copy/copy.py says what is checked;
# nothing of it shares code with the broker.
#
#   scripts/transactional-copy.sh [--minutes 10] [--seed N] [--workers 4] [--rate 500] [--kill-every 30] [--json] ...
#
# Needs python3 with venv and the package registry (for confluent-kafka). With java, javac and mvn every second worker is
# one of kafka-clients, which uses the second protocol of transactions; else all use librdkafka and the first one.
# OTTLA=PATH names the binary, else cargo builds a release. Exits 1 if something was wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 0; }
target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
if [ -z "${OTTLA:-}" ]; then
  cargo build --release --locked --quiet
  OTTLA=$target/release/ottla
fi
kept=$target/clients/copy
if ! "$kept/bin/python" -c 'import confluent_kafka' 2>/dev/null; then
  python3 -m venv "$kept"
  grep '^confluent-kafka==' tests/clients/python/requirements.txt |
    "$kept/bin/python" -m pip install --quiet --disable-pip-version-check -r /dev/stdin
fi
java=()
if command -v java >/dev/null && command -v javac >/dev/null && command -v mvn >/dev/null; then
  [ -d "$kept/java" ] || mvn --quiet --batch-mode --file tests/clients/java/pom.xml dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$kept/java"
  javac -d "$kept/classes" -cp "$kept/java/*" tests/copy/Worker.java
  java=(--java "java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp $kept/classes:$kept/java/* Worker")
else
  echo "no workers of kafka-clients: java, javac or mvn is not installed" >&2
fi
exec "$kept/bin/python" tests/copy/copy.py --ottla "$(realpath "$OTTLA")" ${java[@]+"${java[@]}"} "$@"
