use std::{collections::HashMap, sync::Arc};

use fog_base::relay::{Role, Roles};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::core::{
    descriptor::Descriptor,
    seating::OpenSeating,
    testing::{EPOCH, address, facts, node, sign, start},
};

/// Relay `n` at `ip`, in a family or none.
fn relay(n: u16, ip: &str, family: Option<u8>, roles: Roles) -> Arc<Descriptor> {
    let mut facts = facts(n, EPOCH);
    facts.addresses = vec![address(ip)];
    facts.family = family.map(|byte| [byte; 16]);
    facts.roles = roles;
    let now = start().unix;
    Arc::new(sign(n, &facts, EPOCH, now.0, now))
}

fn mix() -> Roles {
    Roles::NONE.with(Role::Mix)
}

/// `count` unrelated mixes on one LAN.
fn lan(count: u16) -> Snapshot {
    snapshot((0..count).map(|n| relay(n, &format!("192.168.0.{}", n + 1), None, mix())).collect())
}

fn snapshot(relays: Vec<Arc<Descriptor>>) -> Snapshot {
    Snapshot::new(EPOCH, relays, &OpenSeating)
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

fn request(hops: usize, last: NodeId) -> PathRequest<'static> {
    PathRequest { epoch: EPOCH, hops, last, version: 1, exclude: &[], avoid: &[] }
}

fn ids(path: &[RelayHop]) -> Vec<NodeId> {
    path.iter().map(|hop| hop.id).collect()
}

#[test]
fn a_path_ends_at_the_last_hop_and_names_nobody_twice() {
    let snapshot = lan(8);
    for hops in 1..=5 {
        let path = ids(&snapshot.path(&request(hops, node(3)), &mut rng()).unwrap());
        let distinct: std::collections::BTreeSet<_> = path.iter().collect();
        assert_eq!((path.len(), distinct.len(), path.last()), (hops, hops, Some(&node(3))));
    }
}

#[test]
fn each_ordered_path_is_equally_likely() {
    // Six relays, two excluded or last: 4 · 3 = 12 ordered pairs. χ² with 11 degrees of freedom exceeds 31.3 once in a thousand.
    let snapshot = lan(6);
    let exclude = [node(0)];
    let request = PathRequest { exclude: &exclude, ..request(3, node(5)) };
    let (mut counts, mut rng, draws) = (HashMap::new(), rng(), 24_000);
    for _ in 0..draws {
        let path = ids(&snapshot.path(&request, &mut rng).unwrap());
        *counts.entry((path[0], path[1])).or_insert(0u32) += 1;
    }
    let expected = f64::from(draws) / 12.0;
    let chi2: f64 = counts.values().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    assert_eq!(counts.len(), 12);
    assert!(chi2 < 31.3, "χ² = {chi2}");
}

#[test]
fn the_search_is_uniform_too() {
    let snapshot = lan(6);
    let last = snapshot.find(node(5)).unwrap();
    let draw = Draw { snapshot: &snapshot, last, middle: 2, version: 1, exclude: &[] };
    let (mut counts, mut rng) = (HashMap::new(), rng());
    for _ in 0..20_000 {
        let hops = draw.search(|pool| draw.random_order(pool, &[], &mut rng)).unwrap();
        *counts.entry((hops[0].hop.id, hops[1].hop.id)).or_insert(0u32) += 1;
    }
    let chi2: f64 = counts.values().map(|n| (f64::from(*n) - 1000.0).powi(2) / 1000.0).sum();
    // 5 · 4 = 20 ordered pairs; 19 degrees of freedom.
    assert_eq!(counts.len(), 20);
    assert!(chi2 < 43.8, "χ² = {chi2}");
}

