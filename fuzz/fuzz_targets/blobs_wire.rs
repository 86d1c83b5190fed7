//! Any bytes as frames of a blob stream: `RUSTC_BOOTSTRAP=1 cargo fuzz run blobs_wire`. The corpus is replayed by
//! `behaviours/blobs/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/blobs/tests/common/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_wire(data));
