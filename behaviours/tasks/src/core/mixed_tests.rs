//! Tasks of a coordinator without a name: both cores, with a mixnet that loses and repeats between them.

use std::{collections::BTreeSet, time::Duration};

use fog_base::{NodeId, record::SignedRecord};
use serde_bytes::ByteBuf;

use super::{
    coordinator::{End, Failed},
    ids::ExecutionId,
    mixed,
    outcome::{Ending, HostEnd, Outcome},
    pay::{Balances, Credit, LocalAccounts, Payer, VOUCHER, Verdict},
    reject::Reject,
    signer::Signer,
    terms::{Class, Privacy, Terms},
    testing::{Host, NETWORK, World, key, right, submission, work},
    work::Work,
    worker::RunEvent,
};
use crate::wire::{
    Failure, Message, Refusal, Source, ToCoordinator, ToWorker,
    mixed::Request,
    record::{BID, BidBody},
};

fn terms() -> Terms {
    Terms { privacy: Privacy::Mixed, ..Terms::default() }
}

/// Workers of which some are relays.
fn world(workers: u64, relays: usize) -> World {
    let mut world = World::new(workers, false);
    let relays = world.hosts.iter().take(relays).map(|host| host.id).collect();
    world.coordinator.set_relays(relays, world.now);
    world.collect();
    world
}

/// What a worker was told through the mixnet, and by which keys.
#[derive(Default)]
struct Mixnet {
    keys: BTreeSet<(NodeId, ExecutionId, NodeId)>,
    said: Vec<ToWorker>,
    /// What a lying worker makes of its answers.
    lie: Option<fn(&mut ToCoordinator)>,
}

impl Mixnet {
    /// Carries what waits, except what is lost; false if nothing waits.
    fn carry(&mut self, world: &mut World, is_lost: &mut dyn FnMut() -> bool) -> bool {
        let mut moved = false;
        while let Some((to, execution, message)) = world.mixed.pop_front() {
            moved = true;
            let key = world.coordinator.execution_key(execution);
            let bytes = Request::sign(std::slice::from_ref(&message), &key, &NETWORK, to);
            let Request { coordinator, messages } = Request::open(&bytes, &NETWORK, to).unwrap();
            self.keys.insert((to, execution, coordinator));
            self.said.push(message);
            if is_lost() {
                continue;
            }
            let Some(host) = world.hosts.iter_mut().find(|host| host.id == to) else { continue };
            for message in messages {
                let _taken = host.worker.handle_nameless(coordinator, message, world.now);
            }
            world.collect();
        }
        for at in 0..world.hosts.len() {
            while let Some((to, message)) = world.hosts[at].answers.pop_front() {
                moved = true;
                let worker = world.hosts[at].id;
                let (_, execution, _) = *self.keys.iter().find(|(of, _, key)| (*of, *key) == (worker, to)).unwrap();
                let bytes = Message::ToCoordinator(message).encode();
                let Ok(Message::ToCoordinator(mut message)) = Message::decode(&bytes) else { unreachable!() };
                self.lie.into_iter().for_each(|lie| lie(&mut message));
                if !is_lost() {
                    let _taken = world.coordinator.handle_answer(worker, execution, message, world.now);
                    world.collect();
                }
            }
        }
        moved
    }

    fn settle(&mut self, world: &mut World, outcome: &dyn Fn(&Work) -> Outcome, is_lost: &mut dyn FnMut() -> bool) {
        loop {
            let mut moved = self.carry(world, is_lost);
            for at in 0..world.hosts.len() {
                moved |= world.stage(at) | world.run(at, outcome);
            }
            if !moved {
                return;
            }
        }
    }
}

fn never() -> bool {
    false
}

