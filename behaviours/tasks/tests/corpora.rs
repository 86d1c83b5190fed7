//! Replays the corpora of `tasks_manifest` and `tasks_wire`, and whatever the fuzzer ever found, through the same functions. That of
//! `tasks_wasi` is replayed by `sandbox_wasi.rs`.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/fuzz_wire.rs"]
mod fuzz;

use std::{fs, path::PathBuf};

use fog_base::{NodeId, codec};
use fog_tasks::{
    Content, Ending, ExecutionId, Input, Outcome, ResultHash, Work,
    core::{
        offer::Offer,
        pay::{Interval, Verdict, Voucher},
        terms::{Class, Privacy},
    },
    wire::{
        Failure, Message, OfferMessage, Phase, Refusal, Source, StreamKind, ToCoordinator, ToWorker,
        record::{AgreementBody, BID, BidBody, COMMIT, CommitBody, LeaseBody},
    },
};
use proptest::prelude::*;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, handle: fn(&[u8])) {
    let inputs: Vec<_> =
        fs::read_dir(folder(target)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 5, "{} inputs", inputs.len());
    inputs.iter().for_each(|input| handle(input));
}

#[test]
fn the_corpus_of_tasks_manifest_is_handled() {
    replay("tasks_manifest", fuzz::fuzz_manifest);
}

#[test]
fn the_corpus_of_tasks_wire_is_handled() {
    replay("tasks_wire", fuzz::fuzz_wire);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_script_ends_every_task_once(steps in prop::collection::vec((0u8..12, any::<u8>()), 0..120)) {
        let steps = steps.into_iter().flat_map(|(what, with)| [what, with]);
        fuzz::fuzz_wire(&[3].into_iter().chain(steps).collect::<Vec<_>>());
    }
}

const X: ExecutionId = ExecutionId([3; 16]);

fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    let input = |name: &str| Input { name: name.into(), content: Content::of(name.as_bytes()) };
    let full = Work {
        env: vec![("A".into(), "b=c".into())],
        stdin: Some(Content::of(b"in")),
        inputs: vec![input("a"), input("b")],
        ..fuzz::work(1)
    };
    let offer = Offer {
        slots: 4,
        free: 2,
        queued: 9,
        speed: 1_000_000_000,
        memory_bytes: 1 << 30,
        staging_bytes: 1 << 30,
        features: vec!["gpu".into(), "gpu:cuda".into()],
        family: Some("ours".into()),
        eligible: true,
        ..Offer::none()
    };
    let body = |offer: &Offer| [&[2][..], &codec::encode(offer, 2048).unwrap()].concat();
    vec![
        ("work", [&[0][..], &fuzz::work(7).encode().unwrap()].concat()),
        ("work_full", [&[0][..], &full.encode().unwrap()].concat()),
        ("described", b"\x01\x00\x03one\x01\x05A=b=c\x02\x01a\x02\x01b\x03\x02in\x04\x04xxxx".to_vec()),
        ("described_twice", b"\x01\x02\x01a\x02\x01a".to_vec()),
        ("described_escape", b"\x01\x02\x02..\x00\x02a\0".to_vec()),
        ("offer", body(&offer)),
        ("offer_none", body(&Offer::none())),
    ]
}

fn messages() -> Vec<(&'static str, Message)> {
    let key = ed25519_dalek::SigningKey::from_bytes(&[2; 32]);
    let commit = || {
        let body = codec::encode(&CommitBody { execution: X, hash: [1; 32] }, 128).unwrap();
        fuzz::signed(&COMMIT, &key, &body).unwrap()
    };
    let outcome = Outcome { stdout: b"7".to_vec(), fuel: 9, ..Outcome::ended(Ending::Exit(0), "") };
    let output = Some(Source::Inline(outcome.to_bytes().into()));
    let items = vec![
        (Content::of(b"module"), Source::Inline(b"module".to_vec().into())),
        (Content::of(b"d"), Source::Blob(vec![1; 40].into())),
    ];
    let (worker, coordinator) = (Message::ToWorker, Message::ToCoordinator);
    vec![
        ("bid", worker(ToWorker::Bid { record: commit(), work: fuzz::work(0).encode().unwrap() })),
        ("lease", worker(ToWorker::Lease(commit()))),
        ("stage", worker(ToWorker::Stage { execution: X, items })),
        ("cancel", worker(ToWorker::Cancel(X))),
        ("reveal", worker(ToWorker::Reveal { execution: X, want_output: true })),
        ("voucher", worker(ToWorker::Voucher(commit()))),
        ("agreement", coordinator(ToCoordinator::Agreement(commit()))),
        ("refused", coordinator(ToCoordinator::Refused { execution: X, reason: Refusal::Busy })),
        ("heartbeat", coordinator(ToCoordinator::Heartbeat(vec![(X, Phase::Running)]))),
        ("log", coordinator(ToCoordinator::Log { execution: X, stream: StreamKind::Stdout, bytes: b"text".to_vec() })),
        ("commit", coordinator(ToCoordinator::Commit(commit()))),
        ("ended", coordinator(ToCoordinator::Ended { execution: X, failure: Failure::Vacated })),
        (
            "revealed",
            coordinator(ToCoordinator::Revealed {
                execution: X,
                result: ResultHash([4; 32]),
                nonce: [5; 32],
                fuel: 6,
                output,
            }),
        ),
        ("acknowledged", coordinator(ToCoordinator::Acknowledged { execution: X, record: commit() })),
        (
            "offers_list",
            Message::Offers(OfferMessage::List { buckets: vec![1, 255], places: vec![(NodeId([7; 32]), 9)] }),
        ),
        (
            "offers_records",
            Message::Offers(OfferMessage::Records { records: vec![vec![1, 2]], want: vec![NodeId([1; 32])] }),
        ),
    ]
}

