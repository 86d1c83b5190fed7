use super::*;
use crate::core::{
    council::{KEPT, tests::World},
    testing::node,
};

fn rings(world: &World, period: u32) -> Vec<Option<Ring>> {
    world.nodes.iter().map(|node| node.council.ring(period).cloned()).collect()
}

fn period(world: &World) -> u32 {
    world.epoch().0 / PERIOD
}

#[track_caller]
fn the_ring_of(world: &World, period: u32) -> Ring {
    let rings = rings(world, period);
    let first = rings[0].clone().expect("the ring is fixed");
    for (at, ring) in rings.iter().enumerate() {
        assert_eq!(ring.as_ref(), Some(&first), "node {at}");
    }
    first
}

fn sorted(relays: impl IntoIterator<Item = u16>) -> Vec<NodeId> {
    relays.into_iter().map(node).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn everybody_finds_one_ring_whenever_it_joins_and_who_comes_late_is_not_in_it() {
    // Four relays of the network file, and two that join before the network's first set.
    let mut world = World::new(6, 4);
    let first = period(&world);
    assert_eq!(rings(&world, first), vec![None; 6], "nothing is certified");
    world.epoch_passes();
    let genesis = the_ring_of(&world, first);
    assert_eq!(genesis.relays, sorted(0..4), "of those who could be there before any beacon");
    let fixed_in = beacon_epoch(first + 1);
    while world.epoch().0 < fixed_in.0 - 3 {
        world.epoch_passes();
    }
    assert_eq!((the_ring_of(&world, first), rings(&world, first + 1)), (genesis.clone(), vec![None; 6]));
    // In the set of two epochs before: in the ring. In the one after that: too late.
    world.join(6);
    world.epoch_passes();
    world.join(7);
    world.epoch_passes();
    assert_eq!(world.epoch().0, fixed_in.0 - 1);
    assert_eq!(rings(&world, first + 1), vec![None; 8]);
    world.epoch_passes();
    let next = the_ring_of(&world, first + 1);
    assert_eq!(next.relays, sorted(0..7));
    let last = world.nodes[0].council.certified(Epoch(fixed_in.0 - 1)).unwrap();
    assert!(last.set.find(&node(7)).is_some(), "it stood in the last set before");
    let of_beacon = world.nodes[0].council.certified(fixed_in).unwrap();
    assert_eq!((next.beacon, of_beacon.state.beacon == genesis.beacon), (of_beacon.state.beacon, false));
    // The ring of the first period goes when its period does; the next one stays, also with who joins later or restarts.
    world.epoch_passes();
    assert_eq!(the_ring_of(&world, first), genesis);
    (0..4).for_each(|_| world.epoch_passes());
    assert_eq!((period(&world), rings(&world, first)), (first + 1, vec![None; 8]));
    world.join(8);
    world.epoch_passes();
    assert_eq!(the_ring_of(&world, first + 1), next);
    (0..9).for_each(|at| world.restart(at));
    assert_eq!(the_ring_of(&world, first + 1), next, "from the disk");
    for node in &world.nodes {
        assert!(node.disk.sets.len() <= KEPT + 4, "{:?}", node.disk.sets.keys());
    }
}

#[test]
fn who_lost_its_sets_fetches_what_the_ring_follows_from() {
    let mut world = World::new(5, 5);
    (0..8).for_each(|_| world.epoch_passes());
    let ring = the_ring_of(&world, period(&world));
    world.nodes[2].disk.sets.clear();
    world.restart(2);
    let period = period(&world);
    assert_eq!(world.nodes[2].council.ring(period), None);
    world.epoch_passes();
    assert_eq!(the_ring_of(&world, period), ring);
    (0..3).for_each(|_| world.epoch_passes());
    assert_eq!(
        world.nodes[2].disk.sets.keys().collect::<Vec<_>>(),
        world.nodes[0].disk.sets.keys().collect::<Vec<_>>()
    );
}
