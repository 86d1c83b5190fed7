//! The attacks of the literature (Hoffman, Zage, Nita-Rotaru 2009, "A Survey of Attack and Defense Techniques for
//! Reputation Systems") as scenarios, each with the bound that holds and the figure that came out. `--nocapture` shows
//! the figures.

use std::time::Duration;

use fog_base::{DropReason, NodeId, Now, UnixMillis};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha20Rng;

use super::{
    beta::Beta,
    evidence::{Kind, Observation, Outcome},
    receipt::Verdict::{self, Good, Wrong},
    reject::Reject,
    reputation::Reputation,
    testing::{after, me, node, receipt, report, reputation, start},
};

const UNIT: f64 = 1_000.0;
/// What a new identity costs in `config()`, in units, and the part of it that a newcomer is trusted with.
const PRICE: f64 = 3.0;
const ALLOWANCE: f64 = 1.0;

fn figure(text: &str) {
    println!("figure: {text}");
}

fn observe(reputation: &mut Reputation, peer: NodeId, kind: Kind, outcome: Outcome, weight: f64, now: Now) {
    let observation = Observation { peer, kind, outcome, weight, at: now.unix };
    reputation.handle_observation(observation, now).unwrap();
}

fn experience(reputation: &mut Reputation, peer: u32, kind: Kind, good: usize, bad: usize, now: Now) {
    (0..good).for_each(|_| observe(reputation, node(peer), kind, Outcome::Good, 1.0, now));
    (0..bad).for_each(|_| observe(reputation, node(peer), kind, Outcome::Bad, 1.0, now));
}

fn lower(reputation: &Reputation, peer: u32, kind: Kind, now: Now) -> f64 {
    reputation.posterior(node(peer), kind, now.unix).lower()
}

/// Takes the reports of each reporter on each subject, a second after one another.
fn hear(
    reputation: &mut Reputation,
    reporters: impl IntoIterator<Item = u32>,
    subjects: &[u32],
    verdicts: &[Verdict],
    mut now: Now,
) -> Now {
    for reporter in reporters {
        now = now.plus(Duration::from_secs(1));
        for subject in subjects {
            let bytes = report((reporter, *subject), verdicts, now.unix, now.unix);
            assert_eq!(reputation.handle_report(node(reporter), &bytes, now), Ok(()));
        }
    }
    now
}

/// The last figures of one run of loops over relays of which some drop packets.
struct Loops {
    /// In which epoch the dropper was called unreliable first.
    caught: Option<u32>,
    /// How often an honest relay was called unreliable, at the end of an epoch.
    false_alarms: u32,
    dropper_upper: f64,
    honest_lower: f64,
}

/// Ten epochs of loops, 0.2 a second, through three of sixteen relays; `lost` is the chance that a relay loses a
/// packet, for relay 1 and for the others. Nobody is told where a loop was lost.
fn ten_epochs_of_loops(seed: u64, lost: (f64, f64)) -> Loops {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let relays: Vec<_> = (1..=16).map(|n| NodeId([n; 32])).collect();
    let (begin, me) = (start(), me());
    let mut reputation = reputation(begin);
    let mut loops = Loops { caught: None, false_alarms: 0, dropper_upper: 0.0, honest_lower: 1.0 };
    for epoch in 0..10 {
        for n in 0..360 {
            let now = after(begin, f64::from(epoch) + f64::from(n) / 360.0);
            let mut path = relays.clone();
            path.shuffle(&mut rng);
            path.truncate(3);
            let arrives = path.iter().all(|hop| {
                let lost = if *hop == NodeId([1; 32]) { lost.0 } else { lost.1 };
                rng.random_range(0.0..1.0) >= lost
            });
            let outcome = if arrives { Outcome::Good } else { Outcome::Bad };
            reputation.handle_path(&[path, vec![me]].concat(), outcome, 1.0, now);
        }
        let now = after(begin, f64::from(epoch) + 1.0).unix;
        let unreliable = |relay: &&NodeId| reputation.is_unreliable(**relay, now);
        if unreliable(&&relays[0]) {
            loops.caught.get_or_insert(epoch + 1);
        }
        loops.false_alarms += relays[1..].iter().filter(unreliable).count() as u32;
        let posterior = |relay: &NodeId| reputation.posterior(*relay, Kind::Availability, now);
        loops.dropper_upper = posterior(&relays[0]).upper();
        loops.honest_lower = relays[1..].iter().map(|relay| posterior(relay).lower()).fold(1.0, f64::min);
    }
    loops
}

