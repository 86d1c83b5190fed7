//! Replays the seed corpora of the fuzz targets, and whatever the fuzzers ever found, through the same functions.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{target}", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 5, "the corpus of {target} has {inputs} inputs");
}

#[test]
fn the_corpus_of_sphinx_unwrap_is_handled() {
    replay("sphinx_unwrap", common::fuzz_unwrap);
}

#[test]
fn the_corpus_of_sphinx_surb_is_handled() {
    replay("sphinx_surb", common::fuzz_surb);
}
