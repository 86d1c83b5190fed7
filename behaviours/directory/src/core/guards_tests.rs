use std::collections::HashSet;

use rand_chacha::ChaCha20Rng;

use super::*;
use crate::core::testing::start;

const HOUR: Duration = hours(1);
const DAY: Duration = hours(24);

fn relay(n: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    NodeId(id)
}

fn relays(numbers: impl IntoIterator<Item = u32>) -> Vec<(NodeId, u64)> {
    numbers.into_iter().map(|n| (relay(n), 1)).collect()
}

fn guards(seed: u8) -> Guards {
    Guards::new(Config::default(), None, [seed; 32]).unwrap()
}

fn with_snapshot(seed: u8, relays: &[(NodeId, u64)], now: Now) -> Guards {
    let mut guards = guards(seed);
    guards.handle_snapshot(relays, now);
    guards
}

fn persisted(guards: &mut Guards) -> Option<Vec<u8>> {
    guards.poll_output().map(|Output::Persist(bytes)| bytes)
}

fn pick(guards: &mut Guards, now: Now) -> NodeId {
    guards.pick(|_| true, now).unwrap()
}

#[test]
fn circuits_start_at_the_first_primary_guard_that_works() {
    let now = start();
    let mut guards = with_snapshot(1, &relays(0..200), now);
    let primary = guards.primary();
    assert_eq!((primary.len(), guards.sample.len()), (3, 20));
    for _ in 0..100 {
        assert_eq!(pick(&mut guards, now), primary[0]);
        assert_eq!(guards.handle_success(primary[0], now), Verdict::Use);
    }
    guards.handle_failure(primary[0], now);
    assert_eq!(pick(&mut guards, now), primary[1]);
    guards.handle_success(primary[1], now);
    // It is tried again after ten minutes, and then preferred again.
    assert_eq!(pick(&mut guards, now.plus(Duration::from_secs(599))), primary[1]);
    assert_eq!(pick(&mut guards, now.plus(Duration::from_secs(600))), primary[0]);
    assert_eq!(guards.confirmed().collect::<HashSet<_>>(), HashSet::from([primary[0], primary[1]]));
    assert_eq!(guards.pick(|id| *id != primary[0], now), Some(primary[1]), "who is not usable is left out");
    assert_eq!(guards.pick(|_| false, now), None);
}

#[test]
fn a_failing_guard_is_tried_ever_less_often() {
    let now = start();
    let mut guards = with_snapshot(2, &relays(0..200), now);
    let [first, second, ..] = guards.primary()[..] else { panic!("three primary guards") };
    guards.handle_success(first, now);
    let (mut at, mut tries) = (now, Vec::new());
    while at.unix < now.plus(9 * DAY).unix {
        if pick(&mut guards, at) == first {
            guards.handle_failure(first, at);
            tries.push(at.unix.since(now.unix));
        } else {
            guards.handle_success(second, at);
        }
        at = at.plus(Duration::from_secs(60));
    }
    let between = |from: Duration, to: Duration| tries.iter().filter(|t| from <= **t && **t < to).count();
    // Every 10 minutes for six hours, 90 minutes to day four, 4 hours to day seven, then 9 hours.
    assert_eq!(between(Duration::ZERO, 6 * HOUR), 36);
    assert!((59..=61).contains(&between(6 * HOUR, 4 * DAY)));
    assert!((17..=19).contains(&between(4 * DAY, 7 * DAY)));
    assert!((5..=6).contains(&between(7 * DAY, 9 * DAY)));
}

