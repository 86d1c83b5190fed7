#!/bin/sh
# Builds the modules that the tests run, with Debian 12's compilers:
#   apt-get install -y clang lld wasi-libc libclang-rt-14-dev-wasm32
# The results are kept beside the sources. HASHES is their BLAKE3, which a test holds; it is written by
#   cargo test --release -p fog-tasks --test sandbox_run -- --ignored write_the_hashes
set -eu
cd "$(dirname "$0")"
for source in *.c; do
    clang --target=wasm32-wasi -O2 -s -Wall -Wextra -Werror -o "${source%.c}.wasm" "$source"
done
