#!/usr/bin/env bash
# How many instructions one run of each subject of benches/ takes, counted by valgrind: figures that repeat where times
# do not. Two counts of runs, whose difference is the subject alone. [FILTER]: only subjects whose names hold this text.
# Needs valgrind, and Rust to build the benches. --json prints one object.
set -euo pipefail
cd "$(dirname "$0")/.."

json=false
filter=
for argument in "$@"; do
  case $argument in
    --json) json=true ;;
    -h|--help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) filter=$argument ;;
  esac
done
command -v valgrind >/dev/null || { echo "valgrind is missing: install it with the system's package manager" >&2; exit 1; }

few=20
many=220
benches=$(cargo bench --locked --benches --no-run --message-format=json |
  sed -n 's/.*"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p')

# Instructions of a whole process.
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

rows=()
$json || printf '%-36s %s\n' subject instructions
for bench in $benches; do
  while IFS= read -r subject; do
    [[ $subject == *"$filter"* ]] || continue
    first=$(count "$bench" --subject "$subject" $few)
    second=$(count "$bench" --subject "$subject" $many)
    each=$(((second - first) / (many - few)))
    rows+=("\"$subject\": $each")
    $json || printf '%-36s %d\n' "$subject" "$each"
  done < <("$bench" --subjects)
done
if $json; then
  (IFS=,; printf '{%s}\n' "${rows[*]}")
fi
