//! Any bytes as each thing that a chat peer sends: `RUSTC_BOOTSTRAP=1 cargo fuzz run chat_wire`. The corpus is replayed by
//! `behaviours/chat/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/chat/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::fuzz_wire(data));
