//! Any calls of the virtual WASI, over any memory: `RUSTC_BOOTSTRAP=1 cargo fuzz run tasks_wasi`. The corpus is replayed by
//! `behaviours/tasks/tests/sandbox_wasi.rs`.

#![no_main]

#[path = "../../behaviours/tasks/tests/common/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_wasi(data));
