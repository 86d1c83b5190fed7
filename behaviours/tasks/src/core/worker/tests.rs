//! What a worker refuses.

use super::*;
use crate::core::{
    pay::Credit,
    terms::Terms,
    testing::{NETWORK, World, id_of, key, offer, right, start, work},
};

fn one() -> Terms {
    Terms { trust_ppm: 500_000, replicas: 1, ..Terms::default() }
}

#[test]
fn a_bid_for_another_work_than_it_names_is_refused() {
    let mut world = World::new(1, false);
    world.submit(1, one());
    let Some(ToWorker::Bid { record, .. }) = world.hosts[0].to_it.pop_front() else { panic!() };
    let work = work(2).encode().unwrap();
    let (from, now) = (world.me(), world.now);
    let taken = world.hosts[0].worker.handle_message(from, ToWorker::Bid { record, work }, now);
    assert_eq!(taken, Err(Reject::Contradicts));
}

#[test]
fn a_coordinator_that_owes_too_much_is_refused() {
    let now = start();
    let key = key(1);
    let credit = Credit { limit: 0, ..Credit::default() };
    let mut world = World::new(1, false);
    let mut poor = Worker::new(Config::default(), key.clone(), NETWORK, LocalAccounts::new(id_of(&key), credit), now);
    poor.set_capacity(offer(), world.now);
    world.hosts[0].worker = poor;
    world.submit(1, one());
    world.hand_to_worker(0);
    let said = world.hosts[0].from_it.pop_front();
    assert!(matches!(said, Some(ToCoordinator::Refused { reason: Refusal::Unpaid, .. })), "{said:?}");
}

#[test]
fn contents_that_are_not_the_works_end_it() {
    let mut world = World::new(1, false);
    world.submit(1, one());
    while world.hand_to_worker(0) | world.hand_to_coordinator(0) {
        if let Some(ToWorker::Lease(_)) = world.hosts[0].to_it.front() {
            break;
        }
    }
    world.hand_to_worker(0);
    let Some(ToWorker::Stage { execution, mut items }) = world.hosts[0].to_it.pop_front() else { panic!() };
    items[0].1 = Source::Inline(serde_bytes::ByteBuf::from(*b"modulE"));
    let (from, now) = (world.me(), world.now);
    let taken = world.hosts[0].worker.handle_message(from, ToWorker::Stage { execution, items }, now);
    assert_eq!(taken, Err(Reject::Contradicts));
    assert!(world.hosts[0].stages.is_empty());
}

#[test]
fn a_voucher_for_less_or_for_more_than_was_used_is_refused() {
    use crate::core::pay::{Interval, VOUCHER, Verdict, Voucher};
    use fog_base::record::{SignedRecord, Validity};

    let mut world = World::new(1, false);
    world.submit(1, one());
    while !matches!(world.hosts[0].to_it.front(), Some(ToWorker::Voucher(_))) {
        assert!(world.hand_to_worker(0) | world.stage(0) | world.run(0, right) | world.hand_to_coordinator(0));
    }
    let Some(ToWorker::Voucher(good)) = world.hosts[0].to_it.pop_front() else { panic!() };
    let (from, now) = (world.me(), world.now);
    let honest = *good.clone().verify::<Voucher>(&VOUCHER, &NETWORK, now.unix).unwrap().body();
    for (verdict, fuel, cumulative) in [
        (Verdict::Good, honest.fuel - 1, honest.cumulative),
        (Verdict::Good, honest.fuel, honest.cumulative - 1),
        (Verdict::Good, honest.fuel, honest.cumulative + 1),
    ] {
        let voucher = Voucher { verdict, fuel, cumulative, ..honest };
        let validity = Validity { seq: 1, not_before: now.unix, lifetime: Duration::from_secs(60) };
        let record = SignedRecord::sign(&VOUCHER, &NETWORK, &world.key, validity, &voucher).unwrap();
        let taken = world.hosts[0].worker.handle_message(from, ToWorker::Voucher(record), now);
        assert_eq!(taken, Err(Reject::BadVoucher), "{verdict:?} {fuel} {cumulative}");
    }
    assert_eq!(honest.interval, Interval::at(now.unix));
    assert_eq!(world.hosts[0].worker.handle_message(from, ToWorker::Voucher(good), now), Ok(()));
}

