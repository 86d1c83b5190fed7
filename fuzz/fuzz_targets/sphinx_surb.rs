//! Any bytes as what a peer sends: `RUSTC_BOOTSTRAP=1 cargo fuzz run sphinx_surb`. The corpus is replayed by
//! `behaviours/sphinx/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/sphinx/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::fuzz_surb(data));
