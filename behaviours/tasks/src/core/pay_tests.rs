use fog_base::record::Verified;
use proptest::prelude::*;

use super::*;
use crate::{
    core::{
        reject::Reject,
        signer::Signer,
        terms::Terms,
        testing::{NETWORK, World, holds_often, right},
    },
    wire::ToCoordinator,
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const WORKER: NodeId = NodeId([1; 32]);
const COORDINATOR: NodeId = NodeId([2; 32]);

fn execution(n: u16) -> ExecutionId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    ExecutionId(id)
}

#[test]
fn prices_round_up_and_saturate() {
    assert_eq!((price(0, 5), price(1, 1), price(GIGA, 7), price(GIGA + 1, 7)), (0, 1, 7, 8));
    assert_eq!(price(u64::MAX, u64::MAX), u64::MAX);
    assert_eq!((highest_rate(8, GIGA), highest_rate(u64::MAX, 1)), (8, u64::MAX));
}

#[test]
fn a_busy_worker_asks_more() {
    let curve = Price { rate: 1_000, scarcity_ppm: 500_000, uptime_ppm: 1_000_000 };
    assert_eq!((rate(&curve, 0), rate(&curve, PPM / 2), rate(&curve, PPM)), (1_000, 1_125, 1_500));
    assert_eq!((rate(&curve, 2 * PPM), rate(&curve, u32::MAX)), (3_000, 3_000));
    assert_eq!(rate(&Price { uptime_ppm: 1_250_000, ..curve }, PPM), 1_875);
    assert_eq!(
        (load_ppm(4, 4, 0), load_ppm(4, 1, 1), load_ppm(4, 0, 100), load_ppm(0, 0, 0)),
        (0, PPM, 2 * PPM, 2 * PPM)
    );
}

#[test]
fn the_same_execution_gets_the_same_voucher() {
    let mut payer = Payer::new();
    let first = payer.issue(WORKER, execution(1), Verdict::Good, (5 * GIGA, 3), NOW);
    let second = payer.issue(WORKER, execution(2), Verdict::Wrong, (5 * GIGA, 3), NOW);
    let again = payer.issue(WORKER, execution(1), Verdict::Good, (9 * GIGA, 9), NOW.plus(Duration::from_secs(1)));
    assert_eq!((again, first.amount, first.voucher.cumulative), (first, 15, 15));
    assert_eq!((second.number, second.amount, second.voucher.fuel, second.voucher.cumulative), (2, 0, 0, 15));
    let interval = first.voucher.interval;
    assert!(
        payer.acknowledge(WORKER, interval, (15, b"has it")) && !payer.acknowledge(WORKER, interval, (16, b"more"))
    );
    let receipt = ByteBuf::from(b"has it");
    assert_eq!(payer.account(WORKER, interval), Paid { number: 2, cumulative: 15, acknowledged: 15, receipt });
}

#[test]
fn vouchers_go_on_after_a_restart_of_both() {
    let (mut payer, mut payee) = (Payer::new(), Payee::new());
    let first = payer.issue(WORKER, execution(1), Verdict::Good, (GIGA, 10), NOW);
    payee.take(COORDINATOR, (first.number, b"first"), &first.voucher, (GIGA, 10), NOW).unwrap();
    let interval = first.voucher.interval;
    let (mut payer_after, mut payee_after) = (Payer::new(), Payee::new());
    payer_after.restore(WORKER, interval, payer.account(WORKER, interval));
    payer_after.restore_issued(first);
    let row = fog_base::codec::encode(payee.account(COORDINATOR, interval).unwrap(), 1_000).unwrap();
    payee_after.restore(COORDINATOR, interval, fog_base::codec::decode(&row, 1_000).unwrap());
    assert_eq!(payer_after.issue(WORKER, execution(1), Verdict::Good, (GIGA, 10), NOW), first);
    let next = payer_after.issue(WORKER, execution(2), Verdict::Good, (GIGA, 10), NOW);
    assert_eq!((next.number, next.voucher.cumulative), (2, 20));
    let promised = |payee: &Payee| payee.account(COORDINATOR, interval).map(|it| (it.number(), it.voucher().to_vec()));
    assert_eq!(promised(&payee_after), Some((1, b"first".to_vec())));
    assert_eq!(payee_after.take(COORDINATOR, (next.number, b"next"), &next.voucher, (GIGA, 10), NOW), Ok(10));
    assert_eq!(promised(&payee_after), Some((2, b"next".to_vec())));
}

