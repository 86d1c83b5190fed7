//! Any messages, outcomes, signed bodies and kept rows, and scripts for a coordinator, a worker and what is between them:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run tasks_wire`. The corpus is replayed by `behaviours/tasks/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/tasks/tests/common/fuzz_wire.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_wire(data));
