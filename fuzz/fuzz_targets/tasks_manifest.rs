//! Any description of work, and any offer: `RUSTC_BOOTSTRAP=1 cargo fuzz run tasks_manifest`. The corpus is replayed by
//! `behaviours/tasks/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/tasks/tests/common/fuzz_wire.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_manifest(data));
