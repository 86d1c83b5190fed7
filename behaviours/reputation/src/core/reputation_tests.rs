use super::*;
use crate::core::{
    receipt::Verdict::{Failed, Good, Wrong},
    testing::{after, config, me, node, outputs, pair, receipt, record, report, reputation, schedule, start, with},
};

fn observe(reputation: &mut Reputation, peer: u32, kind: Kind, outcome: Outcome, weight: f64, now: Now) {
    let observation = Observation { peer: node(peer), kind, outcome, weight, at: now.unix };
    reputation.handle_observation(observation, now).unwrap();
}

/// Reporter `n` agrees with this node about peer 1 often enough to be trusted.
fn befriend(reputation: &mut Reputation, reporter: u32, now: Now) {
    observe(reputation, reporter, Kind::Rating, Outcome::Good, 8.0, now);
    observe(reputation, reporter, Kind::Rating, Outcome::Good, 8.0, now);
}

#[test]
fn observations_of_oneself_of_the_future_and_of_no_weight_are_refused() {
    let now = start();
    let mut reputation = reputation(now);
    let good = |peer, weight, at| Observation { peer, kind: Kind::Availability, outcome: Outcome::Good, weight, at };
    let late = now.unix.plus(Duration::from_secs(61));
    let cases = [
        (good(me(), 1.0, now.unix), Reject::SelfPraise),
        (good(node(1), 0.0, now.unix), Reject::Malformed),
        (good(node(1), -1.0, now.unix), Reject::Malformed),
        (good(node(1), f64::NAN, now.unix), Reject::Malformed),
        (good(node(1), 1.0, late), Reject::TooEarly),
    ];
    for (observation, reject) in cases {
        assert_eq!(reputation.handle_observation(observation, now), Err(reject));
    }
    assert_eq!((reputation.sizes(), reputation.drops().total()), ([0; 3], 5));
}

#[test]
fn a_receipt_of_ours_counts_once_as_experience() {
    let now = start();
    let mut reputation = reputation(now);
    let good = receipt((0, 1), 2_000, Good, now.unix, 1);
    assert_eq!(reputation.handle_receipt(good.as_bytes(), now), Ok(()));
    assert_eq!(reputation.handle_receipt(good.as_bytes(), now), Err(Reject::Replayed));
    for kind in [Kind::Correctness, Kind::Availability] {
        assert_eq!(reputation.posterior(node(1), kind, now.unix), Beta::new(3.0, 2.0));
    }
    let failed = receipt((0, 1), 1_000, Failed, now.unix, 2);
    reputation.handle_receipt(failed.as_bytes(), now).unwrap();
    assert_eq!(reputation.posterior(node(1), Kind::Correctness, now.unix), Beta::new(3.0, 2.0));
    assert_eq!(reputation.posterior(node(1), Kind::Availability, now.unix), Beta::new(3.0, 3.0));
    let others = receipt((3, 1), 1_000, Good, now.unix, 3);
    assert_eq!(reputation.handle_receipt(others.as_bytes(), now), Err(Reject::NotOurs));
    let served = receipt((3, 0), 1_000, Good, now.unix, 3);
    assert_eq!(reputation.handle_receipt(served.as_bytes(), now), Err(Reject::NotOurs), "praise of this node");
}

#[test]
fn a_report_of_a_trusted_reporter_counts_once_per_epoch() {
    let now = start();
    let mut reputation = reputation(now);
    befriend(&mut reputation, 5, now);
    let bytes = report((5, 9), &[Good; 4], now.unix, now.unix);
    assert_eq!(reputation.handle_report(node(5), &bytes, now), Ok(()));
    let heard = reputation.heard(node(9), Kind::Correctness, now.unix);
    // Four, discounted by a belief of 16/19.
    let opinion = Opinion::from_evidence(&Evidence::new(16.0, 0.0, now.unix));
    let (expected, _) = opinion.discount(&Opinion::from_evidence(&Evidence::new(4.0, 0.0, now.unix))).counts();
    assert!((heard.good() - expected).abs() < 1e-9 && heard.bad() == 0.0, "{heard:?} {expected}");
    assert_eq!(reputation.handle_report(node(5), &bytes, now), Err(Reject::Replayed));
    let another = report((5, 9), &[Wrong; 4], now.unix, now.unix);
    assert_eq!(reputation.handle_report(node(5), &another, now), Err(Reject::Replayed), "the same epoch");
    let next = after(now, 1.0);
    let later = report((5, 9), &[Good; 4], next.unix, next.unix);
    assert_eq!(reputation.handle_report(node(6), &later, next), Ok(()), "whoever brings it");
    assert_eq!(reputation.handle_report(node(5), &bytes, next), Err(Reject::Replayed), "an epoch before");
    let own = report((0, 9), &[Good], now.unix, now.unix);
    assert_eq!(reputation.handle_report(node(5), &own, now), Err(Reject::Replayed), "our own comes back");
}