#[test]
fn a_mixed_task_is_done_by_workers_that_know_one_key_each_and_nothing_goes_directly() {
    let mut world = world(3, 3);
    let mut mixnet = Mixnet::default();
    let task = world.submit(1, terms());
    mixnet.settle(&mut world, &right, &mut never);
    let [End::Done { result, .. }] = world.ends[&task].as_slice() else { panic!("{:?}", world.ends) };
    assert_eq!(Some(*result), right(&work(1)).hash());
    let keys: BTreeSet<_> = mixnet.keys.iter().map(|(_, _, key)| *key).collect();
    assert!(keys.len() >= 2 && keys.len() == mixnet.keys.len(), "a key for each execution: {:?}", mixnet.keys);
    assert!(!keys.contains(&world.me()));
    let direct = world.hosts.iter().map(|host| host.to_it.len() + host.from_it.len()).sum::<usize>();
    assert_eq!((direct, world.verdicts.len()), (0, 0));
    // Nothing that a worker holds was signed by this node.
    let signer = |message: &ToWorker| match message {
        ToWorker::Bid { record, .. } | ToWorker::Lease(record) | ToWorker::Voucher(record) => {
            Some(SignedRecord::signer(record))
        }
        _ => None,
    };
    let signers: BTreeSet<_> = mixnet.said.iter().filter_map(signer).collect();
    assert_eq!(signers, keys);
    let view = world.coordinator.task(task).unwrap();
    let paid: Vec<_> = view.replicas.iter().filter_map(|replica| replica.paid).collect();
    assert!(paid.len() >= 2 && paid.iter().all(|paid| *paid > 0), "{view:?}");
    assert!(world.rows.keys().all(|key| key[0] != 5), "no account of the coordinator");
    let nobody = [[18].as_slice(), &mixed::NOBODY.0].concat();
    let kept: BTreeSet<_> = world.hosts.iter().flat_map(|host| host.rows.keys()).filter(|key| key[0] != 19).collect();
    assert_eq!(kept, BTreeSet::from([&nobody]), "a worker keeps what all without a name owe it");
    let owes = |host: &Host| world.accounts.balances().account(host.id, world.now.unix).balance.amount;
    assert!(world.hosts.iter().all(|host| owes(host) == 0), "nobody is owed anything by name");
}

#[test]
fn losses_and_repetitions_and_a_killed_coordinator_cost_nothing_but_time() {
    for seed in 0..20u64 {
        let mut world = world(3, 3);
        let mut mixnet = Mixnet::default();
        let mut draws = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut is_lost = move || {
            draws ^= draws << 13;
            draws ^= draws >> 7;
            draws ^= draws << 17;
            draws % 5 == 0
        };
        let task = world.submit(seed, terms());
        for round in 0..400 {
            mixnet.settle(&mut world, &right, &mut is_lost);
            if round == seed % 7 {
                world.restart_coordinator();
                let relays = world.hosts.iter().map(|host| host.id).collect();
                world.coordinator.set_relays(relays, world.now);
                world.collect();
            }
            world.pass(Duration::from_secs(4));
        }
        let ends = world.ends.get(&task).map(Vec::as_slice).unwrap_or_default();
        assert!(matches!(ends, [End::Done { .. }]), "{seed}: {ends:?}");
        assert!(world.hosts.iter().all(|host| host.to_it.is_empty()), "{seed}");
    }
}

#[test]
fn a_worker_that_never_answers_is_given_up_and_one_that_is_no_relay_is_not_asked() {
    let mut world = world(3, 2);
    let task = world.submit(1, Terms { trust_ppm: 0, replicas: 1, ..terms() });
    let (first, ..) = world.mixed.front().cloned().unwrap();
    let mut mixnet = Mixnet::default();
    for _ in 0..100 {
        // All that goes to it is lost.
        world.mixed.retain(|(to, ..)| *to != first);
        mixnet.settle(&mut world, &right, &mut never);
        world.pass(Duration::from_secs(2));
    }
    assert!(matches!(world.ends[&task].as_slice(), [End::Done { .. }]), "{:?}", world.ends);
    let asked: BTreeSet<_> = mixnet.keys.iter().map(|(worker, ..)| *worker).collect();
    assert_eq!(asked.len(), 1);
    assert!(!asked.contains(&first) && !asked.contains(&world.hosts[2].id));
    let explained = world.coordinator.explain(&work(1), &terms(), world.now);
    assert_eq!(explained.rejected.len(), 1);
    assert!(explained.rejected[0].1[0].to_string().contains("no relay"), "{explained:?}");
}

