//! What a peer can do to a device of chat, in any order: `RUSTC_BOOTSTRAP=1 cargo fuzz run chat_engine`. The corpus is replayed by
//! `behaviours/chat/tests/corpora.rs`.

#![no_main]

#[path = "../../behaviours/chat/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::engine::fuzz(data));