/// Bound: a relay that drops 20 % is called unreliable within ten epochs, and ends below the lower bound of every
/// honest one.
#[test]
fn a_relay_that_drops_a_fifth_falls_below_every_honest_one() {
    let runs: Vec<_> = (0..100).map(|seed| ten_epochs_of_loops(seed, (0.2, 0.02))).collect();
    let mut caught: Vec<_> = runs.iter().filter_map(|run| run.caught).collect();
    caught.sort_unstable();
    let (median, latest) = (caught[caught.len() / 2], caught[caught.len() - 1]);
    let upper = runs.iter().map(|run| run.dropper_upper).fold(0.0, f64::max);
    let honest = runs.iter().map(|run| run.honest_lower).fold(1.0, f64::min);
    let below = runs.iter().filter(|run| run.dropper_upper < run.honest_lower).count();
    let text = format!(
        "20 % dropper, 100 seeds: caught in {} (median epoch {median}, latest {latest}); upper bound at most \
         {upper:.3}, below the lower bound of all 15 honest relays (at least {honest:.3}) in {below}",
        caught.len()
    );
    figure(&text);
    assert!(caught.len() == 100 && latest <= 10 && below == 100, "{text}");
}

/// Bound: fewer than 0.1 % false alarms among honest relays with 2 % loss, checked after every epoch, a dropper among
/// them or not.
#[test]
fn an_honest_relay_is_not_called_unreliable() {
    let alone = (0..100).map(|seed| ten_epochs_of_loops(1_000 + seed, (0.02, 0.02)).false_alarms).sum::<u32>();
    let beside = (0..100).map(|seed| ten_epochs_of_loops(2_000 + seed, (0.2, 0.02)).false_alarms).sum::<u32>();
    let text = format!("honest relays at 2 % loss: {alone} and {beside} false alarms in 30,000 checks of 3,000 relays");
    figure(&text);
    assert!(alone + beside < 30, "{text}");
}

/// Bound: an identity steals at most what it delivered and a third of its price, so throwing it away loses two thirds
/// of the price; and a newcomer ranks below everybody who did one thing well.
#[test]
fn whitewashing_costs_more_than_it_brings() {
    let now = start();
    let mut reputation = reputation(now);
    let identities = 100;
    let mut stolen = 0.0;
    for identity in 1..=identities {
        loop {
            let credit = reputation.credit(node(identity), now.unix) as f64 / UNIT;
            if credit < 0.001 {
                break;
            }
            stolen += credit;
            observe(&mut reputation, node(identity), Kind::Correctness, Outcome::Bad, credit, now);
        }
    }
    experience(&mut reputation, 1_000, Kind::Correctness, 1, 0, now);
    let (newcomer, modest) =
        (lower(&reputation, 2_000, Kind::Correctness, now), lower(&reputation, 1_000, Kind::Correctness, now));
    let paid = PRICE * f64::from(identities);
    let text = format!(
        "whitewashing: {identities} identities for {paid} units stole {stolen:.1}; lower bound of a newcomer \
         {newcomer:.3}, after one good unit {modest:.3}"
    );
    figure(&text);
    assert!(
        stolen <= ALLOWANCE * f64::from(identities) + 1e-6 && stolen < paid / 2.0 && newcomer < modest / 4.0,
        "{text}"
    );
}

/// Bound: praise by those who never agreed with this node's own experience counts nothing. If all of a ring are
/// trusted raters, it lifts nobody above Beta(33, 2), and eight bad experiences end that.
#[test]
fn a_ring_of_sybils_that_praise_each_other_gains_nothing() {
    let begin = start();
    let mut reputation = reputation(begin);
    let before = lower(&reputation, 100, Kind::Correctness, begin);
    let ring: Vec<_> = (100..130).collect();
    let mut now = begin;
    for sybil in &ring {
        let others: Vec<_> = ring.iter().copied().filter(|other| other != sybil).take(8).collect();
        now = hear(&mut reputation, [*sybil], &others, &[Good; 8], now.plus(Duration::from_secs(1)));
    }
    let praised = lower(&reputation, 100, Kind::Correctness, now);
    // Now the ring has deserved trust as raters, by honest reports on others.
    for sybil in &ring {
        experience(&mut reputation, *sybil, Kind::Rating, 100, 0, now);
    }
    let trusted = lower(&reputation, 100, Kind::Correctness, now);
    let ceiling = Beta::new(33.0, 2.0).lower();
    experience(&mut reputation, 100, Kind::Correctness, 0, 8, now);
    let found_out = reputation.posterior(node(100), Kind::Correctness, now.unix).upper();
    let text = format!(
        "praise ring of 30: lower bound {before:.4} -> {praised:.4}; with trusted raters {trusted:.3} (ceiling \
         {ceiling:.3}); after eight bad experiences the upper bound is {found_out:.3}; credit by hearsay {}",
        reputation.credit(node(101), now.unix)
    );
    figure(&text);
    assert!(praised == before && trusted > 0.5 && trusted <= ceiling && found_out < 0.3, "{text}");
    assert_eq!(reputation.credit(node(101), now.unix), 1_000, "hearsay buys no more than a newcomer's credit");
}

