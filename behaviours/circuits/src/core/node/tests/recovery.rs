//! What a client does when relays do not answer, what it remembers, and what it tells its own node of them.

use super::*;
use crate::core::types::Experience;

/// Everything that was told of relays.
fn experiences(world: &World) -> Vec<Experience> {
    let all = world.nodes[0].outputs.iter().filter_map(|output| match output {
        Output::Experience(all) => Some(all.clone()),
        _ => None,
    });
    all.flatten().collect()
}

fn bad(world: &World) -> Vec<(Vec<NodeId>, f64)> {
    let all = experiences(world).into_iter().filter(|one| !one.is_good);
    all.map(|one| (one.relays, one.weight)).collect()
}

/// So long nothing of it is held back any more.
const TOLD: Duration = Duration::from_secs(181);

#[test]
fn a_relay_that_did_not_answer_is_passed_over_by_later_circuits_for_a_while() {
    let mut world = World::new(6);
    world.tamper = Box::new(|_, to, _| to != 2);
    let first = world.open(0, 5, 3);
    world.wait(Duration::from_millis(3_100));
    assert!(world.is_opened(0, first));
    let second = world.open(0, 5, 3);
    world.run();
    assert!(world.is_opened(0, second), "at once, for the other relays answer");
    world.tamper = Box::new(|_, _, _| true);
    world.wait(Duration::from_secs(15));
    let third = world.opened(0, 5, 3);
    assert!(world.nodes[0].core.hops(third).contains(&id(2)), "it gets another chance");
}

#[test]
fn a_given_end_that_does_not_answer_is_tried_over_two_paths() {
    let mut world = World::new(6);
    world.tamper = Box::new(|_, to, _| to != 5);
    let circuit = world.open(0, 5, 3);
    world.wait(Duration::from_millis(5_900));
    assert_eq!(world.closed(0, circuit), None);
    world.wait(Duration::from_millis(200));
    assert_eq!(world.closed(0, circuit), Some(CloseReason::Unbuilt));
}

#[test]
fn circuits_of_services_have_their_own_second_relay_and_spares_of_their_own() {
    let config = |at| {
        let (spares, service_spares) = if at == 0 { (1, vec![(2, 1), (3, 2)]) } else { (0, vec![]) };
        Config { spares, service_spares, ..usual_config() }
    };
    let mut world = World::with_second(7, config, Some(4));
    world.wait(Duration::from_secs(3));
    let spares = |world: &World| {
        let all =
            world.nodes[0].core.list_circuits(world.now).into_iter().filter(|info| info.purpose == Purpose::Spare);
        let mut all: Vec<_> = all.map(|info| (info.hops.len(), info.hops.contains(&id(4)))).collect();
        all.sort_unstable();
        all
    };
    let full = [(2, false), (2, true), (3, true), (3, true)];
    assert_eq!(spares(&world), full);
    for (hops, left) in [(3, &[(2, false), (3, true), (3, true)][..]), (4, &[(2, false), (2, true), (3, true)])] {
        let circuit = world.opened(0, 6, hops);
        assert_eq!(world.nodes[0].core.hops(circuit)[1], id(4));
        assert_eq!(spares(&world), left);
        world.wait(Duration::from_secs(2));
        assert_eq!(spares(&world), full);
    }
    let now = world.now;
    let circuit = world.core(0).circuit_for(80, Isolation::default(), now);
    world.run();
    assert!(world.is_opened(0, circuit) && !world.nodes[0].core.hops(circuit).contains(&id(4)));
    assert_eq!(spares(&world), full[1..], "the plain one was taken");
}

#[test]
fn what_circuits_say_of_relays_is_told_late_and_for_each_relay_alone() {
    let mut world = World::new(6);
    let (first, second) = (world.opened(0, 5, 3), world.opened(0, 4, 2));
    world.wait(Duration::from_secs(29));
    assert_eq!(experiences(&world), []);
    world.wait(TOLD);
    let mut good: Vec<_> = experiences(&world).into_iter().map(|one| (one.relays, one.is_good, one.weight)).collect();
    good.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [(1, 2.0), (2, 1.0), (4, 1.0), (5, 1.0)].map(|(at, weight)| (vec![id(at)], true, weight));
    assert_eq!(good, expected);
    let now = world.now;
    [first, second].into_iter().for_each(|circuit| world.core(0).close(circuit, now));
    world.wait(TOLD);
    assert_eq!(experiences(&world).len(), 4, "that they were closed says nothing");
}

#[test]
fn circuits_that_fail_speak_against_who_was_on_the_way() {
    let mut world = World::new(6);
    // Not answered in time.
    world.tamper = Box::new(|_, to, _| to != 2);
    world.open(0, 5, 3);
    world.wait(TOLD);
    assert_eq!(bad(&world), [(vec![id(1), id(2)], 0.25)]);
    // Ended while it was built: 5 is not there.
    world.tamper = Box::new(|_, _, _| true);
    world.nodes[5].is_up = false;
    let links: Vec<_> = world.links.keys().filter(|(node, _)| *node == 5).copied().collect();
    links.into_iter().for_each(|(node, link)| world.cut(node, link));
    world.nodes[0].outputs.clear();
    world.open(0, 5, 2);
    world.wait(TOLD);
    assert_eq!(bad(&world), [(vec![id(1), id(5)], 1.0), (vec![id(1), id(5)], 1.0)]);
}

#[test]
fn a_circuit_to_an_exit_that_its_relays_end_speaks_against_them_and_one_that_others_may_end_does_not() {
    let mut world = World::new(6);
    let now = world.now;
    let general = world.core(0).circuit_for(80, Isolation::default(), now);
    world.run();
    let path = world.nodes[0].core.hops(general);
    let meeting = world.opened(0, 3, 3);
    world.wait(TOLD);
    world.nodes[0].outputs.clear();
    let last = |world: &World, at: usize| {
        world.nodes[at]
            .core
            .circuits
            .iter()
            .find(|(_, circuit)| matches!(circuit, Circuit::Relay(_)))
            .map(|(id, _)| *id)
    };
    for at in [5, 3] {
        let circuit = last(&world, at).unwrap();
        let now = world.now;
        world.core(at).close(circuit, now);
        world.run();
    }
    assert!(world.closed(0, general).is_some() && world.closed(0, meeting).is_some());
    world.wait(TOLD);
    assert_eq!(bad(&world), [(path, 1.0)]);
}

#[test]
fn a_guard_behind_which_nothing_comes_is_left_for_another() {
    let mut world = World::new(8);
    world.tamper = Box::new(|from, to, _| from != 1 || to == 0);
    let first = world.open(0, 7, 3);
    world.wait(Duration::from_secs(60));
    assert_eq!(world.closed(0, first), Some(CloseReason::Unbuilt), "five ways behind one guard");
    let second = world.open(0, 7, 3);
    world.wait(Duration::from_secs(60));
    assert!(world.is_opened(0, second));
    assert_ne!(world.nodes[0].core.hops(second)[0], id(1));
}