#[test]
fn raters_are_judged_by_what_this_node_knows() {
    let now = start();
    let mut reputation = reputation(now);
    for subject in 1..=10 {
        for _ in 0..20 {
            observe(&mut reputation, subject, Kind::Correctness, Outcome::Good, 1.0, now);
        }
        let honest = report((20, subject), &[Good; 8], now.unix, now.unix);
        let liar = report((21, subject), &[Wrong; 8], now.unix, now.unix);
        assert_eq!(reputation.handle_report(node(20), &honest, now), Ok(()));
        assert_eq!(reputation.handle_report(node(21), &liar, now), Ok(()), "well-formed lies are no misconduct");
    }
    let (honest, liar) = (reputation.trust(node(20), now.unix), reputation.trust(node(21), now.unix));
    assert!(honest.belief() > 0.6 && honest.disbelief() == 0.0, "{honest:?}");
    assert!(liar.belief() == 0.0 && liar.disbelief() > 0.6, "{liar:?}");
    let empty = report((22, 11), &[Good; 8], now.unix, now.unix);
    reputation.handle_report(node(22), &empty, now).unwrap();
    assert_eq!(reputation.trust(node(22), now.unix), Opinion::VACUOUS, "about a peer that this node does not know");
}

#[test]
fn bad_reports_cost_their_sender_and_bad_luck_does_not() {
    let now = start();
    let mut reputation = reputation(now);
    let early = report((5, 9), &[Good], after(now, 1.0).unix, after(now, 1.0).unix);
    assert_eq!(reputation.handle_report(node(5), &early, now), Err(Reject::TooEarly));
    assert_eq!(reputation.penalty(node(5), now.unix), 0.0);
    for n in 1..=16 {
        assert!(reputation.handle_report(node(6), b"garbage", now).is_err());
        let expected = if n < 16 { f64::from(n) } else { 4.0 };
        assert_eq!(reputation.penalty(node(6), now.unix), expected);
    }
    let until = now.unix.plus(Duration::from_secs(3600));
    assert_eq!(reputation.banned_until(node(6), now.unix), Some(until));
    let told: Vec<_> = outputs(&mut reputation)
        .into_iter()
        .filter(|output| matches!(output, Output::Disconnect(_) | Output::Ban { .. }))
        .collect();
    assert_eq!(told, [Output::Disconnect(node(6)), Output::Ban { peer: node(6), until, met: true }]);
    let good = report((6, 9), &[Good], now.unix, now.unix);
    assert_eq!(reputation.handle_report(node(6), &good, now), Err(Reject::Banned));
    assert_eq!(reputation.handle_report(node(7), &good, now), Err(Reject::Banned), "whoever brings it");
    let later = now.plus(Duration::from_secs(3600));
    assert_eq!(reputation.banned_until(node(6), later.unix), None);
}

#[test]
fn what_a_banned_reporter_said_does_not_count_while_it_is_banned() {
    let now = start();
    let mut reputation = reputation(now);
    befriend(&mut reputation, 5, now);
    reputation.handle_report(node(5), &report((5, 9), &[Good; 4], now.unix, now.unix), now).unwrap();
    let heard = |reputation: &Reputation, now: Now| reputation.heard(node(9), Kind::Correctness, now.unix).mass();
    assert!(heard(&reputation, now) > 2.0);
    (0..16).for_each(|_| assert!(reputation.handle_report(node(5), b"garbage", now).is_err()));
    assert_eq!(heard(&reputation, now), 0.0);
    assert!(heard(&reputation, now.plus(Duration::from_secs(3600))) > 2.0);
}

