use proptest::prelude::*;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const ME: NodeId = NodeId([0; 32]);
const WORKER: NodeId = NodeId([1; 32]);

fn judged(worker: NodeId, verdict: Verdict) -> Judged {
    Judged { worker, verdict, proven: verdict != Verdict::Failed }
}

fn after(verdicts: &[Verdict]) -> Standings {
    let mut standings = Standings::new(ME);
    for verdict in verdicts {
        standings.record(&judged(WORKER, *verdict), NOW);
    }
    standings
}

#[test]
fn nine_proven_results_are_worth_99_percent() {
    let credibility = |n| after(&vec![Verdict::Good; n]).credibility(WORKER, NOW);
    assert!((credibility(0) - 10.0 / 11.0).abs() < 1e-12);
    assert!(credibility(8) < 0.99 && credibility(9) > 0.99 && credibility(98) < 0.999 && credibility(99) > 0.999);
}

#[test]
fn one_wrong_result_takes_everything_for_nine_days() {
    let standings = after(&[vec![Verdict::Good; 500], vec![Verdict::Wrong]].concat());
    assert!(!standings.is_used(WORKER, NOW) && standings.is_newcomer(WORKER));
    let days = |days: u64| NOW.plus(Duration::from_secs(days * 24 * 3600));
    assert!(!standings.is_used(WORKER, days(9)) && standings.is_used(WORKER, days(10)));
    let twice = after(&[Verdict::Good, Verdict::Wrong, Verdict::Wrong]);
    assert!(!twice.is_used(WORKER, days(60)) && twice.is_used(WORKER, days(75)));
}

#[test]
fn what_nobody_confirmed_and_failures_say_nothing_of_results() {
    let mut standings = after(&[Verdict::Failed; 20]);
    standings.record(&Judged { worker: WORKER, verdict: Verdict::Good, proven: false }, NOW);
    assert_eq!(standings.credibility(WORKER, NOW), Standings::new(ME).credibility(WORKER, NOW));
    assert!(standings.is_newcomer(WORKER) && standings.availability(WORKER, NOW) < 0.1);
}

#[test]
fn ones_own_worker_is_believed_and_not_recorded() {
    let mut standings = Standings::new(ME);
    assert_eq!(standings.record(&judged(ME, Verdict::Wrong), NOW), None);
    assert_eq!(standings.credibility(ME, NOW), 1.0);
    assert!(!standings.is_newcomer(ME) && !standings.is_doubled(ME, 0.0));
}

#[test]
fn a_trusted_worker_is_doubled_ever_more_rarely() {
    let rate = |n: usize| {
        let standings = after(&vec![Verdict::Good; n]);
        (0..1000).filter(|draw| standings.is_doubled(WORKER, f64::from(*draw) / 1000.0)).count()
    };
    assert_eq!((rate(0), rate(1), rate(10), rate(50), rate(500)), (1000, 1000, 100, 20, 20));
}

#[test]
fn hearsay_is_bounded_and_counts_no_more_than_what_was_found() {
    let credibility = |good: usize, prior: Prior| {
        let mut standings = after(&vec![Verdict::Good; good]);
        standings.set_prior(WORKER, prior);
        standings.credibility(WORKER, NOW)
    };
    let (praise, blame) = (Prior { good: 1e9, bad: 0.0 }, Prior { good: 0.0, bad: 1e9 });
    assert_eq!(credibility(0, praise), credibility(0, Prior::default()));
    // Two of one's own and two that were heard are as good as four.
    assert_eq!(credibility(2, praise), credibility(4, Prior::default()));
    assert_eq!(credibility(50, praise), credibility(54, Prior::default()));
    assert!(credibility(0, blame) < 0.7 && credibility(0, blame) >= USED_FROM, "{}", credibility(0, blame));
    assert_eq!(credibility(0, Prior { good: f64::NAN, bad: 1.0 }), credibility(0, Prior::default()));
    let mut standings = Standings::new(ME);
    standings.set_prior(WORKER, praise);
    assert!(standings.expected(WORKER, NOW) > 0.98, "it is chosen before others");
    standings.set_prior(WORKER, Prior::default());
    assert_eq!(standings.expected(WORKER, NOW), standings.credibility(WORKER, NOW));
}

