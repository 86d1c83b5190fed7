//! Transcripts of both sides, message by message.

use std::time::Duration;

use super::*;
use crate::{
    core::{
        outcome::{Ending, HostEnd},
        terms::Terms,
        testing::{World, right, submission, work, wrong},
    },
    wire::{Failure, Refusal},
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn one() -> Terms {
    Terms { trust_ppm: 500_000, replicas: 1, ..Terms::default() }
}

/// How the task ended; it did so once.
fn end(world: &World, task: TaskId) -> End {
    let ends = world.ends.get(&task).expect("it ended");
    assert_eq!(ends.len(), 1, "once: {ends:?}");
    ends[0].clone()
}

pub(super) fn is_right(world: &World, task: TaskId, number: u64) -> bool {
    matches!(end(world, task), End::Done { outcome: Some(outcome), .. } if *outcome == right(&work(number)))
}

#[test]
fn ones_own_worker_is_believed_and_not_paid() {
    let mut world = World::new(1, true);
    let task = world.submit(1, Terms::default());
    world.settle();
    let view = world.coordinator.task(task).unwrap();
    assert!(is_right(&world, task, 1));
    let End::Done { by, credibility, .. } = end(&world, task) else { panic!() };
    assert_eq!((by, credibility, view.price, view.state.name()), (TrustedBy::Own, 1.0, 0, "done"));
    assert_eq!(world.hosts[0].worker.load(), Default::default(), "nothing is left at the worker");
}

#[test]
fn two_newcomers_that_agree_reach_the_usual_trust_and_are_both_paid_once() {
    let mut world = World::new(3, false);
    let task = world.submit(1, Terms::default());
    world.settle();
    assert!(is_right(&world, task, 1));
    let view = world.coordinator.task(task).unwrap();
    assert_eq!(view.replicas.len(), 2, "{view:?}");
    // 10⁶ fuel at 1,000 micro-credits for 10⁹.
    assert_eq!(view.price, 2);
    assert!(view.replicas.iter().all(|replica| replica.state == "good" && replica.paid == Some(1)));
    assert_eq!(world.hosts.iter().map(|host| host.claims.values().sum::<u64>()).sum::<u64>(), 2);
    assert_eq!((view.placed_ms, view.total_ms), (Some(0), Some(0)));
}

#[test]
fn the_only_worker_of_a_network_is_enough_for_the_trust_that_it_reaches_and_no_more() {
    let asked = |trust: f64| {
        let mut world = World::new(1, false);
        let task = world.submit(1, Terms { trust_ppm: (trust * 1e6) as u32, ..Terms::default() });
        let mut waited = 0;
        while !world.ends.contains_key(&task) && waited < 3_000 {
            world.settle();
            world.pass(seconds(1));
            waited += 1;
        }
        (end(&world, task), waited)
    };
    // The second replica, by which newcomers are proven, is not waited for where nobody can give it.
    let (ended, waited) = asked(0.9);
    assert!(matches!(ended, End::Done { .. }) && waited < 10, "{ended:?} after {waited} s");
    let (ended, waited) = asked(0.95);
    let End::Failed(why) = ended else { panic!("{ended:?}") };
    assert!(why.to_string().contains("believed to 0.909 of 0.95") && waited < 660, "{why}, {waited} s");
}

#[test]
fn a_task_that_no_worker_is_there_for_ends() {
    let mut world = World::new(0, false);
    let task = world.submit(1, Terms::default());
    for _ in 0..610 {
        world.pass(seconds(1));
    }
    assert!(matches!(end(&world, task), End::Failed(Failed::NoWorker(_))));
}

#[test]
fn who_is_ill_spoken_of_takes_another_replica_and_who_is_praised_saves_none() {
    let asked = |workers: u64, prior: Prior| {
        let mut world = World::new(workers, false);
        let first = world.hosts[0].id;
        world.coordinator.set_prior(first, prior);
        let task = world.submit(1, Terms { replicas: 2, ..Terms::default() });
        world.settle();
        let view = world.coordinator.task(task).unwrap();
        let shown = view.replicas.iter().filter(|replica| replica.result.is_some()).count();
        (view.state == TaskState::Done).then_some(shown)
    };
    let (praise, blame) = (Prior { good: 1e9, bad: 0.0 }, Prior { good: 0.0, bad: 1e9 });
    assert_eq!((asked(1, praise), asked(2, praise), asked(2, Prior::default())), (None, Some(2), Some(2)));
    assert_eq!(asked(2, blame), None, "these two alone are not enough");
}

#[test]
fn a_liar_is_outvoted_unpaid_and_told_of() {
    let mut world = World::new(6, false);
    let task = world.submit(1, Terms { replicas: 3, ..Terms::default() });
    world.settle_with(|at, work| if at == 0 { wrong(work, 1) } else { right(work) });
    assert!(is_right(&world, task, 1), "{:?}", world.coordinator.task(task));
    let liar = world.hosts[0].id;
    let against: Vec<_> = world.verdicts.iter().filter(|(worker, ..)| *worker == liar).collect();
    assert!(against.iter().all(|(_, _, _, value)| *value == 0), "{against:?}");
    assert!(world.hosts[0].claims.values().all(|claim| *claim == 0));
}

#[test]
fn fuel_that_a_result_does_not_have_is_not_paid() {
    let mut world = World::new(2, false);
    let task = world.submit(1, Terms::default());
    for _ in 0..40 {
        for at in 0..2 {
            while world.hand_to_worker(at) {}
            let _moved = world.stage(at) | world.run(at, right);
            while let Some(mut message) = world.hosts[at].from_it.pop_front() {
                if let ToCoordinator::Revealed { fuel, .. } = &mut message
                    && at == 1
                {
                    *fuel += 1_000_000;
                }
                let _taken = world.say_from_worker(at, message);
            }
        }
    }
    assert!(is_right(&world, task, 1), "{:?}", world.coordinator.task(task));
    let paid = |at: usize| world.hosts[at].claims.values().sum::<u64>();
    assert_eq!((paid(0), paid(1), world.coordinator.spent()), (1, 0, 1));
}

#[test]
fn results_are_shown_only_when_every_replica_has_committed() {
    let mut world = World::new(2, false);
    world.submit(1, Terms::default());
    for at in 0..2 {
        while world.hand_to_worker(at) | world.hand_to_coordinator(at) {}
        while world.hand_to_worker(at) | world.hand_to_coordinator(at) {}
        world.stage(at);
    }
    world.run(0, right);
    while world.hand_to_coordinator(0) {}
    assert!(world.hosts[0].to_it.is_empty(), "nothing is asked of the first: {:?}", world.hosts[0].to_it);
    world.run(1, right);
    while world.hand_to_coordinator(1) {}
    assert!(matches!(world.hosts[0].to_it.front(), Some(ToWorker::Reveal { .. })));
    assert!(matches!(world.hosts[1].to_it.front(), Some(ToWorker::Reveal { .. })));
}

#[test]
fn what_is_repeated_is_answered_as_before_and_changes_nothing() {
    let mut world = World::new(1, false);
    let task = world.submit(1, one());
    loop {
        let mut moved = false;
        while let Some(message) = world.hosts[0].to_it.front().cloned() {
            world.say_to_worker(0, message);
            moved |= world.hand_to_worker(0);
        }
        moved |= world.stage(0) | world.run(0, right);
        while let Some(message) = world.hosts[0].from_it.front().cloned() {
            let _repeated = world.say_from_worker(0, message);
            moved |= world.hand_to_coordinator(0);
        }
        if !moved {
            break;
        }
    }
    assert!(is_right(&world, task, 1));
    assert_eq!((world.hosts[0].ran, world.hosts[0].claims.values().sum::<u64>()), (1, 1));
}

#[test]
fn each_message_may_be_lost_once() {
    for lost in 0..16 {
        let mut world = World::new(1, false);
        let task = world.submit(1, one());
        let mut said = 0;
        for _ in 0..120 {
            let mut moved = true;
            while moved {
                moved = false;
                while let Some(message) = world.hosts[0].to_it.pop_front() {
                    if said != lost {
                        world.say_to_worker(0, message);
                    }
                    (said, moved) = (said + 1, true);
                }
                moved |= world.stage(0) | world.run(0, right);
                while let Some(message) = world.hosts[0].from_it.pop_front() {
                    if said != lost {
                        let _taken = world.say_from_worker(0, message);
                    }
                    (said, moved) = (said + 1, true);
                }
            }
            world.pass(Duration::from_millis(500));
        }
        assert!(is_right(&world, task, 1), "message {lost} lost: {:?}", world.coordinator.task(task));
        let claims = world.hosts[0].claims.values().sum::<u64>();
        assert_eq!(claims, 1, "message {lost} lost");
    }
}

#[test]
fn a_worker_that_says_nothing_is_left_and_its_late_result_is_not_paid() {
    let mut world = World::new(2, false);
    let task = world.submit(1, one());
    let first = usize::from(world.hosts[0].to_it.is_empty());
    let other = 1 - first;
    while world.hand_to_worker(first) | world.hand_to_coordinator(first) {}
    while world.hand_to_worker(first) | world.hand_to_coordinator(first) {}
    world.stage(first);
    // It runs on, and hears nothing and is not heard.
    for _ in 0..20 {
        world.pass(seconds(1));
        world.hosts[first].from_it.clear();
        while world.hand_to_worker(other)
            | world.stage(other)
            | world.run(other, right)
            | world.hand_to_coordinator(other)
        {}
    }
    assert!(is_right(&world, task, 1), "{:?}", world.coordinator.task(task));
    world.hosts[first].to_it.clear();
    world.run(first, right);
    while world.hand_to_coordinator(first) | world.hand_to_worker(first) {}
    assert!(world.hosts[first].claims.is_empty());
    assert_eq!(world.hosts[first].worker.load().executions, 0, "it was told that nobody wants it");
}

#[test]
fn a_lease_that_is_not_renewed_ends_at_its_worker() {
    let mut world = World::new(1, false);
    world.submit(1, one());
    for _ in 0..3 {
        while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    }
    world.stage(0);
    assert_eq!(world.hosts[0].runs.len(), 1);
    let now = world.now.plus(seconds(31));
    world.hosts[0].worker.handle_timeout(now);
    world.collect();
    assert!(world.hosts[0].runs.is_empty(), "stopped");
    let told = world.hosts[0].from_it.iter().any(
        |said| matches!(said, crate::wire::ToCoordinator::Ended { failure, .. } if *failure == Failure::LeaseExpired),
    );
    assert!(told);
}

#[test]
fn a_run_that_takes_longer_than_its_user_allows_fails_at_once() {
    let mut world = World::new(3, false);
    let mut terms = one();
    terms.clocks.running_ms = Some(5_000);
    let task = world.submit(1, terms);
    world.settle_with(|_, _| Outcome::ended(Ending::Host(HostEnd::Deadline), ""));
    assert_eq!(end(&world, task), End::Failed(Failed::RunningTime));
    assert!(world.verdicts.is_empty(), "nobody is blamed");
}

#[test]
fn three_hosts_that_cannot_run_it_end_a_task_and_none_is_called_wrong() {
    let mut world = World::new(5, false);
    let task = world.submit(1, one());
    for _ in 0..20 {
        world.settle_with(|_, _| Outcome::ended(Ending::Host(HostEnd::StackOverflow), ""));
        world.pass(seconds(1));
    }
    assert_eq!(end(&world, task), End::Failed(Failed::Hosts("stack_overflow".into())));
    assert_eq!(world.hosts.iter().map(|host| host.ran).sum::<usize>(), 3);
    assert!(world.verdicts.iter().all(|(_, _, verdict, _)| *verdict != Verdict::Wrong));
}

#[test]
fn errors_of_the_program_are_results() {
    for ending in [Ending::Exit(3), Ending::OutOfFuel, Ending::BadModule, Ending::Trap(crate::Trap::Memory)] {
        let mut world = World::new(3, false);
        let task = world.submit(1, Terms::default());
        world.settle_with(|_, _| Outcome::ended(ending, ""));
        let End::Done { ending: got, .. } = end(&world, task) else { panic!("{:?}", end(&world, task)) };
        assert_eq!(got, ending);
        assert_eq!(world.hosts.iter().map(|host| host.ran).sum::<usize>(), 2, "not tried elsewhere");
    }
}

#[test]
fn a_refusal_is_followed_by_another_worker() {
    let mut world = World::new(2, false);
    let task = world.submit(1, one());
    let first = usize::from(world.hosts[0].to_it.is_empty());
    let now = world.now;
    world.hosts[first].worker.set_frozen(true, now);
    world.settle();
    assert!(is_right(&world, task, 1));
    let view = world.coordinator.task(task).unwrap();
    assert_eq!(view.replicas[0].state, Refusal::NotEligible.name());
}

#[test]
fn a_vacated_host_tells_and_the_task_goes_on_elsewhere() {
    let mut world = World::new(2, false);
    let task = world.submit(1, one());
    let first = usize::from(world.hosts[0].to_it.is_empty());
    for _ in 0..3 {
        while world.hand_to_worker(first) | world.hand_to_coordinator(first) {}
    }
    world.stage(first);
    let now = world.now;
    world.hosts[first].worker.vacate(now);
    world.collect();
    assert!(world.hosts[first].runs.is_empty());
    world.settle();
    assert!(is_right(&world, task, 1));
    assert!(world.verdicts.iter().all(|(worker, ..)| *worker != world.hosts[first].id), "no fault of it");
}

#[test]
fn a_frozen_host_is_waited_for_as_long_as_the_class_says() {
    let mut world = World::new(2, false);
    let task = world.submit(1, one());
    let first = usize::from(world.hosts[0].to_it.is_empty());
    for _ in 0..3 {
        while world.hand_to_worker(first) | world.hand_to_coordinator(first) {}
    }
    world.stage(first);
    world.pass(seconds(1));
    while world.hand_to_coordinator(first) {}
    let now = world.now;
    world.hosts[first].worker.set_frozen(true, now);
    world.collect();
    let mut waited = 0;
    while world.hosts[1 - first].to_it.is_empty() && waited < 30 {
        world.pass(seconds(1));
        while world.hand_to_coordinator(first) | world.hand_to_worker(first) {}
        waited += 1;
    }
    assert!((5..=6).contains(&waited), "standard: 5 s, {waited}");
    world.settle();
    assert!(is_right(&world, task, 1));
}

#[test]
fn what_is_remembered_is_answered_at_once_unless_it_is_sealed() {
    let mut world = World::new(2, false);
    world.submit(1, Terms::default());
    world.settle();
    let again = world.submit(1, Terms::default());
    let End::Done { by, .. } = end(&world, again) else { panic!() };
    assert_eq!(by, TrustedBy::Memory);
    let sealed = world.submit(1, Terms { privacy: crate::core::terms::Privacy::Sealed, ..Terms::default() });
    assert!(!world.ends.contains_key(&sealed));
}

#[test]
fn a_deadline_ends_what_nobody_takes() {
    let mut world = World::new(0, false);
    let task = world.submit(1, Terms { deadline_ms: Some(3_000), ..Terms::default() });
    world.pass(seconds(2));
    assert!(world.ends.is_empty());
    world.pass(seconds(1));
    assert_eq!(end(&world, task), End::Failed(Failed::Deadline));
}

#[test]
fn a_cancelled_task_stops_everywhere() {
    let mut world = World::new(2, false);
    let task = world.submit(1, Terms::default());
    for at in 0..2 {
        for _ in 0..3 {
            while world.hand_to_worker(at) | world.hand_to_coordinator(at) {}
        }
        world.stage(at);
    }
    let now = world.now;
    world.coordinator.cancel(task, now).unwrap();
    assert_eq!(world.coordinator.cancel(task, now), Err(Reject::UnknownTask));
    world.collect();
    world.settle();
    assert_eq!(end(&world, task), End::Cancelled);
    assert!(world.hosts.iter().all(|host| host.ran == 0 && host.worker.load().executions == 0));
}

#[test]
fn submissions_beyond_the_bounds_are_refused() {
    let mut world = World::with(0, false, Config { max_open: 1, ..Config::default() });
    let mut bad = submission(1, Terms::default());
    bad.sources.clear();
    assert_eq!(world.coordinator.submit(bad, world.now), Err(Reject::Sources));
    let mut forged = submission(1, Terms::default());
    forged.sources[0].1 = Source::Inline(serde_bytes::ByteBuf::from(*b"modulE"));
    assert_eq!(world.coordinator.submit(forged, world.now), Err(Reject::Sources));
    world.submit(1, Terms::default());
    assert_eq!(world.coordinator.submit(submission(2, Terms::default()), world.now), Err(Reject::Busy));
}

#[test]
fn a_restarted_coordinator_ends_what_it_began_and_pays_once() {
    // Killed after each of its first 30 steps, in turn.
    for killed in 0..30 {
        let mut world = World::new(3, false);
        let task = world.submit(1, Terms::default());
        let mut steps = 0;
        for _ in 0..60 {
            for at in 0..3 {
                for step in [
                    World::hand_to_worker,
                    World::stage,
                    |world: &mut World, at| world.run(at, right),
                    World::hand_to_coordinator,
                ] {
                    if step(&mut world, at) {
                        steps += 1;
                        if steps == killed {
                            world.restart_coordinator();
                        }
                    }
                }
            }
            if world.ends.contains_key(&task) && steps > killed {
                world.settle();
            }
            world.pass(Duration::from_millis(500));
        }
        world.settle();
        // What was said before the crash may be said again after it: the row is what counts.
        let view = world.coordinator.task(task).unwrap();
        assert_eq!(view.state, TaskState::Done, "killed at {killed}: {view:?}");
        let claims: u64 = world.hosts.iter().flat_map(|host| host.claims.values()).sum();
        let paid = view.replicas.iter().filter(|replica| replica.paid > Some(0)).count();
        assert_eq!((claims, paid), (view.price, 2), "killed at {killed}: {view:?}");
        let debts: (i64, i64) = (0..3).map(|at| world.debts(at)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        assert_eq!(debts, (view.price as i64, view.price as i64), "killed at {killed}");
    }
}

#[test]
fn ended_tasks_are_forgotten_oldest_first_with_their_rows() {
    let mut world = World::with(1, true, Config { max_ended: 2, ..Config::default() });
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let task = world.submit(number, Terms::default());
            world.settle();
            task
        })
        .collect();
    let known: Vec<_> = tasks.iter().map(|task| world.coordinator.task(*task).is_some()).collect();
    assert_eq!(known, [false, false, true, true]);
    assert_eq!(world.rows.keys().filter(|key| key[0] == 1).count(), 2);
}