#[test]
fn a_rater_is_judged_over_many_peers() {
    let begin = start();
    let mut reputation = reputation(begin);
    (0..20).for_each(|_| observe(&mut reputation, 1, Kind::Correctness, Outcome::Good, 1.0, begin));
    for epoch in 0..10 {
        let now = after(begin, f64::from(epoch));
        for (reporter, verdict) in [(20, Good), (21, Wrong)] {
            let bytes = report((reporter, 1), &[verdict; 8], now.unix, now.unix);
            reputation.handle_report(node(reporter), &bytes, now).unwrap();
        }
    }
    let rating = |peer| reputation.own(node(peer), Kind::Rating, after(begin, 9.0).unix);
    let (honest, liar) = (rating(20), rating(21));
    assert!(honest.good() > 0.9 && honest.good() <= 0.95 && honest.bad() == 0.0, "{honest:?}");
    assert!(liar.bad() > 0.9 && liar.bad() <= 0.95 && liar.good() == 0.0, "{liar:?}");
}

#[test]
fn being_away_bans_nobody() {
    let now = start();
    let mut reputation = reputation(now);
    for _ in 0..1000 {
        observe(&mut reputation, 1, Kind::Availability, Outcome::Bad, 1.0, now);
    }
    assert_eq!((reputation.penalty(node(1), now.unix), reputation.banned_until(node(1), now.unix)), (0.0, None));
    assert!(reputation.is_unreliable(node(1), now.unix));
}

#[test]
fn equivocation_bans_at_once_and_is_remembered_longest() {
    let now = start();
    let mut reputation = reputation(now);
    for _ in 0..100 {
        observe(&mut reputation, 2, Kind::Correctness, Outcome::Good, 1.0, now);
    }
    let proof = pair(record(2, now.unix.0, "a", now.unix).as_bytes(), record(2, now.unix.0, "b", now.unix).as_bytes());
    assert_eq!(reputation.handle_proof(Some(node(3)), &proof, now), Ok(()));
    assert_eq!(reputation.handle_proof(None, &proof, now), Err(Reject::Replayed));
    assert_eq!(reputation.proof(node(2)), Some(&proof[..]));
    let told = outputs(&mut reputation);
    assert!(told.iter().any(|output| matches!(output, Output::Ban { peer, .. } if *peer == node(2))), "{told:?}");
    assert_eq!(reputation.penalty(node(3), now.unix), 0.0, "the bearer of the proof did nothing wrong");
    let later = now.plus(Duration::from_secs(30 * 86_400));
    assert!(reputation.banned_until(node(2), later.unix).is_none());
    let evidence = reputation.own(node(2), Kind::Correctness, later.unix);
    assert!(evidence.bad() > 50.0 && evidence.good() < 6.0, "after a month: {evidence:?}");
    assert_eq!(reputation.credit(node(2), later.unix), 0);
}

#[test]
fn proofs_against_strangers_are_ignored_and_those_against_relays_count() {
    let now = start();
    let mut reputation = reputation(now);
    let proof =
        |n| pair(record(n, now.unix.0, "a", now.unix).as_bytes(), record(n, now.unix.0, "b", now.unix).as_bytes());
    assert_eq!(reputation.handle_proof(Some(node(3)), &proof(2), now), Err(Reject::Stranger));
    assert_eq!((reputation.penalty(node(3), now.unix), reputation.sizes()), (0.0, [0; 3]), "nobody is blamed");
    reputation.set_relays([node(2)].into());
    assert_eq!(reputation.handle_proof(Some(node(3)), &proof(2), now), Ok(()));
    let until = reputation.banned_until(node(2), now.unix).unwrap();
    assert!(outputs(&mut reputation).contains(&Output::Ban { peer: node(2), until, met: false }));
    assert_eq!(reputation.banned(now.unix).collect::<Vec<_>>(), [(node(2), until, false)]);
    assert_eq!(reputation.handle_proof(None, &proof(4), now), Ok(()), "found by this node's own protocols");
}

