use proptest::prelude::*;

use super::*;
use crate::core::standing::ASSUMED_FAULT_RATE;

const NEWCOMER: f64 = 1.0 - ASSUMED_FAULT_RATE;

fn voter(n: u8, credibility: f64) -> Voter {
    Voter { worker: NodeId([n; 32]), credibility, family: None, newcomer: credibility <= NEWCOMER }
}

fn replica(n: u8, credibility: f64, result: u8) -> Replica {
    Replica { voter: voter(n, credibility), result: Some(ResultHash([result; 32])) }
}

fn poll(trust_ppm: u32) -> Poll {
    Poll::new(&Terms { trust_ppm, ..Terms::default() })
}

fn best(replicas: &[Replica]) -> f64 {
    credibilities(replicas)[0].credibility
}

#[test]
fn two_newcomers_that_agree_just_reach_99_percent_and_one_never_does() {
    assert!((best(&[replica(1, NEWCOMER, 1)]) - 10.0 / 11.0).abs() < 1e-12);
    let two = best(&[replica(1, NEWCOMER, 1), replica(2, NEWCOMER, 1)]);
    assert!((two - 100.0 / 101.0).abs() < 1e-12 && two > 0.99 && two < 0.9902, "{two}");
}

#[test]
fn the_vote_is_sarmentas() {
    // Computed by the definition: P(G right) over the sum of P(H right) for all H and P(none right).
    let (a, b, c) = (0.9, 0.8, 0.95);
    let (first, second, none) = (a * b * (1.0 - c), (1.0 - a) * (1.0 - b) * c, (1.0 - a) * (1.0 - b) * (1.0 - c));
    let believed = credibilities(&[replica(1, a, 1), replica(2, b, 1), replica(3, c, 2)]);
    assert!((believed[0].credibility - first / (first + second + none)).abs() < 1e-12);
    assert!((believed[1].credibility - second / (first + second + none)).abs() < 1e-12);
}

#[test]
fn a_round_has_as_many_replicas_as_the_trust_takes() {
    let mut alone = poll(990_000);
    assert_eq!(alone.step(), Step::More);
    assert!(alone.join(voter(1, 0.995)));
    assert_eq!(alone.step(), Step::Wait);
    assert!(alone.vote(NodeId([1; 32]), ResultHash([1; 32])));
    assert!(matches!(alone.step(), Step::Accept(Believed { credibility, .. }) if credibility == 0.995));

    let mut doubled = poll(990_000);
    doubled.join(voter(1, 0.995));
    doubled.double();
    assert_eq!(doubled.step(), Step::More);

    for (trust, expected) in [(990_000, 2), (999_000, 3), (999_900, 4), (999_990, 5)] {
        let mut newcomers = poll(trust);
        while newcomers.step() == Step::More {
            newcomers.join(voter(newcomers.replicas().len() as u8, NEWCOMER));
        }
        assert_eq!(newcomers.replicas().len(), expected);
    }
    let mut three = Poll::new(&Terms { replicas: 3, ..Terms::default() });
    while three.step() == Step::More {
        three.join(voter(three.replicas().len() as u8, 0.999));
    }
    assert_eq!(three.replicas().len(), 3);
}

#[test]
fn disagreement_adds_replicas_up_to_seven_and_then_there_is_no_agreement() {
    let mut poll = poll(990_000);
    for n in 0..MAX_REPLICAS {
        assert_eq!(poll.step(), Step::More);
        assert!(poll.join(voter(n, NEWCOMER)));
        if n == 0 {
            assert_eq!(poll.step(), Step::More);
            continue;
        }
        for m in 0..=n {
            poll.vote(NodeId([m; 32]), ResultHash([m; 32]));
        }
    }
    assert!(matches!(poll.step(), Step::NoAgreement(_)));
    assert!(!poll.join(voter(9, NEWCOMER)));
    let best = poll.best().unwrap();
    assert!(poll.verdicts(best).iter().all(|judged| judged.verdict != Verdict::Wrong));
}

#[test]
fn a_majority_convicts_the_one_that_differs() {
    let mut poll = poll(990_000);
    let accepted = loop {
        match poll.step() {
            Step::More => assert!(poll.join(voter(poll.replicas().len() as u8, NEWCOMER))),
            Step::Wait => {
                for n in 0..poll.replicas().len() as u8 {
                    poll.vote(NodeId([n; 32]), ResultHash([if n == 2 { 2 } else { 1 }; 32]));
                }
            }
            Step::Accept(accepted) => break accepted,
            Step::NoAgreement(best) => panic!("{best:?}"),
        }
        if poll.replicas().len() == 2 {
            // Only so that there is one that differs.
            poll.join(voter(2, NEWCOMER));
        }
    };
    let wrong: Vec<NodeId> =
        poll.verdicts(accepted).iter().filter(|judged| judged.verdict == Verdict::Wrong).map(|it| it.worker).collect();
    assert_eq!((accepted.result, wrong), (ResultHash([1; 32]), vec![NodeId([2; 32])]));
    // Three against one are 0.989: it took a fourth.
    assert_eq!(poll.replicas().len(), 5);
}