#[test]
fn nobody_can_try_whose_an_execution_is() {
    let mut world = world(2, 2);
    let mut mixnet = Mixnet::default();
    let _task = world.submit(1, terms());
    let _other = world.submit(2, terms());
    let said: Vec<_> = world.mixed.iter().cloned().collect();
    let of: Vec<_> = said.iter().filter(|(to, ..)| *to == said[0].0).collect();
    let [(worker, one, bid), (_, other, _)] = of[..] else { panic!("{said:?}") };
    // The worker agrees to the first, and says so in every way but the right one.
    let at = world.hosts.iter().position(|host| host.id == *worker).unwrap();
    let key = world.coordinator.execution_key(*one);
    let from = super::testing::id_of(&key);
    world.hosts[at].worker.handle_nameless(from, bid.clone(), world.now).unwrap();
    world.collect();
    let (_, agreement) = world.hosts[at].answers.pop_front().unwrap();
    world.mixed.clear();
    for message in [agreement.clone(), ToCoordinator::Ended { execution: *one, failure: Failure::Vacated }] {
        let direct = world.say_from_worker(at, message.clone());
        assert_eq!(direct, Err(Reject::UnknownExecution), "as any that nobody knows");
        let by_other = world.coordinator.handle_answer(*worker, *other, message, world.now);
        assert_eq!(by_other, Err(Reject::UnknownExecution));
        world.collect();
        assert!(world.mixed.is_empty(), "{:?}", world.mixed);
    }
    world.coordinator.handle_answer(*worker, *one, agreement, world.now).unwrap();
    world.collect();
    assert!(matches!(world.mixed[0], (_, id, ToWorker::Lease(_)) if id == *one));
    mixnet.settle(&mut world, &right, &mut never);
}

/// A bid of a mixed task, as the mixnet would bring it, with its key.
fn bid(world: &mut World, fuel: u64) -> (NodeId, ToWorker) {
    let mut wanted = submission(1, terms());
    wanted.work.limits.fuel = fuel;
    world.coordinator.submit(wanted, world.now).unwrap();
    world.collect();
    let (_, execution, message) = world.mixed.pop_front().unwrap();
    world.mixed.clear();
    (super::testing::id_of(&world.coordinator.execution_key(execution)), message)
}

#[test]
fn a_worker_takes_labelled_bids_from_the_mixnet_alone_and_all_nameless_together_have_one_credit() {
    let mut world = world(1, 1);
    let (from, message) = bid(&mut world, 1_000_000_000);
    let refusal = |world: &mut World| match world.hosts[0].answers.pop_front() {
        Some((_, ToCoordinator::Refused { reason, .. })) => Some(reason),
        Some((_, ToCoordinator::Agreement(_))) => None,
        other => panic!("{other:?}"),
    };
    // Over a stream, by somebody whose peer id is the key.
    world.hosts[0].worker.handle_message(from, message.clone(), world.now).unwrap();
    world.collect();
    assert_eq!(refusal(&mut world), Some(Refusal::Privacy));
    world.hosts[0].worker.handle_nameless(from, message, world.now).unwrap();
    world.collect();
    assert_eq!(refusal(&mut world), None);
    // A whole credit goes to the first of these; then nobody else without a name has any.
    let rate = 1_000;
    let fuel = Credit::default().limit / rate * 1_000_000_000;
    let (from, message) = bid(&mut world, fuel);
    world.hosts[0].worker.handle_nameless(from, message, world.now).unwrap();
    world.collect();
    assert_eq!(refusal(&mut world), Some(Refusal::Unpaid), "the first one's is set aside");
    let mut accounts = LocalAccounts::new(NodeId([1; 32]), Credit::default());
    accounts.earn(mixed::NOBODY, Credit::default().limit, world.now.unix);
    assert!(!accounts.may_spend(mixed::NOBODY, 1, world.now.unix));
}