#[test]
fn relays_that_prove_themselves_liars_displace_nobody_of_whom_there_is_experience() {
    let now = start();
    let mut reputation = with(Config { max_peers: 64, ..config() }, now);
    (1..=60).for_each(|n| observe(&mut reputation, n, Kind::Availability, Outcome::Good, 0.1, now));
    reputation.set_relays((100..300).map(node).collect());
    let mut refused = 0;
    for n in 100..300 {
        let pair =
            pair(record(n, now.unix.0, "a", now.unix).as_bytes(), record(n, now.unix.0, "b", now.unix).as_bytes());
        refused += usize::from(reputation.handle_proof(None, &pair, now) == Err(Reject::Full));
    }
    let known = reputation.peers();
    assert!((1..=60).all(|n| known.contains(&node(n))), "{refused} refused");
    (61..=64).for_each(|n| observe(&mut reputation, n, Kind::Availability, Outcome::Good, 0.1, now));
    let known = reputation.peers();
    assert!((1..=64).all(|n| known.contains(&node(n))), "what is only proved goes first");
    let pair =
        pair(record(300, now.unix.0, "a", now.unix).as_bytes(), record(300, now.unix.0, "b", now.unix).as_bytes());
    assert_eq!(reputation.handle_proof(None, &pair, now), Err(Reject::Full));
}

#[test]
fn what_could_not_be_stored_is_handed_out_again() {
    let now = start();
    let mut reputation = reputation(now);
    observe(&mut reputation, 1, Kind::Availability, Outcome::Good, 1.0, now);
    reputation.save();
    let saved = outputs(&mut reputation);
    let [Output::Persist { key, .. }] = saved.as_slice() else { panic!("{saved:?}") };
    reputation.save();
    assert_eq!(outputs(&mut reputation), []);
    reputation.handle_not_saved(key);
    reputation.save();
    assert_eq!(outputs(&mut reputation), saved);
    reputation.handle_not_saved(b"?");
    reputation.save();
    assert_eq!(outputs(&mut reputation), []);
}

#[test]
fn a_false_accusation_costs_the_accuser() {
    let now = start();
    let mut reputation = reputation(now);
    reputation.set_relays([node(2)].into());
    let a = record(2, now.unix.0, "a", now.unix);
    let proof = pair(a.as_bytes(), record(2, now.unix.0 - 1, "b", now.unix).as_bytes());
    assert_eq!(reputation.handle_proof(Some(node(3)), &proof, now), Err(Reject::NoProof));
    assert_eq!((reputation.penalty(node(3), now.unix), reputation.penalty(node(2), now.unix)), (1.0, 0.0));
}

#[test]
fn a_failed_path_blames_the_hop_that_fails_often() {
    let now = start();
    let mut reputation = reputation(now);
    for (peer, good, bad) in [(1, 100, 2), (2, 60, 40), (3, 100, 2)] {
        for (outcome, count) in [(Outcome::Good, good), (Outcome::Bad, bad)] {
            (0..count).for_each(|_| observe(&mut reputation, peer, Kind::Availability, outcome, 1.0, now));
        }
    }
    let before = [1, 2, 3].map(|n| reputation.own(node(n), Kind::Availability, now.unix).bad());
    reputation.handle_path(&[node(1), node(2), node(3), me()], Outcome::Bad, 1.0, now);
    let [a, b, c] = [(1, 0), (2, 1), (3, 2)]
        .map(|(n, i): (u32, usize)| reputation.own(node(n), Kind::Availability, now.unix).bad() - before[i]);
    assert!(b > 0.8 && a < 0.15 && c < 0.15, "{a} {b} {c}");
}

