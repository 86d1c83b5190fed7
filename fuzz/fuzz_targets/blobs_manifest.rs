//! Any bytes as a file's manifest and name: `RUSTC_BOOTSTRAP=1 cargo fuzz run blobs_manifest`. The corpus is replayed by
//! `behaviours/blobs/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/blobs/tests/common/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_manifest(data));
