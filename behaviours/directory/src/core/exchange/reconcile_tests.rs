use proptest::prelude::*;

use super::*;
use crate::wire::{Request, Response, Scope};

fn hash(n: u64) -> Hash {
    *blake3::hash(&n.to_be_bytes()).as_bytes()
}

/// Items n with the sequence number n / 3: some share one.
fn items(ids: &BTreeSet<u64>) -> Items {
    Items::new(ids.iter().map(|n| (n / 3, hash(*n))))
}

fn hashes<'a>(ids: impl Iterator<Item = &'a u64>) -> BTreeSet<Hash> {
    ids.map(|n| hash(*n)).collect()
}

/// What the initiator finds, and how many rounds and bytes it takes.
fn run(a: &Items, b: &Items, first: Vec<u8>) -> (Found, usize, usize) {
    let (mut found, mut rounds, mut bytes, mut next) = (Found::default(), 0, 0, Some(first));
    while let Some(query) = next {
        let reply = b.answer(&query).unwrap();
        assert!(query.len() <= MAX_QUERY && reply.len() <= MAX_REPLY);
        rounds += 1;
        bytes += query.len() + reply.len();
        assert!(rounds <= 16, "does not end");
        next = a.step(&reply, &mut found).unwrap();
    }
    (found, rounds, bytes)
}

#[test]
fn equal_sets_take_one_small_round() {
    let set: BTreeSet<_> = (0..10_000).collect();
    let (found, rounds, bytes) = run(&items(&set), &items(&set), items(&set).opening());
    assert_eq!((found, rounds, bytes), (Found::default(), 1, 21));
}

#[test]
fn large_sets_with_nothing_in_common_end_too() {
    let (a, b): (BTreeSet<u64>, BTreeSet<u64>) = (0..20_000).partition(|n| n % 2 == 0);
    for first in [items(&a).opening(), items(&a).split().unwrap(), list_all()] {
        let is_listing = first == list_all();
        let (found, ..) = run(&if is_listing { items(&BTreeSet::new()) } else { items(&a) }, &items(&b), first);
        assert_eq!(found.theirs, hashes(b.iter()));
        assert_eq!(found.ours, if is_listing { BTreeSet::new() } else { hashes(a.iter()) });
    }
}

#[test]
fn another_version_is_no_agreement() {
    let items = items(&(0..40).collect());
    for message in [&[][..], &[0x60], &[0x62], &[0x62, 0, 0, 1], &[0]] {
        assert_eq!(items.answer(message), Err(Malformed));
        assert_eq!(items.step(message, &mut Found::default()), Err(Malformed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_two_sets_converge(
        (a, b) in (0u64..3000, 0usize..3000, 0usize..300, 0usize..300).prop_flat_map(|(from, both, left, right)| {
            let ids = |n: usize| proptest::collection::btree_set(from..from + 9000, 0..=n);
            (ids(both), ids(left), ids(right)).prop_map(|(both, left, right)| {
                (both.union(&left).copied().collect::<BTreeSet<_>>(), both.union(&right).copied().collect::<BTreeSet<_>>())
            })
        }),
    ) {
        let (ours, theirs) = (items(&a), items(&b));
        for first in [ours.opening(), ours.split().unwrap()] {
            let (found, ..) = run(&ours, &theirs, first);
            prop_assert_eq!(found.theirs, hashes(b.difference(&a)));
            prop_assert_eq!(found.ours, hashes(a.difference(&b)));
        }
    }

    #[test]
    fn hostile_messages_end_in_an_error_or_a_bounded_answer(
        tail in proptest::collection::vec(any::<u8>(), 0..2000), n in 0u64..2000,
    ) {
        let items = items(&(0..n).collect());
        let message = [&[VERSION][..], &tail].concat();
        if let Ok(reply) = items.answer(&message) {
            prop_assert!(reply.len() <= MAX_REPLY);
        }
        if let Ok(Some(next)) = items.step(&message, &mut Found::default()) {
            prop_assert!(next.len() <= MAX_QUERY);
        }
    }

    /// Well-formed ranges with bounds, modes and contents of a liar's choice, up to the largest message.
    #[test]
    fn hostile_ranges_end_in_an_error_or_a_bounded_answer(
        ranges in proptest::collection::vec((0u8..4, 0u8..40, 0u8..4, 0u8..5, any::<u8>()), 0..3000), n in 0u64..2000,
    ) {
        let items = items(&(0..n).collect());
        let mut message = vec![VERSION];
        for (offset, length, mode, count, fill) in ranges {
            message.extend([offset, length % 34]);
            message.extend(vec![fill; usize::from(length % 34)]);
            message.push(mode);
            match mode {
                1 => message.extend([fill; 16]),
                2 => {
                    message.push(count);
                    message.extend(vec![fill; 32 * usize::from(count)]);
                }
                _ => {}
            }
        }
        message.truncate(MAX_QUERY);
        if let Ok(reply) = items.answer(&message) {
            prop_assert!(reply.len() <= MAX_REPLY);
        }
        let mut found = Found::default();
        if let Ok(Some(next)) = items.step(&message, &mut found) {
            prop_assert!(next.len() <= MAX_QUERY);
        }
        prop_assert!(found.theirs.len() <= MAX_REPLY / 32 && found.ours.len() <= items.len());
    }
}

/// Descriptors are signed in the first half of an epoch: sequence numbers are milliseconds of 15 minutes.
fn descriptors(ids: impl Iterator<Item = u64>) -> Items {
    Items::new(ids.map(|n| {
        let hash = hash(n);
        let millis = (u64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])) * 900_000) >> 32;
        (1_700_000_000_000 + millis, hash)
    }))
}

