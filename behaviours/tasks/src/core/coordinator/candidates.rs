//! Workers and tasks as placement sees them: numbers.

use std::{collections::BTreeMap, fmt};

use fog_base::{NodeId, Now};

use super::Coordinator;
use crate::core::{
    nsga::random::{Random, stream},
    offers::Listed,
    placement::{Candidate, Demand, Strategy},
    terms::{Privacy, StrategyName, Terms},
    work::Work,
};

/// The fuel per second of a worker that did not measure its own.
const UNKNOWN_SPEED: f64 = 1e9;
/// The round trip to a worker to which there was no connection yet, in milliseconds.
const UNKNOWN_RTT_MS: f64 = 100.0;

/// One of each strategy that was asked for.
#[derive(Default)]
pub(super) struct Strategies(BTreeMap<StrategyName, Box<dyn Strategy>>);

impl fmt::Debug for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What strategies remember (whose turn it is, who saw what) is no state of a task: a copy begins without.
impl Clone for Strategies {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Strategies {
    /// The position of one of `candidates`, all of which fit. `seed` is of this choice alone.
    pub(super) fn choose(
        &mut self,
        name: StrategyName,
        demand: &Demand,
        candidates: &[Candidate],
        seed: [u8; 32],
    ) -> Option<usize> {
        // The secret that hides where a module's tasks fall to: of this process.
        let strategy = self.0.entry(name).or_insert_with(|| {
            let secret = seed.first_chunk().copied().map_or(0, u64::from_be_bytes);
            name.build(secret)
        });
        let fitting: Vec<_> = candidates.iter().collect();
        let mut random: Random = stream(seed, 1);
        strategy.choose(demand, &fitting, &mut random)
    }
}

impl Coordinator {
    /// All workers that could be asked now, for a placement of many tasks together.
    pub fn candidates(&self, now: Now) -> Vec<Candidate> {
        let all = self.workers.iter().map(|(worker, _)| *worker);
        let usable = all.filter(|worker| {
            let gone = self.workers.get(*worker).is_none_or(|worker| worker.gone.is_some());
            !gone && !self.workers.is_broken(*worker, now) && self.standings.is_used(*worker, now.unix)
        });
        usable.filter_map(|worker| self.candidate(worker, now)).filter(|candidate| candidate.slots > 0).collect()
    }

    pub(super) fn candidate(&self, worker: NodeId, now: Now) -> Option<Candidate> {
        let listed = self.offers.get(worker, now.unix)?;
        let (offer, known) = (listed.offer(), self.workers.get(worker)?);
        let slots = if offer.eligible { u32::from(offer.slots) } else { 0 };
        let speed = if offer.speed == 0 { UNKNOWN_SPEED } else { offer.speed as f64 };
        let tasks = known.load(taken(listed));
        let queue_ms = known.queue_ms(tasks);
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        Some(Candidate {
            node: worker,
            slots,
            room: slots.saturating_mul(64),
            speed,
            queue_ms,
            // Those whose end the queue counts are not counted again.
            in_flight: if queue_ms > 0.0 { tasks.min(slots.saturating_sub(1)) } else { tasks },
            price: if worker == self.signer.me() { 0 } else { offer.rate() },
            joules: f64::from(offer.milliwatts) / 1e3 * 1e9 / speed,
            reliability: self.standings.expected(worker, now.unix) * self.standings.availability(worker, now.unix),
            rtt_ms: match known.rtt {
                Some(rtt) => rtt.as_secs_f64() * 1e3,
                None if worker == self.signer.me() => 0.0,
                None => UNKNOWN_RTT_MS,
            },
            bandwidth: known.bandwidth(),
            cached: known.held(),
            is_private: offer.accepts.privacy.contains(&Privacy::Mixed),
            family: offer.family.as_ref().map(|family| {
                let hash = blake3::hash(family.as_bytes());
                hash.as_bytes().first_chunk().copied().map_or(0, u64::from_be_bytes)
            }),
            network: None,
        })
    }

    /// What is known of a task before it runs: that it uses all that it may.
    pub fn demand(&self, work: &Work, terms: &Terms) -> Demand {
        let others = work.contents().into_iter().filter(|content| *content != work.module);
        Demand {
            fuel: work.limits.fuel,
            contents: [work.module].into_iter().chain(others).collect(),
            deadline_ms: terms.deadline_ms,
            class: terms.class,
            max_price: terms.max_price,
            is_private: terms.privacy == Privacy::Mixed,
        }
    }
}

impl Coordinator {
    /// Whether a worker has a slot that nobody uses, by its own word and by what it does for this node.
    pub(super) fn is_idle(&self, worker: NodeId, now: Now) -> bool {
        self.offers.get(worker, now.unix).is_some_and(|listed| {
            let slots = usize::from(listed.offer().slots);
            listed.offer().eligible && taken(listed).max(self.workers.busy(worker)) < slots
        })
    }
}

/// Tasks that a worker has by its own word.
fn taken(listed: &Listed) -> usize {
    let offer = listed.offer();
    let queued = usize::try_from(offer.queued).unwrap_or(usize::MAX);
    usize::from(offer.slots.saturating_sub(offer.free)).saturating_add(queued)
}
