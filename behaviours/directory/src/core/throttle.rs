//! Answers at a bounded rate per peer: what a peer asks beyond its rate is answered late.
//!
//! libp2p's Kademlia answers whatever comes as fast as it comes. It has at most 32 requests of a connection open, and takes no more
//! before one of them is answered: so holding an answer back holds the peer back, costs the others nothing, and bounds the memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{NodeId, TokenBucket};

/// Answers that are held for one peer: 32 for each of three connections, and some room.
const MAX_HELD: usize = 128;
/// Peers whose bucket is remembered, so that a new connection is not a new burst.
const MAX_PEERS: usize = 1024;
/// A peer that goes on asking too much is told of so often.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Guest<T> {
    bucket: TokenBucket,
    held: VecDeque<T>,
    due: Option<Instant>,
    told: Option<Instant>,
}

/// Holds what is beyond the rate.
#[derive(Debug)]
pub struct Throttle<T> {
    rate: f64,
    burst: f64,
    guests: BTreeMap<NodeId, Guest<T>>,
    due: BTreeSet<(Instant, NodeId)>,
    flooding: BTreeSet<NodeId>,
    /// Answers that were late.
    delayed: u64,
}

impl<T> Throttle<T> {
    /// `rate` answers a second for each peer, and `burst` at once.
    pub fn new(rate: f64, burst: f64) -> Self {
        let (guests, due, flooding) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { rate, burst, guests, due, flooding, delayed: 0 }
    }

    /// An answer for `peer`: given back if it may go at once; held for [`Throttle::poll_output`] if not. `Err` if it was dropped,
    /// as too many are held.
    pub fn offer(&mut self, peer: NodeId, answer: T, now: Instant) -> Result<Option<T>, T> {
        let guest = self.guest(peer, now);
        if guest.held.is_empty() && guest.bucket.try_take(now) {
            return Ok(Some(answer));
        }
        self.blame(peer, now);
        let Some(guest) = self.guests.get_mut(&peer) else { return Err(answer) };
        if guest.held.len() >= MAX_HELD {
            return Err(answer);
        }
        guest.held.push_back(answer);
        self.delayed += 1;
        self.schedule(peer, now);
        Ok(None)
    }

    /// A request that is not answered at all.
    pub fn charge(&mut self, peer: NodeId, now: Instant) {
        if !self.guest(peer, now).bucket.try_take(now) {
            self.blame(peer, now);
        }
    }

    fn guest(&mut self, peer: NodeId, now: Instant) -> &mut Guest<T> {
        if self.guests.len() >= MAX_PEERS && !self.guests.contains_key(&peer) {
            self.guests.retain(|_, guest| !guest.held.is_empty());
        }
        let bucket = || TokenBucket::new(self.rate, self.burst, now);
        self.guests.entry(peer).or_insert_with(|| Guest {
            bucket: bucket(),
            held: VecDeque::new(),
            due: None,
            told: None,
        })
    }