#[test]
fn what_is_too_large_for_an_answer_ends_the_task() {
    let mut world = world(4, 4);
    let task = world.submit(7, terms());
    let mut mixnet = Mixnet::default();
    let large = |work: &Work| Outcome { stdout: vec![7; 70_000], ..right(work) };
    for _ in 0..200 {
        mixnet.settle(&mut world, &large, &mut never);
        world.pass(Duration::from_secs(1));
    }
    let [End::Failed(Failed::Hosts(why))] = world.ends[&task].as_slice() else { panic!("{:?}", world.ends) };
    assert_eq!(why, "output_too_large");
}

#[test]
fn nothing_is_fetched_for_a_mixed_task() {
    let mut world = world(1, 1);
    let blob = || Source::Blob(ByteBuf::from(vec![1; 8]));
    let mut wanted = submission(3, Terms { trust_ppm: 0, replicas: 1, ..terms() });
    let inline = std::mem::replace(&mut wanted.sources[0].1, blob());
    assert_eq!(world.coordinator.submit(wanted.clone(), world.now), Err(Reject::Sources));
    wanted.sources[0].1 = inline;
    world.coordinator.submit(wanted, world.now).unwrap();
    world.collect();
    // A coordinator that does otherwise.
    let mut mixnet = Mixnet::default();
    mixnet.carry(&mut world, &mut never);
    for (.., message) in &mut world.mixed {
        if let ToWorker::Stage { items, .. } = message {
            items[0].1 = blob();
        }
    }
    while mixnet.carry(&mut world, &mut never) {}
    assert!(mixnet.said.iter().any(|message| matches!(message, ToWorker::Stage { .. })));
    assert!(world.hosts[0].stages.is_empty());
    assert_eq!(world.coordinator.tasks().next().unwrap().replicas[0].state, "mismatch");
}

#[test]
fn an_output_that_would_have_to_be_fetched_from_its_worker_is_refused() {
    let mut world = world(1, 1);
    let task = world.submit(1, Terms { trust_ppm: 0, replicas: 1, ..terms() });
    let lie = |message: &mut ToCoordinator| {
        if let ToCoordinator::Revealed { output, .. } = message {
            *output = Some(Source::Blob(ByteBuf::from(vec![1; 8])));
        }
    };
    let mut mixnet = Mixnet { lie: Some(lie), ..Mixnet::default() };
    mixnet.settle(&mut world, &right, &mut never);
    assert_eq!(world.coordinator.task(task).unwrap().replicas[0].state, "bad_reveal");
}

/// A world whose only worker is as far with a task as it gets while `until` is not so, and the execution with its key.
fn held(until: fn(&World) -> bool) -> (World, ExecutionId, NodeId) {
    let mut world = world(1, 1);
    // Another result is waited for, so that this one is held.
    world.submit(1, Terms { replicas: 2, ..terms() });
    let mut mixnet = Mixnet::default();
    while !until(&world) {
        assert!(mixnet.carry(&mut world, &mut never) || world.stage(0) || world.run(0, right));
    }
    let (_, execution, key) = *mixnet.keys.first().unwrap();
    (world, execution, key)
}

/// Whether all without a name owe the worker something.
fn is_owed(world: &World) -> bool {
    world.hosts[0].rows.contains_key(&[[18].as_slice(), &mixed::NOBODY.0].concat())
}