#[test]
fn a_network_that_is_down_burns_no_guard() {
    let now = start();
    let mut guards = with_snapshot(3, &relays(0..500), now);
    let primary = guards.primary();
    guards.handle_success(primary[0], now);
    let sample: Vec<_> = guards.sample.iter().map(|guard| guard.record.relay).collect();
    // A day without a network: each attempt fails, once a second at first.
    let mut at = now.plus(HOUR);
    for step in 0..2000 {
        let tried = pick(&mut guards, at);
        guards.handle_failure(tried, at);
        at = at.plus(Duration::from_secs(if step < 1000 { 1 } else { 80 }));
        guards.handle_snapshot(&relays(0..500), at);
    }
    assert_eq!(guards.sample.iter().map(|guard| guard.record.relay).collect::<Vec<_>>(), sample);
    assert_eq!(guards.confirmed().collect::<Vec<_>>(), [primary[0]]);
    // It is back while some guard far down the list is tried: that circuit is not used, but the primary ones are.
    for guard in &primary {
        guards.handle_failure(*guard, at);
    }
    let late = *sample.iter().find(|id| !primary.contains(id)).unwrap();
    assert_eq!(guards.handle_success(late, at), Verdict::PickAgain);
    assert_eq!(pick(&mut guards, at), primary[0]);
    assert_eq!(guards.handle_success(primary[0], at), Verdict::Use);
    assert_eq!(guards.confirmed().collect::<Vec<_>>(), [primary[0]]);
    // While the network works, a circuit through a lesser guard is used: the better ones are down themselves.
    primary.iter().for_each(|guard| guards.handle_failure(*guard, at));
    let other = pick(&mut guards, at);
    assert!(!primary.contains(&other));
    assert_eq!(guards.handle_success(other, at), Verdict::Use);
}

#[test]
fn after_all_have_failed_the_first_is_tried_at_once() {
    let now = start();
    let mut guards = with_snapshot(4, &relays(0..30), now);
    let first = pick(&mut guards, now);
    for _ in 0..20 {
        let tried = pick(&mut guards, now);
        guards.handle_failure(tried, now);
    }
    assert_eq!(pick(&mut guards, now), first);
}

#[test]
fn a_restart_changes_nothing_and_a_damaged_state_is_refused() {
    let now = start();
    let mut guards = with_snapshot(5, &relays(0..300), now);
    let primary = guards.primary();
    guards.handle_success(primary[1], now);
    let bytes = persisted(&mut guards).unwrap();
    assert_eq!(persisted(&mut guards), None, "nothing has changed since");
    let mut restored = Guards::new(Config::default(), Some(&bytes), [99; 32]).unwrap();
    assert_eq!(restored.pick(|_| true, now), None, "before the first snapshot");
    restored.handle_snapshot(&relays(0..300), now.plus(DAY));
    assert_eq!(restored.primary(), guards.primary());
    assert_eq!(restored.primary()[0], primary[1], "confirmed guards come first");
    assert_eq!(persisted(&mut restored), None);
    for cut in 0..bytes.len() {
        assert!(Guards::new(Config::default(), Some(&bytes[..cut]), [0; 32]).is_err(), "{cut} bytes");
    }
    let records: Vec<Record> = codec::decode(&bytes, MAX_STATE).unwrap();
    let encode = |records: &[&Record]| codec::encode(&records, usize::MAX).unwrap();
    let twice = encode(&[&records[0], &records[0]]);
    assert_eq!(Guards::new(Config::default(), Some(&twice), [0; 32]).err(), Some(BadState));
    let full: Vec<Record> =
        (0..60).map(|n| Record { relay: relay(n), unlisted_since: Some(now.unix), ..records[0].clone() }).collect();
    let bytes = encode(&full.iter().collect::<Vec<_>>());
    assert!(bytes.len() <= MAX_STATE && Guards::new(Config::default(), Some(&bytes), [0; 32]).is_ok());
}

#[test]
fn dates_do_not_tell_when_the_client_started() {
    let now = start();
    let days: Vec<_> = (0..200u8)
        .flat_map(|seed| with_snapshot(seed, &relays(0..200), now).sample)
        .map(|guard| now.unix.since(guard.record.sampled_on).as_secs_f64() / 86_400.0)
        .collect();
    let mean = days.iter().sum::<f64>() / days.len() as f64;
    assert!(days.iter().all(|days| (0.0..=12.0).contains(days)));
    // Uniform over 12 days: the mean of 4,000 is 6 ± 0.055.
    assert!((mean - 6.0).abs() < 0.25, "{mean}");
}

