use super::*;
use crate::core::{
    receipt::Verdict::{self, Good, Wrong},
    testing::{NETWORK, after, identity, node, receipt, report, schedule, sign_report, start},
};

fn check(bytes: &[u8], now: UnixMillis) -> Result<Report, Reject> {
    Claim::parse(bytes, &schedule(), now).and_then(|claim| claim.verify(&NETWORK, now))
}

#[test]
fn a_report_is_what_its_receipts_show() {
    let now = start().unix;
    let bytes = report((1, 2), &[Good, Good, Wrong], now, now);
    let report = check(&bytes, now).unwrap();
    assert_eq!((report.reporter(), report.subject(), report.epoch()), (node(1), node(2), schedule().at(now)));
    let verdicts: Vec<_> = report.facts().iter().map(|facts| facts.verdict).collect();
    assert_eq!(verdicts, [Good, Good, Wrong]);
}

#[test]
fn the_largest_report_fits() {
    let now = start().unix;
    let receipts: Vec<_> = (0..8).map(|n| receipt((1, 2), u64::MAX, Wrong, now, u64::MAX - n)).collect();
    let bytes = sign_report(1, 2, &receipts, now, now);
    assert_eq!((bytes.len(), check(&bytes, now).is_ok()), (2_820, true), "the README says how large");
    let nine: Vec<_> = (0..9).map(|n| receipt((1, 2), 1, Good, now, n)).collect();
    assert_eq!(check(&sign_report(1, 2, &nine, now, now), now), Err(Reject::Malformed));
}

#[test]
fn praise_of_oneself_and_praise_without_receipts_of_one_s_own_is_refused() {
    let now = start().unix;
    let refused =
        |reporter, subject, receipts: &[_], at| check(&sign_report(reporter, subject, receipts, at, now), now).err();
    let good = receipt((1, 2), 1_000, Good, now, 1);
    assert_eq!(refused(1, 1, std::slice::from_ref(&good), now), Some(Reject::SelfPraise));
    assert_eq!(refused(1, 2, &[], now), Some(Reject::NoReceipts));
    assert_eq!(refused(3, 2, std::slice::from_ref(&good), now), Some(Reject::NoReceipts), "another client's");
    assert_eq!(refused(1, 3, std::slice::from_ref(&good), now), Some(Reject::NoReceipts), "about another peer");
    let epoch_before = now.minus(schedule().length());
    assert_eq!(refused(1, 2, &[good], epoch_before), Some(Reject::NoReceipts), "of another epoch");
}

#[test]
fn a_receipt_counts_once_in_a_report() {
    let now = start().unix;
    let good = receipt((1, 2), 1_000, Good, now, 1);
    let later = now.plus(std::time::Duration::from_secs(1));
    // The same deal judged again is another receipt, and still the same deal.
    let again = Receipt2::of(&good, later);
    assert_eq!(check(&sign_report(1, 2, &[good.clone(), good.clone()], now, later), later), Err(Reject::Malformed));
    assert_eq!(check(&sign_report(1, 2, &[good, again], now, later), later), Err(Reject::Malformed));
}

/// Signs a receipt for the deal inside another one.
struct Receipt2;

impl Receipt2 {
    fn of(receipt: &crate::Receipt, now: UnixMillis) -> crate::Receipt {
        let record = SignedRecord::parse(receipt.as_bytes()).unwrap();
        let body: crate::wire::ReceiptBody = peek(&record, &crate::wire::RECEIPT).unwrap();
        let schedule = schedule();
        let deal = crate::Deal::verify(&body.deal, (&NETWORK, &schedule), now).unwrap();
        crate::Receipt::sign(&identity(1), (&NETWORK, &schedule), &deal, Verdict::Good, now).unwrap()
    }
}

#[test]
fn reports_are_taken_while_their_epoch_runs_and_two_epochs_after() {
    let start = start();
    let bytes = report((1, 2), &[Good], start.unix, start.unix);
    let at = |epochs| check(&bytes, after(start, epochs).unix).map(|_| ());
    assert_eq!((at(0.0), at(2.9), at(3.0)), (Ok(()), Ok(()), Err(Reject::Expired)));
    let early = start.unix.minus(std::time::Duration::from_secs(61));
    assert_eq!(check(&bytes, early), Err(Reject::TooEarly));
}

#[test]
fn every_flipped_byte_is_refused() {
    let now = start().unix;
    let good = report((1, 2), &[Good, Wrong], now, now);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(check(&bytes, now).is_err(), "byte {at}");
    }
}
