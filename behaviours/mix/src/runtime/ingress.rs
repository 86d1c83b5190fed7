//! Packets on their way from connections to workers. Bounded; a connection that finds it full stops reading until there is
//! room, so that the peer's own flow control slows it down. What exceeds the node's total rate is dropped and counted.
//!
//! X25519 computes eight results at once for the price of one, so workers take packets in groups of eight. While packets come
//! one by one, but often, a worker gathers them for a moment. That moment is part of a packet's delay, which counts from its
//! arrival, and not an addition to it.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use fog_base::TokenBucket;

use super::lock;
use crate::core::relay::Arrival;

/// Packets that wait for a worker.
const CAPACITY: usize = 4096;
/// Packets that a worker takes at once: enough for what a batch costs once to be little, few enough that none waits long.
pub const BATCH: usize = 64;
/// Packets that are worth no more time together than one alone.
const GROUP: usize = 8;
/// A packet waits no longer for company. Sleepers wake late by 50 µs on Linux, so this keeps it under 200 µs.
const GATHER: Duration = Duration::from_micros(150);
/// Packets come often if the latest were taken not longer ago than this. Otherwise nobody would come, and none waits.
const OFTEN: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct State {
    packets: VecDeque<Arrival>,
    bucket: TokenBucket,
    blocked: Vec<Waker>,
    closed: bool,
    /// Workers that wait to be notified.
    idle: usize,
    /// Whether a worker waits for the group to fill; the others then leave it to that one.
    gathering: bool,
    taken_at: Option<Instant>,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Take so many packets.
    Take(usize),
    /// Wait for more of them until then.
    Gather(Instant),
    /// Wait for the first one, or leave them to the one that gathers.
    Idle,
}

impl State {
    fn next(&self, now: Instant) -> Next {
        let waiting = self.packets.len();
        if waiting >= GROUP {
            return Next::Take((waiting - waiting % GROUP).min(BATCH));
        }
        let Some(first) = self.packets.front() else { return Next::Idle };
        if self.gathering {
            return Next::Idle;
        }
        let until = first.at + GATHER;
        let often = self.taken_at.is_some_and(|at| now.saturating_duration_since(at) < OFTEN);
        if often && now < until { Next::Gather(until) } else { Next::Take(waiting) }
    }
}

/// The queue between connections and workers.
#[derive(Debug)]
pub struct Ingress {
    state: Mutex<State>,
    filled: Condvar,
}

