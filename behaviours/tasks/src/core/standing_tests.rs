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
fn hearsay_helps_and_never_suffices() {
    let mut standings = Standings::new(ME);
    assert!(standings.set_prior(WORKER, Prior { good: 1e9, bad: 0.0 }));
    let credibility = standings.credibility(WORKER, NOW);
    assert!(credibility > 0.95 && credibility < 0.99, "{credibility}");
    assert!(standings.set_prior(WORKER, Prior { good: 0.0, bad: 3.0 }) && !standings.is_used(WORKER, NOW));
    assert!(!standings.set_prior(WORKER, Prior { good: f64::NAN, bad: 0.0 }));
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