#[test]
fn ones_own_worker_is_right_whoever_says_otherwise() {
    let against: Vec<Replica> = (2..8).map(|n| replica(n, 0.999_999, 2)).collect();
    let all = [vec![replica(1, 1.0, 1)], against].concat();
    assert_eq!(credibilities(&all)[0], Believed { result: ResultHash([1; 32]), credibility: 1.0 });
    assert_eq!(credibilities(&all)[1].credibility, 0.0);
}

#[test]
fn a_family_counts_once_and_two_newcomers_are_not_left_alone() {
    let of = |n, family: &str, newcomer| Voter { family: Some(family.into()), newcomer, ..voter(n, NEWCOMER) };
    let mut one = poll(990_000);
    one.join(of(1, "a", true));
    assert!(!one.may_join(&of(2, "a", true), false) && !one.may_join(&of(1, "b", true), false));
    assert!(one.may_join(&of(2, "b", true), false) && !one.may_join(&of(2, "b", true), true));
    assert!(one.may_join(&of(2, "b", false), true));
    let family = [1, 2].map(|n| Replica { voter: of(n, "a", true), result: Some(ResultHash([1; 32])) });
    assert!((best(&family) - NEWCOMER).abs() < 1e-12);
    one.join(of(2, "a", true));
    for n in [1, 2] {
        one.vote(NodeId([n; 32]), ResultHash([1; 32]));
    }
    assert!(one.verdicts(one.best().unwrap()).iter().all(|judged| judged.verdict == Verdict::Good && !judged.proven));
}

#[test]
fn who_says_nothing_or_leaves_has_no_vote() {
    let mut poll = poll(990_000);
    poll.join(voter(1, NEWCOMER));
    poll.join(voter(2, NEWCOMER));
    assert!(poll.vote(NodeId([1; 32]), ResultHash([1; 32])));
    assert!(!poll.vote(NodeId([1; 32]), ResultHash([2; 32])) && !poll.vote(NodeId([3; 32]), ResultHash([1; 32])));
    assert_eq!(poll.step(), Step::Wait);
    poll.leave(NodeId([1; 32]));
    poll.leave(NodeId([2; 32]));
    assert_eq!((poll.replicas().len(), poll.step()), (1, Step::More));
}

#[test]
fn a_spot_check_convicts_unless_the_worker_is_believed_as_much_as_the_memory() {
    let judge = |known, credibility, result| {
        let known = Believed { result: ResultHash([1; 32]), credibility: known };
        judge_spot_check(&voter(1, credibility), known, ResultHash([result; 32])).verdict
    };
    assert_eq!((judge(0.99, 0.9, 1), judge(1.0, 0.999, 2)), (Verdict::Good, Verdict::Wrong));
    assert_eq!((judge(0.9999, NEWCOMER, 2), judge(0.9999, 0.995, 2)), (Verdict::Wrong, Verdict::Failed));
}

fn replicas() -> impl Strategy<Value = Vec<Replica>> {
    let one = (0.0f64..1.0, 0u8..3, proptest::option::of(0u8..3));
    proptest::collection::vec(one, 1..8).prop_map(|all| {
        let numbered = all.into_iter().zip(1u8..);
        let replica = |((credibility, result, family), n): ((f64, u8, Option<u8>), u8)| {
            let mut it = replica(n, credibility, result);
            it.voter.family = family.map(|family| family.to_string());
            it
        };
        numbered.map(replica).collect()
    })
}

proptest! {
    #[test]
    fn one_more_that_agrees_never_lowers_the_credibility(all in replicas(), credibility in 0.0f64..1.0, family in 0u8..4) {
        for before in credibilities(&all) {
            let mut agreeing = replica(200, credibility, 0);
            agreeing.result = Some(before.result);
            agreeing.voter.family = (family < 3).then(|| family.to_string());
            let after = credibilities(&[all.clone(), vec![agreeing]].concat());
            let after = after.iter().find(|it| it.result == before.result).unwrap();
            prop_assert!(after.credibility >= before.credibility - 1e-12, "{before:?} {after:?}");
        }
    }

    #[test]
    fn the_order_of_the_votes_changes_nothing(all in replicas(), seed in any::<u64>()) {
        let mut shuffled = all.clone();
        shuffled.sort_by_key(|it| blake3::hash(&[&it.voter.worker.0[..], &seed.to_be_bytes()].concat()).as_bytes().to_vec());
        prop_assert_eq!(credibilities(&all), credibilities(&shuffled));
    }

    #[test]
    fn credibilities_are_probabilities_of_exclusive_events(all in replicas()) {
        let believed = credibilities(&all);
        let sum: f64 = believed.iter().map(|it| it.credibility).sum();
        prop_assert!(sum <= 1.0 + 1e-12 && believed.iter().all(|it| (0.0..=1.0).contains(&it.credibility)), "{believed:?}");
    }
}
