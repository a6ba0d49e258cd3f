#!/usr/bin/env bash
# Programs of Kafka's world against ottla: word count and an exactly-once topology of Kafka Streams, Kafka Connect
# standalone and distributed, and kafka-clients' transactional copy loop, under kills of theirs and of the broker's.
# tests/ecosystem/ecosystem.py says what is checked; nothing of it shares code with the broker.
#
#   scripts/ecosystem.sh [--only NAME]... [--seconds 60] [--seed N] [--json] ...
#                        words sums standalone distributed copy
#
# Needs java 17, javac, mvn, python3 with venv, and the package registries; says what is missing and does nothing without.
# OTTLA=PATH names the binary, else cargo builds a release. Each program is under load for so many seconds and takes about
# as long again. Exits 1 if something was wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/trial.sh
have_java && jars ecosystem tests/ecosystem/pom.xml || { echo "skipped: $why"; exit 0; }
javac -d "$kept/classes/ecosystem" -cp "$kept/ecosystem/*" tests/ecosystem/*.java tests/copy/Worker.java
cp tests/ecosystem/log4j2.properties "$kept/classes/ecosystem/"
exec "$python" tests/ecosystem/ecosystem.py --ottla "$OTTLA" --java "$java -cp $kept/classes/ecosystem:$kept/ecosystem/*" "$@"