/// Bound: nobody's word about itself counts, and the seventeenth attempt finds the door shut.
#[test]
fn self_promotion_is_refused_and_banned() {
    let now = start();
    let mut reputation = reputation(now);
    let praise = super::testing::sign_report(5, 5, &[receipt((5, 6), 1_000, Good, now.unix, 1)], now.unix, now.unix);
    let outcomes: Vec<_> = (0..100).map(|_| reputation.handle_report(node(5), &praise, now)).collect();
    let refused = outcomes.iter().filter(|outcome| **outcome == Err(Reject::SelfPraise)).count();
    let shut = outcomes.iter().filter(|outcome| **outcome == Err(Reject::Banned)).count();
    let text = format!("self-promotion: of 100 reports 0 taken, {refused} refused, then banned ({shut})");
    figure(&text);
    assert_eq!((refused, shut), (16, 84), "{text}");
    assert_eq!(reputation.heard(node(5), Kind::Correctness, now.unix).mass(), 0.0);
}

/// Bound: peers that this node knows well can vouch for clients of their own invention; fewer than four of them make no trusted
/// rater, whatever the number of clients and epochs.
#[test]
fn a_farm_of_raters_takes_four_servers_of_good_standing() {
    let heard_of_target = |servers: u32| {
        let begin = start();
        let mut reputation = reputation(begin);
        let servers: Vec<_> = (1..=servers).collect();
        servers.iter().for_each(|server| experience(&mut reputation, *server, Kind::Correctness, 50, 0, begin));
        let mut now = begin;
        for epoch in 0..5 {
            now = hear(&mut reputation, 100..120, &servers, &[Good; 8], after(begin, f64::from(epoch)));
        }
        hear(&mut reputation, 100..120, &[50], &[Good; 8], now.plus(Duration::from_secs(60)));
        reputation.heard(node(50), Kind::Correctness, now.unix).mass()
    };
    let [one, three, five] = [1, 3, 5].map(heard_of_target);
    let text = format!(
        "rater farm of 20 over five epochs: heard of the target {one:.1} with one server of good standing, {three:.1} \
         with three, {five:.1} with five (at most 32)"
    );
    figure(&text);
    assert!(one == 0.0 && three == 0.0 && five <= 32.0 + 1e-9, "{text}");
}

/// Bound: less than half of the trusted raters, by weight, cannot move what is heard by more than the tolerance of 0.1: a lie
/// outside it is left out, and one inside it counts as what it says.
#[test]
fn a_third_of_liars_does_not_harm_an_honest_peer() {
    let begin = start();
    let (target, known) = (50, (1..=8).collect::<Vec<_>>());
    let lied_about = |lie: &[Verdict]| {
        let mut reputation = reputation(begin);
        known.iter().for_each(|peer| experience(&mut reputation, *peer, Kind::Correctness, 50, 0, begin));
        // Liars too are honest about everybody else: that is how they became trusted.
        let now = hear(&mut reputation, 100..112, &known, &[Good; 8], begin);
        if !lie.is_empty() {
            hear(&mut reputation, 108..112, &[target], lie, now);
        }
        let now = hear(&mut reputation, 100..108, &[target], &[Good; 8], now.plus(Duration::from_secs(60)));
        (lower(&reputation, target, Kind::Correctness, now), reputation, now)
    };
    let (without, ..) = lied_about(&[]);
    let (with, mut ring, now) = lied_about(&[Wrong; 8]);
    let (subtle, ..) = lied_about(&[Good, Good, Good, Good, Good, Good, Good, Wrong]);
    // On a peer that this node knows well, lies cost the liars their word.
    let trust = ring.trust(node(110), now.unix).belief();
    hear(&mut ring, 108..112, &[1], &[Wrong; 8], after(now, 1.0));
    let own = lower(&ring, 1, Kind::Correctness, now);
    let lost = ring.trust(node(110), now.unix).belief();
    let text = format!(
        "bad-mouthing by 4 of 12 trusted raters: lower bound of the target {without:.4} without them, {with:.4} with \
         them, {subtle:.4} if they say 7 of 8; of a peer that this node knows {own:.3}; a liar's belief {trust:.2} -> \
         {lost:.2} after one lie that could be checked"
    );
    figure(&text);
    assert!((with - without).abs() < 1e-9 && without > 0.8 && without - subtle < 0.1, "{text}");
    assert!(own > 0.9 && lost < trust, "{text}");
}

