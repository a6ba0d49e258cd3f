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

. scripts/trial.sh
workers=()
if have_java && jars kafka-clients tests/clients/java/pom.xml; then
  javac -d "$kept/classes/copy" -cp "$kept/kafka-clients/*" tests/copy/Worker.java
  workers=(--java "$java -Xmx128m -cp $kept/classes/copy:$kept/kafka-clients/* Worker")
else
  echo "no workers of kafka-clients: $why" >&2
fi
exec "$python" tests/copy/copy.py --ottla "$OTTLA" ${workers[@]+"${workers[@]}"} "$@"