#[test]
fn a_guard_is_replaced_when_it_is_gone_for_long_or_its_time_is_over() {
    let now = start();
    let all = relays(0..200);
    let mut guards = with_snapshot(6, &all, now);
    let primary = guards.primary();
    guards.handle_success(primary[0], now);
    let without: Vec<_> = all.iter().filter(|(id, _)| *id != primary[0]).copied().collect();
    guards.handle_snapshot(&without, now.plus(DAY));
    assert_eq!(guards.primary()[0], primary[1], "it is not picked while it is gone");
    guards.handle_snapshot(&all, now.plus(15 * DAY));
    assert_eq!(guards.primary()[0], primary[0], "and returns to its place");
    guards.handle_snapshot(&without, now.plus(16 * DAY));
    guards.handle_snapshot(&without, now.plus(37 * DAY));
    guards.handle_snapshot(&all, now.plus(38 * DAY));
    assert!(!guards.primary().contains(&primary[0]), "after more than 20 days it is forgotten");
    // Nobody stays longer than 120 days, or 60 after it was confirmed.
    let late = guards.primary()[0];
    guards.handle_success(late, now.plus(100 * DAY));
    guards.handle_snapshot(&all, now.plus(122 * DAY));
    assert!(guards.primary().contains(&late));
    assert!(guards.sample.iter().all(|guard| guard.record.relay == late || !primary.contains(&guard.record.relay)));
    guards.handle_snapshot(&all, now.plus(161 * DAY));
    assert!(guards.sample.iter().all(|guard| guard.record.relay != late));
}

#[test]
fn the_sample_is_bounded_however_relays_come_and_go() {
    let now = start();
    // Every day all relays are new ones: the sample grows to 20 % of them, or 60, and no further.
    for (count, bound) in [(50, 20), (200, 40), (900, 60)] {
        let mut guards = guards(7);
        let sizes = (0..60u32).map(|day| {
            guards.handle_snapshot(&relays(day * 1000..day * 1000 + count), now.plus(DAY * day));
            guards.sample.len()
        });
        assert_eq!(sizes.max(), Some(bound));
    }
    let few = with_snapshot(8, &relays(0..5), now);
    assert_eq!((few.sample.len(), few.primary().len()), (5, 3));
    assert_eq!(with_snapshot(8, &[(relay(1), 0)], now).primary(), []);
}

#[test]
fn a_year_of_churn_uses_few_guards() {
    // 1,000 relays, of which 0.5 % are replaced each day and 5 % are down in each hour; four circuits a day.
    let mut used_by = Vec::new();
    for seed in 0..20u8 {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let mut alive: Vec<u32> = (0..1000).collect();
        let (mut newest, mut now, mut used) = (1000, start(), HashSet::new());
        let mut guards = guards(seed);
        for _ in 0..365 {
            for relay in &mut alive {
                if rng.random_bool(0.005) {
                    *relay = newest;
                    newest += 1;
                }
            }
            guards.handle_snapshot(&relays(alive.iter().copied()), now);
            for _ in 0..4 {
                while let Some(tried) = guards.pick(|_| true, now) {
                    if rng.random_bool(0.05) {
                        guards.handle_failure(tried, now);
                    } else if guards.handle_success(tried, now) == Verdict::Use {
                        used.insert(tried);
                        break;
                    }
                }
                now = now.plus(6 * HOUR);
            }
        }
        used_by.push(used.len());
    }
    used_by.sort_unstable();
    // Three primary guards at a time, of which none serves longer than 120 days or outlives its relay (200 days on
    // average).
    assert!(used_by[10] <= 15 && used_by[19] <= 25, "guards used: median {}, most {}", used_by[10], used_by[19]);
    assert!(used_by[0] >= 3);
}

#[test]
fn an_adversary_holds_its_share_of_the_primary_guards() {
    // A fifth of the weight in few heavy relays: 10 of weight 25, against 1,000 of weight 1.
    let all: Vec<_> = (0..1010).map(|n| (relay(n), if n < 10 { 25 } else { 1 })).collect();
    let (mut theirs, clients) = (0, 1500);
    for client in 0..clients {
        let seed = *blake3::hash(&u32::to_be_bytes(client)).as_bytes();
        let mut guards = Guards::new(Config { min_sample: 3, ..Config::default() }, None, seed).unwrap();
        guards.handle_snapshot(&all, start());
        theirs += guards.primary().iter().filter(|id| (0..10).any(|n| relay(n) == **id)).count();
    }
    let share = theirs as f64 / f64::from(3 * clients);
    // 0.2 ± 2.58 · √(0.16 / 4500): the 99 % confidence interval. Three draws without return take at most 2 % off.
    assert!((0.18..=0.2154).contains(&share), "{share}");
}