/// Bound: over time whoever alternates is seen as worse than its average, and even at its best it is called unreliable.
#[test]
fn oscillation_is_seen_as_worse_than_its_average() {
    let begin = start();
    let mut reputation = reputation(begin);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let (mut means, mut unreliable) = (Vec::new(), 0);
    for epoch in 0..200 {
        let bad_spell = epoch % 10 >= 5;
        let now = after(begin, f64::from(epoch));
        for _ in 0..40 {
            let fails = bad_spell && rng.random_range(0.0..1.0) < 0.5;
            let outcome = if fails { Outcome::Bad } else { Outcome::Good };
            observe(&mut reputation, node(1), Kind::Availability, outcome, 1.0, now);
        }
        if epoch >= 10 {
            means.push(reputation.posterior(node(1), Kind::Availability, now.unix).mean());
            unreliable += u32::from(reputation.is_unreliable(node(1), now.unix));
        }
    }
    let (best, average) = (means.iter().copied().fold(0.0, f64::max), means.iter().sum::<f64>() / means.len() as f64);
    let text = format!(
        "on-off (five epochs perfect, five losing half; average 0.75): mean at its best {best:.3}, on average \
         {average:.3}; called unreliable after {unreliable} of {} epochs",
        means.len()
    );
    figure(&text);
    assert!(best < 0.85 && average < 0.70 && unreliable as usize == means.len(), "{text}");
}

/// Bound: thefts, each as large as credit allows, take at most what was delivered and a third of the price, whatever
/// the order.
#[test]
fn many_cheap_deeds_do_not_pay_for_one_theft() {
    let now = start();
    let mut reputation = reputation(now);
    for _ in 0..200 {
        observe(&mut reputation, node(1), Kind::Correctness, Outcome::Good, 0.01, now);
    }
    let (mut stolen, mut first) = (0.0, None);
    while reputation.credit(node(1), now.unix) > 0 {
        let credit = reputation.credit(node(1), now.unix) as f64 / UNIT;
        first.get_or_insert(credit);
        stolen += credit;
        observe(&mut reputation, node(1), Kind::Correctness, Outcome::Bad, credit, now);
    }
    let first = first.unwrap_or_default();
    let text = format!(
        "value imbalance: 200 deeds worth 2.0 units buy one theft of {first:.2}, {stolen:.2} in all; an identity \
         costs {PRICE}"
    );
    figure(&text);
    assert!(stolen < 2.0 + ALLOWANCE, "{text}");
}

proptest! {
    #[test]
    fn no_order_of_deeds_and_thefts_steals_more_than_was_delivered(
        steps in proptest::collection::vec((any::<bool>(), 0.01f64..8.0), 1..60),
    ) {
        let now = start();
        let mut reputation = reputation(now);
        let (mut delivered, mut stolen) = (0.0, 0.0);
        for (steal, part) in steps {
            let credit = reputation.credit(node(1), now.unix) as f64 / UNIT;
            let (outcome, weight) = if steal { (Outcome::Bad, credit * part / 8.0) } else { (Outcome::Good, part) };
            if weight > 0.0 {
                observe(&mut reputation, node(1), Kind::Correctness, outcome, weight, now);
            }
            if steal { stolen += weight } else { delivered += weight }
            prop_assert!(stolen <= delivered + ALLOWANCE + 1e-9, "{stolen} {delivered}");
        }
    }
}

