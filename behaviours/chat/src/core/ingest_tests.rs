//! How many messages of a room a core takes in, verified and stored, and where the time goes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    dag::Taken,
    envelope::{Envelope, LIFETIME, Priority},
    id::MessageId,
    limits::Rates,
    message::{KeyCache, Message},
    seen::Seen,
    tag::{TagBook, TagKey},
    testing::{NETWORK, ROOM, RoomSeal, dag, node, now, sign},
};

const KEY: TagKey = TagKey([4; 32]);
const MESSAGES: u32 = 20_000;
const STEPS: [&str; 7] = ["envelope", "tag and dedup", "open", "parse", "verify", "order", "store"];

/// `authors` that take turns, each after reading all before; bodies of `length` bytes.
fn envelopes(authors: u16, length: usize) -> Vec<Vec<u8>> {
    let (mut writer, mut seal, at) = (dag(), RoomSeal(0), now());
    let body = "x".repeat(length);
    let envelope = |i: u32| {
        let author = u16::try_from(i % u32::from(authors)).unwrap();
        let message = sign(writer.draft(super::testing::device(author)).unwrap(), author, &body);
        writer.handle_message(&message, None, at).unwrap();
        Envelope::pack(&message.encode(), &mut seal, &KEY, Priority::Message, LIFETIME, at.unix)
            .unwrap()
            .envelope
            .encode()
    };
    (0..MESSAGES).map(envelope).collect()
}

/// For how long this thread had a core: others may use the same one.
fn on_core() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn measure(authors: u16, length: usize) {
    let envelopes = envelopes(authors, length);
    let at = now();
    let (mut book, mut seen, mut seal, mut keys) =
        (TagBook::default(), Seen::default(), RoomSeal(0), KeyCache::default());
    book.add(ROOM, KEY, at.unix);
    // The rate is not what is measured.
    let mut rates = Rates::new((1e9, 1e9));
    let (mut dag, mut store) = (dag(), BTreeMap::<MessageId, Vec<u8>>::new());
    let mut spent = [Duration::ZERO; STEPS.len()];
    let (begin, worked) = (Instant::now(), on_core());
    for bytes in &envelopes {
        let mut last = Instant::now();
        let mut lap = |step: usize| {
            let now = Instant::now();
            spent[step] += now - last;
            last = now;
        };
        let envelope = Envelope::parse(bytes, at.unix).unwrap();
        lap(0);
        let room = book.find(&envelope, at.unix).unwrap();
        assert!(seen.insert(&envelope, at.unix));
        lap(1);
        let opened = envelope.open(&mut seal).unwrap();
        lap(2);
        let message = Message::parse(&opened.plaintext, &NETWORK).unwrap();
        rates.take(message.header().author, at.mono).unwrap();
        lap(3);
        let verified = message.verify(&room, &mut keys).unwrap();
        lap(4);
        assert_eq!(dag.handle_message(&verified, Some(node(1)), at), Ok(Taken::Complete));
        while dag.poll_output().is_some() {}
        lap(5);
        store.insert(verified.id(), verified.encode());
        lap(6);
    }
    let total = on_core().zip(worked).map_or(begin.elapsed(), |(after, before)| after - before);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(MESSAGES);
    println!(
        "{authors} authors, {length} bytes: {:.0} messages/s of core time",
        f64::from(MESSAGES) / total.as_secs_f64()
    );
    for (step, time) in STEPS.iter().zip(spent) {
        println!("  {step:14} {:6.2} µs of wall time", each(time));
    }
    assert_eq!(store.len(), MESSAGES as usize);
}

/// `cargo test --release -p fog-chat --no-default-features ingest -- --ignored --nocapture`
#[test]
#[ignore = "prints figures"]
fn ingest_of_a_room() {
    for (authors, length) in [(10, 100), (10, 1_000), (1_000, 100)] {
        measure(authors, length);
    }
}
