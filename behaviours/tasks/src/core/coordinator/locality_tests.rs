//! Which worker gets a task whose inputs some have, and what is known of queues and of how fast bytes come.

use std::{collections::BTreeSet, time::Duration};

use serde_bytes::ByteBuf;

use super::{workers::Took, *};
use crate::core::{
    placement::{
        Demand, StrategyName,
        batch::{Batch, Planner, Weights},
    },
    testing::{World, right, submission, work},
    work::Input,
};

/// What all tasks here read: it travels as a blob.
fn large() -> Content {
    Content { hash: [5; 32], size: 100 << 20 }
}

/// A task with a module of its own that reads [`large`].
fn reading(number: u64, strategy: StrategyName) -> Submission {
    let module = number.to_be_bytes();
    let terms = Terms { trust_ppm: 500_000, replicas: 1, strategy, ..Terms::default() };
    let mut submission = submission(number, terms);
    submission.work.module = Content::of(&module);
    submission.work.inputs = vec![Input { name: "data".into(), content: large() }];
    submission.sources = vec![
        (large(), Source::Blob(ByteBuf::from(*b"manifest"))),
        (Content::of(&module), Source::Inline(ByteBuf::from(module))),
    ];
    submission
}

/// Who ran it; it ends without time.
fn runner(world: &mut World, submission: Submission) -> NodeId {
    let task = world.coordinator.submit(submission, world.now).unwrap();
    world.collect();
    world.settle();
    let view = world.coordinator.task(task).unwrap();
    assert_eq!(view.state, TaskState::Done, "{view:?}");
    view.replicas.iter().find(|replica| replica.result.is_some()).unwrap().worker
}

#[test]
fn tasks_that_read_the_same_go_where_it_is_whatever_their_module() {
    // Nobody has it: each module has its own place.
    let places = (0..8).map(|number| runner(&mut World::new(4, false), reading(number, StrategyName::Affinity)));
    assert!(places.collect::<BTreeSet<_>>().len() > 1);
    for holder in 0..4 {
        for number in 0..8 {
            let mut world = World::new(4, false);
            let worker = world.hosts[holder].id;
            world.coordinator.workers.staged(worker, [large()].into_iter(), Took::Unknown);
            assert_eq!(runner(&mut world, reading(number, StrategyName::Affinity)), worker);
        }
    }
}

#[test]
fn a_batch_goes_where_its_data_is() {
    let mut world = World::new(4, false);
    let first = runner(&mut world, reading(0, StrategyName::Affinity));
    let Submission { work, terms, .. } = reading(1, StrategyName::Affinity);
    let demand = world.coordinator.demand(&work, &terms);
    let candidates = world.coordinator.candidates(world.now);
    let at = candidates.iter().position(|candidate| candidate.node == first).unwrap();
    let missing: Vec<_> = candidates.iter().map(|candidate| demand.missing_bytes(candidate) >= large().size).collect();
    assert_eq!(missing.iter().filter(|missing| **missing).count(), 3);
    assert!(!missing[at]);
    let batch = Batch::new(&[demand], &candidates).unwrap();
    let mut planner = Planner::new(batch, 100, [1; 32], Vec::new());
    (0..20).for_each(|_| planner.step());
    let choice = planner.choose(&Weights::of(terms.class));
    assert_eq!(choice.workers, [Some(at)], "{candidates:?}");
    assert!(choice.objectives[4] < large().size as f64);
}

#[test]
fn how_fast_bytes_come_is_measured_until_then_assumed() {
    let mut world = World::new(1, false);
    let bandwidth = |world: &World| world.coordinator.candidates(world.now)[0].bandwidth;
    assert_eq!(bandwidth(&world), 10e6);
    world.coordinator.submit(reading(0, StrategyName::LeastLoaded), world.now).unwrap();
    world.collect();
    for _ in 0..3 {
        while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    }
    // It stages for four seconds, and says so; then it runs.
    for _ in 0..4 {
        world.pass(Duration::from_secs(1));
        while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    }
    world.stage(0);
    world.pass(Duration::from_secs(1));
    while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    let measured = bandwidth(&world);
    assert!((15e6..30e6).contains(&measured), "100 MiB in about 5 s: {measured}");
    world.run(0, right);
    world.settle();
    assert_eq!(bandwidth(&world), measured, "once");
    // What is there already is not staged again, and measures nothing.
    runner(&mut world, reading(1, StrategyName::LeastLoaded));
    assert_eq!(bandwidth(&world), measured);
}

