#!/usr/bin/env bash
# ottla and Apache Kafka under the same loads from the same clients: `ottla bench` and Kafka's own ProducerPerformance.
#
#   scripts/compare-kafka.sh [--rounds 3] [--seconds 10] [--dir WORKDIR] [--out DIR] [--only WORKLOAD,...] ...
#
# Kafka 4 comes from its Maven artefacts (scripts/kafka/pom.xml) and runs as one KRaft node with the settings and the
# JVM flags of its own start script; once more with log.flush.interval.messages=1. ottla runs with its defaults, which
# are durable, and once more with ottla.ack.after=write. Rounds are interleaved, each broker is alone on the machine
# while it is measured. Writes compare.md, compare.json and the runs for `ottla bench report` into DIR. WORKDIR must be
# on the disk to be measured. OTTLA=PATH names the binary, else cargo builds a release. Needs a quiet machine.
# Without java, mvn or python3 it says so and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in java mvn python3; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done

jars=$(mktemp -d)
trap 'rm -rf "$jars"' EXIT
cp scripts/kafka/pom.xml "$jars/"
if ! mvn --quiet --batch-mode --file "$jars/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
  -DoutputDirectory="$jars/lib" >"$jars/log" 2>&1; then
  echo "skipped: Kafka's artefacts could not be fetched: $(grep . "$jars/log" | tail -1)"
  exit 0
fi

if [ -z "${OTTLA:-}" ]; then
  cargo build --release --locked --quiet
  OTTLA=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/ottla
fi
python3 scripts/kafka/compare.py --ottla "$(realpath "$OTTLA")" --jars "$jars/lib" "$@"
