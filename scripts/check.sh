#!/usr/bin/env bash
# The whole gate: formatting, lints, tests, benches in smoke mode, documentation, other people's clients. CI calls
# nothing else. Needs Rust, a C compiler and make; no server, no container, no network but the package registry. Clients
# whose language is not on the machine are skipped, and named.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "format";        cargo fmt --check
step "lints";         cargo clippy --locked --all-targets -- -D warnings
step "simulator";     cargo clippy --locked --features simulate --bin ottla -- -D warnings
step "documentation"; RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items
step "tests";         cargo test --locked
step "benches";       cargo test --locked --benches
step "clients";       scripts/clients.sh
