//! Who is asked for what when two sets differ, and what is answered.
//!
//! Each session is one peer's set being read: its list of hashes page by page, and whatever of it is missing here, a batch at a
//! time. One request per peer is under way at any time, and what a session may remember is bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{BoundedQueue, DropCounters, DropReason, NodeId, Now, TokenBucket};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::relay_set::{RelaySet, Source, Verdict};
use crate::wire::{MAX_BATCH, MAX_PAGE, Request, Response};

const FIRST_ROUND: Duration = Duration::from_secs(1);
const LAST_ROUND: Duration = Duration::from_secs(60);
/// A session with a peer is not started again within this time.
const SESSION_INTERVAL: Duration = Duration::from_secs(1);
/// What one peer may ask per second, and at once: enough to read 10,000 descriptors in a few seconds.
const SERVE_RATE: f64 = 50.0;
const SERVE_BURST: f64 = 512.0;
/// A round trip longer than this says nothing about a clock.
const MAX_CLOCK_RTT: Duration = Duration::from_secs(5);
const MAX_OUTPUTS: usize = 4096;

/// What the exchange wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask `to`; the answer, or the failure, is told to the exchange.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        request: Request,
    },
    /// `peer`'s clock is ahead of ours by so many milliseconds.
    Clock {
        /// Whose.
        peer: NodeId,
        /// Positive if it is ahead.
        offset_ms: i64,
    },
    /// `peer` sent what no honest peer sends.
    Misbehaved {
        /// Who.
        peer: NodeId,
    },
    /// `peer` asks more often than any honest peer.
    Flooding {
        /// Who.
        peer: NodeId,
    },
}

#[derive(Debug)]
enum Stage {
    Idle,
    Listing { sent: Now },
    Fetching,
}

#[derive(Debug)]
struct Session {
    stage: Stage,
    missing: VecDeque<[u8; 32]>,
    started: Option<Instant>,
    served: TokenBucket,
}

/// The sessions with all connected peers.
#[derive(Debug)]
pub struct Exchange {
    sessions: BTreeMap<NodeId, Session>,
    round: Duration,
    next_round: Instant,
    rng: StdRng,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
}

impl Exchange {
    /// Without peers.
    pub fn new(seed: [u8; 32], now: Now) -> Self {
        Self {
            sessions: BTreeMap::new(),
            round: FIRST_ROUND,
            next_round: now.mono + FIRST_ROUND,
            rng: StdRng::from_seed(seed),
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
        }
    }

    /// A peer was met: its set is read.
    pub fn handle_connected(&mut self, peer: NodeId, set: &mut RelaySet, now: Now) {
        let served = TokenBucket::new(SERVE_RATE, SERVE_BURST, now.mono);
        self.sessions.entry(peer).or_insert(Session {
            stage: Stage::Idle,
            missing: VecDeque::new(),
            started: None,
            served,
        });
        self.hurry(now);
        self.start(peer, set, now);
    }

    /// What one peer did not know, others may not know either: the row of rounds starts anew.
    fn hurry(&mut self, now: Now) {
        self.round = FIRST_ROUND;
        self.next_round = self.next_round.min(now.mono + FIRST_ROUND);
    }

    /// A peer is gone.
    pub fn handle_disconnected(&mut self, peer: NodeId) {
        self.sessions.remove(&peer);
    }

    /// Answers a request of `peer`.
    pub fn handle_request(&mut self, peer: NodeId, request: Request, set: &mut RelaySet, now: Now) -> Response {
        let Some(session) = self.sessions.get_mut(&peer) else { return Response::Busy };
        if !session.served.try_take(now.mono) {
            self.drops.count(DropReason::RateLimited);
            self.push(Output::Flooding { peer });
            return Response::Busy;
        }
        match request {
            Request::List { digest, after } => {
                let ours = set.digest();
                if digest == ours {
                    return Response::List { now_ms: now.unix.0, digest: ours, hashes: Vec::new(), more: false };
                }
                let mut hashes: Vec<_> = set.hashes(after).take(MAX_PAGE + 1).copied().collect();
                let more = hashes.len() > MAX_PAGE;
                hashes.truncate(MAX_PAGE);
                if after.is_none() {
                    self.start(peer, set, now);
                }
                Response::List { now_ms: now.unix.0, digest: ours, hashes, more }
            }
            Request::Get { hashes } => {
                let known = hashes.iter().take(MAX_BATCH).filter_map(|hash| set.by_hash(hash));
                Response::Records { records: known.map(|descriptor| descriptor.as_bytes().to_vec()).collect() }
            }
        }
    }