#[test]
fn credit_is_what_was_delivered_less_what_was_spoilt() {
    let now = start();
    let mut reputation = reputation(now);
    assert_eq!(reputation.credit(node(1), now.unix), 1_000, "a third of the price of an identity");
    for _ in 0..5 {
        observe(&mut reputation, 1, Kind::Correctness, Outcome::Good, 1.0, now);
    }
    let lower = Beta::new(6.0, 2.0).lower();
    assert_eq!(reputation.credit(node(1), now.unix), (1_000.0 + 5_000.0 * lower) as u64);
    observe(&mut reputation, 1, Kind::Correctness, Outcome::Bad, 4.0, now);
    assert_eq!(reputation.credit(node(1), now.unix), 0);
}

#[test]
fn everything_is_back_after_a_restart() {
    let now = start();
    let mut before = reputation(now);
    befriend(&mut before, 5, now);
    before.handle_report(node(5), &report((5, 9), &[Good, Wrong], now.unix, now.unix), now).unwrap();
    let proof = pair(record(2, now.unix.0, "a", now.unix).as_bytes(), record(2, now.unix.0, "b", now.unix).as_bytes());
    before.handle_proof(None, &proof, now).unwrap();
    let mut after = reputation(now);
    for output in outputs(&mut before) {
        if let Output::Persist { key, value } = output {
            assert!(value.len() <= proof.len().max(512), "{}", value.len());
            let accused = (key[0] == b'x').then(|| NodeId(key[1..].try_into().unwrap()));
            assert_eq!(after.restore(&key, &value, now), Ok(accused));
            for at in 0..value.len() {
                let mut changed = value.clone();
                changed[at] ^= 0xff;
                let mut other = reputation(now);
                if other.restore(&key, &changed, now).is_ok() {
                    let read = other.posterior(node(2), Kind::Correctness, now.unix).lower();
                    assert!((0.0..=1.0).contains(&read), "byte {at}: {read}");
                }
            }
        }
    }
    assert_eq!(after.sizes(), before.sizes());
    for (peer, kind) in [2, 5, 9].into_iter().flat_map(|peer| Kind::ALL.map(|kind| (peer, kind))) {
        let read = |reputation: &Reputation| reputation.posterior(node(peer), kind, now.unix);
        assert_eq!(read(&after), read(&before), "{peer} {kind:?}");
    }
    assert_eq!(after.banned_until(node(2), now.unix), before.banned_until(node(2), now.unix));
    assert_eq!(after.handle_proof(None, &proof, now), Err(Reject::Replayed));
    let again = report((5, 9), &[Good, Wrong], now.unix, now.unix);
    assert_eq!(after.handle_report(node(5), &again, now), Err(Reject::Replayed));
    assert_eq!(after.restore(b"?", b"?", now), Err(Reject::Malformed));
}

#[test]
fn impossible_evidence_is_not_restored() {
    let now = start();
    let mut reputation = reputation(now);
    for count in [-1.0, f64::NAN, f64::INFINITY] {
        let mut peer = Peer::default();
        *peer.own.get_mut(Kind::Rating) = Evidence::new(count, 0.0, now.unix);
        let value = saved::encode(&peer).unwrap();
        assert!(reputation.restore(&Key::Peer(node(1)).to_bytes(), &value, now).is_err());
        let heard = Heard { evidence: peer.own, judged: Evidence::default(), last: schedule().at(now.unix) };
        let value = saved::encode(&heard).unwrap();
        assert!(reputation.restore(&Key::Heard(node(1), node(2)).to_bytes(), &value, now).is_err());
    }
    assert_eq!(reputation.sizes(), [0; 3]);
}

#[test]
fn what_changed_is_saved_in_time_and_what_faded_is_forgotten() {
    let now = start();
    let mut reputation = reputation(now);
    observe(&mut reputation, 1, Kind::Availability, Outcome::Good, 1.0, now);
    assert_eq!(outputs(&mut reputation), [], "not at once");
    let due = reputation.poll_timeout(now).unwrap();
    assert_eq!(due, now.mono + SAVE_INTERVAL);
    reputation.handle_timeout(now.plus(SAVE_INTERVAL));
    let saved = outputs(&mut reputation);
    let key = Key::Peer(node(1)).to_bytes();
    assert!(matches!(&saved[..], [Output::Persist { key: k, .. }] if *k == key), "{saved:?}");
    let later = now.plus(Duration::from_secs(86_400 * 10));
    reputation.handle_timeout(later);
    reputation.handle_timeout(later);
    assert_eq!(outputs(&mut reputation), [Output::Forget { key }]);
    assert_eq!(reputation.sizes(), [0; 3]);
}

