use std::time::Duration;

use super::*;
use crate::core::testing::{NETWORK, after, identity, node, receipt, schedule, start};

fn terms(client: u32, value: u64) -> Terms {
    Terms { service: Service::Task, client: node(client), value, nonce: [4; 16] }
}

fn on() -> (&'static NetworkId, EpochSchedule) {
    (&NETWORK, schedule())
}

fn deal(client: u32, value: u64, now: UnixMillis) -> Result<Deal, Reject> {
    let (network, schedule) = on();
    Deal::sign(&identity(2), (network, &schedule), terms(client, value), now)
}

fn check(bytes: &[u8], now: UnixMillis) -> Result<Receipt, Reject> {
    Claim::parse(bytes, &schedule(), now).and_then(|claim| claim.verify(&NETWORK, now))
}

#[test]
fn a_receipt_survives_the_wire_and_says_who_did_what() {
    let now = start().unix;
    for verdict in Verdict::ALL {
        let receipt = receipt((1, 2), 1_500, verdict, now, 1);
        let read = check(receipt.as_bytes(), now).unwrap();
        assert_eq!(read, receipt);
        let facts = read.facts();
        assert_eq!((facts.server, facts.terms.client, facts.verdict), (node(2), node(1), verdict));
        assert_eq!((facts.made, facts.weight(1_000, 8.0), facts.weight(1_000, 1.0)), (now, 1.5, 1.0));
    }
    let size = receipt((1, 2), u64::MAX, Verdict::Wrong, now, u64::MAX).as_bytes().len();
    assert_eq!(size, 328, "the README says how large a receipt is");
}

#[test]
fn a_deal_is_checked_before_work_begins() {
    let now = start().unix;
    let deal = deal(1, 5, now).unwrap();
    let (network, schedule) = on();
    let verify = |bytes: &[u8], now| Deal::verify(bytes, (network, &schedule), now);
    assert_eq!(verify(deal.as_bytes(), now).as_ref(), Ok(&deal));
    assert_eq!((deal.server(), deal.terms().value), (node(2), 5));
    let mut forged = deal.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(verify(&forged, now), Err(Reject::BadSignature));
    assert_eq!(verify(deal.as_bytes(), after(start(), 3.0).unix), Err(Reject::Expired));
}

#[test]
fn every_flipped_bit_is_refused() {
    let now = start().unix;
    let good = receipt((1, 2), 1_000, Verdict::Good, now, 1);
    for bit in 0..good.as_bytes().len() * 8 {
        let mut bytes = good.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&bytes, now).is_err(), "bit {bit}");
    }
}

#[test]
fn nobody_serves_itself_and_nothing_is_worth_nothing() {
    let now = start().unix;
    assert_eq!(deal(2, 1, now), Err(Reject::SelfPraise));
    assert_eq!(deal(1, 0, now), Err(Reject::Malformed));
}

#[test]
fn a_receipt_counts_from_its_deal_until_two_epochs_after_its_own() {
    let start = start();
    let receipt = receipt((1, 2), 1_000, Verdict::Good, start.unix, 1);
    let at = |epochs| check(receipt.as_bytes(), after(start, epochs).unix).map(|_| ());
    assert_eq!((at(0.0), at(2.9)), (Ok(()), Ok(())));
    assert_eq!(at(3.0), Err(Reject::Expired));
    let before = |seconds| check(receipt.as_bytes(), start.unix.minus(Duration::from_secs(seconds))).map(|_| ());
    assert_eq!((before(60), before(61)), (Ok(()), Err(Reject::TooEarly)));
}

/// The record's own end is its signer's choice; what was counted is forgotten when the epoch closes, whatever it says.
#[test]
fn a_longer_lifetime_does_not_keep_a_receipt_alive() {
    let begin = start();
    let (now, (network, schedule)) = (begin.unix, on());
    let long = || Validity { lifetime: Duration::from_secs(20 * 86_400), ..validity(&schedule, now, now) };
    let body = DealBody { service: 3, client: node(1), value: 5, nonce: [4; 16] };
    let deal = SignedRecord::sign(&DEAL, network, &identity(2), long(), &body).unwrap();
    let body = ReceiptBody { deal: ByteBuf::from(deal.as_bytes()), verdict: 0 };
    let record = SignedRecord::sign(&RECEIPT, network, &identity(1), long(), &body).unwrap();
    assert!(check(record.as_bytes(), after(begin, 2.9).unix).is_ok());
    assert_eq!(check(record.as_bytes(), after(begin, 3.0).unix), Err(Reject::Expired));
    assert_eq!(Deal::verify(deal.as_bytes(), (network, &schedule), after(begin, 3.0).unix), Err(Reject::Expired));
}

#[test]
fn only_the_client_of_the_deal_can_judge_it() {
    let now = start().unix;
    let deal = deal(1, 5, now).unwrap();
    let (network, schedule) = on();
    let other = Receipt::sign(&identity(3), (network, &schedule), &deal, Verdict::Wrong, now);
    assert_eq!(other, Err(Reject::NotOurs));
    // The same by hand, as a dishonest node would.
    let body = ReceiptBody { deal: ByteBuf::from(deal.as_bytes()), verdict: 2 };
    let forged = SignedRecord::sign(&RECEIPT, network, &identity(3), validity(&schedule, now, now), &body).unwrap();
    assert_eq!(check(forged.as_bytes(), now), Err(Reject::Malformed));
    // A verdict that is older than the deal.
    let before = validity(&schedule, now, now.minus(Duration::from_secs(1)));
    let early = SignedRecord::sign(&RECEIPT, network, &identity(1), before, &body).unwrap();
    assert_eq!(check(early.as_bytes(), now), Err(Reject::Malformed));
}

#[test]
fn a_deal_that_the_server_did_not_sign_is_refused() {
    let now = start().unix;
    let deal = deal(1, 5, now).unwrap();
    let mut forged = deal.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let (network, schedule) = on();
    let body = ReceiptBody { deal: ByteBuf::from(forged), verdict: 0 };
    let record = SignedRecord::sign(&RECEIPT, network, &identity(1), validity(&schedule, now, now), &body).unwrap();
    assert_eq!(check(record.as_bytes(), now), Err(Reject::BadSignature));
}

#[test]
fn another_network_and_another_version_are_refused() {
    let now = start().unix;
    let good = receipt((1, 2), 1_000, Verdict::Good, now, 1);
    let claim = Claim::parse(good.as_bytes(), &schedule(), now).unwrap();
    assert_eq!(claim.verify(&NetworkId([8; 32]), now), Err(Reject::BadSignature));
    let mut newer = good.as_bytes().to_vec();
    newer[3] = 2;
    assert_eq!(check(&newer, now), Err(Reject::UnknownVersion));
    assert_eq!(Reject::UnknownVersion.weight(), 0.0, "a newer version is no misconduct");
}

proptest::proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        proptest::prop_assert!(check(&bytes, UnixMillis(1_800_000_000_000)).is_err());
    }
}
