#!/bin/sh
# Runs every comparison, or the one that is named: bench.sh [NAME]. Prints a table and writes bench-results.json.
set -eu
cd "$(dirname "$0")/.."
name=${1:-}
results=${FOG_BENCH_RESULTS:-bench-results.json}
if [ -z "$name" ]; then
    # Figures of an older build must not stand among those of this one.
    rm -f "$results"
fi
FOG_BENCH=$name cargo bench --locked --workspace --profile release --bench '*'
FOG_BENCH=$name cargo run --locked --release --manifest-path benches/placement/Cargo.toml
if [ -n "$name" ] && ! grep -q "\"name\": \"$name\"" "$results" 2>/dev/null; then
    echo "error: no comparison is called $name" >&2
    echo "hint: make bench, without a name, runs and names them all" >&2
    exit 1
fi