#[test]
fn only_mixes_stand_in_the_middle_and_anyone_at_the_end() {
    let mailbox = Roles::NONE.with(Role::Mailbox);
    let mut relays: Vec<_> = (0..4).map(|n| relay(n, "192.168.0.1", None, mix())).collect();
    relays.extend((4..9).map(|n| relay(n, "192.168.0.1", None, mailbox)));
    let snapshot = snapshot(relays);
    let mut rng = rng();
    for _ in 0..200 {
        let path = ids(&snapshot.path(&request(4, node(8)), &mut rng).unwrap());
        assert!(path[..3].iter().all(|id| (0..4).any(|n| node(n) == *id)), "{path:?}");
    }
    let mut mailboxes: Vec<_> = (4..9).map(node).collect();
    mailboxes.sort();
    assert_eq!(snapshot.with_role(EPOCH, Role::Mailbox), mailboxes);
    assert_eq!(snapshot.with_role(EPOCH.next().next(), Role::Mailbox), []);
}

#[test]
fn too_few_relays_is_an_error_that_says_how_many_there_are() {
    let snapshot = lan(4);
    let path = |request| snapshot.path(&request, &mut rng()).map(|path| path.len());
    assert_eq!(path(request(4, node(0))), Ok(4));
    assert_eq!(path(request(5, node(0))), Err(NoPath::TooFewRelays { hops: 5, needed: 4, known: 3 }));
    let exclude = [node(1)];
    let without = PathRequest { exclude: &exclude, ..request(4, node(0)) };
    assert_eq!(path(without), Err(NoPath::TooFewRelays { hops: 4, needed: 3, known: 2 }));
    assert_eq!(path(request(2, node(77))), Err(NoPath::UnknownRelay(node(77))));
    let tomorrow = PathRequest { epoch: EPOCH.next(), ..request(2, node(0)) };
    assert_eq!(path(tomorrow), Err(NoPath::UnknownRelay(node(0))));
}

#[test]
fn one_family_and_one_global_network_give_one_hop() {
    let families = snapshot((0..6).map(|n| relay(n, "192.168.0.1", (n < 5).then_some(1), mix())).collect());
    let too_few = NoPath::TooFewRelays { hops: 3, needed: 2, known: 1 };
    assert_eq!(families.path(&request(3, node(5)), &mut rng()), Err(too_few));
    let nets = snapshot((0..6).map(|n| relay(n, &format!("8.8.{n}.1"), None, mix())).collect());
    assert_eq!(nets.path(&request(2, node(5)), &mut rng()), Err(NoPath::TooFewRelays { hops: 2, needed: 1, known: 0 }));
    let private = snapshot((0..6).map(|n| relay(n, "10.8.0.1", None, mix())).collect());
    assert!(private.path(&request(4, node(5)), &mut rng()).is_ok());
}

#[test]
fn avoided_relays_serve_only_where_nothing_else_is_left() {
    let snapshot = lan(8);
    let (avoid, mut rng) = ([1, 2, 3].map(node), rng());
    for _ in 0..200 {
        let request = PathRequest { avoid: &avoid, ..request(4, node(0)) };
        let path = ids(&snapshot.path(&request, &mut rng).unwrap());
        assert!(path.iter().all(|id| !avoid.contains(id)), "{path:?}");
    }
    let most = [1, 2, 3, 4, 5].map(node);
    let request = PathRequest { avoid: &most, ..request(4, node(0)) };
    assert_eq!(snapshot.path(&request, &mut rng).unwrap().len(), 4);
}

#[test]
fn a_path_that_exists_is_found_where_few_do() {
    // Forty relays of one network and three others: the only path takes those three.
    let mut relays: Vec<_> = (0..40).map(|n| relay(n, "8.8.0.1", None, mix())).collect();
    relays.extend((40..43).map(|n| relay(n, &format!("9.{n}.0.1"), None, mix())));
    let snapshot = snapshot(relays);
    for _ in 0..20 {
        assert_eq!(snapshot.path(&request(4, node(42)), &mut rng()).unwrap().len(), 4);
    }
    assert_eq!(
        snapshot.path(&request(5, node(42)), &mut rng()),
        Err(NoPath::TooFewRelays { hops: 5, needed: 4, known: 3 })
    );
}