#[test]
fn nothing_begins_while_the_host_is_frozen_and_its_time_does_not_run() {
    let mut world = World::new(1, false);
    let mut terms = one();
    terms.clocks.running_ms = Some(10_000);
    terms.class = Class::BestEffort;
    world.submit(1, terms);
    for _ in 0..3 {
        while world.hand_to_worker(0) | world.hand_to_coordinator(0) {}
    }
    world.stage(0);
    let (execution, _) = world.hosts[0].runs.first_key_value().map(|(id, work)| (*id, work.clone())).unwrap();
    let now = world.now;
    let worker = &mut world.hosts[0].worker;
    worker.handle_run(execution, RunEvent::Started, now);
    worker.set_frozen(true, now);
    assert_eq!(worker.phase(execution), Some(Phase::Frozen));
    let later = now.plus(Duration::from_secs(20));
    worker.set_frozen(false, later);
    assert_eq!(worker.phase(execution), Some(Phase::Running));
    // Ten seconds, a tenth, and two: all still to come.
    worker.handle_timeout(later.plus(Duration::from_secs(9)));
    assert_eq!(worker.phase(execution), Some(Phase::Running));
    worker.handle_timeout(later.plus(Duration::from_secs(14)));
    assert_eq!(worker.phase(execution), None);
}

#[test]
fn offers_come_when_something_changes_but_not_more_often_than_every_five_seconds() {
    let now = start();
    let balances = LocalAccounts::new(id_of(&key(1)), Credit::default());
    let mut worker = Worker::new(Config::default(), key(1), NETWORK, balances, now);
    let published = |worker: &mut Worker, now: Now| {
        worker.handle_timeout(now);
        std::iter::from_fn(|| worker.poll_output()).filter(|output| matches!(output, Output::Publish(_))).count()
    };
    assert_eq!(published(&mut worker, now), 0, "nothing is offered yet");
    worker.set_capacity(offer(), now);
    assert_eq!(published(&mut worker, now), 1);
    worker.set_frozen(true, now);
    assert_eq!(published(&mut worker, now), 0, "too soon");
    assert_eq!(worker.poll_timeout(), Some((now.plus(Duration::from_secs(5))).mono));
    assert_eq!(published(&mut worker, now.plus(Duration::from_secs(5))), 1);
    assert_eq!(published(&mut worker, now.plus(Duration::from_secs(100))), 0);
    assert_eq!(published(&mut worker, now.plus(Duration::from_secs(125))), 1, "refreshed");
}

#[test]
fn debts_outlive_a_restart_and_count_for_credit_and_those_that_are_forgiven_leave_no_row() {
    let credit = Credit { limit: 10, forgiven_per_hour: 10 };
    let now = start();
    let (me, peer) = (key(1), id_of(&key(2)));
    let fresh = |now| Worker::new(Config::default(), me.clone(), NETWORK, LocalAccounts::new(id_of(&me), credit), now);
    let mut worker = fresh(now);
    worker.owe(peer, 25, now);
    worker.owe(id_of(&me), 25, now);
    let rows: Vec<_> = std::iter::from_fn(|| worker.poll_output())
        .filter_map(|output| if let Output::Persist(rows) = output { Some(rows) } else { None })
        .flatten()
        .map(|row| (row.key, row.value.unwrap()))
        .collect();
    assert_eq!(rows.len(), 1, "nobody owes itself");
    let mut again = fresh(now);
    again.restore(rows.clone(), now);
    assert_eq!(again.balances().account(peer, now.unix).balance.amount, -25);
    assert!(again.balances().may_spend(peer, 35, now.unix) && !again.balances().may_spend(peer, 36, now.unix));
    let later = now.plus(Duration::from_secs(3 * 3600));
    let mut much_later = fresh(later);
    much_later.restore(rows.clone(), later);
    let Some(Output::Persist(removed)) = much_later.poll_output() else { panic!() };
    assert_eq!((removed[0].key.clone(), &removed[0].value), (rows[0].0.clone(), &None));
}

#[test]
fn a_worker_that_was_there_for_a_month_asks_more_also_after_a_restart() {
    let balances = || LocalAccounts::new(id_of(&key(1)), Credit::default());
    let (mut now, mut rows) = (start(), std::collections::BTreeMap::new());
    let fresh = |now| Worker::new(Config::default(), key(1), NETWORK, balances(), now);
    let mut worker = fresh(now);
    worker.set_capacity(offer(), now);
    let idle = worker.offer().rate();
    for tick in 0..32 * 24 * 6 {
        worker.handle_timeout(now);
        while let Some(output) = worker.poll_output() {
            if let Output::Persist(kept) = output {
                rows.extend(kept.into_iter().map(|row| (row.key, row.value.unwrap())));
            }
        }
        if tick % 2_000 == 1_999 {
            worker = fresh(now);
            worker.restore(rows.clone(), now);
            worker.set_capacity(offer(), now);
        }
        now = now.plus(Duration::from_secs(600));
    }
    let rate = worker.offer().rate();
    assert!(rate > idle * 124 / 100 && rate <= idle * 125 / 100, "{idle} {rate}");
}
