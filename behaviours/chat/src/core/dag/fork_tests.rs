use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{tests::*, *};
use crate::core::testing::{dag, device, node, now, outputs, sign, write};

/// Two messages of one number: author 1 says one thing to `a` and another to `b`.
fn fork(a: &mut Dag, b: &mut Dag) -> (Verified, Verified) {
    let one = sign(a.draft(device(1)).unwrap(), 1, "yes");
    let other = sign(b.draft(device(1)).unwrap(), 1, "no");
    a.handle_message(&one, None, now()).unwrap();
    b.handle_message(&other, None, now()).unwrap();
    (one, other)
}

impl Dag {
    /// A draft whoever is disputed.
    fn graph_draft(&self, author: u16) -> Draft {
        let mut header = dag().draft(device(author)).unwrap().header;
        self.graph.draft(&mut header, MAX_PARENTS).unwrap();
        Draft { header }
    }
}

/// Author 0 writes at every node as if it had written nowhere else; the others write at their own and read one another.
fn forked_talk(rng: &mut ChaCha8Rng) -> Vec<Verified> {
    let mut nodes: Vec<_> = (0..4).map(|_| dag()).collect();
    let mut all: Vec<Verified> = Vec::new();
    for step in 0..40usize {
        let at = rng.random_range(0..nodes.len());
        let author = if rng.random_bool(0.3) { 0 } else { u16::try_from(at).unwrap() };
        for message in &all {
            // The forker shows each node one branch.
            if rng.random_bool(0.3) && message.header().author != device(0) {
                let _taken = nodes[at].handle_message(message, None, now());
            }
        }
        let Ok(draft) = nodes[at].draft(device(author)) else { continue };
        let message = sign(draft, author, &format!("{step}"));
        if nodes[at].handle_message(&message, None, now()) == Ok(Taken::Complete) {
            all.push(message);
        }
    }
    all
}

/// Takes everything, and proves each fork that shows.
fn read(all: &[Verified]) -> Dag {
    let (mut view, mut keys) = (dag(), KeyCache::default());
    bring(&mut view, all);
    for output in outputs(&mut view) {
        let Output::Conflict { known, other } = output else { continue };
        let known = all.iter().find(|message| message.id() == known).unwrap();
        let outcome = view.handle_proof(&fork::prove(known.signed_header(), &other), &mut keys);
        assert!(matches!(outcome, Ok(_) | Err(Reject::Known)), "{outcome:?}");
    }
    assert_eq!(view.proofs().count(), view.forks().len());
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn after_a_fork_the_history_is_a_function_of_messages_and_proofs(seed in 0u64..1_000_000) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut all = forked_talk(&mut rng);
        let views: Vec<_> = (0..3)
            .map(|_| {
                all.shuffle(&mut rng);
                read(&all)
            })
            .collect();
        for view in &views[1..] {
            prop_assert_eq!(view.forks(), views[0].forks());
            prop_assert_eq!(history(view), history(&views[0]));
            prop_assert_eq!(view.heads(), views[0].heads());
            prop_assert_eq!(view.len(), views[0].len());
        }
        // Nothing of an author that did not fork is missing.
        let shown: BTreeSet<_> = views[0].history().collect();
        for message in all.iter().filter(|message| message.header().author != device(0)) {
            prop_assert!(shown.contains(&message.id()));
        }
    }
}