/// The first worker that is asked never begins; 40 s pass.
fn with_a_full_first_worker(workers: u64) -> (World, TaskId, NodeId) {
    let mut world = World::new(workers, false);
    let task = world.submit(1, one());
    let full = (0..world.hosts.len()).find(|at| !world.hosts[*at].to_it.is_empty()).unwrap();
    for _ in 0..80 {
        loop {
            let mut moved = false;
            for at in 0..world.hosts.len() {
                moved |= world.hand_to_worker(at) | world.stage(at) | world.hand_to_coordinator(at);
                moved |= at != full && world.run(at, right);
            }
            if !moved {
                break;
            }
        }
        world.pass(Duration::from_millis(500));
    }
    let full = world.hosts[full].id;
    (world, task, full)
}

#[test]
fn a_run_that_waits_while_another_worker_is_idle_goes_there() {
    let (world, task, full) = with_a_full_first_worker(2);
    assert!(is_right(&world, task, 1), "{:?}", world.coordinator.task(task));
    let view = world.coordinator.task(task).unwrap();
    let states: Vec<_> = view.replicas.iter().map(|replica| (replica.worker == full, replica.state)).collect();
    assert_eq!(states[0], (true, "moved"));
    assert!(states.len() == 2 && !states[1].0, "{states:?}");
    assert!(world.verdicts.iter().all(|(worker, ..)| *worker != full), "it did no wrong");
}