#[test]
fn a_worker_that_forgot_its_executions_has_nothing_any_more() {
    let mut world = World::new(1, false);
    let worker = runner(&mut world, reading(0, StrategyName::LeastLoaded));
    let held = |world: &World| world.coordinator.candidates(world.now)[0].cached.len();
    assert_eq!(held(&world), 1);
    world.coordinator.submit(reading(1, StrategyName::LeastLoaded), world.now).unwrap();
    world.collect();
    for _ in 0..3 {
        while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    }
    world.restart_worker(0);
    for _ in 0..40 {
        world.pass(Duration::from_millis(500));
        while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    }
    assert_eq!(held(&world), 0);
    assert!(world.coordinator.workers.get(worker).is_some());
}

#[test]
fn what_is_remembered_of_a_worker_is_bounded_and_what_was_used_last_stays() {
    let mut world = World::new(1, false);
    let worker = world.hosts[0].id;
    let content = |n: u16| Content { hash: [n.to_be_bytes(); 16].as_flattened().try_into().unwrap(), size: 1 << 16 };
    for n in 0..300 {
        let contents = [content(n), content(0), Content { hash: [250; 32], size: 100 }];
        world.coordinator.workers.staged(worker, contents.into_iter(), Took::Unknown);
    }
    let held = world.coordinator.workers.get(worker).unwrap().held();
    let has = |n: u16| held.binary_search(&content(n).hash).is_ok();
    assert!(held.len() == 256 && held.is_sorted() && has(0) && !has(1) && has(299));
    assert!(held.binary_search(&[250; 32]).is_err(), "a small one is none");
}

#[test]
fn a_queue_is_as_long_as_the_tasks_there_take() {
    let mut world = World::new(1, false);
    let candidate = |world: &World| world.coordinator.candidates(world.now)[0].clone();
    // One task that takes two seconds: then the pace is known.
    let one = |number| submission(number, Terms { trust_ppm: 500_000, replicas: 1, ..Terms::default() });
    world.coordinator.submit(one(0), world.now).unwrap();
    world.collect();
    for _ in 0..3 {
        while world.hand_to_worker(0) | world.stage(0) | world.hand_to_coordinator(0) {}
    }
    world.pass(Duration::from_secs(2));
    world.settle();
    assert_eq!((candidate(&world).queue_ms, candidate(&world).in_flight), (0.0, 0));
    // Two slots: with one task there is still a free one, with four the third from now has to end.
    for (tasks, queue_ms) in [(4, 3.0 * 2_000.0), (1, 0.0)] {
        for number in 0..tasks {
            world.coordinator.submit(one(10 * tasks + number), world.now).unwrap();
        }
        world.collect();
        let seen = candidate(&world);
        assert!((seen.queue_ms - queue_ms).abs() < 300.0, "{tasks}: {seen:?}");
        assert_eq!(seen.in_flight, 1);
        // Who must end before that is not given one.
        let demand = Demand { deadline_ms: Some(3_000), ..world.coordinator.demand(&work(1), &Terms::default()) };
        assert_eq!(demand.fits(&seen).is_ok(), tasks == 1);
        world.settle();
    }
}

#[test]
fn a_task_of_ours_that_an_offer_counts_is_not_counted_after_its_end() {
    let mut world = World::new(1, false);
    let in_flight = |world: &World| world.coordinator.candidates(world.now)[0].in_flight;
    world.submit(1, Terms { trust_ppm: 500_000, replicas: 1, ..Terms::default() });
    for _ in 0..3 {
        while world.hand_to_worker(0) | world.stage(0) | world.hand_to_coordinator(0) {}
    }
    // Five seconds later it offers one slot less, and that is known.
    let before = world.hosts[0].offer.clone();
    world.pass(Duration::from_secs(5));
    while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    world.meet();
    assert!(world.hosts[0].offer != before && in_flight(&world) == 1);
    world.settle();
    assert_eq!(in_flight(&world), 0, "though its offer is the same");
}