#[test]
fn a_double_charge_is_refused_in_whichever_order_it_comes() {
    let voucher = |n, cumulative| Voucher {
        execution: execution(n),
        verdict: Verdict::Good,
        fuel: GIGA,
        interval: Interval::at(NOW),
        cumulative,
    };
    let take = |payee: &mut Payee, number, cumulative| {
        payee.take(COORDINATOR, (number, b"signed"), &voucher(number as u16, cumulative), (GIGA, 10), NOW)
    };
    // The sum did not grow, fell, or grew by less than the two.
    for (first, second) in [((1, 10), (2, 10)), ((1, 10), (2, 5)), ((1, 10), (3, 15)), ((1, 10), (3, 10))] {
        for (one, other) in [(first, second), (second, first)] {
            let mut payee = Payee::new();
            assert!(take(&mut payee, one.0, one.1).is_err() || take(&mut payee, other.0, other.1).is_err());
            assert!(payee.account(COORDINATOR, Interval::at(NOW)).map_or(0, Earned::total) <= 10);
        }
    }
    let mut payee = Payee::new();
    assert_eq!(take(&mut payee, 1, 9), Err(VoucherReject::SumFalls));
    assert_eq!(take(&mut payee, 1, 10), Ok(10));
    assert_eq!(take(&mut payee, 1, 10), Err(VoucherReject::Known));
    let wrong_fuel = Voucher { fuel: 1, ..voucher(2, 20) };
    assert_eq!(payee.take(COORDINATOR, (2, b"signed"), &wrong_fuel, (GIGA, 10), NOW), Err(VoucherReject::WrongFuel));
    let old = Voucher { interval: Interval(Interval::at(NOW).0 - 3), ..voucher(2, 20) };
    assert_eq!(payee.take(COORDINATOR, (2, b"signed"), &old, (GIGA, 10), NOW), Err(VoucherReject::WrongInterval));
}

#[test]
fn what_waits_beyond_a_gap_is_bounded_and_the_gap_can_still_be_filled() {
    let mut payee = Payee::new();
    let voucher = |number: u64| Voucher {
        execution: execution(number as u16),
        verdict: Verdict::Good,
        fuel: GIGA,
        interval: Interval::at(NOW),
        cumulative: number,
    };
    let mut take = |number| payee.take(COORDINATOR, (number, b"signed"), &voucher(number), (GIGA, 1), NOW);
    assert!((2..MAX_AHEAD as u64 + 2).all(|number| take(number).is_ok()));
    assert_eq!(take(MAX_AHEAD as u64 + 2), Err(VoucherReject::TooFarAhead));
    assert_eq!(take(1), Ok(1));
    assert_eq!(take(MAX_AHEAD as u64 + 2), Ok(1));
}

#[test]
fn a_peer_gets_credit_up_to_the_limit_and_debts_fade() {
    let mut accounts = LocalAccounts::new(COORDINATOR, Credit { limit: 100, forgiven_per_hour: 10 });
    assert!(accounts.may_spend(WORKER, 100, NOW) && !accounts.may_spend(WORKER, 101, NOW));
    accounts.reserve(WORKER, 60, NOW);
    assert!(accounts.may_spend(WORKER, 40, NOW) && !accounts.may_spend(WORKER, 41, NOW));
    accounts.release(WORKER, 60, NOW);
    accounts.earn(WORKER, 80, NOW);
    assert!(!accounts.may_spend(WORKER, 21, NOW));
    let hours = |n: u64| NOW.plus(Duration::from_secs(n * 3600));
    assert!(accounts.may_spend(WORKER, 40, hours(2)) && !accounts.may_spend(WORKER, 41, hours(2)));
    assert!(!accounts.may_spend(WORKER, 101, hours(1000)));
    accounts.owe(WORKER, 120, NOW);
    assert!(accounts.may_spend(WORKER, 140, NOW) && !accounts.may_spend(WORKER, 141, NOW));
    accounts.earn(COORDINATOR, 1_000, NOW);
    assert!(accounts.may_spend(COORDINATOR, u64::MAX, NOW));
}

