//! Introductions that wait to be answered: the highest effort first, then the oldest.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A bounded queue by effort.
#[derive(Debug)]
pub struct WorkQueue<T> {
    /// By effort, and among equals by the order in which they came.
    items: BTreeMap<(u32, Reverse<u64>), (Instant, T)>,
    capacity: usize,
    max_wait: Duration,
    next: u64,
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<T> {
    /// It waits.
    Waits,
    /// It waits, and this one of lower effort was dropped for it.
    Dropped(u32, T),
    /// No room: all that wait have at least its effort.
    Refused(T),
}

impl<T> WorkQueue<T> {
    /// For at most `capacity` items, each for at most `max_wait`.
    pub fn new(capacity: usize, max_wait: Duration) -> Self {
        Self { items: BTreeMap::new(), capacity, max_wait, next: 0 }
    }

    /// Puts an item in.
    pub fn push(&mut self, effort: u32, item: T, now: Instant) -> Placed<T> {
        let mut dropped = None;
        if self.items.len() >= self.capacity {
            match self.items.first_entry() {
                Some(lowest) if lowest.key().0 < effort => {
                    let ((effort, _), (_, item)) = lowest.remove_entry();
                    dropped = Some((effort, item));
                }
                _ => return Placed::Refused(item),
            }
        }
        self.next += 1;
        self.items.insert((effort, Reverse(self.next)), (now, item));
        dropped.map_or(Placed::Waits, |(effort, item)| Placed::Dropped(effort, item))
    }

    /// Takes the one to answer next, with its effort.
    pub fn pop(&mut self) -> Option<(u32, T)> {
        self.items.pop_last().map(|((effort, _), (_, item))| (effort, item))
    }

    /// Drops what waited too long, and says how many that were.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.items.len();
        let max_wait = self.max_wait;
        self.items.retain(|_, (since, _)| now.saturating_duration_since(*since) < max_wait);
        before - self.items.len()
    }

    /// The highest effort that waits.
    pub fn top(&self) -> Option<u32> {
        self.items.last_key_value().map(|((effort, _), _)| *effort)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether half of the room is taken.
    pub fn is_half_full(&self) -> bool {
        self.items.len() * 2 >= self.capacity
    }
}