/// Relays 0 to 3 speak version 1, 4 to 7 versions 1 and 2, 8 to 11 only version 2.
fn of_two_versions() -> Snapshot {
    let relays = (0..12u16).map(|n| {
        let mut facts = facts(n, EPOCH);
        facts.roles = mix();
        facts.mix_versions = [vec![1], vec![1, 2], vec![2]][usize::from(n / 4)].clone();
        let now = start().unix;
        Arc::new(sign(n, &facts, EPOCH, now.0, now))
    });
    snapshot(relays.collect())
}

#[test]
fn every_relay_on_a_path_speaks_the_version_of_its_packet() {
    let (snapshot, mut rng) = (of_two_versions(), rng());
    for (version, speakers) in [(1, 0..8u16), (2, 4..12)] {
        let mut met = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let request = PathRequest { version, ..request(4, node(5)) };
            let path = ids(&snapshot.path(&request, &mut rng).unwrap());
            let measuring = ids(&snapshot.measuring_path(&request, &|_| 0, &mut rng).unwrap());
            met.extend(path.into_iter().chain(measuring));
        }
        assert_eq!(met, speakers.map(node).collect());
    }
    let version = |version, last| snapshot.path(&PathRequest { version, ..request(2, node(last)) }, &mut rng.clone());
    assert_eq!(version(2, 0), Err(NoPath::UnknownVersion(node(0), 2)));
    assert_eq!(version(1, 9), Err(NoPath::UnknownVersion(node(9), 1)));
    assert!(version(1, 0).is_ok() && version(2, 9).is_ok());
}

#[test]
fn measuring_paths_give_every_relay_the_same_number_wherever_it_stands() {
    let (snapshot, mut rng) = (lan(10), rng());
    let (mut loops, mut first) = (HashMap::<NodeId, u32>::new(), HashMap::<NodeId, u32>::new());
    let exclude = [node(1)];
    let request = PathRequest { exclude: &exclude, ..request(4, node(0)) };
    for _ in 0..2_400 {
        let measured = |relay: &NodeId| loops.get(relay).copied().unwrap_or(0);
        let path = ids(&snapshot.measuring_path(&request, &measured, &mut rng).unwrap());
        assert!(path.len() == 4 && path[3] == node(0) && !path.contains(&node(1)));
        path[..3].iter().for_each(|relay| *loops.entry(*relay).or_default() += 1);
        *first.entry(path[0]).or_default() += 1;
    }
    assert_eq!((loops.len(), loops.values().collect::<std::collections::BTreeSet<_>>().len()), (8, 1), "{loops:?}");
    // 300 each, standard deviation 14.
    assert!(first.values().all(|n| (230..370).contains(n)), "{first:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_path_breaks_a_rule(
        nets in proptest::collection::vec((0u8..6, proptest::option::of(0u8..4)), 2..14), hops in 1usize..=5, seed in any::<u64>(),
    ) {
        let relays: Vec<_> = nets
            .iter()
            .enumerate()
            .map(|(n, (net, family))| relay(n as u16, &format!("8.{net}.0.{n}"), *family, mix()))
            .collect();
        let snapshot = snapshot(relays);
        let exclude = [node(0)];
        let request = PathRequest { exclude: &exclude, ..request(hops, node(1)) };
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let paths = [snapshot.path(&request, &mut rng), snapshot.measuring_path(&request, &|relay| u32::from(relay.0[0] % 3), &mut rng)];
        prop_assert_eq!(paths[0].is_ok(), paths[1].is_ok());
        for path in paths.into_iter().flatten() {
            prop_assert_eq!(path.len(), hops);
            let relays: Vec<_> = path.iter().map(|hop| snapshot.find(hop.id).unwrap()).collect();
            prop_assert_eq!(relays.last().unwrap().hop.id, node(1));
            for (i, a) in relays.iter().enumerate() {
                prop_assert!(a.hop.id != node(0) );
                for b in &relays[i + 1..] {
                    prop_assert!(a.hop.id != b.hop.id && !a.is_related_to(b));
                }
            }
        }
    }
}