/// Bodies by the place of their kind in the list of kinds, the coordinator's under its key.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let bid = BidBody {
        execution: X,
        worker: NodeId(ed25519_dalek::SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes()),
        work: Work::id_of(&fuzz::work(0).encode().unwrap()),
        offer_seq: 1,
        highest_rate: 10_000,
        staging_ms: 1_000,
        queueing_ms: 1_000,
        running_ms: 1_000,
        class: Class::Standard,
        privacy: Privacy::Open,
        features: Vec::new(),
    };
    let voucher = Voucher {
        execution: X,
        verdict: Verdict::Good,
        fuel: 1_000,
        interval: Interval::at(fog_base::UnixMillis(1_800_000_000_000)),
        cumulative: 1,
    };
    let agreement = AgreementBody { execution: X, bid: [1; 32], rate: 1_000 };
    let lease = LeaseBody { execution: X, agreement: [1; 32], seq: 1, duration_ms: 30_000, heartbeat_ms: 1_000 };
    vec![
        ("body_bid", [&[2, 1, 0][..], &codec::encode(&bid, BID.max_body).unwrap()].concat()),
        ("body_agreement", [&[2, 2, 1][..], &codec::encode(&agreement, 256).unwrap()].concat()),
        ("body_lease", [&[2, 3, 0][..], &codec::encode(&lease, 256).unwrap()].concat()),
        ("body_voucher", [&[2, 5, 0][..], &codec::encode(&voucher, 128).unwrap()].concat()),
    ]
}

/// What goes well, and what goes wrong in each way.
fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    // A submission, a bid, an agreement, lease and contents, the run, commit, reveal, voucher.
    let good = [0, 0, 1, 0, 2, 0, 1, 0, 1, 0, 8, 0, 9, 0, 2, 0, 2, 0, 1, 0, 2, 0, 1, 0, 2, 0];
    let with = |more: &[u8]| [&[3][..], &good, more, &good].concat();
    vec![
        ("script_good", with(&[])),
        (
            "script_twice",
            [&[3, 0, 1, 1, 3, 2, 3, 1, 3, 1, 3, 1, 3, 8, 0, 9, 0][..], &[2, 3, 2, 3, 1, 3, 1, 3]].concat(),
        ),
        ("script_lost", with(&[0, 2, 3, 0, 7, 200, 1, 0, 4, 0, 7, 250, 1, 0, 2, 0])),
        ("script_changed", with(&[0, 3, 5, 70, 1, 0, 6, 80, 2, 0, 5, 20, 1, 0, 6, 30])),
        ("script_killed", with(&[0, 4, 1, 0, 2, 0, 1, 0, 1, 0, 8, 255, 7, 255, 9, 255])),
        ("script_gone", with(&[0, 5, 1, 0, 2, 0, 11, 0, 7, 255, 11, 1, 7, 255, 11, 2, 7, 100])),
        ("script_cancelled", with(&[0, 6, 1, 0, 2, 0, 11, 3, 10, 1, 7, 255, 10, 0])),
    ]
}

#[test]
#[ignore = "writes the seeds, when the formats have changed"]
fn write_the_seeds() {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(folder(target)).unwrap();
        fs::write(folder(target).join(name), bytes).unwrap();
    };
    for (name, bytes) in manifests() {
        write("tasks_manifest", name, &bytes);
    }
    for (name, message) in messages() {
        write("tasks_wire", &format!("message_{name}"), &[&[0][..], &message.encode()].concat());
    }
    let outcome = Outcome {
        stdout: b"text".to_vec(),
        outputs: [("a/b".to_owned(), b"file".to_vec())].into(),
        ..Outcome::ended(Ending::Exit(1), "why")
    };
    write("tasks_wire", "outcome", &[&[1][..], &outcome.to_bytes()].concat());
    for (name, bytes) in bodies().into_iter().chain(scripts()) {
        write("tasks_wire", name, &bytes);
    }
    write(
        "tasks_wire",
        "rows",
        b"\x04\x00\x11\x01aaaaaaaaaaaaaaaa\x00\x01\xa0\x00\x21\x04bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\x00\x01\xa0",
    );
}