impl Ingress {
    /// An empty queue for a node that takes `rate` packets a second in total.
    pub fn new(rate: f64, now: Instant) -> Self {
        let bucket = TokenBucket::new(rate, rate.max(1024.0), now);
        let state = State {
            packets: VecDeque::with_capacity(CAPACITY),
            bucket,
            blocked: Vec::new(),
            closed: false,
            idle: 0,
            gathering: false,
            taken_at: None,
        };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Takes all packets of `batch`, but for its last ones if they exceed the total rate: those stay. False if there is no room
    /// for the batch: then all stay, and the waker is woken when there is.
    pub fn offer(&self, batch: &mut Vec<Arrival>, now: Instant, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        if state.packets.len() + batch.len() > CAPACITY {
            if !state.blocked.iter().any(|known| known.will_wake(waker)) {
                state.blocked.push(waker.clone());
            }
            return false;
        }
        let granted = state.bucket.take(u32::try_from(batch.len()).unwrap_or(u32::MAX), now) as usize;
        state.packets.extend(batch.drain(..granted));
        let wake = state.idle > 0 && state.next(now) != Next::Idle;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        true
    }

    /// Waits for packets and moves up to [`BATCH`] of them to `to`; false when the queue is closed.
    pub fn take(&self, to: &mut Vec<Arrival>) -> bool {
        let mut state = lock(&self.state);
        let count = loop {
            if state.closed {
                return false;
            }
            let now = super::now().mono;
            match state.next(now) {
                Next::Take(count) => {
                    state.taken_at = Some(now);
                    break count;
                }
                Next::Gather(until) => {
                    state.gathering = true;
                    state.idle += 1;
                    let wait = until.saturating_duration_since(now);
                    (state, _) = self.filled.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                    state.gathering = false;
                }
                Next::Idle => {
                    state.idle += 1;
                    state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        };
        to.extend(state.packets.drain(..count));
        let woken = std::mem::take(&mut state.blocked);
        // Whoever is idle may have been told of these packets only.
        let more = state.idle > 0 && !state.packets.is_empty();
        drop(state);
        if more {
            self.filled.notify_one();
        }
        woken.into_iter().for_each(Waker::wake);
        true
    }

    /// Ends all waiting.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }

    /// How many packets wait, and how many may.
    pub fn usage(&self) -> (usize, usize) {
        (lock(&self.state).packets.len(), CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use fog_sphinx::PACKET_LEN;

    use super::*;

    fn batch(n: usize, at: Instant) -> Vec<Arrival> {
        (0..n).map(|_| Arrival { packet: Box::new([0; PACKET_LEN]), at }).collect()
    }

    #[test]
    fn a_full_queue_takes_nothing_and_what_exceeds_the_rate_stays() {
        let now = super::super::now().mono;
        let ingress = Ingress::new(1024.0, now);
        let offer = |ingress: &Ingress, n| {
            let mut packets = batch(n, now);
            (ingress.offer(&mut packets, now, Waker::noop()), packets.len())
        };
        for _ in 0..15 {
            assert_eq!(offer(&ingress, 64), (true, 0));
        }
        assert_eq!(offer(&ingress, 100), (true, 36));
        let fast = Ingress::new(1e9, now);
        for _ in 0..64 {
            assert_eq!(offer(&fast, 64), (true, 0));
        }
        assert_eq!(offer(&fast, 1), (false, 1));
        let mut taken = Vec::new();
        assert!(fast.take(&mut taken));
        assert_eq!(taken.len(), BATCH);
        assert_eq!(offer(&fast, 1), (true, 0));
        fast.close();
        assert!(!fast.take(&mut taken));
    }

    #[test]
    fn packets_are_taken_in_groups_and_wait_for_company_only_while_they_come_often() {
        let start = super::super::now().mono;
        let ingress = Ingress::new(1e9, start);
        let next = |n: usize, taken_at, gathering, now| {
            let mut state = lock(&ingress.state);
            state.packets = batch(n, start).into();
            (state.taken_at, state.gathering) = (taken_at, gathering);
            state.next(now)
        };
        assert_eq!(next(0, None, false, start), Next::Idle);
        // The first for a while is not held back, nor is one that has waited.
        assert_eq!(next(1, None, false, start), Next::Take(1));
        assert_eq!(next(1, Some(start), false, start + OFTEN), Next::Take(1));
        assert_eq!(next(7, Some(start), false, start + GATHER), Next::Take(7));
        assert_eq!(next(7, Some(start), false, start), Next::Gather(start + GATHER));
        assert_eq!(next(7, Some(start), true, start), Next::Idle, "another worker gathers them");
        assert_eq!(next(8, Some(start), true, start), Next::Take(8), "a full group waits for nobody");
        assert_eq!(next(63, Some(start), false, start), Next::Take(56));
        assert_eq!(next(1000, Some(start), false, start), Next::Take(BATCH));
    }

    #[test]
    fn every_packet_is_taken_exactly_once_by_some_worker() {
        let ingress = Ingress::new(1e9, super::super::now().mono);
        let taken = std::thread::scope(|scope| {
            let worker = || {
                let (mut to, mut total) = (Vec::new(), 0);
                while ingress.take(&mut to) {
                    assert!((1..=BATCH).contains(&to.len()));
                    total += to.len();
                    to.clear();
                }
                total
            };
            let workers = [scope.spawn(worker), scope.spawn(worker), scope.spawn(worker)];
            for n in 0..2_000 {
                let now = super::super::now().mono;
                let mut packets = batch(n % 13, now);
                while !ingress.offer(&mut packets, now, Waker::noop()) {
                    std::thread::yield_now();
                }
            }
            while ingress.usage().0 > 0 {
                std::thread::yield_now();
            }
            ingress.close();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, (0..2_000).map(|n| n % 13).sum::<usize>());
    }
}