/// Bound: a receipt counts once, however often and through whomever it comes back, until it is too old to count.
#[test]
fn replayed_receipts_count_once() {
    let begin = start();
    let mut reputation = reputation(begin);
    experience(&mut reputation, 5, Kind::Rating, 20, 0, begin);
    let receipts: Vec<_> = (0..8).map(|n| receipt((5, 9), 1_000, Good, begin.unix, n)).collect();
    let sign = |receipts: &[_], now: Now| super::testing::sign_report(5, 9, receipts, begin.unix, now.unix);
    let mut taken = 0;
    for quarter in 0..16 {
        let now = after(begin, f64::from(quarter) / 4.0);
        for (n, from) in [5, 6, 7, 8].into_iter().enumerate() {
            let mut receipts = receipts.clone();
            receipts.rotate_left(n);
            receipts.truncate(8 - n);
            taken += u32::from(reputation.handle_report(node(from), &sign(&receipts, now), now).is_ok());
        }
    }
    let mass = reputation.heard(node(9), Kind::Correctness, begin.unix).mass();
    let text = format!(
        "replay: the same receipts in 64 reports of one epoch, over four epochs: {taken} taken, {mass:.2} units of \
         evidence"
    );
    figure(&text);
    assert!(taken == 1 && mass < 8.0, "{text}");
}

/// Bound: a source gets 64 reports checked at once and 2 a second, and a ban when it goes on; all strangers together
/// 256 and 20 a second; a trusted rater gets through beside them; and memory stays within its caps.
#[test]
fn a_flood_of_reports_is_bounded() {
    let begin = start();
    let mut reputation = reputation(begin);
    experience(&mut reputation, 5, Kind::Rating, 20, 0, begin);
    let sybils: Vec<_> =
        (0..400).map(|n| report((1_000 + n, 9_000 + n % 50), &[Good], begin.unix, begin.unix)).collect();
    let flood = sybils.iter().cycle().take(2_000);
    let one: Vec<_> = flood.map(|bytes| reputation.handle_report(node(6), bytes, begin)).collect();
    let count = |outcomes: &[Result<(), Reject>], what| outcomes.iter().filter(|outcome| **outcome == what).count();
    let limited = count(&one, Err(Reject::RateLimited));
    let (taken, flooding, shut) =
        (count(&one, Ok(())), count(&one, Err(Reject::Flood)), count(&one, Err(Reject::Banned)));
    let many: Vec<_> =
        (0..400).map(|n| reputation.handle_report(node(2_000 + n), &sybils[n as usize], begin)).collect();
    let crowd = count(&many, Ok(()));
    let trusted = reputation.handle_report(node(5), &report((5, 9), &[Good], begin.unix, begin.unix), begin);
    let text = format!(
        "flood: of 2000 reports by one source {taken} taken, {limited} over the rate, {flooding} more before it is \
         banned ({shut} refused unread); of 400 by as many strangers {crowd} more; a trusted rater beside them: {trusted:?}; pairs kept \
         {}",
        reputation.sizes()[1]
    );
    figure(&text);
    assert!((taken, limited, flooding, shut) == (64, 960, 256, 720), "{text}");
    assert!(taken + crowd == 256 && trusted == Ok(()), "{text}");
    assert_eq!(reputation.drops().get(DropReason::RateLimited), 2_000 - 64, "{text}");
}

/// Bound: own experience stands against any praise, and honest raters of a peer that treats this node alone badly keep
/// their word.
#[test]
fn discrimination_harms_neither_the_verdict_nor_honest_raters() {
    let begin = start();
    let mut reputation = reputation(begin);
    let known: Vec<_> = (1..=8).collect();
    known.iter().for_each(|peer| experience(&mut reputation, *peer, Kind::Correctness, 50, 0, begin));
    experience(&mut reputation, 50, Kind::Correctness, 0, 12, begin);
    let mut beliefs = Vec::new();
    for epoch in 0..4 {
        let now = after(begin, f64::from(epoch));
        hear(&mut reputation, 100..110, &known, &[Good; 8], now);
        let now = hear(&mut reputation, 100..110, &[50], &[Good; 8], now.plus(Duration::from_secs(60)));
        beliefs.push(reputation.trust(node(105), now.unix).belief());
    }
    let now: UnixMillis = after(begin, 4.0).unix;
    let upper = reputation.posterior(node(50), Kind::Correctness, now).upper();
    let text = format!(
        "discrimination: twelve bad experiences against the praise of ten trusted raters: upper bound {upper:.3}; \
         belief in an honest rater over four epochs {beliefs:.2?}"
    );
    figure(&text);
    assert!(upper < 0.3 && beliefs.iter().all(|belief| *belief > 0.6), "{text}");
}
