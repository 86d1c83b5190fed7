//! What a message costs, against vodozemac alone. Prints; asserts no time.
//! `cargo test --release -p fog-chat --no-default-features -- --ignored --nocapture what_a_message_costs`

use std::time::{Duration, Instant};

use vodozemac::olm::{Account, OlmMessage, Session, SessionConfig};

use super::{
    device::Output,
    frame::Kind,
    testing::{Node, id, mutual, settle, start},
    vault::RowKind,
};

const ROUNDS: u32 = 400;
/// Messages one way before an answer turns the ratchet.
const BATCHES: [u32; 3] = [1, 16, 31];
const TEXT: [u8; 1024] = [7; 1024];

fn best(batch: u32, mut round: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let before = Instant::now();
            round();
            before.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 4] / batch
}

fn carry(from: &mut Session, to: &mut Session, text: &[u8]) {
    let (kind, bytes) = from.encrypt(text).unwrap().to_parts();
    to.decrypt(&OlmMessage::from_parts(kind, &bytes).unwrap()).unwrap();
}

/// Messages of 1 KiB one way, and one answer that turns the ratchet.
fn vodozemac_alone(batch: u32) -> (Duration, Session) {
    let (alice, mut bob) = (Account::new(), Account::new());
    bob.generate_fallback_key();
    let key = *bob.fallback_key().values().next().unwrap();
    let mut a = alice.create_outbound_session(SessionConfig::version_2(), bob.curve25519_key(), key).unwrap();
    let OlmMessage::PreKey(first) = a.encrypt("").unwrap() else { panic!("a first message") };
    let made = bob.create_inbound_session(SessionConfig::version_2(), alice.curve25519_key(), &first).unwrap();
    let mut b = made.session;
    carry(&mut b, &mut a, b"");
    let time = best(batch, || {
        (0..batch).for_each(|_| carry(&mut a, &mut b, &TEXT));
        carry(&mut b, &mut a, &vec![0; 88 + 16 * batch as usize]);
    });
    (time, a)
}

/// Runs outputs without a disk: what the cores themselves cost.
fn outputs(node: &mut Node) -> Vec<Vec<u8>> {
    let mut wires = Vec::new();
    while let Some(output) = node.device.poll_output() {
        match output {
            Output::Persist { batch, .. } => node.device.handle_persisted(batch),
            Output::Send { bytes, .. } => wires.push(bytes),
            _ => {}
        }
    }
    wires
}

#[test]
#[ignore = "prints figures"]
fn what_a_message_costs() {
    BATCHES.into_iter().for_each(cost_of);
}

fn cost_of(batch: u32) {
    let (alone, session) = vodozemac_alone(batch);
    println!("{batch} messages of 1 KiB for each answer");

    let mut now = start();
    let (mut a, mut b) = mutual(now);
    a.send(b.id(), 1).unwrap();
    settle(&mut a, &mut b, &mut now);
    b.send(a.id(), 2).unwrap();
    settle(&mut a, &mut b, &mut now);
    let (a_id, b_id) = (a.id(), b.id());
    let mut n = 10;
    let ours = best(batch, || {
        for _ in 0..batch {
            n += 1;
            a.device.handle_send(b_id, id(n), Kind::Data, &TEXT).unwrap();
        }
        for wire in outputs(&mut a) {
            b.device.handle_message(a_id, &wire, now).unwrap();
        }
        b.device.handle_timeout(now.plus(Duration::from_secs(1)));
        for wire in outputs(&mut b) {
            a.device.handle_message(b_id, &wire, now).unwrap();
        }
        assert!(outputs(&mut a).is_empty() && a.device.pending(&b_id).is_empty());
    });
    let alone = alone.min(vodozemac_alone(batch).0);
    println!("  vodozemac alone, encrypt + decrypt: {alone:?} (the better of before and after)");
    println!("  with frames, checks, windows, dedup and sealed rows: {ours:?}, {:.2} times", ratio(ours, alone));

    let pickled = best(batch, || {
        (0..batch).for_each(|_| drop(serde_json::to_vec(&session.pickle()).unwrap()));
    });
    println!("  a session's state as JSON (once a batch on each side): {pickled:?}");
    let mut rows = Vec::new();
    let mut put = |bytes: usize| {
        best(batch, || {
            for n in 0..batch {
                a.device.vault().put(&mut rows, RowKind::Inbox, &b_id.0, &id(u64::from(n)).0, &vec![7; bytes]);
            }
            rows.clear();
        })
    };
    println!("  a sealed row of 1 KiB (twice a message): {:?}, of 40 bytes (once): {:?}", put(1024), put(40));
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