#[test]
fn a_run_waits_on_where_nobody_is_idle() {
    let (world, task, full) = with_a_full_first_worker(1);
    let view = world.coordinator.task(task).unwrap();
    let states: Vec<_> = view.replicas.iter().map(|replica| (replica.worker, replica.state)).collect();
    assert_eq!(states, [(full, "queued")]);
}

#[test]
fn a_stranger_cannot_speak_for_a_worker() {
    let mut world = World::new(2, false);
    world.submit(1, one());
    let first = usize::from(world.hosts[0].to_it.is_empty());
    world.hand_to_worker(first);
    let agreement = world.hosts[first].from_it.pop_front().unwrap();
    let taken = world.say_from_worker(1 - first, agreement.clone());
    assert_eq!(taken, Err(Reject::Stranger));
    assert_eq!(world.say_from_worker(first, agreement), Ok(()));
}

#[test]
fn a_worker_whose_offer_expired_is_not_asked_and_its_offer_is_forgotten_in_its_time() {
    use crate::core::offer::LIFETIME;
    let mut world = World::new(1, false);
    let over = world.now.plus(LIFETIME);
    assert_eq!(world.coordinator.poll_timeout(), Some(over.mono));
    world.now = over;
    world.submit(1, one());
    assert!(world.hosts[0].to_it.is_empty(), "a late offer matches nothing");
    assert_eq!(world.coordinator.offers().len(), 1);
    world.coordinator.handle_timeout(over);
    assert!(world.coordinator.offers().is_empty() && world.coordinator.candidates(over).is_empty());
    // It is asked as soon as it offers again.
    world.pass(seconds(1));
    world.meet();
    assert!(!world.hosts[0].to_it.is_empty());
}
