//! Replays the seed corpora of the fuzz targets, and whatever the fuzzers ever found, through the same functions.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, fs, path::PathBuf};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(folder(target)).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 5, "the corpus of {target} has {inputs} inputs");
}

#[test]
fn the_corpus_of_chat_wire_is_handled() {
    replay("chat_wire", common::fuzz_wire);
}

#[test]
fn the_corpus_of_chat_engine_is_handled() {
    replay("chat_engine", common::engine::fuzz);
}

/// A seed that is refused at once would lead the fuzzer nowhere.
#[test]
fn what_the_seeds_of_chat_engine_say_is_shown() {
    let told: BTreeMap<_, _> =
        common::engine::seeds().into_iter().map(|(name, seed)| (name, common::engine::run(&seed))).collect();
    for (name, least) in [("gossip", 2), ("meeting", 3), ("body", 1), ("gap", 2), ("fork", 1)] {
        assert!(told[name] >= least, "{name}: {told:?}");
    }
}

#[test]
#[ignore = "writes the seeds, when the formats have changed"]
fn write_the_seeds() {
    for (target, seeds) in [("chat_wire", common::wire_seeds()), ("chat_engine", common::engine::seeds())] {
        fs::create_dir_all(folder(target)).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(folder(target).join(name), bytes).unwrap());
    }
}
