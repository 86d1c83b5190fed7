//! What the parts cost: `cargo test --release -p fog-services --test cost -- --ignored --nocapture`. Figures, no assertions about time.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use fog_base::{Epoch, EpochSchedule, NetworkId, NodeId};
use fog_services::core::{
    blinding::{BlindedKey, Fog, Identity, Subcredential},
    descriptor::{Contents, Descriptor, Draft, Revisions},
    handshake::{Initiator, PointKeys},
    introduction::PLAINTEXT,
    period::{Calendar, Period},
    pow::{Equihash, Puzzle, Work},
    random::Random,
    ring::Ring,
};

const NETWORK: NetworkId = NetworkId([1; 32]);
const PERIOD: Period = Period(20_000);

/// The median of eleven rounds, in microseconds.
fn time(name: &str, turns: u32, mut what: impl FnMut()) {
    let mut rounds: Vec<_> = (0..11)
        .map(|_| {
            let start = Instant::now();
            (0..turns).for_each(|_| what());
            start.elapsed().as_secs_f64() * 1e6 / f64::from(turns)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:40} {:10.1} µs", rounds[5]);
}

#[test]
#[ignore = "prints figures; run it on an idle machine"]
fn costs() {
    let calendar = Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) };
    let identity = Identity::from_seed([2; 32]).unwrap();
    let secret = identity.blind::<Fog>(&calendar.context(PERIOD));
    let subcredential = Subcredential::derive::<Fog>(identity.key(), secret.key());
    let mut random = Random::new([3; 32]);
    time("blind a key", 100, || {
        black_box(BlindedKey::derive::<Fog>(identity.key(), &calendar.context(PERIOD)));
    });
    time("revision at the end of a period", 5, || {
        black_box(Revisions::encrypt(&secret, 1 << 17));
    });

    let points: Vec<_> = (0..3).map(|n| PointKeys::from_seed(&[n; 32], NodeId([n; 32]))).collect();
    time("keys of an introduction point", 20, || {
        black_box(PointKeys::from_seed(&random.bytes(), NodeId([1; 32])));
    });
    let contents =
        Contents { points: points.iter().map(|keys| keys.public().clone()).collect(), ..Contents::default() };
    let last_epoch = Epoch(PERIOD.first_epoch().0 + 6);
    let draft =
        Draft { network: &NETWORK, period: PERIOD, last_epoch, revision: 1, contents: &contents, clients: None };
    time("seal a descriptor of 8 KiB", 50, || {
        black_box(draft.seal(&secret, &subcredential, &mut random).unwrap());
    });
    let bytes = draft.seal(&secret, &subcredential, &mut random).unwrap();
    time("verify it (a directory)", 50, || {
        black_box(Descriptor::parse(&bytes, &NETWORK).unwrap());
    });
    let descriptor = Descriptor::parse(&bytes, &NETWORK).unwrap();
    time("open it (a client)", 50, || {
        black_box(descriptor.open(&subcredential, None).unwrap());
    });
    let ring = Ring::new(NETWORK, PERIOD, &[1; 32], (0..10_000u32).map(|_| NodeId(random.bytes())));
    time("eight directories of 10,000", 500, || {
        black_box(ring.directories(secret.key()));
    });

    let request = [4; PLAINTEXT];
    time("introduce (client)", 50, || {
        black_box(Initiator::start(&NETWORK, &subcredential, points[0].public(), &request, &mut random).unwrap());
    });
    let (initiator, introduction) =
        Initiator::start(&NETWORK, &subcredential, points[0].public(), &request, &mut random).unwrap();
    time("open an introduction (service)", 50, || {
        black_box(points[0].open(&NETWORK, &[subcredential], &introduction).unwrap());
    });
    let opened = points[0].open(&NETWORK, &[subcredential], &introduction).unwrap();
    time("answer it (service)", 50, || {
        black_box(opened.responder.respond(&mut random).unwrap());
    });
    let (reply, _) = opened.responder.respond(&mut random).unwrap();
    time("finish (client)", 50, || {
        black_box(initiator.finish(&reply).unwrap());
    });

    let mut challenge = [0; 32];
    time("puzzle: all solutions of a challenge", 5, || {
        challenge = random.bytes();
        black_box(Equihash.solve(&challenge));
    });
    let work = Work::make(&Equihash, secret.key(), &[5; 32], 1, random.bytes(), 100).unwrap();
    time("puzzle: verify work", 1000, || {
        assert!(black_box(&work).verify(&Equihash, secret.key(), &[5; 32]));
    });
    let forged = Work { solution: [7; 16], ..work };
    time("puzzle: refuse work", 1000, || {
        assert!(!black_box(&forged).verify(&Equihash, secret.key(), &[5; 32]));
    });
}
