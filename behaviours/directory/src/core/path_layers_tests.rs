//! Paths where the lottery has dealt layers and weights.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use fog_base::{Epoch, relay::Roles};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::core::{
    descriptor::Descriptor,
    lottery::{Entrant, Lot, seat},
    seating::{Seat, Seating},
    testing::{EPOCH, address, facts, node, sign, start},
};

/// Seats as a table says: weight and layer.
#[derive(Debug)]
struct Dealt(HashMap<NodeId, (u64, Option<u8>)>);

impl Seating for Dealt {
    fn seat(&self, _epoch: Epoch, relays: &[Arc<Descriptor>]) -> Vec<Seat> {
        let seat = |descriptor: &Arc<Descriptor>| {
            let (weight, layer) = self.0.get(&descriptor.relay()).copied().unwrap_or((0, None));
            Seat { descriptor: descriptor.clone(), weight, layer }
        };
        relays.iter().map(seat).collect()
    }
}

fn relay(n: u16, ip: &str, family: Option<u8>) -> Arc<Descriptor> {
    let mut facts = facts(n, EPOCH);
    facts.addresses = vec![address(ip)];
    facts.family = family.map(|byte| [byte; 16]);
    facts.roles = Roles::NONE.with(Role::Mix);
    let now = start().unix;
    Arc::new(sign(n, &facts, EPOCH, now.0, now))
}

fn strangers(count: u16) -> Vec<Arc<Descriptor>> {
    (0..count).map(|n| relay(n, "192.168.0.1", None)).collect()
}

/// Relay n has the weight `weights[n]` and the layer n mod 3; further relays have no seat.
fn layered(relays: &[Arc<Descriptor>], weights: &[u64]) -> Snapshot {
    let dealt = (0..).zip(weights).map(|(n, weight)| (node(n), (*weight, Some((n % 3) as u8)))).collect();
    Snapshot::new(EPOCH, relays.to_vec(), &Dealt(dealt))
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

fn request(hops: usize, last: u16) -> PathRequest<'static> {
    PathRequest { epoch: EPOCH, hops, last: node(last), version: 1, exclude: &[], avoid: &[] }
}

fn numbers(path: &[RelayHop]) -> Vec<u16> {
    path.iter().map(|hop| (0..100).find(|n| node(*n) == hop.id).unwrap()).collect()
}

#[test]
fn the_middle_hops_go_through_the_layers_in_order() {
    let snapshot = layered(&strangers(13), &[1; 12]);
    let mut rng = rng();
    for hops in 1..=5 {
        for _ in 0..50 {
            // Relay 12 has no seat: it may be the last hop and nothing else.
            let path = numbers(&snapshot.path(&request(hops, 12), &mut rng).unwrap());
            assert_eq!((path.len(), path[hops - 1]), (hops, 12));
            let expected: Vec<_> = [0, 1, 2, 0][..hops - 1].to_vec();
            assert_eq!(path[..hops - 1].iter().map(|n| n % 3).collect::<Vec<_>>(), expected);
            assert!(hops < 5 || path[0] != path[3]);
        }
    }
}

#[test]
fn measuring_paths_take_the_least_measured_of_each_layer_light_or_heavy() {
    let snapshot = layered(&strangers(13), &[1, 1, 1, 1, 1, 1, 1000, 1000, 1000, 1, 1, 1]);
    let (mut rng, mut loops) = (rng(), HashMap::<NodeId, u32>::new());
    for n in 0..400 {
        let measured = |relay: &NodeId| loops.get(relay).copied().unwrap_or(0);
        let path = snapshot.measuring_path(&request(4, 12), &measured, &mut rng).unwrap();
        assert_eq!(numbers(&path)[..3].iter().map(|n| n % 3).collect::<Vec<_>>(), [0, 1, 2]);
        path[..3].iter().for_each(|hop| *loops.entry(hop.id).or_default() += 1);
        let (least, most) = (loops.values().min().unwrap(), loops.values().max().unwrap());
        assert!(n < 3 || most - least <= 1, "{loops:?}");
    }
    assert!(loops.len() == 12 && loops.values().all(|n| *n == 100));
}

#[test]
fn each_allowed_path_has_exactly_its_share() {
    // Nine relays; 0 and 4 of one family, 3 and 8 in one network, and the last hop, 10, in one network with 5.
    let mut relays = strangers(11);
    for (n, ip, family) in
        [(0, "10.0.0.1", Some(1)), (4, "10.0.0.2", Some(1)), (3, "8.8.0.1", None), (8, "8.8.9.9", None)]
    {
        relays[usize::from(n)] = relay(n, ip, family);
    }
    relays[5] = relay(5, "9.9.0.1", None);
    relays[10] = relay(10, "9.9.9.9", None);
    let weights = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    let snapshot = layered(&relays, &weights);
    let mut shares = BTreeMap::new();
    for (a, b, c) in (0..27).map(|n| (n % 3 * 3, n / 3 % 3 * 3 + 1, n / 9 * 3 + 2)) {
        if (a, b) != (0, 4) && (a, c) != (3, 8) && c != 5 {
            let share: u32 =
                [a, b, c].map(|n| weights[usize::from(n)]).into_iter().map(|weight| weight as u32).product();
            shares.insert(vec![a, b, c, 10u16], f64::from(share));
        }
    }
    let (total, draws): (f64, u32) = (shares.values().sum(), 200_000);
    let (mut counts, mut rng, request) = (HashMap::new(), rng(), request(4, 10));
    for _ in 0..draws {
        let path = snapshot.path(&request, &mut rng).unwrap();
        *counts.entry(path.iter().map(|hop| hop.id).collect::<Vec<_>>()).or_insert(0u32) += 1;
    }
    let chi2: f64 = shares
        .iter()
        .map(|(path, share)| {
            let (expected, ids) = (f64::from(draws) * share / total, path.iter().map(|n| node(*n)).collect::<Vec<_>>());
            (f64::from(counts.get(&ids).copied().unwrap_or(0)) - expected).powi(2) / expected
        })
        .sum();
    // 27 paths, of which 13 obey the rules: 12 degrees of freedom.
    assert_eq!((shares.len(), counts.len()), (13, 13));
    assert!(chi2 < 32.9, "χ² = {chi2}: once in a thousand");
}