#[test]
fn a_fork_is_found_by_whoever_sees_both_branches_and_proved_to_anybody() {
    let (mut a, mut b) = (dag(), dag());
    let root = write(&mut a, 2, "root");
    bring(&mut b, std::slice::from_ref(&root));
    let (one, other) = fork(&mut a, &mut b);
    outputs(&mut a);
    a.handle_message(&other, Some(node(1)), now()).unwrap();
    let told = outputs(&mut a);
    assert!(told.contains(&Output::Forked { author: device(1), seq: 1 }));
    let Some(Output::Conflict { known, other: header }) =
        told.into_iter().find(|output| matches!(output, Output::Conflict { .. }))
    else {
        panic!("no conflict")
    };
    assert_eq!(known, one.id());
    let proof = fork::prove(one.signed_header(), &header);
    assert_eq!(proof, fork::prove(&header, one.signed_header()));
    let mut keys = KeyCache::default();
    let fork = a.handle_proof(&proof, &mut keys).unwrap();
    assert_eq!((fork.author, fork.seq), (device(1), 1));
    assert_eq!(a.handle_proof(&proof, &mut keys), Err(Reject::Known));
    // Neither branch is shown, for nobody answered; the history before stands. A third party needs the proof alone.
    assert_eq!(history(&a), [root.id()]);
    let mut third = dag();
    bring(&mut third, &[root.clone(), one.clone()]);
    assert_eq!(history(&third).len(), 2);
    third.handle_proof(&proof, &mut keys).unwrap();
    assert_eq!(history(&third), [root.id()]);
    assert_eq!(third.draft(device(1)), Err(Reject::Frozen));
    // Who had answered one branch before it knew keeps it in everybody's history.
    let answer = write(&mut b, 2, "answer");
    bring(&mut b, std::slice::from_ref(&one));
    for dag in [&mut a, &mut third] {
        bring(dag, &[other.clone(), answer.clone()]);
    }
    for dag in [&a, &b, &third] {
        assert_eq!(history(dag), [root.id(), other.id(), answer.id()]);
        assert_eq!(dag.heads(), BTreeSet::from([answer.id()]));
        assert_eq!(dag.why(&other.id()).unwrap().standing, Standing::Disputed);
        assert_eq!(dag.why(&one.id()).unwrap().standing, Standing::Aside);
    }
}

#[test]
fn a_forker_fills_its_own_corner_only() {
    let mut dag = dag();
    let root = write(&mut dag, 2, "root");
    let mut outcomes: BTreeMap<Option<Reject>, u32> = BTreeMap::new();
    let draft = dag.draft(device(1)).unwrap();
    for n in 0..200 {
        let draft = draft.clone();
        let outcome = dag.handle_message(&sign(draft, 1, &format!("{n}")), Some(node(1)), now());
        *outcomes.entry(outcome.err()).or_default() += 1;
    }
    assert_eq!(outcomes, BTreeMap::from([(None, MAX_HIDDEN), (Some(Reject::Frozen), 200 - MAX_HIDDEN)]));
    assert_eq!(history(&dag), [root.id()]);
}

#[test]
fn two_headers_that_are_no_fork_prove_nothing() {
    let (mut a, mut b) = (dag(), dag());
    let first = write(&mut a, 1, "first");
    let second = write(&mut a, 1, "second");
    let stranger = write(&mut b, 2, "stranger");
    let (one, other) = (sign(b.draft(device(3)).unwrap(), 3, "x"), sign(b.draft(device(3)).unwrap(), 3, "y"));
    let mut keys = KeyCache::default();
    for (one, other) in [(&first, &second), (&first, &stranger), (&first, &first)] {
        let proof = fork::prove(one.signed_header(), other.signed_header());
        assert_eq!(a.handle_proof(&proof, &mut keys), Err(Reject::NoFork));
    }
    let proof = fork::prove(one.signed_header(), other.signed_header());
    for at in 0..proof.len() {
        let mut bad = proof.clone();
        bad[at] ^= 1;
        assert!(a.handle_proof(&bad, &mut keys).is_err(), "byte {at}");
        assert!(a.handle_proof(&proof[..at], &mut keys).is_err(), "cut at {at}");
    }
    assert!(a.forks().is_empty());
    assert!(a.handle_proof(&proof, &mut keys).is_ok());
}

#[test]
fn a_message_that_builds_on_its_authors_other_branch_is_refused() {
    let (mut a, mut b) = (dag(), dag());
    let (one, other) = fork(&mut a, &mut b);
    let answer = write(&mut b, 2, "answer to no");
    // The forker continues at `a`, after seeing an answer to its other branch: seq 2 after a clock that has its 1 already.
    bring(&mut a, &[other, answer.clone()]);
    let mut draft = a.graph_draft(1);
    draft.header.parents = vec![answer.id()];
    draft.header.previous = None;
    draft.header.seq = 1;
    draft.header.lamport = answer.header().lamport + 1;
    assert_eq!(a.handle_message(&sign(draft, 1, "both"), None, now()), Err(Reject::FalseClock));
    assert!(a.is_complete(&one.id()));
}
