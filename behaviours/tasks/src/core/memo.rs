//! Verified results, remembered by work: the same computation is not paid twice, and what is known to be right is what spot checks are
//! made of. Results of sealed tasks are never remembered.

use std::collections::BTreeMap;

use super::{outcome::ResultHash, work::WorkId};

/// The most results that are remembered.
pub const MAX_COUNT: usize = 4_096;
/// How many results a pick looks at.
pub const LOOK_AHEAD: usize = 64;
/// The most bytes of all of them together.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A verified result.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered<T> {
    /// What it is.
    pub result: ResultHash,
    /// How far it is believed.
    pub credibility: f64,
    /// What the coordinator keeps of it: the outcome, and what running it again takes.
    pub value: T,
}

/// Remembered results, within bounds; what was not asked for goes first.
#[derive(Debug, Clone)]
pub struct Memo<T> {
    slots: Vec<Slot<T>>,
    by_work: BTreeMap<WorkId, usize>,
    bytes: usize,
    hand: usize,
    max_count: usize,
    max_bytes: usize,
}

#[derive(Debug, Clone)]
struct Slot<T> {
    work: WorkId,
    remembered: Remembered<T>,
    bytes: usize,
    asked: bool,
}

impl<T> Memo<T> {
    /// An empty one of at most so many results and bytes.
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        Self { slots: Vec::new(), by_work: BTreeMap::new(), bytes: 0, hand: 0, max_count, max_bytes }
    }

    /// What `work` gives, if that is known with at least `trust`.
    pub fn get(&mut self, work: &WorkId, trust: f64) -> Option<&Remembered<T>> {
        let slot = self.slots.get_mut(*self.by_work.get(work)?)?;
        if slot.remembered.credibility < trust {
            return None;
        }
        slot.asked = true;
        Some(&slot.remembered)
    }

    /// Remembers a result of `bytes`; a more credible one of the same work stays. False if it is too large.
    pub fn insert(&mut self, work: WorkId, remembered: Remembered<T>, bytes: usize) -> bool {
        if bytes > self.max_bytes || self.max_count == 0 {
            return false;
        }
        if let Some(slot) = self.by_work.get(&work).and_then(|at| self.slots.get(*at)) {
            if slot.remembered.credibility >= remembered.credibility {
                return true;
            }
            self.forget(&work);
        }
        while self.slots.len() >= self.max_count || self.bytes.saturating_add(bytes) > self.max_bytes {
            self.evict();
        }
        self.by_work.insert(work, self.slots.len());
        self.bytes += bytes;
        self.slots.push(Slot { work, remembered, bytes, asked: false });
        true
    }

    /// Forgets `work`: its result was found wrong.
    pub fn forget(&mut self, work: &WorkId) {
        if let Some(at) = self.by_work.get(work) {
            self.remove(*at);
        }
    }

    /// One of the results that are believed with at least `trust`, for a spot check; `draw` is uniform over all numbers. `None` if neither
    /// the one drawn nor the next [`LOOK_AHEAD`] are.
    pub fn pick(&self, draw: u64, trust: f64) -> Option<(WorkId, &Remembered<T>)> {
        let at = usize::try_from(draw.checked_rem(self.slots.len() as u64)?).ok()?;
        let slots = self.slots.iter().cycle().skip(at).take(LOOK_AHEAD.min(self.slots.len()));
        let slot = slots.into_iter().find(|slot| slot.remembered.credibility >= trust)?;
        Some((slot.work, &slot.remembered))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes the next result that was not asked for since the hand last passed (the CLOCK algorithm, Corbató 1968).
    fn evict(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            match self.slots.get_mut(self.hand) {
                Some(slot) if slot.asked => {
                    slot.asked = false;
                    self.hand += 1;
                }
                Some(_) => return self.remove(self.hand),
                None => return,
            }
        }
    }

    fn remove(&mut self, at: usize) {
        if at >= self.slots.len() {
            return;
        }
        let slot = self.slots.swap_remove(at);
        self.bytes -= slot.bytes;
        self.by_work.remove(&slot.work);
        if let Some(moved) = self.slots.get(at) {
            self.by_work.insert(moved.work, at);
        }
    }
}

#[cfg(test)]
#[path = "memo_tests.rs"]
mod tests;
