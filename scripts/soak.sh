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

command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 0; }
target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
if [ -z "${OTTLA:-}" ]; then
  cargo build --release --locked --quiet
  OTTLA=$target/release/ottla
fi
python=$target/clients/soak/bin/python
if ! "$python" -c 'import confluent_kafka' 2>/dev/null; then
  python3 -m venv "$target/clients/soak"
  grep '^confluent-kafka==' tests/clients/python/requirements.txt |
    "$python" -m pip install --quiet --disable-pip-version-check -r /dev/stdin
fi
exec "$python" tests/soak/soak.py --ottla "$(realpath "$OTTLA")" "$@"
