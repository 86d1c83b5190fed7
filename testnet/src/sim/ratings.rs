//! What peers tell each other: signed reports with signed receipts, of which a third lie.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{EpochSchedule, NodeId, Now};
use fog_reputation::{
    Config, Deal, Kind, Observation, Outcome, Receipt, Reputation, Service, Terms, Verdict, core::report,
};
use rand::RngExt;

use super::{
    Run, parallel,
    relays::{EPOCH_LENGTH, NETWORK, beginning},
    stats::{digits, spread},
};
use crate::Check;

/// Peers that every observer knows well itself.
const KNOWN: u32 = 8;
/// Raters, of whom a third are a ring.
const RATERS: u32 = 18;
const RING: u32 = RATERS / 3;
const OBSERVERS: u64 = 8;
const EPOCHS: u32 = 4;
/// Receipts in a report.
const RECEIPTS: u64 = 4;

/// Whom reports are about: an honest peer that no observer knows, and a member of the ring that cheats.
const VICTIM: u32 = 500;
const CHEAT: u32 = 501;

fn identity(number: u32) -> SigningKey {
    SigningKey::from_bytes(&blake3::derive_key("fog testnet sim rater v1", &number.to_be_bytes()))
}

fn node(number: u32) -> NodeId {
    NodeId(identity(number).verifying_key().to_bytes())
}

fn schedule() -> EpochSchedule {
    EpochSchedule::new(EPOCH_LENGTH)
}

/// A report on what the subject did in this moment's epoch.
fn signed(reporter: u32, subject: u32, verdict: Verdict, now: Now) -> Vec<u8> {
    let (client, server, on) = (identity(reporter), identity(subject), (&NETWORK, &schedule()));
    let receipt = |nonce: u64| {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(nonce.to_be_bytes()).for_each(|(to, from)| *to = from);
        let terms = Terms { service: Service::Task, client: node(reporter), value: 1_000, nonce: bytes };
        let deal = Deal::sign(&server, on, terms, now.unix).expect("valid terms");
        Receipt::sign(&client, on, &deal, verdict, now.unix).expect("its own deal").as_bytes().to_vec()
    };
    let about = (schedule().at(now.unix), node(subject));
    report::sign(&client, on, about, (0..RECEIPTS).map(receipt), (now.unix.0, now.unix)).expect("valid receipts")
}

/// A peer that knows the first [`KNOWN`] itself, for good.
fn observer(number: usize, begin: Now) -> Reputation {
    let config = Config::new(NETWORK, schedule());
    let mut reputation = Reputation::new(config, Arc::new(identity(1_000 + number as u32)), [number as u8; 32], begin);
    for peer in 0..KNOWN {
        observe(&mut reputation, peer, Outcome::Good, 50, begin);
    }
    reputation
}

fn observe(reputation: &mut Reputation, peer: u32, outcome: Outcome, times: usize, now: Now) {
    for _ in 0..times {
        let observation = Observation { peer: node(peer), kind: Kind::Correctness, outcome, weight: 1.0, at: now.unix };
        // What is refused shows in the figures.
        let _ = reputation.handle_observation(observation, now);
    }
}

fn start() -> Now {
    Now { mono: Instant::now(), unix: beginning() }
}

/// What the ring says of the victim.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ring {
    Silent,
    Lies,
}

/// Every rater tells the truth about what everybody knows, and so becomes trusted. Then the ring accuses the victim and
/// praises the cheat, about whom the others tell the truth.
pub(super) fn bad_mouthing(run: &Run<'_>) -> Vec<Check> {
    let begin = start();
    let after_ring = |ring| {
        let heard = reports(ring, begin);
        let end = heard.last().map_or(begin, |(now, ..)| *now);
        parallel(run.some(OBSERVERS) as usize, |number| {
            let mut reputation = observer(number, begin);
            for (now, from, bytes) in &heard {
                // What is refused shows in the figures.
                let _ = reputation.handle_report(*from, bytes, *now);
            }
            let [victim, cheat] =
                [VICTIM, CHEAT].map(|peer| reputation.posterior(node(peer), Kind::Correctness, end.unix));
            (victim.lower(), cheat.lower(), cheat.mean())
        })
    };
    let (without, with) = (after_ring(Ring::Silent), after_ring(Ring::Lies));
    let harm = without.iter().zip(&with).map(|(without, with)| without.0 - with.0).fold(0.0, f64::max);
    let cheat = with.iter().map(|(_, lower, _)| *lower).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    if harm > 0.02 {
        wrong.push(format!("the victim's lower bound falls by {}", digits(harm)));
    }
    if cheat > 0.2 {
        wrong.push(format!("the cheat's lower bound is {}", digits(cheat)));
    }
    let victim = with.iter().map(|(lower, ..)| *lower).fold(1.0, f64::min);
    let detail = format!(
        "{RING} of {RATERS} trusted raters take {} from a victim's lower bound, which is at least {}; the cheat that they \
         praise has at most {}",
        digits(harm),
        digits(victim),
        digits(cheat)
    );
    vec![
        Check::judged(&run.name("a third of the trusted raters"), &wrong, detail)
            .with("observers", run.some(OBSERVERS))
            .with("victim_without_the_ring", spread(without.iter().map(|(lower, ..)| *lower)))
            .with("victim_with_the_ring", spread(with.iter().map(|(lower, ..)| *lower)))
            .with("cheat_lower_bound", spread(with.iter().map(|(_, lower, _)| *lower)))
            .with("cheat_mean", spread(with.iter().map(|(.., mean)| *mean))),
    ]
}

