//! Replays the seed corpus of the fuzz target, and whatever the fuzzer ever found, through the same function.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/fuzz.rs"]
mod fuzz;

use std::{fs, path::PathBuf};

use fog_circuits::{
    Target,
    wire::{Frame, StreamId},
};

fn folder() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../fuzz/corpus/circuits_cells")
}

#[test]
fn the_corpus_of_circuits_cells_is_handled() {
    let mut inputs = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        fuzz::fuzz_cells(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 5, "the corpus has {inputs} inputs");
}

fn payload(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.append(&mut bytes));
    bytes
}

/// An instruction of a script, with its bytes.
fn step(op: u8, body: &[u8]) -> Vec<u8> {
    let mut padded = body.to_vec();
    padded.resize(padded.len().next_multiple_of(8), 0);
    [&[op, (padded.len() / 8) as u8][..], &padded].concat()
}

#[test]
#[ignore = "writes the seeds, when the formats have changed"]
fn write_the_seeds() {
    let (one, two) = (StreamId(1), StreamId(2));
    let host = || Target::Host("example.com".into(), 80);
    let stream = payload(&[Frame::Begin(one, host()), Frame::Data(one, b"GET /"), Frame::Fin(one), Frame::Drop]);
    let message =
        payload(&[Frame::Message(71, false, b"comes"), Frame::Begin(two, host()), Frame::Credit(two, 1 << 20)]);
    let extend = fog_circuits::wire::Extend {
        next: fog_base::NodeId([7; 32]),
        hints: vec![vec![4, 127, 0, 0, 1, 6, 16, 1]],
        request: vec![1; 1264],
    };
    let extend = payload(&[Frame::Extend(extend)]);
    let (create, wait) = (step(1, &[]), step(206, &[]));
    let seeds: [(&str, Vec<u8>); 8] = [
        ("frames_stream", [&[0][..], &stream].concat()),
        ("frames_message", [&[0][..], &message].concat()),
        ("frames_extend", [&[0][..], &extend].concat()),
        ("handshake", vec![1; 1264]),
        ("handshake_changed", [&[1][..], &[0, 31, 128, 4, 0, 1]].concat()),
        ("script_stream", [&[2][..], &create, &step(2, &stream), &step(5, &stream), &wait].concat()),
        ("script_join", [&[2][..], &create, &create, &step(2, &message), &step(12, &message), &step(8, &[])].concat()),
        ("script_extend", [&[2][..], &create, &step(2, &extend), &wait, &step(0, &[0, 0, 0, 9, 3])].concat()),
    ];
    fs::create_dir_all(folder()).unwrap();
    seeds.into_iter().for_each(|(name, bytes)| fs::write(folder().join(name), bytes).unwrap());
}
