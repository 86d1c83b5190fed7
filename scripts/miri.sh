#!/bin/sh
# Runs the crate that has `unsafe` under Miri, which finds undefined behaviour. It has no IFMA: of that backend it runs the loads
# and the stores only. It has AVX2, so that backend is run as it is.
set -eu
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "error: this needs a nightly toolchain with Miri" >&2
    echo "hint: rustup toolchain install nightly --component miri,rust-src" >&2
    exit 1
fi
# Miri interprets a build of its own, which cannot share the release build.
CARGO_TARGET_DIR="$(dirname "$CARGO_TARGET_DIR")/target-miri"
export CARGO_TARGET_DIR

# miri FEATURES ARGUMENTS…: some tests on a processor with these features.
miri() {
    features=$1
    shift
    echo "== Miri with $features: $*" >&2
    # curve25519-dalek must not choose instructions that Miri does not have.
    RUSTFLAGS="--cfg curve25519_dalek_backend=\"serial\" -C target-feature=$features" \
        cargo +nightly miri test --locked -p fog-x25519 "$@"
}
miri +avx2 --lib --test few
miri +avx512f,+avx512dq,+avx512ifma --lib lanes::ifma