#[test]
fn our_reports_are_published_and_others_take_them() {
    let now = start();
    let mut reputation = reputation(now);
    for nonce in 0..3 {
        reputation.handle_receipt(receipt((0, 1), 1_000, Good, now.unix, nonce).as_bytes(), now).unwrap();
    }
    let later = after(now, 1.5);
    reputation.handle_timeout(later);
    let published: Vec<_> = outputs(&mut reputation)
        .into_iter()
        .filter_map(|output| if let Output::Publish(bytes) = output { Some(bytes) } else { None })
        .collect();
    assert_eq!(published.len(), 1);
    let mut other = Reputation::new(config(), Arc::new(crate::core::testing::identity(7)), [1; 32], later);
    assert_eq!(other.handle_report(me(), &published[0], later), Ok(()));
    assert_eq!(other.sizes(), [0, 1, 0]);
}

#[test]
fn a_crowd_of_strangers_does_not_push_out_what_matters() {
    let now = start();
    let mut reputation = with(Config { max_peers: 64, ..config() }, now);
    for _ in 0..3 {
        observe(&mut reputation, 1, Kind::Correctness, Outcome::Good, 8.0, now);
        observe(&mut reputation, 2, Kind::Availability, Outcome::Bad, 8.0, now);
    }
    for n in 100..2_100 {
        observe(&mut reputation, n, Kind::Availability, Outcome::Good, 1.0, now);
        assert!(reputation.sizes()[0] <= 64);
    }
    let known: Vec<_> = reputation.peers().into_iter().collect();
    assert!(known.contains(&node(1)) && known.contains(&node(2)));
    assert!(
        outputs(&mut reputation).iter().all(|output| matches!(output, Output::Persist { .. } | Output::Forget { .. }))
    );
}

proptest::proptest! {
    #[test]
    fn garbage_changes_nothing_but_what_is_thought_of_its_sender(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
    ) {
        let now = start();
        let mut reputation = reputation(now);
        proptest::prop_assert!(reputation.handle_receipt(&bytes, now).is_err());
        proptest::prop_assert!(reputation.handle_report(node(5), &bytes, now).is_err());
        proptest::prop_assert!(reputation.handle_proof(Some(node(5)), &bytes, now).is_err());
        proptest::prop_assert!(reputation.restore(&bytes, &bytes, now).is_err());
        let known: Vec<_> = reputation.peers().into_iter().collect();
        proptest::prop_assert_eq!((known, &reputation.sizes()[1..]), (vec![node(5)], &[0, 0][..]));
    }

    #[test]
    fn any_row_of_observations_leaves_probabilities_and_bounds(
        steps in proptest::collection::vec((0u32..12, 0usize..3, proptest::bool::ANY, 0.0f64..20.0, 0u64..100_000), 1..120),
    ) {
        let mut now = start();
        let mut reputation = with(Config { max_peers: 8, ..config() }, now);
        for (peer, kind, good, weight, seconds) in steps {
            now = now.plus(Duration::from_secs(seconds));
            let outcome = if good { Outcome::Good } else { Outcome::Bad };
            observe(&mut reputation, peer + 1, Kind::ALL[kind], outcome, weight + 0.001, now);
            reputation.handle_timeout(now);
            let beta = reputation.posterior(node(peer + 1), Kind::ALL[kind], now.unix);
            proptest::prop_assert!(0.0 < beta.lower() && beta.lower() < beta.mean() && beta.upper() <= 1.0, "{:?}", beta);
            proptest::prop_assert!(reputation.credit(node(peer + 1), now.unix) <= 8_000);
            proptest::prop_assert!(reputation.sizes()[0] <= 8 && outputs(&mut reputation).len() <= 40);
            let ban = reputation.banned_until(node(peer + 1), now.unix);
            proptest::prop_assert!(ban.is_none_or(|until| until <= now.unix.plus(Duration::from_secs(7 * 86_400))));
        }
    }
}