#[test]
fn of_too_much_hearsay_the_least_is_forgotten() {
    let worker = |n: usize| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    };
    let mut standings = Standings::new(ME);
    for n in 0..MAX_STANDINGS {
        standings.set_prior(worker(n), Prior { good: if n == 5 { 0.5 } else { 1.0 }, bad: 0.0 });
    }
    standings.set_prior(worker(MAX_STANDINGS), Prior { good: 0.4, bad: 0.0 });
    standings.set_prior(worker(MAX_STANDINGS + 1), Prior { good: 2.0, bad: 0.0 });
    let is_known = |n: usize| standings.expected(worker(n), NOW) > standings.expected(WORKER, NOW);
    assert_eq!(standings.priors.len(), MAX_STANDINGS);
    assert!(!is_known(MAX_STANDINGS) && !is_known(5) && is_known(MAX_STANDINGS + 1));
}

proptest! {
    /// Whatever is heard of a worker of which nothing was verified, it is believed no more than any newcomer, so that every trust takes as
    /// many replicas; and it is not shut out by it.
    #[test]
    fn hearsay_alone_never_makes_a_worker_trusted_alone_nor_bars_it(
        good in 0.0f64..1e12, bad in 0.0f64..1e12, others in proptest::collection::vec(any::<bool>(), 0..60), trust_ppm in 0u32..1_000_000,
    ) {
        let mut standings = Standings::new(ME);
        for (n, right) in others.iter().enumerate() {
            let verdict = if *right { Verdict::Good } else { Verdict::Wrong };
            standings.record(&judged(NodeId([100 + n as u8; 32]), verdict), NOW);
        }
        let newcomer = standings.credibility(WORKER, NOW);
        standings.set_prior(WORKER, Prior { good, bad });
        let credibility = standings.credibility(WORKER, NOW);
        prop_assert!(credibility <= newcomer && standings.is_used(WORKER, NOW) && standings.is_newcomer(WORKER));
        let mut poll = crate::core::verify::Poll::new(&crate::core::terms::Terms { trust_ppm, ..Default::default() });
        let voter = |worker, credibility| crate::core::verify::Voter { worker, credibility, family: None, newcomer: true };
        let mut without = poll.clone();
        poll.join(voter(WORKER, credibility));
        without.join(voter(WORKER, newcomer));
        let more = crate::core::verify::Step::More;
        prop_assert!(without.step() != more || poll.step() == more, "hearsay saved a replica");
    }
}

#[test]
fn liars_among_newcomers_make_newcomers_less_believed_and_others_not() {
    let mut standings = after(&[Verdict::Good; 20]);
    let proven = standings.credibility(WORKER, NOW);
    for n in 10..40 {
        let verdict = if n % 3 == 0 { Verdict::Wrong } else { Verdict::Good };
        standings.record(&judged(NodeId([n; 32]), verdict), NOW);
    }
    let newcomer = standings.credibility(NodeId([200; 32]), NOW);
    assert!((0.7..0.8).contains(&newcomer), "{newcomer}");
    assert_eq!(standings.credibility(WORKER, NOW), proven);
}

#[test]
fn a_record_survives_a_restart_and_nonsense_does_not() {
    let mut before = Standings::new(ME);
    let row = before.record(&judged(WORKER, Verdict::Wrong), NOW).unwrap();
    let bytes = fog_base::codec::encode(&row, 200).unwrap();
    let mut restored = Standings::new(ME);
    restored.restore(WORKER, fog_base::codec::decode(&bytes, 200).unwrap());
    assert_eq!(restored.get(WORKER, NOW), row);
    assert_eq!(restored.credibility(NodeId([9; 32]), NOW), before.credibility(NodeId([9; 32]), NOW));
    restored.restore(NodeId([2; 32]), Standing { good: f64::INFINITY, ..row });
    assert_eq!(restored.get(NodeId([2; 32]), NOW), Standing { at: NOW, ..Standing::default() });
}
