//! How a network begins, if not all of its relays have signed before the first cut-off.

use fog_base::Epoch;

use super::{Objection, Serving, tests::World};

/// Relays below `early` sign before the first cut-off, the others after it; then the epoch ends.
fn begun(early: u16) -> World {
    let mut world = World::new(4, 4);
    let start = world.network.schedule().start(world.epoch());
    let length = world.network.epoch_length;
    world.publish_of(|n| n < early);
    world.run(start.plus(length * 57 / 96));
    world.publish_of(|n| n >= early);
    world.run(start.plus(length));
    world
}

#[test]
fn a_first_set_without_most_of_the_founders_waits_for_them() {
    for early in [1, 2] {
        let mut world = begun(early);
        for node in &world.nodes {
            assert!(!node.objections.is_empty() && node.objections.iter().all(|why| *why == Objection::FewFounders));
            assert_eq!(
                (node.council.last_certified(), node.council.serving(world.epoch())),
                (Epoch(0), Serving::Genesis)
            );
        }
        world.epoch_passes();
        world.assert_certified();
        let certified = world.nodes[0].council.certified(world.epoch()).unwrap();
        assert_eq!((certified.set.count(), certified.tip.electorate().seats().len()), (4, 4), "nobody is left out");
    }
}

#[test]
fn a_first_set_does_not_wait_for_the_last_of_the_founders() {
    let world = begun(3);
    world.assert_certified();
    assert_eq!(world.nodes[0].council.certified(world.epoch()).unwrap().set.count(), 3);
}

#[test]
fn a_founder_that_votes_and_is_never_there_delays_the_first_set_and_no_more() {
    let mut world = World::new(3, 3);
    let mut epochs = 0;
    while world.nodes[0].council.last_certified() == Epoch(0) {
        let start = world.network.schedule().start(world.epoch());
        world.publish_of(|n| n < 2);
        world.run(start.plus(world.network.epoch_length));
        epochs += 1;
        let serving = world.nodes[0].council.serving(world.epoch());
        assert!([Serving::Genesis, Serving::Certified].contains(&serving), "there is no gap: {serving:?}");
        assert!(epochs < 5);
    }
    assert_eq!(epochs, 3);
    world.assert_certified();
    assert_eq!(world.nodes[0].council.certified(world.epoch()).unwrap().set.count(), 2);
}