/// All reports, a second after one another in each epoch, with who sends them.
fn reports(ring: Ring, begin: Now) -> Vec<(Now, NodeId, Vec<u8>)> {
    let mut reports = Vec::new();
    for epoch in 0..EPOCHS {
        let mut now = begin.plus(EPOCH_LENGTH * epoch);
        for rater in 0..RATERS {
            let is_ring = rater < RING;
            let known = (0..KNOWN).map(|peer| (peer, Verdict::Good));
            let (victim, cheat) =
                if is_ring { (Verdict::Wrong, Verdict::Good) } else { (Verdict::Good, Verdict::Wrong) };
            let others = [(VICTIM, victim), (CHEAT, cheat)].into_iter().filter(|_| !is_ring || ring == Ring::Lies);
            for (subject, verdict) in known.chain(others) {
                now = now.plus(Duration::from_secs(1));
                reports.push((now, node(100 + rater), signed(100 + rater, subject, verdict, now)));
            }
        }
    }
    reports
}

const STRANGERS: u32 = 60;
/// Whom each of them praises.
const PRAISED: u32 = 4;

/// Strangers praise each other, some of them through peers of good standing.
pub(super) fn sybil_praise(run: &Run<'_>) -> Vec<Check> {
    let begin = start();
    let mut rng = run.rng(0);
    let pairs: Vec<_> = (0..STRANGERS)
        .flat_map(|sybil| (0..PRAISED).map(move |_| sybil))
        .map(|sybil| (2_000 + sybil, 2_000 + (sybil + rng.random_range(1..STRANGERS)) % STRANGERS))
        .collect();
    let praise = parallel(pairs.len(), |at| {
        let (reporter, subject) = pairs[at];
        (node(reporter), signed(reporter, subject, Verdict::Good, begin))
    });
    let shown = parallel(run.some(OBSERVERS) as usize, |number| {
        let mut reputation = observer(number, begin);
        let lower = |reputation: &Reputation, now: Now| -> Vec<f64> {
            let of = |sybil| reputation.posterior(node(2_000 + sybil), Kind::Correctness, now.unix).lower();
            (0..STRANGERS).map(of).collect()
        };
        let before = lower(&reputation, begin);
        let (mut now, mut taken) = (begin, 0u32);
        for (from, bytes) in &praise {
            now = now.plus(Duration::from_secs(1));
            taken += u32::from(reputation.handle_report(*from, bytes, now).is_ok());
        }
        let after = lower(&reputation, now);
        let gain = before.iter().zip(&after).map(|(before, after)| after - before).fold(0.0, f64::max);
        let credit = (0..STRANGERS).map(|sybil| reputation.credit(node(2_000 + sybil), now.unix)).max().unwrap_or(0);
        (taken, gain, credit)
    });
    let gain = shown.iter().map(|(_, gain, _)| *gain).fold(0.0, f64::max);
    let credit = shown.iter().map(|(.., credit)| *credit).max().unwrap_or(0);
    let mut wrong = Vec::new();
    if gain > 0.0 || credit > 0 {
        wrong.push(format!("a lower bound rose by {}, a credit to {credit}", digits(gain)));
    }
    let read = shown.iter().map(|(taken, ..)| *taken).max().unwrap_or(0);
    let detail = format!("{read} reports of {STRANGERS} strangers on each other were read, and none counts");
    vec![
        Check::judged(&run.name("strangers"), &wrong, detail)
            .with("reports_read", read)
            .with("largest_gain", digits(gain))
            .with("largest_credit", credit),
    ]
}
