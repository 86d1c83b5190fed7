//! Workers that do not compute, and say what another replica committed to or shows.

use super::{tests::is_right, *};
use crate::{
    core::{
        pay::Verdict,
        signer::Signer,
        testing::{NETWORK, World, right, work, wrong},
    },
    wire::record::{COMMIT, CommitBody},
};

/// The task of a world whose first two workers both have it and have it staged; which of them is the honest one, which the copier.
fn two_replicas(world: &mut World) -> (TaskId, usize, usize) {
    let task = world.submit(1, Terms::default());
    let asked: Vec<_> = (0..world.hosts.len()).filter(|at| !world.hosts[*at].to_it.is_empty()).collect();
    for at in &asked {
        for _ in 0..3 {
            while world.hand_to_worker(*at) | world.hand_to_coordinator(*at) {}
        }
        world.stage(*at);
    }
    (task, asked[0], asked[1])
}

/// Everything happens from here on; the copier runs nothing more.
fn goes_on(world: &mut World, copier: usize) {
    for _ in 0..40 {
        loop {
            let mut moved = false;
            for at in (0..world.hosts.len()).filter(|at| *at != copier) {
                moved |=
                    world.hand_to_worker(at) | world.stage(at) | world.run(at, right) | world.hand_to_coordinator(at);
            }
            if !moved {
                break;
            }
        }
        world.pass(Duration::from_millis(500));
    }
}

#[test]
fn a_commit_that_was_copied_opens_nothing_and_pays_nothing() {
    let mut world = World::new(3, false);
    let (task, honest, copier) = two_replicas(&mut world);
    world.run(honest, right);
    let commit = world.hosts[honest].from_it.iter().find_map(|said| match said {
        ToCoordinator::Commit(record) => Some(record.clone()),
        _ => None,
    });
    let commit = commit.unwrap().verify::<CommitBody>(&COMMIT, &NETWORK, world.now.unix).unwrap();
    let (execution, _) = world.hosts[copier].runs.pop_first().unwrap();
    // It overheard the commit, and makes it its own.
    let signer = Signer::new(world.hosts[copier].key.clone(), NETWORK);
    let copied = CommitBody { execution, hash: commit.body().hash };
    let copied = signer.sign(&COMMIT, 0, world.now, &copied).unwrap();
    world.say_from_worker(copier, ToCoordinator::Commit(copied)).unwrap();
    while world.hand_to_coordinator(honest) {}
    while world.hand_to_worker(honest) {}
    let shown = world.hosts[honest].from_it.iter().find_map(|said| match said {
        ToCoordinator::Revealed { result, nonce, fuel, output, .. } => Some((*result, *nonce, *fuel, output.clone())),
        _ => None,
    });
    let (result, nonce, fuel, output) = shown.unwrap();
    let copied = ToCoordinator::Revealed { execution, result, nonce, fuel, output };
    assert_eq!(world.say_from_worker(copier, copied), Err(Reject::BadReveal));
    goes_on(&mut world, copier);
    assert!(is_right(&world, task, 1), "{:?}", world.coordinator.task(task));
    assert!(world.hosts[copier].claims.is_empty() && world.debts(copier) == (0, 0));
    let said: Vec<_> = world.verdicts.iter().filter(|(worker, ..)| *worker == world.hosts[copier].id).collect();
    assert!(said.iter().all(|(_, _, verdict, _)| *verdict == Verdict::Failed) && !said.is_empty(), "{said:?}");
}

#[test]
fn a_result_that_is_shown_and_was_not_committed_to_is_no_vote() {
    let mut world = World::new(3, false);
    let (task, honest, copier) = two_replicas(&mut world);
    world.run(honest, right);
    // A guess is committed to, with a nonce of its own; what is shown is what the other one shows.
    world.run(copier, |work| wrong(work, 7));
    while world.hand_to_coordinator(honest) | world.hand_to_coordinator(copier) {}
    while world.hand_to_worker(copier) {}
    let guess = world.hosts[copier].from_it.pop_front().unwrap();
    let ToCoordinator::Revealed { execution, nonce, output, .. } = guess else { panic!("{guess:?}") };
    let (result, fuel) = (right(&work(1)).hash().unwrap(), right(&work(1)).fuel);
    let copied = ToCoordinator::Revealed { execution, result, nonce, fuel, output };
    assert_eq!(world.say_from_worker(copier, copied), Err(Reject::BadReveal));
    goes_on(&mut world, copier);
    assert!(is_right(&world, task, 1), "{:?}", world.coordinator.task(task));
    let view = world.coordinator.task(task).unwrap();
    let copies = view.replicas.iter().filter(|replica| replica.worker == world.hosts[copier].id);
    assert!(copies.clone().count() > 0 && copies.clone().all(|replica| replica.result.is_none()), "{view:?}");
    assert!(world.hosts[copier].claims.is_empty());
}
