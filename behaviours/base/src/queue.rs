//! A first-in, first-out queue with a bound; what does not fit is handed back and counted.

use std::collections::VecDeque;

/// A queue of at most `capacity` items.
#[derive(Debug)]
pub struct BoundedQueue<T> {
    items: VecDeque<T>,
    capacity: usize,
    refused: u64,
}

impl<T> BoundedQueue<T> {
    /// An empty queue; memory is taken as it fills.
    pub fn new(capacity: usize) -> Self {
        Self { items: VecDeque::new(), capacity, refused: 0 }
    }

    /// Adds at the end; a full queue hands the item back and counts it.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() >= self.capacity {
            self.refused += 1;
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many more fit.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.items.len())
    }

    /// How many were refused since the queue was made.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Drops the items for which `keep` is false and says how many that were.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) -> usize {
        let before = self.items.len();
        self.items.retain(keep);
        before - self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_handed_back_and_counted() {
        let mut queue = BoundedQueue::new(2);
        assert_eq!((queue.push('a'), queue.push('b'), queue.push('c')), (Ok(()), Ok(()), Err('c')));
        assert_eq!((queue.refused(), queue.room(), queue.pop(), queue.room()), (1, 0, Some('a'), 1));
        assert_eq!(queue.retain(|c| *c != 'b'), 1);
        assert!(queue.is_empty());
    }
}
