//! Any frames, in any order, to a download and to an upload: `RUSTC_BOOTSTRAP=1 cargo fuzz run blobs_cores`. The corpus is replayed by
//! `behaviours/blobs/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/blobs/tests/common/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_cores(data));
