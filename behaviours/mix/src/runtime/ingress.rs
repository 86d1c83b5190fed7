//! Packets on their way from connections to workers. Bounded; a connection that finds it full stops reading until there is
//! room, so that the peer's own flow control slows it down. What exceeds the node's total rate is dropped and counted.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    task::Waker,
    time::Instant,
};

use fog_base::TokenBucket;

use super::lock;
use crate::core::relay::Arrival;

/// Packets that wait for a worker.
const CAPACITY: usize = 4096;
/// Packets that a worker takes at once: enough for batches to pay, few enough that two workers share a burst.
pub const BATCH: usize = 64;

#[derive(Debug)]
struct State {
    batches: VecDeque<Vec<Arrival>>,
    len: usize,
    bucket: TokenBucket,
    blocked: Vec<Waker>,
    closed: bool,
}

/// The queue between connections and workers.
#[derive(Debug)]
pub struct Ingress {
    state: Mutex<State>,
    filled: Condvar,
}

/// What became of an offered batch.
#[derive(Debug)]
pub enum Offer {
    /// Taken, but for this many packets beyond the total rate, which are the batch's last ones and come back.
    Taken(Vec<Arrival>),
    /// No room; the waker is woken when there is.
    Full(Vec<Arrival>),
}

impl Ingress {
    /// An empty queue for a node that takes `rate` packets a second in total.
    pub fn new(rate: f64, now: Instant) -> Self {
        let bucket = TokenBucket::new(rate, rate.max(1024.0), now);
        let state = State { batches: VecDeque::new(), len: 0, bucket, blocked: Vec::new(), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Offers a batch of at most [`BATCH`] packets.
    pub fn offer(&self, mut batch: Vec<Arrival>, now: Instant, waker: &Waker) -> Offer {
        let mut state = lock(&self.state);
        if state.len + batch.len() > CAPACITY {
            if !state.blocked.iter().any(|known| known.will_wake(waker)) {
                state.blocked.push(waker.clone());
            }
            return Offer::Full(batch);
        }
        let granted = state.bucket.take(u32::try_from(batch.len()).unwrap_or(u32::MAX), now) as usize;
        let excess = batch.split_off(granted);
        if !batch.is_empty() {
            state.len += batch.len();
            state.batches.push_back(batch);
            drop(state);
            self.filled.notify_one();
        }
        Offer::Taken(excess)
    }

    /// Waits for packets and moves up to [`BATCH`] of them to `to`; false when the queue is closed.
    pub fn take(&self, to: &mut Vec<Arrival>) -> bool {
        let mut state = lock(&self.state);
        while state.batches.is_empty() && !state.closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        while let Some(batch) = state.batches.front()
            && (to.is_empty() || to.len() + batch.len() <= BATCH)
        {
            if let Some(mut batch) = state.batches.pop_front() {
                state.len -= batch.len();
                to.append(&mut batch);
            }
        }
        let woken = std::mem::take(&mut state.blocked);
        let open = !state.closed;
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        open
    }

    /// Ends all waiting.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }

    /// How many packets wait, and how many may.
    pub fn usage(&self) -> (usize, usize) {
        (lock(&self.state).len, CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use fog_sphinx::PACKET_LEN;

    use super::*;

    fn batch(n: usize) -> Vec<Arrival> {
        (0..n).map(|_| Arrival { packet: Box::new([0; PACKET_LEN]), at: super::super::now().mono }).collect()
    }

    #[test]
    fn a_full_queue_hands_the_batch_back_and_what_exceeds_the_rate_is_separated() {
        let now = super::super::now().mono;
        let ingress = Ingress::new(1024.0, now);
        let waker = Waker::noop();
        for _ in 0..16 {
            assert!(matches!(ingress.offer(batch(64), now, waker), Offer::Taken(excess) if excess.is_empty()));
        }
        assert!(matches!(ingress.offer(batch(64), now, waker), Offer::Taken(excess) if excess.len() == 64));
        let fast = Ingress::new(1e9, now);
        for _ in 0..64 {
            assert!(matches!(fast.offer(batch(64), now, waker), Offer::Taken(_)));
        }
        assert!(matches!(fast.offer(batch(1), now, waker), Offer::Full(back) if back.len() == 1));
        let mut taken = Vec::new();
        assert!(fast.take(&mut taken));
        assert_eq!(taken.len(), BATCH);
        assert!(matches!(fast.offer(batch(1), now, waker), Offer::Taken(_)));
        fast.close();
        assert!(!fast.take(&mut taken));
    }
}