#[test]
fn balances_are_kept_as_long_as_something_is_owed() {
    let credit = Credit { limit: 100, forgiven_per_hour: 10 };
    let mut accounts = LocalAccounts::new(COORDINATOR, credit);
    accounts.earn(WORKER, 30, NOW);
    accounts.reserve(WORKER, 50, NOW);
    let kept = accounts.kept(WORKER).unwrap();
    let bytes = fog_base::codec::encode(&kept, 100).unwrap();
    let later = |hours: u64| {
        let mut again = LocalAccounts::new(COORDINATOR, credit);
        let now = NOW.plus(Duration::from_secs(hours * 3600));
        again.restore(WORKER, fog_base::codec::decode(&bytes, 100).unwrap(), now);
        (again.account(WORKER, now).balance.amount, again.account(WORKER, now).reserved, again.kept(WORKER).is_some())
    };
    // What was reserved is not: the agreements are gone too. What was forgiven meanwhile is not forgiven again.
    assert_eq!((later(0), later(1), later(3)), ((30, 0, true), (20, 0, true), (0, 0, false)));
    accounts.owe(WORKER, 30, NOW);
    assert_eq!(accounts.kept(WORKER), None);
}

proptest! {
    /// Any order, repetition and loss: what the worker counts is the sum of the amounts of the distinct vouchers that it has, and never
    /// more than the highest sum that the coordinator gave.
    #[test]
    fn no_order_repetition_or_loss_of_vouchers_pays_twice(
        fuels in proptest::collection::vec((0u64..5 * GIGA, 0u8..3), 1..30),
        deliveries in proptest::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        const RATE: u64 = 7;
        let mut payer = Payer::new();
        let issued: Vec<(Issued, u64)> = fuels.iter().zip(0u16..).map(|((fuel, verdict), n)| {
            let verdict = [Verdict::Good, Verdict::Wrong, Verdict::Failed][usize::from(*verdict)];
            (payer.issue(WORKER, execution(n), verdict, (*fuel, RATE), NOW), *fuel)
        }).collect();
        let mut payee = Payee::new();
        let (mut there, mut paid) = (std::collections::BTreeSet::new(), 0);
        for delivery in deliveries {
            let (issued, fuel) = delivery.get(&issued);
            let first = there.insert(issued.number);
            match payee.take(COORDINATOR, (issued.number, b"signed"), &issued.voucher, (*fuel, RATE), NOW) {
                Ok(amount) => {
                    prop_assert!(first);
                    paid += amount;
                }
                Err(reject) => prop_assert!(!first && reject == VoucherReject::Known, "{reject:?}"),
            }
        }
        let due: u64 = issued.iter().filter(|(it, _)| there.contains(&it.number)).map(|(it, _)| it.amount).sum();
        let total = payee.account(COORDINATOR, Interval::at(NOW)).map_or(0, Earned::total);
        prop_assert_eq!((paid, total), (due, due));
        prop_assert!(total <= payer.account(WORKER, Interval::at(NOW)).cumulative);
    }

    #[test]
    fn a_price_within_the_highest_rate_is_within_the_highest_price(fuel in 1u64..1 << 40, most in 0u64..1 << 40) {
        prop_assert!(price(fuel, highest_rate(most, fuel)) <= most);
    }
}