#[test]
fn two_nodes_with_one_snapshot_draw_from_one_distribution() {
    let mut relays = strangers(30);
    let weights: Vec<_> = (0..27).map(|n| 1 + n * n).collect();
    let (ours, ours_open) = (layered(&relays, &weights), Snapshot::new(EPOCH, relays.clone(), &Dealt(HashMap::new())));
    relays.reverse();
    let theirs = layered(&relays, &weights);
    assert_eq!((ours.root(), ours.pools()), (theirs.root(), theirs.pools()));
    let other = layered(&relays, &[weights.as_slice(), &[5]].concat());
    assert!(other.pools() != ours.pools() && ours_open.pools() != ours.pools());
    let (mut a, mut b) = (rng(), rng());
    for _ in 0..500 {
        assert_eq!(ours.path(&request(4, 29), &mut a), theirs.path(&request(4, 29), &mut b));
    }
}

#[test]
fn a_relay_without_weight_carries_nothing_and_an_empty_layer_is_an_error() {
    let relays = strangers(9);
    let snapshot = layered(&relays, &[0, 5, 5, 5, 5, 5]);
    let mut rng = rng();
    for _ in 0..200 {
        let path = numbers(&snapshot.path(&request(4, 8), &mut rng).unwrap());
        assert!(path[..3].iter().all(|n| (1..6).contains(n)), "{path:?}");
    }
    let without = layered(&relays, &[5, 5, 0, 5, 5, 0]);
    let too_few = NoPath::TooFewRelays { hops: 4, needed: 3, known: 2 };
    assert_eq!(without.path(&request(4, 8), &mut rng), Err(too_few));
    assert!(without.path(&request(3, 8), &mut rng).is_ok());
}

#[test]
fn a_layered_path_that_exists_is_found_where_few_do() {
    // Of the relays of layers 0 and 1 all but 3 and 4 are in one network with all of layer 2.
    let relays: Vec<_> = (0..61u16)
        .map(|n| relay(n, &if n == 3 || n == 4 { format!("9.{n}.0.1") } else { "8.8.0.1".into() }, None))
        .chain([relay(61, "192.168.0.1", None)])
        .collect();
    let snapshot = layered(&relays, &[1; 61]);
    let mut rng = rng();
    for _ in 0..20 {
        let path = numbers(&snapshot.path(&request(4, 61), &mut rng).unwrap());
        assert_eq!((path[0], path[1], path[2] % 3), (3, 4, 2));
    }
    // Five hops would need another one of layer 0.
    let too_few = NoPath::TooFewRelays { hops: 5, needed: 4, known: 3 };
    assert_eq!(snapshot.path(&request(5, 61), &mut rng), Err(too_few));
}

/// The share of paths whose three mixes all belong to the first `theirs` of 240 relays of equal weight, in many epochs.
fn captured(relays: &[Arc<Descriptor>], theirs: usize, (epochs, draws): (u32, u32), rng: &mut ChaCha20Rng) -> f64 {
    let hostile: HashSet<_> = (0..theirs as u16).map(node).collect();
    let request = request(4, 239);
    let mut captured = 0;
    for _ in 0..epochs {
        let lots = relays.iter().map(|descriptor| Entrant {
            relay: descriptor.relay(),
            lot: Lot(rng.random()),
            weight: 1,
            is_mix: true,
        });
        let seats = seat(&lots.collect::<Vec<_>>(), 240);
        let dealt = Dealt(seats.into_iter().map(|seat| (seat.relay, (seat.weight, seat.layer))).collect());
        let snapshot = Snapshot::new(EPOCH, relays.to_vec(), &dealt);
        for _ in 0..draws {
            let path = snapshot.path(&request, rng).unwrap();
            captured += u32::from(path[..3].iter().all(|hop| hostile.contains(&hop.id)));
        }
    }
    f64::from(captured) / f64::from(epochs * draws)
}

#[test]
fn an_adversary_captures_no_more_paths_than_the_layers_allow() {
    let (relays, mut rng) = (strangers(240), rng());
    for theirs in [12usize, 24, 48, 80] {
        let (epochs, draws) = (500, 100);
        let rate = captured(&relays, theirs, (epochs, draws), &mut rng);
        // Three different relays of the 239 that are not the last hop; the layers deal each triple equally often.
        let triples = |n: usize| (n * (n - 1) * (n - 2)) as f64;
        let exact = triples(theirs) / triples(239);
        // Paths of one epoch share its layers, which vary the rate by about three tenths at 10 % and less above.
        let deviation = (exact / f64::from(epochs * draws) + (0.4 * exact).powi(2) / f64::from(epochs)).sqrt();
        let share = theirs as f64 / 240.0;
        assert!((rate - exact).abs() <= 2.58 * deviation, "{share}: {rate}, expected {exact} ± {deviation}");
        assert!(rate <= share.powi(3) + 2.58 * deviation, "{share}: {rate} above the bound");
    }
}
