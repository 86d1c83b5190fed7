use proptest::prelude::*;

use super::*;
use crate::core::testing::holds_often;

fn remembered(value: u8, credibility: f64) -> Remembered<u8> {
    Remembered { result: ResultHash([value; 32]), credibility, value }
}

fn work(n: u8) -> WorkId {
    WorkId([n; 32])
}

#[test]
fn a_result_is_had_at_its_credibility_or_below() {
    let mut memo = Memo::new(10, 100);
    assert!(memo.insert(work(1), remembered(1, 0.99), 10));
    assert_eq!(memo.get(&work(1), 0.99).map(|it| it.value), Some(1));
    assert_eq!((memo.get(&work(1), 0.995).is_some(), memo.get(&work(2), 0.0).is_some()), (false, false));
    memo.insert(work(1), remembered(2, 0.999), 20);
    memo.insert(work(1), remembered(3, 0.9), 30);
    assert_eq!((memo.get(&work(1), 0.999).map(|it| it.value), memo.len(), memo.bytes()), (Some(2), 1, 20));
    memo.forget(&work(1));
    assert!(memo.is_empty() && memo.bytes() == 0);
}

#[test]
fn what_was_asked_for_stays_longer() {
    let mut memo = Memo::new(3, 100);
    for n in 1..=3 {
        memo.insert(work(n), remembered(n, 1.0), 1);
    }
    memo.get(&work(1), 0.5);
    memo.insert(work(4), remembered(4, 1.0), 1);
    assert!(memo.get(&work(1), 0.5).is_some() && memo.get(&work(4), 0.5).is_some());
    assert!(!memo.insert(work(5), remembered(5, 1.0), 101));
}

#[test]
fn only_what_is_believed_enough_is_picked() {
    let mut memo = Memo::new(10, 100);
    assert!(memo.pick(3, 0.0).is_none());
    memo.insert(work(1), remembered(1, 0.99), 1);
    memo.insert(work(2), remembered(2, 1.0), 1);
    assert!((0..10).all(|draw| memo.pick(draw, 0.9999).is_some_and(|(id, _)| id == work(2))));
    let picked: std::collections::BTreeSet<WorkId> =
        (0..10).filter_map(|draw| memo.pick(draw, 0.9)).map(|it| it.0).collect();
    assert_eq!(picked.len(), 2);
    assert!(memo.pick(u64::MAX, 1.1).is_none());
}

#[test]
fn the_bounds_hold_and_what_is_kept_is_what_was_said() {
    let steps = proptest::collection::vec((0u8..20, 0usize..40, any::<bool>()), 1..200);
    // Of nearly every sequence something is asked that is there.
    holds_often(steps, 256, 200, |steps| {
        let mut memo = Memo::new(8, 100);
        let mut found = false;
        for (n, bytes, ask) in steps {
            if ask {
                if let Some(it) = memo.get(&work(n), 0.5) {
                    prop_assert_eq!(it.value, n);
                    found = true;
                }
            } else {
                prop_assert!(memo.insert(work(n), remembered(n, 0.99), bytes));
                prop_assert!(memo.get(&work(n), 0.5).is_some());
            }
            prop_assert!(memo.len() <= 8 && memo.bytes() <= 100);
            prop_assert_eq!(memo.bytes(), memo.slots.iter().map(|slot| slot.bytes).sum::<usize>());
            prop_assert_eq!(memo.by_work.len(), memo.slots.len());
            prop_assert!(memo.by_work.iter().all(|(work, at)| memo.slots[*at].work == *work));
        }
        Ok(found)
    });
}
