#!/usr/bin/env bash
# Consumer groups for ten minutes under everything that happens to them: members that come, leave, are killed and stopped
# at random, the broker killed with -9 every minute. tests/soak/soak.py says what is checked; nothing of it shares code
# with the broker.
#
#   scripts/soak.sh [--minutes 10] [--seed N] [--members 20] [--partitions 50] [--rate 500] [--json] ...
#
# Needs python3 with venv and the package registry (for confluent-kafka). OTTLA=PATH names the binary, else cargo builds
# a release. Exits 1 if something was wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/trial.sh
exec "$python" tests/soak/soak.py --ottla "$OTTLA" "$@"
