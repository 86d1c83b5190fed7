use proptest::prelude::*;

use super::*;
use crate::core::standing::START;

fn relay(n: u32) -> NodeId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    NodeId(id)
}

fn candidate(n: u32, family: Option<u8>, nets: &[u8]) -> Candidate {
    let nets = nets.iter().map(|net| Net::V4([8, *net])).collect();
    Candidate { relay: relay(n), family: family.map(|byte| [byte; 16]), nets }
}

fn table(stakes: &[u64]) -> BTreeMap<NodeId, u64> {
    (0..).zip(stakes).map(|(n, stake)| (relay(n), *stake)).collect()
}

/// `count` relays that nothing connects.
fn strangers(count: u32) -> Vec<Candidate> {
    (0..count).map(|n| candidate(n, None, &[])).collect()
}

fn standings(entries: &[(u32, u32)]) -> Standings {
    let mut entries: Vec<_> = entries.iter().map(|(n, standing)| (relay(*n), *standing)).collect();
    entries.sort();
    let encode = |(relay, standing): &(NodeId, u32)| [relay.0.as_slice(), &standing.to_be_bytes()].concat();
    Standings::from_bytes(&entries.iter().flat_map(encode).collect::<Vec<_>>()).unwrap()
}

/// The weight of each group that `key` makes.
fn sums<K: Ord>(weights: &[u64], keys: impl Iterator<Item = K>) -> Vec<u128> {
    let mut sums = BTreeMap::new();
    for (weight, key) in weights.iter().zip(keys) {
        *sums.entry(key).or_insert(0) += u128::from(*weight);
    }
    sums.into_values().filter(|sum| *sum > 0).collect()
}

#[test]
fn weight_is_stake_times_the_worth_of_the_standing() {
    let stakes = table(&[3, 6, 6, 6, 0]);
    let standings = standings(&[(0, FULL), (1, UNIT), (2, THRESHOLD - 1), (3, THRESHOLD + (FULL - THRESHOLD) / 4)]);
    let weights = weigh(&strangers(5), &stakes, &standings);
    assert_eq!(weights[..3], [3 << 16, 6 << 16, 0]);
    // A quarter of the way from the threshold, and no stake.
    assert_eq!((weights[3] >> 14, weights[4]), (6, 0));
    assert_eq!(worth(START), UNIT / 2);
    let equal = weigh(&strangers(5), &EqualStakes, &Standings::default());
    assert_eq!(equal, [u64::from(UNIT / 2); 5]);
}

#[test]
fn stakes_that_overflow_are_halved_alike() {
    let weights = weigh(&strangers(40), &table(&[u64::MAX; 40]), &Standings::default());
    assert!(weights.iter().all(|weight| *weight == weights[0] && *weight > 1 << 56));
    assert!(weights.iter().map(|weight| u128::from(*weight)).sum::<u128>() < 1 << 63);
}

#[test]
fn no_operator_or_network_holds_more_than_a_tenth() {
    // Thirty strangers of one stake each in networks of their own; a family of five with 60, a network of four with 60.
    let mut candidates: Vec<_> = (0..30).map(|n| candidate(n, None, &[n as u8])).collect();
    candidates.extend((30..35).map(|n| candidate(n, Some(1), &[n as u8])));
    candidates.extend((35..39).map(|n| candidate(n, None, &[200])));
    let stakes: Vec<_> = [[1; 30].as_slice(), &[12; 5], &[15; 4]].concat();
    let weights = weigh(&candidates, &table(&stakes), &Standings::default());
    let stranger = u64::from(UNIT / 2);
    assert!(weights[..30].iter().all(|weight| *weight == stranger), "who is below the cap keeps all");
    let total: u64 = weights.iter().sum();
    for group in [30..35, 35..39] {
        let share = weights[group].iter().sum::<u64>() as f64 / total as f64;
        assert!((0.0999..=0.1).contains(&share), "{share}");
    }
}

