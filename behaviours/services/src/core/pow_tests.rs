use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::core::blinding::{Context, Fog, Identity};

fn key() -> BlindedKey {
    let context = Context { secret: &[], period: 1, length: 1 };
    BlindedKey::derive::<Fog>(Identity::from_seed([1; 32]).unwrap().key(), &context)
}

#[test]
fn solutions_are_found_and_frozen() {
    let found: Vec<_> = (0..16u8).map(|n| Equihash.solve(&[n; 32])).collect();
    let total: usize = found.iter().map(Vec::len).sum();
    // Two for each challenge in the mean.
    assert!((16..64).contains(&total), "{total}");
    let first = found.iter().flatten().next().unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(first), "0d91c6fbc996e4cd372e90a7f96bf9d9");
}

#[test]
fn a_solution_that_was_changed_or_moved_is_none() {
    let (challenge, solution) = (0..8u8).find_map(|n| Some(([n; 32], *Equihash.solve(&[n; 32]).first()?))).unwrap();
    assert!(Equihash.verify(&challenge, &solution));
    for bit in 0..SOLUTION * 8 {
        let mut other = solution;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!Equihash.verify(&challenge, &other), "bit {bit}");
    }
    assert!(!Equihash.verify(&[99; 32], &solution));
    // The same items in another order, and items that cancel out: the ways to more solutions without work.
    let mut swapped = solution;
    swapped.rotate_left(8);
    assert!(!Equihash.verify(&challenge, &swapped));
    swapped = solution;
    swapped.swap(0, 2);
    swapped.swap(1, 3);
    assert!(!Equihash.verify(&challenge, &swapped));
    assert!(!Equihash.verify(&challenge, &[0; SOLUTION]));
    assert!(!Equihash.verify(&challenge, &[0, 1, 0, 2, 0, 3, 0, 4, 0, 1, 0, 2, 0, 3, 0, 4]));
}

#[test]
fn work_counts_for_its_service_seed_and_effort_only() {
    let (key, seed) = (key(), [3; 32]);
    let work = Work::make(&Equihash, &key, &seed, 3, [0xff; 16], 64).unwrap();
    assert!(work.verify(&Equihash, &key, &seed));
    assert!(!work.verify(&Equihash, &key, &[4; 32]));
    let head_only = [[3; 4].as_slice(), &[9; 28]].concat().try_into().unwrap();
    assert!(!work.verify(&Equihash, &key, &head_only));
    assert!(!Work { effort: 2, ..work }.verify(&Equihash, &key, &seed));
    assert!(!Work { effort: u32::MAX, ..work }.verify(&Equihash, &key, &seed));
    assert!(!Work { nonce: [1; 16], ..work }.verify(&Equihash, &key, &seed));
    let context = Context { secret: &[], period: 2, length: 1 };
    let other = BlindedKey::derive::<Fog>(Identity::from_seed([1; 32]).unwrap().key(), &context);
    assert!(!work.verify(&Equihash, &other, &seed));
    assert_eq!(Work::decode(&work.encode()), Some(work));
    assert_eq!(Work::decode(&Work { effort: 0, ..work }.encode()), None);
}

#[test]
fn one_solution_in_effort_counts() {
    let counted = |effort| (0..4000u32).filter(|n| counts(&[1; 32], &u128::from(*n).to_be_bytes(), effort)).count();
    assert_eq!(counted(1), 4000);
    assert!((800..1200).contains(&counted(4)), "{}", counted(4));
    assert!((20..70).contains(&counted(100)), "{}", counted(100));
}

#[test]
fn the_queue_keeps_the_highest_effort_and_the_oldest() {
    let now = Instant::now();
    let mut queue = WorkQueue::new(3, Duration::from_secs(15));
    for (effort, item, placed) in [
        (0, 'a', Placed::Waits),
        (5, 'b', Placed::Waits),
        (0, 'c', Placed::Waits),
        (0, 'd', Placed::Refused('d')),
        (5, 'e', Placed::Dropped(0, 'c')),
    ] {
        assert_eq!(queue.push(effort, item, now), placed);
    }
    assert_eq!((queue.top(), queue.is_half_full()), (Some(5), true));
    assert_eq!(
        [queue.pop(), queue.pop(), queue.pop(), queue.pop()],
        [Some((5, 'b')), Some((5, 'e')), Some((0, 'a')), None]
    );
    queue.push(1, 'f', now);
    assert_eq!(queue.expire(now + Duration::from_secs(14)), 0);
    assert_eq!(queue.expire(now + Duration::from_secs(15)), 1);
}

#[test]
fn the_suggestion_follows_the_load() {
    let now = Instant::now();
    let mut effort = EffortLoop::new(now);
    assert!(!effort.update(None, now), "nothing happened");
    effort.left_over();
    assert!(effort.update(None, now) && effort.suggested() == 1);
    // Attackers pay nothing: what they leave over does not raise it.
    effort.left_over();
    assert!(!effort.update(Some(0), now) && effort.suggested() == 1);
    // They pay: the mean of what was handled.
    (0..10).for_each(|_| effort.handled(40));
    effort.dropped(30);
    assert!(effort.update(Some(30), now) && effort.suggested() == 40);
    assert!(effort.update(None, now) && effort.suggested() == 26);
    let mut rounds = 0;
    while effort.suggested() > 0 {
        effort.update(None, now);
        rounds += 1;
    }
    assert!(rounds < 12, "{rounds}");
    effort.dropped(u32::MAX);
    effort.handled(u32::MAX);
    assert!(effort.update(None, now) && effort.suggested() == MAX_EFFORT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_solution_found_verifies_and_is_found_once(challenge: [u8; 32]) {
        let solutions = Equihash.solve(&challenge);
        let distinct: std::collections::BTreeSet<_> = solutions.iter().collect();
        prop_assert_eq!(distinct.len(), solutions.len());
        prop_assert!(solutions.iter().all(|solution| Equihash.verify(&challenge, solution)));
    }

    #[test]
    fn the_queue_is_bounded_and_ordered(efforts in proptest::collection::vec(0u32..9, 0..60)) {
        let mut queue = WorkQueue::new(10, Duration::from_secs(1));
        for (n, effort) in efforts.iter().enumerate() {
            queue.push(*effort, n, Instant::now());
            prop_assert!(queue.len() <= 10);
        }
        let mut expected: Vec<_> = efforts.iter().copied().enumerate().map(|(n, effort)| (effort, n)).collect();
        expected.sort_by_key(|(effort, n)| (std::cmp::Reverse(*effort), *n));
        expected.truncate(10);
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let efforts = |items: &[(u32, usize)]| items.iter().map(|(effort, _)| *effort).collect::<Vec<_>>();
        prop_assert_eq!(efforts(&popped), efforts(&expected));
    }
}
