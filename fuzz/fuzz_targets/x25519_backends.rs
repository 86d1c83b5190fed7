//! Every backend of fog-x25519 against x25519-dalek: `RUSTC_BOOTSTRAP=1 cargo fuzz run x25519_backends`. The corpus is
//! replayed by `behaviours/x25519/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/x25519/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::fuzz_backends(data));