#[test]
fn a_second_address_does_not_lead_out_of_a_crowd() {
    let crowd = |more: bool| -> Vec<_> {
        let others = (0..30).map(|n| candidate(n, None, &[n as u8]));
        let second = |n: u32| if more { vec![200, n as u8] } else { vec![200] };
        others.chain((30..50).map(|n| candidate(n, None, &second(n)))).collect()
    };
    let weights = |more| weigh(&crowd(more), &EqualStakes, &Standings::default());
    assert_eq!(weights(true), weights(false));
    assert!(weights(true)[30] < weights(true)[0]);
}

#[test]
fn a_few_relays_keep_their_stakes() {
    // Four operators cannot hold a tenth each: the limit is twice the fair share.
    let weights = |stakes: &[u64]| weigh(&strangers(stakes.len() as u32), &table(stakes), &Standings::default());
    assert_eq!(weights(&[3, 3, 2, 1]), [3, 3, 2, 1].map(|stake| stake * u64::from(UNIT / 2)));
    let cut = weights(&[9, 1, 1, 1]);
    assert_eq!(cut, [3, 1, 1, 1].map(|stake| stake * u64::from(UNIT / 2)));
    assert_eq!(weights(&[5]), [5 * u64::from(UNIT / 2)]);
}

proptest! {
    #[test]
    fn better_standing_is_never_worth_less(a in 0..=UNIT, b in 0..=UNIT) {
        prop_assert!(worth(a.min(b)) <= worth(a.max(b)));
        prop_assert_eq!(worth(a) == 0, a <= THRESHOLD);
        prop_assert_eq!(worth(a) == UNIT, a >= FULL);
    }

    #[test]
    fn caps_hold_take_only_and_end(
        relays in proptest::collection::vec((0u64..1 << 45, proptest::option::of(0u8..6), 0u8..8), 1..60),
        is_wide in proptest::bool::ANY,
    ) {
        // Many networks, or a few that everybody shares.
        let spread = |n: u32, net: u8| if is_wide { net + 8 * (n % 30) as u8 } else { net };
        let stakes: Vec<_> = relays.iter().map(|(stake, ..)| *stake).collect();
        let candidates: Vec<_> =
            (0..).zip(&relays).map(|(n, (_, family, net))| candidate(n, *family, &[spread(n, *net)])).collect();
        let weights = weigh(&candidates, &table(&stakes), &Standings::default());
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        prop_assert_eq!(total == 0, stakes.iter().all(|stake| *stake == 0));
        for (weight, stake) in weights.iter().zip(&stakes) {
            prop_assert!(u128::from(*weight) <= u128::from(*stake) * u128::from(UNIT / 2));
        }
        let by_operator = sums(&weights, candidates.iter().map(|c| (c.family, c.family.is_none().then_some(c.relay))));
        let by_network = sums(&weights, candidates.iter().map(|c| c.nets.clone()));
        for groups in [by_operator, by_network] {
            let parts = groups.len().min(20) as u128;
            for sum in &groups {
                // A thousandth, and for rounding less than one for each relay; among a few a quarter.
                let excess = if groups.len() >= 20 { total / 1000 } else { total / 4 };
                prop_assert!(sum * parts <= 2 * (total + excess) + 60 * parts, "{sum} of {total} in {} groups", groups.len());
            }
        }
    }

    #[test]
    fn neither_order_nor_relays_without_stake_change_a_weight(
        relays in proptest::collection::vec((1u64..1000, proptest::option::of(0u8..6), 0u8..30), 1..40),
    ) {
        let stakes = table(&relays.iter().map(|(stake, ..)| *stake).collect::<Vec<_>>());
        let mut candidates: Vec<_> =
            (0..).zip(&relays).map(|(n, (_, family, net))| candidate(n, *family, &[*net])).collect();
        let expected = weigh(&candidates, &stakes, &Standings::default());
        let count = candidates.len();
        // Sybils of every family, in every network.
        candidates.extend((0..10 * count as u32).map(|n| candidate(1000 + n, Some(n as u8 % 6), &[n as u8 % 30])));
        candidates.reverse();
        let mut weights = weigh(&candidates, &stakes, &Standings::default());
        weights.reverse();
        prop_assert_eq!(&weights[..count], &expected[..]);
        prop_assert!(weights[count..].iter().all(|weight| *weight == 0));
    }
}
