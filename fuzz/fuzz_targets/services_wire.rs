//! Any messages, descriptors, introductions, names, and what a relay may be told: `RUSTC_BOOTSTRAP=1 cargo fuzz run services_wire`. The corpus is
//! replayed by `behaviours/services/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/services/tests/common/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::fuzz_wire(data));