/// Rounds, and bytes as they are on a stream: up, down.
fn cost(a: &Items, b: &Items, first: Vec<u8>) -> (usize, usize, usize) {
    let (mut found, mut rounds, mut up, mut down, mut next) = (Found::default(), 0, 0, 0, Some(first));
    while let Some(message) = next {
        let reply = b.answer(&message).unwrap();
        next = a.step(&reply, &mut found).unwrap();
        up += Request::Reconcile { scope: Scope::Live, message }.encode().unwrap().len();
        down += Response::Reconcile { now_ms: 1_700_000_000_000, message: reply }.encode().unwrap().len();
        rounds += 1;
    }
    (rounds, up, down)
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut digits = vec![(n & 0x7f) as u8];
    while n > 0x7f {
        n >>= 7;
        digits.insert(0, (n & 0x7f) as u8 | 0x80);
    }
    digits
}

#[expect(clippy::disallowed_methods, reason = "this measures")]
fn time(what: &str, mut work: impl FnMut()) {
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = std::time::Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{what}: median {:?}, of 200 the slowest {:?}", times[100], times[199]);
}

/// The figures of the README: `cargo test --release -p fog-directory --lib figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures and checks nothing"]
fn figures_of_reconciling_ten_thousand() {
    let whole = descriptors(0..10_000);
    for differ in [0, 1, 100, 1000] {
        // Half of what differs is on either side.
        let ours = descriptors((differ / 2)..10_000);
        let theirs = descriptors((0..differ / 2).chain(differ..10_000));
        println!("{differ} differ: (rounds, up, down) = {:?}", cost(&ours, &theirs, ours.opening()));
    }
    let nothing = descriptors(0..0);
    println!("from empty: (rounds, up, down) = {:?}", cost(&nothing, &whole, nothing.opening()));
    let other = descriptors(1..10_001);
    // A skip to where the items begin, and then ranges of half a second, each with a fingerprint that never fits.
    let mut hostile = [&[VERSION][..], &varint(1_700_000_000_001), &[0, 0]].concat();
    while hostile.len() + 20 <= MAX_QUERY {
        hostile.extend([&[0x84, 0x00, 0, 1][..], &[7; 16]].concat());
    }
    time("ready for reconciliation", || drop(descriptors(0..10_000)));
    time("an answer: equal", || drop(whole.answer(&whole.opening())));
    time("an answer: one fingerprint that differs", || drop(whole.answer(&other.opening())));
    time("an answer: 16 fingerprints", || drop(whole.answer(&other.split().unwrap())));
    time("an answer: the list of everything", || drop(whole.answer(&list_all())));
    time("an answer: 32 KiB of false fingerprints", || drop(whole.answer(&hostile)));
}
