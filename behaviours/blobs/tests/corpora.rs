//! Replays the seed corpora of the fuzz targets, and whatever the fuzzers ever found, through the same functions.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/fuzz.rs"]
mod fuzz;

use std::{fs, path::PathBuf};

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
fn the_corpus_of_blobs_wire_is_handled() {
    replay("blobs_wire", fuzz::fuzz_wire);
}

#[test]
fn the_corpus_of_blobs_manifest_is_handled() {
    replay("blobs_manifest", fuzz::fuzz_manifest);
}

#[test]
fn the_corpus_of_blobs_cores_is_handled() {
    replay("blobs_cores", fuzz::fuzz_cores);
}

#[test]
#[ignore = "writes the seeds, when the formats have changed"]
fn write_the_seeds() {
    let targets = [
        ("blobs_wire", fuzz::wire_seeds()),
        ("blobs_manifest", fuzz::manifest_seeds()),
        ("blobs_cores", fuzz::cores_seeds()),
    ];
    for (target, seeds) in targets {
        fs::create_dir_all(folder(target)).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(folder(target).join(name), bytes).unwrap());
    }
}