    /// Takes the answer to our request.
    pub fn handle_response(&mut self, peer: NodeId, response: Response, set: &mut RelaySet, now: Now) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let stage = std::mem::replace(&mut session.stage, Stage::Idle);
        match (stage, response) {
            (Stage::Listing { sent }, Response::List { now_ms, hashes, more, .. }) => {
                self.report_clock(peer, sent, now_ms, now);
                self.handle_list(peer, &hashes, more, set, now);
            }
            (Stage::Fetching, Response::Records { records }) => {
                for bytes in records {
                    let outcome = set.handle_descriptor(&bytes, Source::Exchange(peer), now);
                    if outcome == Ok(Verdict::New) {
                        self.hurry(now);
                    }
                    if outcome.is_err_and(|reject| reject.is_misbehaviour()) {
                        self.push(Output::Misbehaved { peer });
                        return self.end(peer);
                    }
                }
                self.fetch(peer, set, now);
            }
            (_, Response::Busy) => self.end(peer),
            (_, Response::List { .. } | Response::Records { .. }) => {
                self.drops.count(DropReason::Malformed);
                self.push(Output::Misbehaved { peer });
                self.end(peer);
            }
        }
    }

    /// Our request to `peer` failed; the next round asks again.
    pub fn handle_failure(&mut self, peer: NodeId) {
        self.end(peer);
    }

    /// Starts the next round: one random peer.
    pub fn handle_timeout(&mut self, set: &mut RelaySet, now: Now) {
        if now.mono < self.next_round {
            return;
        }
        self.next_round = now.mono + self.round;
        self.round = (self.round * 2).min(LAST_ROUND);
        if self.sessions.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.sessions.len());
        if let Some(peer) = self.sessions.keys().nth(at).copied() {
            self.start(peer, set, now);
        }
    }

    /// When [`Exchange::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next_round)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// What was refused, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn start(&mut self, peer: NodeId, set: &mut RelaySet, now: Now) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let is_fresh = session.started.is_some_and(|at| now.mono < at + SESSION_INTERVAL);
        if !matches!(session.stage, Stage::Idle) || is_fresh {
            return;
        }
        session.started = Some(now.mono);
        session.missing.clear();
        self.list(peer, None, set, now);
    }

    fn list(&mut self, peer: NodeId, after: Option<[u8; 32]>, set: &mut RelaySet, now: Now) {
        let request = Request::List { digest: set.digest(), after };
        self.send(peer, request, Stage::Listing { sent: now });
    }

    fn handle_list(&mut self, peer: NodeId, hashes: &[[u8; 32]], more: bool, set: &mut RelaySet, now: Now) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let room = set.capacity().saturating_sub(session.missing.len());
        let missing = hashes.iter().filter(|hash| set.by_hash(hash).is_none());
        session.missing.extend(missing.take(room));
        // A page must lead on, or a peer could keep us listing for ever.
        let is_sorted = hashes.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        match hashes.last() {
            Some(last) if more && is_sorted && session.missing.len() < set.capacity() => {
                self.list(peer, Some(*last), set, now);
            }
            _ => self.fetch(peer, set, now),
        }
    }

    fn fetch(&mut self, peer: NodeId, set: &mut RelaySet, now: Now) {
        let quota = set.quota(peer, now.mono) as usize;
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let batch = session.missing.len().min(MAX_BATCH).min(quota);
        // Without quota the session ends, and a later round goes on where the sets still differ.
        if batch == 0 {
            return self.end(peer);
        }
        let hashes = session.missing.drain(..batch).collect();
        self.send(peer, Request::Get { hashes }, Stage::Fetching);
    }

    fn send(&mut self, to: NodeId, request: Request, stage: Stage) {
        let Some(session) = self.sessions.get_mut(&to) else { return };
        session.stage = stage;
        if self.outputs.push(Output::Send { to, request }).is_err() {
            self.drops.count(DropReason::QueueFull);
            self.end(to);
        }
    }

    fn end(&mut self, peer: NodeId) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.stage = Stage::Idle;
            session.missing = VecDeque::new();
        }
    }

    fn report_clock(&mut self, peer: NodeId, sent: Now, now_ms: u64, now: Now) {
        let rtt = now.mono.saturating_duration_since(sent.mono);
        if rtt > MAX_CLOCK_RTT {
            return;
        }
        let middle = sent.unix.plus(rtt / 2).0;
        let offset_ms = i64::try_from(i128::from(now_ms) - i128::from(middle)).unwrap_or(i64::MAX);
        self.push(Output::Clock { peer, offset_ms });
    }

    fn push(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
