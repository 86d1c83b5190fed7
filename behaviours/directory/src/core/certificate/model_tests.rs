//! Every behaviour of a small network, explored breadth first over the real [`Certifier`]s: deliveries in any order,
//! late, twice or never; clocks that stand still; a seat that crashes and comes back with what is on its disk and a
//! clock that went back to the first round; liars that sign anything.
//!
//! What was sent stays in the network for ever, so losing and delaying a message is not delivering it (yet). What liars
//! may sign is in the network from the start. A seat's step depends on its own state and its input alone, so each such
//! pair is run once, and the search is over numbers.
//!
//! Two grains. *Coarse*, explored whole: ballots are delivered as a quorum message, when two thirds of the weight
//! signed or at any time later, and not one by one. That loses nothing: a ballot below the quorum changes no answer of
//! a seat. *Fine*: every ballot is delivered on its own; these states are too many, and are sampled by random
//! schedules.
//!
//! One place in the chain is enough: if no statement ever has two certified successors, then the chain is one line,
//! along which epochs grow, and so no epoch has two certified sets, whoever the electorates are.

#[path = "model_world_tests.rs"]
mod world;

use world::{Grain, Outcome, Setup, World, round};

fn explore(name: &str, setup: Setup) -> Outcome {
    let outcome = World::new(setup).explore();
    let Outcome { states, steps, local_states, .. } = outcome;
    println!("{name}: {states} states, {steps} steps, {local_states} states of single seats");
    outcome
}

/// Four seats of equal weight, of which rank 0 lies. It proposes in the first round of every epoch.
fn four() -> Setup {
    Setup {
        weights: &[1, 1, 1, 1],
        liars: &[0],
        lies: &[(0, 1), (0, 2)],
        silent: false,
        rounds: vec![round(0, 0), round(0, 1)],
        crashes: Some(1),
        persists: true,
        grain: Grain::Coarse,
        synchronous: false,
    }
}

fn assert_safe(name: &str, setup: Setup) -> Outcome {
    let outcome = explore(name, setup);
    assert_eq!(outcome.certified, 1, "nothing was certified, or two sets: {outcome:?}");
    assert!(!outcome.honest_signed_twice && !outcome.honest_accused, "{outcome:?}");
    outcome
}

/// 2,000 schedules of 150 inputs, ballot by ballot.
fn wander(name: &str, setup: Setup) -> Outcome {
    let outcome = World::new(Setup { grain: Grain::Fine, ..setup }).wander(2000, 150);
    println!("{name}: {outcome:?}");
    outcome
}

#[test]
fn ballot_by_ballot_random_schedules_certify_one_set_at_most() {
    let rounds = vec![round(0, 0), round(0, 1), round(1, 0)];
    let outcome = wander("ballot by ballot", Setup { rounds, lies: &[(0, 1)], ..four() });
    assert_eq!(outcome.certified, 1, "{outcome:?}");
    assert!(!outcome.honest_signed_twice && !outcome.honest_accused, "{outcome:?}");
}

#[test]
fn rounds_of_one_epoch_certify_one_set_at_most() {
    let outcome = assert_safe("liar proposes, then an honest seat", four());
    assert_eq!(outcome.prepared, 2, "votes of two thirds for two sets: why there is a second phase");
    let rounds = vec![round(0, 1), round(0, 2)];
    assert_safe("two honest seats propose", Setup { rounds, liars: &[3], crashes: Some(2), ..four() });
    assert_safe("weights 2 3 3 1, the 2 lies", Setup { weights: &[2, 3, 3, 1], ..four() });
    let liars = Setup { weights: &[2, 3, 3, 2], liars: &[0], crashes: Some(3), ..four() };
    assert_safe("weights 2 3 3 2, a 2 lies", liars);
}

#[test]
fn a_restart_in_the_next_epoch_does_not_replace_what_may_be_certified() {
    let lies = &[(0, 1), (1, 1)];
    let rounds = vec![round(0, 0), round(1, 0)];
    assert_safe("a liar proposes in two epochs", Setup { rounds, lies, ..four() });
    let rounds = vec![round(0, 1), round(1, 0)];
    assert_safe("an honest seat, then in the next epoch a liar", Setup { rounds, lies, ..four() });
    let rounds = vec![round(0, 3), round(1, 1)];
    assert_safe("honest seats in two epochs", Setup { rounds, lies, ..four() });
}

#[test]
fn three_rounds_in_two_epochs_certify_one_set_at_most() {
    let rounds = vec![round(0, 0), round(0, 1), round(1, 0)];
    let outcome = assert_safe("three rounds", Setup { rounds, lies: &[(0, 1)], crashes: None, ..four() });
    assert_eq!(outcome.prepared, 3);
}

/// Negative controls: the search finds what it looks for, when it is there.
#[test]
fn with_half_of_the_weight_lying_two_sets_are_certified_and_the_search_finds_it() {
    let outcome = explore("2 of 4 lie", Setup { liars: &[0, 1], rounds: vec![round(0, 0)], crashes: None, ..four() });
    assert_eq!((outcome.certified, outcome.honest_signed_twice), (2, false));
}

#[test]
fn a_seat_that_does_not_write_down_its_votes_signs_twice_and_the_search_finds_it() {
    let forgetful = || Setup { persists: false, rounds: vec![round(0, 0)], ..four() };
    let outcome = explore("not persisted", forgetful());
    assert_eq!((outcome.certified, outcome.honest_signed_twice), (2, true));
    let outcome = wander("not persisted, ballot by ballot", forgetful());
    assert!(outcome.honest_signed_twice && outcome.honest_accused, "others see both ballots: {outcome:?}");
}

#[test]
fn when_all_messages_arrive_an_honest_proposer_gets_its_set_certified() {
    let certified = |name, setup| {
        let outcome = explore(name, Setup { synchronous: true, crashes: None, ..setup });
        assert!(outcome.ends > 0 && outcome.ends == outcome.certified_ends, "{outcome:?}");
    };
    certified("all honest", Setup { liars: &[], rounds: vec![round(0, 0)], ..four() });
    certified("the first is silent", Setup { silent: true, ..four() });
    certified("the first tells everyone something else", four());
    let rounds = vec![round(0, 3), round(1, 0), round(1, 1)];
    certified("votes bind over an epoch", Setup { rounds, lies: &[(0, 1), (1, 1)], ..four() });
}
