//! What this node's own circuits tell of relays: for its own opinion of them, and nobody else's.
//!
//! Which relays stood on one circuit, and when, is what circuits hide. So experiences leave together, in no order, half a minute to a minute and a
//! half after the first; what speaks for relays leaves for each relay alone, over all circuits of that time. What speaks against relays
//! says who were on the way, as nobody knows which of them it was.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use fog_base::NodeId;
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};

use crate::core::{
    client::ClientCircuit,
    types::{CloseReason, Experience, Purpose},
};

/// What a circuit weighs that somebody on its way ended, before it was built or before its time, or that was not built in a time that is long for
/// all others.
pub(super) const ENDED: f64 = 1.0;
/// And one that was not built in the usual time, or brought no answer.
pub(super) const SLOW: f64 = 0.25;
/// What has carried so much to its end has done its work once more.
const CARRIED: u64 = 64 * 1024;
/// For so long an answer may be on its way.
const ANSWER: Duration = Duration::from_secs(5);
/// How long they are gathered: between these.
const GATHERED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(90));
/// Bad ones that wait, and relays of which there are good ones; further ones are forgotten.
const MAX_WAITING: usize = 256;
/// The most that one says.
const MAX_WEIGHT: f64 = 8.0;
/// So many circuits in a row that came no further than a guard: it is tried again later, and another one is taken.
const MAX_STUCK: u32 = 8;

/// Those that wait.
#[derive(Debug)]
pub(super) struct Experiences {
    good: BTreeMap<NodeId, f64>,
    bad: Vec<(Vec<NodeId>, f64)>,
    due: Instant,
    /// Circuits in a row that came no further than this guard.
    stuck: HashMap<NodeId, u32>,
}

impl Experiences {
    pub(super) fn new(now: Instant) -> Self {
        Self { good: BTreeMap::new(), bad: Vec::new(), due: now + GATHERED.1, stuck: HashMap::new() }
    }

    pub(super) fn add(&mut self, relays: Vec<NodeId>, is_good: bool, weight: f64) {
        if is_good {
            for relay in relays {
                if self.good.len() < MAX_WAITING || self.good.contains_key(&relay) {
                    let sum = self.good.entry(relay).or_default();
                    *sum = (*sum + weight).min(MAX_WEIGHT);
                }
            }
        } else if self.bad.len() < MAX_WAITING {
            self.bad.push((relays, weight));
        }
    }

    /// A circuit that was open is over.
    pub(super) fn add_end(&mut self, circuit: &ClientCircuit, reason: &CloseReason, now: Instant) {
        if !circuit.is_open() || circuit.purpose == Purpose::Spare {
            return;
        }
        let relays = || circuit.path.iter().map(|hop| hop.relay.id).collect::<Vec<_>>();
        // The other end of a rendezvous may end it as well.
        let is_ours = !circuit.is_virtual;
        let is_lasting = matches!(circuit.purpose, Purpose::General | Purpose::ServiceIntroduction);
        let is_asking = circuit.asked.is_some_and(|since| now.saturating_duration_since(since) >= ANSWER);
        match reason {
            CloseReason::Remote if is_ours && is_lasting => self.add(relays(), false, ENDED),
            CloseReason::Asked if is_ours && !is_lasting && is_asking => self.add(relays(), false, SLOW),
            CloseReason::Asked | CloseReason::Idle if circuit.bytes.1 >= CARRIED => self.add(relays(), true, 1.0),
            _ => {}
        }
    }

    /// Nothing came from behind this guard; whether that was so too often in a row.
    pub(super) fn is_stuck(&mut self, guard: NodeId) -> bool {
        if self.stuck.len() >= MAX_WAITING && !self.stuck.contains_key(&guard) {
            self.stuck.clear();
        }
        let times = self.stuck.entry(guard).or_default();
        *times += 1;
        let is_stuck = *times >= MAX_STUCK;
        if is_stuck {
            self.stuck.remove(&guard);
        }
        is_stuck
    }

    /// A circuit through this guard was built.
    pub(super) fn handle_built(&mut self, guard: &NodeId) {
        self.stuck.remove(guard);
    }

    /// All that waits, when it is time.
    pub(super) fn due(&mut self, now: Instant, rng: &mut StdRng) -> Option<Vec<Experience>> {
        if self.due > now {
            return None;
        }
        self.due = now + rng.random_range(GATHERED.0..=GATHERED.1);
        let good = std::mem::take(&mut self.good).into_iter();
        let good = good.map(|(relay, weight)| Experience { relays: vec![relay], is_good: true, weight });
        let bad = self.bad.drain(..).map(|(relays, weight)| Experience { relays, is_good: false, weight });
        let mut all: Vec<_> = good.chain(bad).collect();
        all.shuffle(rng);
        (!all.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn what_speaks_for_relays_tells_no_path_and_nothing_leaves_before_its_time() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut experiences = Experiences::new(now);
        for last in 3..6 {
            experiences.add(vec![node(1), node(2), node(last)], true, 1.0);
        }
        experiences.add(vec![node(1), node(9)], false, ENDED);
        assert_eq!(experiences.due(now + GATHERED.1 - Duration::from_millis(1), &mut rng), None);
        let all = experiences.due(now + GATHERED.1, &mut rng).unwrap();
        let weights = |is_good| {
            let of = all.iter().filter(move |one| one.is_good == is_good);
            of.map(|one| (one.relays.clone(), one.weight)).collect::<Vec<_>>()
        };
        let mut good = weights(true);
        good.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [(1, 3.0), (2, 3.0), (3, 1.0), (4, 1.0), (5, 1.0)].map(|(n, weight)| (vec![node(n)], weight));
        assert_eq!(good, expected);
        assert_eq!(weights(false), [(vec![node(1), node(9)], ENDED)]);
        assert_eq!(experiences.due(now + GATHERED.1 * 3, &mut rng), None, "nothing twice");
    }

    #[test]
    fn a_bounded_number_waits_and_none_says_too_much() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut experiences = Experiences::new(now);
        for n in 0..1000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            experiences.add(vec![NodeId(id), node(255)], n % 2 == 0, 1.0);
        }
        let all = experiences.due(now + GATHERED.1, &mut rng).unwrap();
        assert!(all.len() <= 2 * MAX_WAITING && all.iter().all(|one| one.weight <= MAX_WEIGHT));
        assert!(all.iter().filter(|one| !one.is_good).count() == MAX_WAITING);
    }

    #[test]
    fn a_guard_behind_which_nothing_comes_is_stuck_unless_something_does() {
        let mut experiences = Experiences::new(Instant::now());
        let tries =
            |experiences: &mut Experiences, n| (0..n).map(|_| experiences.is_stuck(node(1))).collect::<Vec<_>>();
        assert!(!tries(&mut experiences, MAX_STUCK - 1).contains(&true));
        experiences.handle_built(&node(1));
        let all = tries(&mut experiences, MAX_STUCK);
        assert_eq!(all.iter().position(|stuck| *stuck), Some(all.len() - 1));
    }
}
