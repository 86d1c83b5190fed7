use super::*;
use crate::core::{
    receipt::Verdict::{Good, Wrong},
    report::Claim,
    testing::{NETWORK, after, identity, node, receipt, schedule, start},
};

fn reporter() -> Reporter {
    Reporter::new(Arc::new(identity(0)), NETWORK, schedule(), [5; 32])
}

fn reports(reporter: &mut Reporter, now: UnixMillis) -> Vec<report::Report> {
    let signed = reporter.reports(now).into_iter().map(Result::unwrap);
    signed.map(|bytes| Claim::parse(&bytes, &schedule(), now).unwrap().verify(&NETWORK, now).unwrap()).collect()
}

#[test]
fn one_report_per_peer_follows_in_the_first_half_of_the_next_epoch() {
    let start = start();
    let mut reporter = reporter();
    for (server, nonce) in [(1, 1), (1, 2), (2, 3)] {
        reporter.take(&receipt((0, server), 1_000, Good, start.unix, nonce), 1.0);
    }
    let due = reporter.next_due().unwrap();
    assert!(due >= after(start, 1.0).unix && due < after(start, 1.5).unix);
    assert_eq!(reports(&mut reporter, UnixMillis(due.0 - 1)), []);
    let signed = reports(&mut reporter, due);
    let mut about: Vec<_> = signed.iter().map(|report| (report.subject(), report.facts().len())).collect();
    about.sort_by_key(|(_, receipts)| *receipts);
    assert_eq!(about, [(node(2), 1), (node(1), 2)]);
    assert_eq!((reports(&mut reporter, due), reporter.next_due()), (vec![], None));
}

#[test]
fn a_receipt_counts_once_and_is_remembered_as_long_as_it_could_count() {
    let start = start();
    let mut reporter = reporter();
    let receipt = receipt((0, 1), 1_000, Good, start.unix, 1);
    let (epoch, deal) = (schedule().at(start.unix), receipt.facts().deal);
    assert_eq!(reporter.may_use(epoch, deal), Ok(()));
    reporter.take(&receipt, 1.0);
    reporter.reports(after(start, 2.9).unix);
    assert_eq!(reporter.may_use(epoch, deal), Err(Reject::Replayed));
    reporter.reports(after(start, 3.0).unix);
    assert_eq!(reporter.used.len(), 0);
    reporter.used.extend((0..MAX_USED as u64).map(|n| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        (epoch, bytes)
    }));
    assert_eq!(reporter.may_use(epoch, deal), Err(Reject::Full), "no room to remember: it does not count");
}

#[test]
fn a_report_is_a_fair_sample_in_which_value_counts() {
    let start = start();
    let mut bad = 0;
    for seed in 0..100 {
        let mut reporter = Reporter::new(Arc::new(identity(0)), NETWORK, schedule(), [seed; 32]);
        for nonce in 0..40 {
            let verdict = if nonce % 4 == 0 { Wrong } else { Good };
            reporter.take(&receipt((0, 1), 1_000, verdict, start.unix, nonce), 1.0);
        }
        let theft = receipt((0, 1), 1_000_000, Wrong, start.unix, 99);
        reporter.take(&theft, 400.0);
        let reports = reports(&mut reporter, after(start, 1.5).unix);
        let facts = reports[0].facts();
        assert_eq!(facts.len(), MAX_RECEIPTS);
        assert!(facts.iter().any(|facts| facts.deal == theft.facts().deal), "seed {seed}");
        bad += facts.iter().filter(|facts| facts.verdict == Wrong).count() - 1;
    }
    // A quarter of the seven places beside the theft, within four standard deviations.
    assert!((bad as f64 - 175.0).abs() < 46.0, "{bad} of 700");
}

#[test]
fn peers_with_the_most_valuable_deals_are_reported_on() {
    let start = start();
    let mut reporter = reporter();
    for server in 1..=MAX_SUBJECTS as u32 + 10 {
        reporter.take(&receipt((0, server), 1_000, Good, start.unix, 1), f64::from(server));
    }
    let reports = reports(&mut reporter, after(start, 1.5).unix);
    assert_eq!(reports.len(), MAX_SUBJECTS);
    assert!(reports.iter().all(|report| (1..=10).all(|n| report.subject() != node(n))));
}

#[test]
fn what_is_too_late_to_be_reported_is_dropped() {
    let start = start();
    let mut reporter = reporter();
    reporter.take(&receipt((0, 1), 1_000, Good, start.unix, 1), 1.0);
    assert_eq!(reporter.reports(after(start, 3.0).unix), []);
}
