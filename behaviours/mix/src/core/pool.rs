//! The mixing pool: everything that a relay holds back, released at its deadline. One pool per node: packets of different
//! destinations must mix with each other.
//!
//! A timer wheel: one slot per tick, wide enough that every deadline fits, so adding and releasing cost a constant. A slot only
//! finds the candidates; each item leaves at its own deadline, exact to the clock that is passed in, and items leave in the
//! order of their deadlines.

use std::time::{Duration, Instant};

const SLOTS: usize = 4096;
const WORDS: usize = SLOTS / 64;

#[derive(Debug)]
struct Entry<T> {
    deadline: Instant,
    item: T,
}

/// Holds items until their deadlines; at most `capacity` of them.
#[derive(Debug)]
pub struct Pool<T> {
    slots: Vec<Vec<Entry<T>>>,
    /// Vectors of slots that are empty now, for the next ones to fill: otherwise each slot would keep the room of its fullest hour.
    spare: Vec<Vec<Entry<T>>>,
    occupied: [u64; WORDS],
    tick: Duration,
    start: Instant,
    /// The first tick that may still hold items.
    position: u64,
    len: usize,
    capacity: usize,
}

impl<T> Pool<T> {
    /// An empty pool for deadlines of at most `horizon` ahead.
    pub fn new(capacity: usize, horizon: Duration, now: Instant) -> Self {
        // Two slots of room: the one that is being emptied, and rounding.
        let tick = (horizon / (SLOTS as u32 - 2)).max(Duration::from_micros(250));
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { slots, spare: Vec::new(), occupied: [0; WORDS], tick, start: now, position: 0, len: 0, capacity }
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds an item at `now`; a full pool hands it back. The deadline is at most the horizon ahead.
    pub fn insert(&mut self, deadline: Instant, item: T, now: Instant) -> Result<(), T> {
        if self.len >= self.capacity {
            return Err(item);
        }
        // The wheel moves up to its first item, so that the whole horizon fits ahead of it.
        let present = self.tick_of(now);
        self.position = self.position.max(self.next_occupied().map_or(present, |tick| tick.min(present)));
        let tick = self.tick_of(deadline).clamp(self.position, self.position + SLOTS as u64 - 1);
        let index = (tick % SLOTS as u64) as usize;
        if let (Some(slot), Some(word)) = (self.slots.get_mut(index), self.occupied.get_mut(index / 64)) {
            if slot.capacity() == 0 {
                *slot = self.spare.pop().unwrap_or_default();
            }
            slot.push(Entry { deadline, item });
            *word |= 1 << (index % 64);
            self.len += 1;
        }
        Ok(())
    }

    /// Takes every item whose deadline is not after `now` into `out`, in the order of deadlines.
    pub fn release(&mut self, now: Instant, out: &mut Vec<T>) {
        let last = self.tick_of(now);
        // An item that was inserted while others were overdue may stand in a slot before its own.
        let mut early = Vec::new();
        while let Some(tick) = self.next_occupied().filter(|tick| *tick <= last) {
            self.position = tick;
            let index = (tick % SLOTS as u64) as usize;
            self.release_slot(index, now, out);
            if tick == last {
                break;
            }
            if let (Some(slot), Some(word)) = (self.slots.get_mut(index), self.occupied.get_mut(index / 64))
                && !slot.is_empty()
            {
                self.len -= slot.len();
                early.append(slot);
                self.spare.push(std::mem::take(slot));
                *word &= !(1 << (index % 64));
            }
        }
        self.position = self.position.max(last);
        for Entry { deadline, item } in early {
            // There is room: it was counted a moment ago.
            let _kept = self.insert(deadline, item, now);
        }
    }

    fn release_slot(&mut self, index: usize, now: Instant, out: &mut Vec<T>) {
        let (Some(slot), Some(word)) = (self.slots.get_mut(index), self.occupied.get_mut(index / 64)) else { return };
        slot.sort_unstable_by_key(|entry| entry.deadline);
        let due = slot.partition_point(|entry| entry.deadline <= now);
        out.extend(slot.drain(..due).map(|entry| entry.item));
        self.len -= due;
        if slot.is_empty() {
            self.spare.push(std::mem::take(slot));
            *word &= !(1 << (index % 64));
        }
    }

    /// When the next item is due; `None` if none waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        let tick = self.next_occupied()?;
        let slot = self.slots.get((tick % SLOTS as u64) as usize)?;
        slot.iter().map(|entry| entry.deadline).min()
    }

