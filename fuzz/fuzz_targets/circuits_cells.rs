//! Any cells, handshakes, and scripts for a relay: `RUSTC_BOOTSTRAP=1 cargo fuzz run circuits_cells`. The corpus is
//! replayed by `behaviours/circuits/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/circuits/tests/common/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_cells(data));