/// Whatever sums a coordinator makes up, a worker never counts more than the highest of those that it took.
#[test]
fn made_up_sums_never_count_more_than_the_highest() {
    let sums = proptest::collection::vec((1u64..12, 0u64..60), 1..40);
    // In most of them more than one is taken.
    holds_often(sums, 256, 128, |vouchers| {
        let mut payee = Payee::new();
        let (mut highest, mut taken) = (0, 0);
        for (number, cumulative) in vouchers {
            let voucher = Voucher {
                execution: execution(number as u16),
                verdict: Verdict::Good,
                fuel: GIGA,
                interval: Interval::at(NOW),
                cumulative,
            };
            if payee.take(COORDINATOR, (number, b"signed"), &voucher, (GIGA, 5), NOW).is_ok() {
                highest = highest.max(cumulative);
                taken += 1;
            }
        }
        let total = payee.account(COORDINATOR, Interval::at(NOW)).map_or(0, Earned::total);
        prop_assert!(total <= highest && total == 5 * taken, "{total} of {taken}, at most {highest}");
        Ok(taken > 1)
    });
}

#[test]
fn old_accounts_leave_the_store_as_well() {
    let count = |rows: &BTreeMap<Vec<u8>, Vec<u8>>, prefix: u8| rows.keys().filter(|key| key[0] == prefix).count();
    // As after years: the account with one peer in each of many hours.
    let age = |rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, prefix: u8| {
        let (key, value) = rows.iter().find(|(key, _)| key[0] == prefix).unwrap();
        let (key, value) = (key.clone(), value.clone());
        let (name, hour) = key.split_last_chunk::<4>().unwrap();
        let hour = u32::from_be_bytes(*hour);
        let hours = hour - MAX_ACCOUNTS as u32..hour;
        rows.extend(hours.map(|hour| ([name, &hour.to_be_bytes()].concat(), value.clone())));
        [name, &(hour - MAX_ACCOUNTS as u32).to_be_bytes()].concat()
    };
    let mut world = World::new(1, false);
    world.submit(1, Terms { trust_ppm: 0, replicas: 1, ..Terms::default() });
    world.settle();
    let oldest = [age(&mut world.rows, 5), age(&mut world.hosts[0].rows, 17)];
    world.restart_coordinator();
    world.restart_worker(0);
    let counts = |world: &World| [count(&world.rows, 5), count(&world.hosts[0].rows, 17)];
    assert_eq!(counts(&world), [MAX_ACCOUNTS; 2]);
    assert!(!world.rows.contains_key(&oldest[0]) && !world.hosts[0].rows.contains_key(&oldest[1]));
    // In another hour, with an offer of that hour.
    world.pass(Duration::from_millis(INTERVAL_MS));
    world.restart_worker(0);
    let task = world.submit(2, Terms { trust_ppm: 0, replicas: 1, ..Terms::default() });
    world.settle();
    assert!(world.ends.contains_key(&task));
    assert_eq!(counts(&world), [MAX_ACCOUNTS; 2]);
}

#[test]
fn an_acknowledgement_of_another_sum_closes_nothing() {
    let mut world = World::new(1, false);
    world.submit(1, Terms { trust_ppm: 0, replicas: 1, ..Terms::default() });
    let (execution, record) = loop {
        let moved = world.hand_to_worker(0) | world.stage(0) | world.run(0, right);
        if let Some(ToCoordinator::Acknowledged { execution, record }) = world.hosts[0].from_it.front() {
            break (*execution, record.clone());
        }
        assert!(world.hand_to_coordinator(0) | moved);
    };
    let (worker, key) = (world.hosts[0].id, world.hosts[0].key.clone());
    let signer = Signer::new(key, NETWORK);
    let said: Verified<Acknowledged> = signer.open(record, &ACKNOWLEDGED, worker, world.now).unwrap();
    let less = Acknowledged { cumulative: 0, ..*said.body() };
    let record = signer.sign(&ACKNOWLEDGED, 1, world.now, &less).unwrap();
    let lie = ToCoordinator::Acknowledged { execution, record };
    assert_eq!(world.coordinator.handle_message(worker, lie, world.now), Err(Reject::Contradicts));
    let kept = |world: &World| world.coordinator.accounts().map(|(.., paid)| paid.acknowledged).collect::<Vec<_>>();
    assert_eq!(kept(&world), [0]);
    world.settle();
    assert_eq!(kept(&world), [said.body().cumulative]);
}
