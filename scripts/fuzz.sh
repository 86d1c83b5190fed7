#!/bin/sh
# Runs each fuzz target (or the one that is named) for some seconds: fuzz.sh SECONDS [NAME]
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=$1
name=${2:-}
if ! cargo fuzz --version >/dev/null 2>&1 || ! cargo +nightly --version >/dev/null 2>&1; then
    echo "error: fuzzing needs cargo-fuzz and a nightly toolchain" >&2
    echo "hint: cargo install cargo-fuzz && rustup toolchain install nightly" >&2
    exit 1
fi
# Fuzzing instruments everything, so it cannot share the release build.
CARGO_TARGET_DIR="$(dirname "$CARGO_TARGET_DIR")/target-fuzz"
export CARGO_TARGET_DIR
for target in ${name:-$(cargo +nightly fuzz list)}; do
    echo "== $target" >&2
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
done
