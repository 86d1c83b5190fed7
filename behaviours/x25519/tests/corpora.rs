//! Replays the seed corpus of the fuzz target, and whatever the fuzzer ever found, through the same function.

#![allow(clippy::unwrap_used, missing_docs)]
// Miri takes most of a minute for one result: it runs `few.rs`.
#![cfg(not(miri))]

mod common;

#[test]
fn the_corpus_of_x25519_backends_is_handled() {
    let folder = format!("{}/../../fuzz/corpus/x25519_backends", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        common::fuzz_backends(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 5, "the corpus has {inputs} inputs");
}
