#!/bin/sh
# What `make test` runs, in the order in which it is cheapest to learn of a mistake. Stops at the first step that fails, and says
# which one it was.
#
# All steps share one profile and one target directory. RocksDB's build script has the same features in each of them (held by
# tests/tidy.rs), so its C++ is compiled once.
set -eu
cd "$(dirname "$0")/.."

step() {
    name=$1
    shift
    printf '\n== %s\n' "$name" >&2
    begin=$(date +%s)
    "$@" || {
        code=$?
        printf '\n== FAILED: %s (exit code %s)\n' "$name" "$code" >&2
        exit 1
    }
    printf '== %s: ok, %s s\n' "$name" "$(($(date +%s) - begin))" >&2
}

# A core alone: without its default features it must not know libp2p.
core_alone() {
    cargo check --release --locked -p "$1" --no-default-features
    if cargo tree --locked -p "$1" --no-default-features --edges normal --prefix none | grep -q '^libp2p'; then
        echo "error: $1 depends on libp2p without its feature \`libp2p\`" >&2
        return 1
    fi
}

run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --release --locked --workspace --no-fail-fast
    else
        cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast
    fi
}

started=$(date +%s)
step "formatting" cargo fmt --all --check
for manifest in behaviours/*/Cargo.toml; do
    crate="fog-$(basename "$(dirname "$manifest")")"
    step "$crate alone" core_alone "$crate"
done
step "clippy" cargo clippy --release --locked --workspace --all-targets -- -D warnings
step "tests" run_tests
step "documentation's examples" cargo test --release --locked --workspace --doc
# The program that the tests were run with; `cargo run` would build another one, with other features of its dependencies.
step "demo" "${CARGO_TARGET_DIR:-target}/release/fog" testnet demo
printf '\n== all of `make test` passed in %s s\n' "$(($(date +%s) - started))" >&2
