//! Downloads from simulated sources, in virtual time.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::{
    bitmap::Bitmap,
    blob::{Blob, BlobId},
    download::{Config, Download, Output, Report},
    reject::Reject,
    simulated::{Conduct, Plan, World, id},
    testing::{Content, start},
};
use crate::wire::{Ending, FromSource, Holding, RequestId, ToSource};

fn plan(conduct: Conduct, rate: f64, pieces: u64) -> Plan {
    Plan { conduct, rate, delay: Duration::from_millis(20), pieces: Bitmap::full(pieces), joins: Duration::ZERO }
}

fn conducts() -> impl Strategy<Value = Conduct> {
    prop_oneof![
        3 => Just(Conduct::Honest),
        2 => (1u32..60).prop_map(Conduct::Lies),
        2 => (0u32..100).prop_map(Conduct::Stalls),
        1 => Just(Conduct::Busy),
        1 => Just(Conduct::Empty),
        2 => (1u32..100, 0u64..30).prop_map(|(after, seconds)| Conduct::Leaves(after, seconds)),
        1 => Just(Conduct::Silent),
    ]
}

fn plans(pieces: u64) -> impl Strategy<Value = Vec<Plan>> {
    let bits = prop::collection::vec(any::<bool>(), pieces as usize);
    let one = (conducts(), 20_000.0f64..30e6, 0u64..400, bits, 0u64..20_000);
    prop::collection::vec(one, 0..8).prop_map(move |all| {
        let plan = |(conduct, rate, delay, bits, joins): (_, _, _, Vec<bool>, _)| {
            let mut held = Bitmap::new(pieces);
            for (piece, _) in (0..).zip(bits).filter(|(_, bit)| *bit) {
                held.set(piece);
            }
            let (delay, joins) = (Duration::from_millis(delay), Duration::from_millis(joins));
            Plan { conduct, rate, delay, pieces: held, joins }
        };
        all.into_iter().map(plan).collect()
    })
}

const HOUR: Duration = Duration::from_secs(3_600);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the others do, and however often the process is killed: if two honest sources have everything between them, the
    /// download is over in the end, with the right bytes.
    #[test]
    fn it_ends_with_the_right_bytes(
        size in prop_oneof![0usize..200_000, 1_000_000usize..6_000_000],
        others in plans(6), split in prop::collection::vec(any::<bool>(), 6), rate in 30_000.0f64..20e6,
        failures in 0u32..4, kills in prop::collection::vec((1u64..2_000, any::<bool>()), 0..4), seed in any::<u64>(),
    ) {
        let content = Content::new(size, seed);
        let pieces = content.blob.pieces();
        let fit = |bits: &Bitmap| {
            let mut held = Bitmap::new(pieces);
            bits.iter().for_each(|piece| { held.set(piece); });
            held
        };
        let mut all: Vec<_> = others.into_iter().map(|plan| Plan { pieces: fit(&plan.pieces), ..plan }).collect();
        for side in [true, false] {
            let mut held = Bitmap::new(pieces);
            (0..pieces).zip(&split).filter(|(_, of)| **of == side).for_each(|(piece, _)| { held.set(piece); });
            all.push(Plan { pieces: held, ..plan(Conduct::Honest, rate, pieces) });
        }
        let mut world = World::new(content, all, Config::default(), seed);
        world.write_failures = failures;
        for (events, saves) in kills {
            if world.run(10 * HOUR, events) {
                break;
            }
            world.kill(saves);
        }
        prop_assert!(world.run(10 * HOUR, u64::MAX), "{:?} {:?}", world.download.progress(world.now()), world.download.counts());
        world.check_done();
    }

    /// Messages that nobody asked for, in any order, never panic, are never believed, and cost their sender.
    #[test]
    fn garbage_is_refused(messages in prop::collection::vec((0u8..3, 0u8..6, any::<u32>(), any::<u8>(), 0usize..40), 1..200)) {
        let content = Content::new(3_000_000, 5);
        let blob = content.blob;
        let mut world = World::new(content, Vec::new(), Config::default(), 1);
        for peer in 0..2 {
            world.download.handle_source(id(peer), world.now()).unwrap();
        }
        for (peer, kind, number, byte, len) in messages {
            let request = RequestId { download: number % 2, number: number % 40 };
            let message = match kind {
                0 => FromSource::Have(blob.id(), Holding::All(u64::from(number))),
                1 => FromSource::Have(blob.id(), Holding::Some(blob.size(), vec![byte; len])),
                2 => FromSource::Gained(blob.id(), number),
                3 => FromSource::Step(request, vec![byte; len]),
                4 => FromSource::End(request, Ending::Missing),
                _ => FromSource::Have(blob.id(), Holding::All(blob.size())),
            };
            let _outcome = world.download.handle_message(id(peer), message, world.now());
            while let Some(output) = world.download.poll_output() {
                prop_assert!(!matches!(output, Output::Persist(_) | Output::Done));
            }
        }
        prop_assert!(world.download.have().is_empty());
    }
}