#[test]
fn work_that_nobody_pays_for_counts_for_all_without_a_name() {
    // Cancelled when it is done.
    let is_done = |world: &World| world.hosts[0].ran == 1;
    let (mut world, execution, key) = held(is_done);
    assert!(!is_owed(&world));
    world.hosts[0].worker.handle_nameless(key, ToWorker::Cancel(execution), world.now).unwrap();
    world.collect();
    assert!(is_owed(&world));
    // Told to be worth nothing.
    let (mut world, execution, _) = held(is_done);
    let signer = Signer::new(world.coordinator.execution_key(execution), NETWORK);
    let worker = world.hosts[0].id;
    let issued = Payer::new().issue(worker, execution, Verdict::Failed, (0, 1_000), world.now.unix);
    let voucher = signer.sign(&VOUCHER, issued.number, world.now, &issued.voucher).unwrap();
    world.hosts[0].worker.handle_nameless(signer.me(), ToWorker::Voucher(voucher), world.now).unwrap();
    world.collect();
    assert!(is_owed(&world));
    // Left alone while it runs.
    let (mut world, execution, _) = held(|world| !world.hosts[0].runs.is_empty());
    world.hosts[0].worker.handle_run(execution, RunEvent::Started, world.now);
    world.pass(mixed::LEASE + Duration::from_secs(1));
    assert!(is_owed(&world));
    // Ended by its own doing, without a result.
    let (mut world, execution, _) = held(|world| !world.hosts[0].runs.is_empty());
    let worker = &mut world.hosts[0].worker;
    worker.handle_run(execution, RunEvent::Started, world.now);
    let deep = Outcome::ended(Ending::Host(HostEnd::StackOverflow), "");
    worker.handle_run(execution, RunEvent::Done(deep), world.now);
    world.collect();
    assert!(is_owed(&world));
    // And before it ran it costs nobody anything.
    let (mut world, ..) = held(|world| !world.hosts[0].stages.is_empty());
    world.pass(mixed::LEASE + Duration::from_secs(1));
    assert!(!is_owed(&world));
}

#[test]
fn those_without_a_name_leave_room_for_others() {
    let mut world = world(1, 1);
    let (worker, encoded) = (world.hosts[0].id, work(1).encode().unwrap());
    let asked = |number: u8, privacy| {
        let signer = Signer::new(key(u64::from(number) + 100), NETWORK);
        let body = BidBody {
            execution: ExecutionId([number; 16]),
            worker,
            work: Work::id_of(&encoded),
            offer_seq: if privacy == Privacy::Mixed { 0 } else { world.now.unix.0 },
            highest_rate: u64::MAX,
            staging_ms: 1_000,
            queueing_ms: 1_000,
            running_ms: 1_000,
            class: Class::Standard,
            privacy,
            features: Vec::new(),
        };
        let record = signer.sign(&BID, 1, world.now, &body).unwrap();
        (signer.me(), ToWorker::Bid { record, work: encoded.clone() })
    };
    let nameless: Vec<_> = (0..80).map(|number| asked(number, Privacy::Mixed)).collect();
    let named = asked(80, Privacy::Open);
    let mut answers = [0, 0];
    let answer = |world: &mut World| {
        world.collect();
        match world.hosts[0].answers.pop_front() {
            Some((_, ToCoordinator::Agreement(_))) => 0,
            Some((_, ToCoordinator::Refused { reason: Refusal::Busy, .. })) => 1,
            other => panic!("{other:?}"),
        }
    };
    for (from, message) in nameless {
        world.hosts[0].worker.handle_nameless(from, message, world.now).unwrap();
        answers[answer(&mut world)] += 1;
    }
    assert_eq!(answers, [64, 16], "a quarter of the queue");
    world.hosts[0].worker.handle_message(named.0, named.1, world.now).unwrap();
    assert_eq!(answer(&mut world), 0);
}

#[test]
fn a_lease_without_contents_ends_however_often_it_is_said() {
    let mut world = world(1, 1);
    world.submit(1, Terms { trust_ppm: 0, replicas: 1, ..terms() });
    let mut mixnet = Mixnet::default();
    for _ in 0..2 {
        world.mixed.retain(|(.., message)| !matches!(message, ToWorker::Stage { .. }));
        mixnet.carry(&mut world, &mut never);
    }
    let (_, _, key) = *mixnet.keys.first().unwrap();
    let lease = mixnet.said.iter().find(|message| matches!(message, ToWorker::Lease(_))).cloned().unwrap();
    assert_eq!(world.hosts[0].worker.load().waiting, 1);
    for _ in 0..10 {
        world.pass(Duration::from_secs(10));
        world.mixed.clear();
        let _again = world.hosts[0].worker.handle_nameless(key, lease.clone(), world.now);
        world.collect();
    }
    assert_eq!(world.hosts[0].worker.load().waiting, 0);
}