    fn tick_of(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.start);
        u64::try_from(elapsed.as_nanos() / self.tick.as_nanos().max(1)).unwrap_or(u64::MAX / 2)
    }

    /// The first tick from `position` on whose slot holds an item.
    fn next_occupied(&self) -> Option<u64> {
        let first = (self.position % SLOTS as u64) as usize;
        let (first_word, first_bit) = (first / 64, first % 64);
        // The first word is looked at twice: its high bits now, its low bits after the round.
        for step in 0..=WORDS {
            let index = (first_word + step) % WORDS;
            let mut word = *self.occupied.get(index)?;
            if step == 0 {
                word &= u64::MAX << first_bit;
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                return Some(self.position + ((slot + SLOTS - first) % SLOTS) as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_item_leaves_at_its_deadline_in_order_and_exactly_once(
            items in proptest::collection::vec((0u64..2_000_000, 0u64..600_000), 1..300),
        ) {
            let start = Instant::now();
            let mut pool = Pool::new(1000, Duration::from_millis(600), start);
            let mut arrivals: Vec<_> = items.iter().map(|(at, delay)| (*at, at + delay)).collect();
            arrivals.sort();
            let mut released: Vec<(u64, u64)> = Vec::new();
            let mut run_until = |pool: &mut Pool<u64>, until: Option<u64>| {
                while let Some(next) = pool.next_deadline() {
                    let at = (next - start).as_micros() as u64;
                    if until.is_some_and(|until| at > until) { break }
                    let mut out = Vec::new();
                    pool.release(next, &mut out);
                    assert!(!out.is_empty());
                    released.extend(out.into_iter().map(|deadline| (at, deadline)));
                }
            };
            for (at, deadline) in &arrivals {
                run_until(&mut pool, Some(*at));
                pool.insert(start + Duration::from_micros(*deadline), *deadline, start + Duration::from_micros(*at)).unwrap();
            }
            run_until(&mut pool, None);
            prop_assert!(pool.is_empty());
            prop_assert_eq!(released.len(), items.len());
            prop_assert!(released.iter().all(|(at, deadline)| at == deadline), "released at their deadlines");
            prop_assert!(released.is_sorted());
        }

        #[test]
        fn late_polls_release_everything_due(deadlines in proptest::collection::vec(0u64..600_000, 1..200), at in 0u64..2_000_000) {
            let start = Instant::now();
            let mut pool = Pool::new(1000, Duration::from_millis(600), start);
            for deadline in &deadlines {
                pool.insert(start + Duration::from_micros(*deadline), *deadline, start).unwrap();
            }
            let mut out = Vec::new();
            pool.release(start + Duration::from_micros(at), &mut out);
            prop_assert_eq!(out.len(), deadlines.iter().filter(|d| **d <= at).count());
            prop_assert!(out.is_sorted());
        }
    }

    #[test]
    fn memory_is_that_of_the_slots_in_use_however_long_it_runs() {
        let start = Instant::now();
        let mut pool = Pool::new(10_000, Duration::from_millis(100), start);
        let (mut out, mut now) = (Vec::new(), start);
        for lap in 0..5_000u64 {
            for n in 0..100 {
                pool.insert(now + Duration::from_micros((n * 37 + lap) % 1_000), n, now).unwrap();
            }
            now += Duration::from_millis(1);
            pool.release(now, &mut out);
        }
        // Deadlines within a millisecond stand in five slots at most.
        let kept = pool.slots.iter().filter(|slot| slot.capacity() > 0).count() + pool.spare.len();
        assert!(kept <= 5, "{kept}");
    }

    #[test]
    fn a_full_pool_hands_the_item_back() {
        let start = Instant::now();
        let mut pool = Pool::new(1, Duration::from_secs(1), start);
        assert_eq!(pool.insert(start, 'a', start), Ok(()));
        assert_eq!(pool.insert(start, 'b', start), Err('b'));
        let mut out = Vec::new();
        pool.release(start, &mut out);
        assert_eq!((out, pool.insert(start, 'c', start)), (vec!['a'], Ok(())));
    }

    /// Order out of a busy relay: with exponential delays much longer than the gaps between arrivals, a packet's rank of leaving
    /// must say nothing about its rank of arriving. Spearman's rank correlation within windows of one tenth of the mean.
    #[test]
    fn the_order_of_leaving_is_independent_of_arriving_within_a_delay_window() {
        let start = Instant::now();
        let delays = super::super::delay::Delays { mean: Duration::from_millis(50), max: Duration::from_millis(500) };
        let (window, windows) = (20usize, 2_000usize);
        let mut correlation = 0.0;
        for w in 0..windows {
            let mut pool = Pool::new(window, Duration::from_secs(2), start);
            for i in 0..window {
                // Simultaneous arrivals: what arrives together is what an observer tries to tell apart.
                let seed = *blake3::hash(&((w * window + i) as u64).to_le_bytes()).as_bytes();
                pool.insert(start + delays.draw(&seed, &[0; 32]), i, start).unwrap();
            }
            let mut out = Vec::new();
            pool.release(start + Duration::from_secs(2), &mut out);
            let mean = (window - 1) as f64 / 2.0;
            let (mut covariance, mut variance) = (0.0, 0.0);
            for (rank, i) in out.iter().enumerate() {
                covariance += (rank as f64 - mean) * (*i as f64 - mean);
                variance += (rank as f64 - mean).powi(2);
            }
            correlation += covariance / variance;
        }
        // Under independence the mean of `windows` coefficients has standard deviation 1/sqrt((window-1)·windows).
        let deviation = 1.0 / (((window - 1) * windows) as f64).sqrt();
        let mean = correlation / windows as f64;
        assert!(mean.abs() < 4.0 * deviation, "rank correlation {mean}, standard deviation {deviation}");
    }
}
