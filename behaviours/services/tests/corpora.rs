//! Replays the seed corpus of the fuzz target, and whatever the fuzzer ever found, through the same function.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/fuzz.rs"]
mod fuzz;

use std::{fs, path::PathBuf};

use fog_base::NodeId;
use fog_services::{
    Address,
    core::{
        blinding::Identity,
        handshake::PointKeys,
        introduction::{FirstStream, Request},
    },
    wire::{Message, command},
};

fn folder() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../fuzz/corpus/services_wire")
}

#[test]
fn the_corpus_of_services_wire_is_handled() {
    let mut inputs = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        fuzz::fuzz_wire(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 5, "the corpus has {inputs} inputs");
}

/// What a relay is told on a circuit.
fn told(circuit: u8, command: u8, body: &[u8]) -> Vec<u8> {
    let mut padded = body.to_vec();
    padded.resize(padded.len().next_multiple_of(8), 0);
    [&[circuit, command, (padded.len() / 8) as u8][..], &padded].concat()
}

#[test]
#[ignore = "writes the seeds, when the formats have changed"]
fn write_the_seeds() {
    let keys = PointKeys::from_seed(&[1; 32], NodeId([1; 32]));
    let establish = keys.establish(&fog_base::NetworkId([7; 32]), &[5; 32], (0, 0));
    let (establishes, body) = Message::EstablishIntro(establish).encode();
    let point = keys.public();
    let point = [&point.relay.0[..], &[0], &point.auth_key, &point.x25519, &point.kem[..]].concat();
    let extension = [&[1, 0, 40][..], &[9; 40]].concat();
    let inner = [&[0, 1][..], &point, &[1], &extension].concat();
    let stream = Some(FirstStream { port: 80, early: b"GET /".to_vec() });
    let request = Request { cookie: [1; 20], rendezvous: NodeId([2; 32]), work: None, stream };
    let name = Address::new(*Identity::from_seed([1; 32]).unwrap().key()).to_string();
    let introduces = told(1, command::INTRODUCE1, &keys.public().auth_key);
    let script = [told(0, establishes, &body), introduces.clone(), introduces].concat();
    let meeting = [
        told(2, command::ESTABLISH_RENDEZVOUS, &[3; 20]),
        told(3, command::RENDEZVOUS1, &[3; 84]),
        told(4, command::FETCH, &[4; 32]),
    ];
    let seeds: [(&str, Vec<u8>); 9] = [
        ("message", [&[0, establishes][..], &body].concat()),
        ("outer", [&[1][..], &[9; 32], &[1], &[4; 700]].concat()),
        ("inner", [&[2][..], &inner].concat()),
        ("changed", vec![3, 0, 70, 1, 15, 0, 4]),
        ("request", [&[4][..], &request.encode()].concat()),
        ("name", [&[5][..], name.as_bytes()].concat()),
        ("name_upper", [&[5][..], name.to_ascii_uppercase().as_bytes()].concat()),
        ("relay_points", [&[6][..], &script].concat()),
        ("relay_meeting", [&[6][..], &meeting.concat()].concat()),
    ];
    fs::create_dir_all(folder()).unwrap();
    seeds.into_iter().for_each(|(name, bytes)| fs::write(folder().join(name), bytes).unwrap());
}