    fn blame(&mut self, peer: NodeId, now: Instant) {
        let Some(guest) = self.guests.get_mut(&peer) else { return };
        if guest.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_INTERVAL) {
            guest.told = Some(now);
            self.flooding.insert(peer);
        }
    }

    fn schedule(&mut self, peer: NodeId, now: Instant) {
        let Some(guest) = self.guests.get_mut(&peer) else { return };
        if guest.held.is_empty() || guest.due.is_some() {
            return;
        }
        let wait = guest.bucket.wait(now).unwrap_or(TELL_INTERVAL);
        guest.due = Some(now + wait);
        self.due.insert((now + wait, peer));
    }

    /// The next answer whose time has come.
    pub fn poll_output(&mut self, now: Instant) -> Option<T> {
        let (at, peer) = *self.due.first()?;
        if now < at {
            return None;
        }
        self.due.pop_first();
        let guest = self.guests.get_mut(&peer)?;
        guest.due = None;
        // A bucket that is rounded to just below one token is due a moment later.
        let answer = if guest.bucket.try_take(now) { guest.held.pop_front() } else { None };
        self.schedule(peer, now + Duration::from_millis(u64::from(answer.is_none())));
        answer
    }

    /// When [`Throttle::poll_output`] has something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A peer that asked more than it may; told once a second while it goes on.
    pub fn poll_flooding(&mut self) -> Option<NodeId> {
        self.flooding.pop_first()
    }

    /// A peer is gone, and nobody waits for its answers.
    pub fn handle_disconnected(&mut self, peer: NodeId) {
        if let Some(guest) = self.guests.get_mut(&peer) {
            guest.held = VecDeque::new();
            if let Some(at) = guest.due.take() {
                self.due.remove(&(at, peer));
            }
        }
    }

    /// How many answers were late.
    pub fn delayed(&self) -> u64 {
        self.delayed
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
mod tests {
    use super::*;

    const RATE: f64 = 10.0;
    const BURST: f64 = 4.0;

    fn peer(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn drain(throttle: &mut Throttle<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| throttle.poll_output(now)).collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate_in_order() {
        let (mut throttle, start) = (Throttle::new(RATE, BURST), Instant::now());
        let at_once = (0..10).filter(|n| throttle.offer(peer(1), *n, start) == Ok(Some(*n))).count();
        assert_eq!((at_once, throttle.delayed()), (4, 6));
        assert_eq!(drain(&mut throttle, start), [0; 0]);
        let mut seen = Vec::new();
        let mut now = start;
        while let Some(at) = throttle.poll_timeout() {
            assert!(at >= now);
            now = at;
            seen.extend(drain(&mut throttle, now));
        }
        assert_eq!(seen, [4, 5, 6, 7, 8, 9]);
        let took = now - start;
        assert!((Duration::from_millis(595)..Duration::from_millis(620)).contains(&took), "{took:?}");
    }

    #[test]
    fn one_peers_flood_does_not_delay_another() {
        let (mut throttle, start) = (Throttle::new(RATE, BURST), Instant::now());
        for n in 0..100 {
            let _held = throttle.offer(peer(1), n, start);
        }
        assert_eq!(throttle.offer(peer(2), 1, start), Ok(Some(1)));
        assert_eq!((throttle.poll_flooding(), throttle.poll_flooding()), (Some(peer(1)), None));
    }

    #[test]
    fn what_is_held_for_a_peer_is_bounded() {
        let (mut throttle, start) = (Throttle::new(RATE, BURST), Instant::now());
        let dropped = (0..1000).filter(|n| throttle.offer(peer(1), *n, start).is_err()).count();
        assert_eq!(dropped, 1000 - 4 - MAX_HELD);
    }

    #[test]
    fn a_flood_is_told_once_a_second_and_survives_a_new_connection() {
        let (mut throttle, start) = (Throttle::new(RATE, BURST), Instant::now());
        let mut told = 0;
        for ms in 0..3000u64 {
            let now = start + Duration::from_millis(ms);
            let _held = throttle.offer(peer(1), 0, now);
            let _late = drain(&mut throttle, now);
            if ms % 100 == 0 {
                throttle.handle_disconnected(peer(1));
            }
            told += usize::from(throttle.poll_flooding().is_some());
        }
        assert_eq!(told, 3);
    }

    #[test]
    fn those_who_left_are_forgotten_when_there_are_many() {
        let (mut throttle, start) = (Throttle::<u32>::new(RATE, BURST), Instant::now());
        for n in 0..5000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            throttle.charge(NodeId(id), start);
        }
        assert!(throttle.guests.len() <= MAX_PEERS);
    }

    #[test]
    fn a_peer_that_left_gets_nothing() {
        let (mut throttle, start) = (Throttle::new(RATE, BURST), Instant::now());
        for n in 0..10 {
            let _held = throttle.offer(peer(1), n, start);
        }
        throttle.handle_disconnected(peer(1));
        assert_eq!((throttle.poll_timeout(), throttle.poll_output(start + Duration::from_secs(9))), (None, None));
    }
}
