#!/usr/bin/env bash
# Runs an experiment of tuning/experiments (or a file of the same form) and keeps table, JSON and plot in
# tuning/results/NAME/.
#
#   scripts/experiment.sh --list
#   scripts/experiment.sh ring-flags [--rounds 5] [--ms 2500] [--dir DIRECTORY-ON-THE-DISK] [--smoke]
#
# OTTLA=PATH names the binary, else cargo builds a release. Needs python3 (3.11 or newer) and taskset, and a quiet
# machine. --smoke runs one short round to see that everything works and keeps nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

case " $* " in *" --list "*) exec python3 "$here/tuning/lab/run.py" "$@" ;; esac
if [ -z "${OTTLA:-}" ]; then
  (cd "$here" && cargo build --locked --release)
  OTTLA=$(cd "$here" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/ottla
fi
export OTTLA
exec python3 "$here/tuning/lab/run.py" "$@"