#[test]
fn four_equal_sources_are_four_times_one() {
    let took = |sources: usize| {
        let content = Content::new(100 << 20, 1);
        let plans = vec![plan(Conduct::Honest, 20e6, content.blob.pieces()); sources];
        let mut world = World::new(content, plans, Config::default(), 7);
        assert!(world.run(HOUR, u64::MAX));
        world.check_done();
        assert_eq!(world.download.counts().duplicates, 0);
        world.at.as_secs_f64()
    };
    let (one, four) = (took(1), took(4));
    assert!((5.2..6.0).contains(&one), "{one}");
    assert!(one / four > 3.6, "{one} {four}");
}

#[test]
fn a_slow_source_does_not_hold_up_the_end() {
    let content = Content::new(40 << 20, 2);
    let pieces = content.blob.pieces();
    let plans = vec![plan(Conduct::Honest, 10e6, pieces), plan(Conduct::Honest, 20e3, pieces)];
    let mut world = World::new(content, plans, Config::default(), 7);
    assert!(world.run(HOUR, u64::MAX));
    world.check_done();
    let counts = world.download.counts();
    assert!(world.at < Duration::from_millis(6_500), "{:?}: 4.2 s by the fast one alone; {counts:?}", world.at);
    assert!(counts.stolen > 0 && counts.duplicates <= 64, "{counts:?}");
}

#[test]
fn the_rarest_pieces_come_first() {
    let content = Content::new(32 << 20, 3);
    let pieces = content.blob.pieces();
    let mut common = Bitmap::full(pieces);
    let rare: BTreeSet<u64> = [5, 11, 20].into();
    rare.iter().for_each(|piece| {
        common.clear(*piece);
    });
    let mut plans = vec![Plan { pieces: common, ..plan(Conduct::Honest, 1e6, pieces) }; 3];
    plans.push(Plan { joins: Duration::from_millis(100), ..plan(Conduct::Honest, 1e6, pieces) });
    let mut world = World::new(content, plans, Config::default(), 7);
    let has_rare = |world: &World| rare.iter().all(|piece| world.download.have().has_all(piece * 64..piece * 64 + 64));
    while !has_rare(&world) {
        assert!(!world.run(HOUR, 1));
    }
    // Three pieces at 1 MB/s; of the others there was time for 11 pieces or so.
    assert!(world.at < Duration::from_millis(3_600), "{:?}", world.at);
    assert!(world.run(HOUR, u64::MAX));
    world.check_done();
}

#[test]
fn a_liar_costs_one_group_and_is_banned() {
    let content = Content::new(8 << 20, 4);
    let pieces = content.blob.pieces();
    let plans = vec![plan(Conduct::Lies(1), 50e6, pieces), plan(Conduct::Honest, 5e6, pieces)];
    let mut world = World::new(content, plans, Config::default(), 7);
    assert!(world.run(HOUR, u64::MAX));
    world.check_done();
    assert!(matches!(world.reports[..], [Report::Lied { peer, .. }] if peer == id(0)), "{:?}", world.reports);
    assert_eq!(world.download.counts().released, world.config.first_window);
    assert!(world.rejects.contains(&(0, Reject::Lie)) && world.rejects.contains(&(0, Reject::Banned)));
}

#[test]
fn a_blob_of_another_size_is_nobodys_lie() {
    let content = Content::new(100_000, 4);
    let mut world = World::new(content, Vec::new(), Config::default(), 7);
    world.download.handle_source(id(9), world.now()).unwrap();
    let have = FromSource::Have(world.content.blob.id(), Holding::All(100_001));
    assert_eq!(world.download.handle_message(id(9), have, world.now()), Err(Reject::OtherSize));
    assert!(world.download.handle_source(id(9), world.now()).is_ok(), "it is not banned");
}

#[test]
fn sixteen_gib_take_bounded_memory() {
    let blob = Blob::new(BlobId([1; 32]), 16 << 30).unwrap();
    let now = start();
    let have = Bitmap::new(blob.groups());
    let mut download = Download::new(blob, have, 0, 1, Config::default(), now).unwrap();
    for peer in 0..100 {
        let accepted = download.handle_source(id(peer), now).is_ok();
        assert_eq!(accepted, peer < 64);
        let have = FromSource::Have(blob.id(), Holding::All(blob.size()));
        assert_eq!(download.handle_message(id(peer), have, now).is_ok(), accepted);
    }
    let requested = download.counts().requested;
    assert_eq!(requested, Config::default().max_ahead, "no more is under way than may be held");
    assert_eq!(download.ahead(), requested);
    let mut seen = BTreeSet::new();
    while let Some(output) = download.poll_output() {
        if let Output::Send { message: ToSource::Request { first, count, .. }, .. } = output {
            assert!((first..first + u32::from(count)).all(|group| seen.insert(group)), "requested twice");
        }
    }
    assert_eq!(seen.len() as u64, requested);
}

/// What is requested of `peer`, as first groups and counts.
fn requests_to(world: &mut World, peer: u8) -> Vec<(RequestId, u32, u16)> {
    let mut found = Vec::new();
    while let Some(output) = world.download.poll_output() {
        match output {
            Output::Send { to, message: ToSource::Request { id: request, first, count, .. } } if to == id(peer) => {
                found.push((request, first, count));
            }
            Output::Persist(verified) => world.download.handle_written(verified.group(), true, world.now()),
            _ => {}
        }
    }
    found
}

#[test]
fn when_the_second_source_of_a_group_leaves_a_third_is_asked() {
    let content = Content::new(4 * 16_384, 6);
    let mut world = World::new(content.clone(), Vec::new(), Config::default(), 7);
    let have = || FromSource::Have(content.blob.id(), Holding::All(content.blob.size()));
    let step = |id, groups: std::ops::Range<u64>, at: usize| {
        FromSource::Step(id, content.read(&super::slice::Steps::new(&content.blob, groups).nth(at).unwrap()))
    };
    let join = |world: &mut World, peer| {
        world.download.handle_source(id(peer), world.now()).unwrap();
        world.download.handle_message(id(peer), have(), world.now()).unwrap();
        requests_to(world, peer)
    };
    let slow = join(&mut world, 0);
    assert!(matches!(slow[..], [(_, 0, 4)]), "{slow:?}");
    world.at += Duration::from_secs(1);
    world.download.handle_message(id(0), step(slow[0].0, 0..4, 0), world.now()).unwrap();
    let fast = join(&mut world, 1);
    assert!(matches!(fast[..], [(_, 2, 2), (_, 1, 1)]), "the end is stolen, and what is on its way doubled: {fast:?}");
    for at in 0..2 {
        world.at += Duration::from_millis(10);
        world.download.handle_message(id(1), step(fast[0].0, 2..4, at), world.now()).unwrap();
    }
    assert!(join(&mut world, 2).is_empty(), "two are enough");
    world.download.handle_gone(id(1), world.now());
    let again = requests_to(&mut world, 2);
    assert!(matches!(again[..], [(_, 1, 1)]), "{again:?}");
    assert_eq!((world.download.counts().doubled, world.download.counts().released), (2, 0));
    world.download.handle_message(id(2), step(again[0].0, 1..2, 0), world.now()).unwrap();
    let late = world.download.handle_message(id(0), step(slow[0].0, 0..4, 1), world.now());
    assert_eq!(late, Err(Reject::Late), "it was cut when the group came from elsewhere");
    assert!(world.download.have().is_full());
}
