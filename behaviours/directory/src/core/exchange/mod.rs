//! Who is asked for what when two sets differ, and what is answered. README, "Exchange".
//!
//! The live set is reconciled with every peer that is met and then with random ones (`session.rs`); named sets, states and
//! links of the chain are fetched when they are ordered (`jobs.rs`). One request per peer is under way at any time, an order
//! goes before the live set, and what any of it may remember is bounded. `serve.rs` answers, within the limits of
//! `limits.rs`.

pub mod archive;
mod jobs;
mod limits;
pub mod reconcile;
mod serve;
mod session;
mod set_job;
mod state_job;
mod tries;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{BoundedQueue, DropCounters, DropReason, Epoch, EpochSchedule, NetworkId, NodeId, Now, UnixMillis};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

pub use jobs::MAX_SET;
pub use state_job::MAX_STATE;

use self::{
    archive::{Archive, NamedSet},
    jobs::{Jobs, Kind},
    limits::{Admission, Allowance, Pool},
    reconcile::Items,
    session::Session,
    tries::Next,
};
use super::{certificate::chain::Link, relay_set::RelaySet};
use crate::wire::{Request, Response, Scope};

const FIRST_ROUND: Duration = Duration::from_secs(1);
const LAST_ROUND: Duration = Duration::from_secs(60);
/// A session with a peer is not started again within this time.
const SESSION_INTERVAL: Duration = Duration::from_secs(1);
/// A changed live set is made ready for reconciliation at most this often: 10,000 items take a millisecond.
const ITEMS_INTERVAL: Duration = Duration::from_millis(100);
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
    /// The set that was ordered.
    Set {
        /// Its root.
        root: [u8; 32],
        /// The set.
        set: Arc<NamedSet>,
    },
    /// The state that was ordered.
    State {
        /// Its hash.
        hash: [u8; 32],
        /// The state.
        bytes: Vec<u8>,
    },
    /// Links that were ordered, not verified.
    Links {
        /// Who sent them.
        peer: NodeId,
        /// Oldest first.
        links: Vec<Link>,
        /// Whether the peer has more after these.
        more: bool,
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

/// What follows from a peer's answer.
#[derive(Debug)]
enum Step<T> {
    /// The next request to the same peer.
    Ask(Request),
    /// All is there.
    Done(T),
    /// This peer is not asked further, without blame; counted if there is a reason.
    Ended(Option<DropReason>),
    /// No honest peer sends that.
    Lied(DropReason),
}

impl<T> Step<T> {
    fn map<U>(self, with: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Self::Ask(request) => Step::Ask(request),
            Self::Done(value) => Step::Done(with(value)),
            Self::Ended(reason) => Step::Ended(reason),
            Self::Lied(reason) => Step::Lied(reason),
        }
    }
}

/// What the request that is under way to a peer is for.
#[derive(Debug)]
enum Lane {
    Idle,
    Live(Box<Session>),
    Job(Kind, u64),
}

#[derive(Debug)]
struct Peer {
    lane: Lane,
    /// When the last session began.
    started: Option<Instant>,
    /// How long after it this peer is asked because its requests show a difference.
    patience: Duration,
    allowance: Allowance,
}

/// The exchange with all connected peers.
#[derive(Debug)]
pub struct Exchange {
    network: NetworkId,
    schedule: EpochSchedule,
    peers: BTreeMap<NodeId, Peer>,
    pool: Pool,
    /// The live set as it was at that time, under that digest.
    live: Option<(Instant, [u8; 32], Arc<Items>)>,
    jobs: Jobs,
    round: Duration,
    next_round: Instant,
    rng: StdRng,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
}

impl Exchange {
    /// Without peers.
    pub fn new(network: NetworkId, schedule: EpochSchedule, seed: [u8; 32], now: Now) -> Self {
        Self {
            network,
            schedule,
            peers: BTreeMap::new(),
            pool: Pool::new(now.mono),
            live: None,
            jobs: Jobs::default(),
            round: FIRST_ROUND,
            next_round: now.mono + FIRST_ROUND,
            rng: StdRng::from_seed(seed),
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
        }
    }

    /// A peer was met: it is asked for what is ordered, or its live set is read.
    pub fn handle_connected(&mut self, peer: NodeId, set: &mut RelaySet, now: Now) {
        self.peers.entry(peer).or_insert_with(|| Peer {
            lane: Lane::Idle,
            started: None,
            patience: SESSION_INTERVAL,
            allowance: Allowance::new(now.mono),
        });
        self.hurry(now);
        self.assign(now);
        self.start(peer, SESSION_INTERVAL, set, now);
    }

    /// A peer is gone.
    pub fn handle_disconnected(&mut self, peer: NodeId, now: Now) {
        let Some(state) = self.peers.remove(&peer) else { return };
        self.end(peer, state.lane);
        self.jobs.handle_disconnected(peer);
        self.assign(now);
    }

    /// Orders the set of `relays` descriptors under `root`, verified as of `at`, in the place of one that was ordered before. `candidates` are
    /// compared with it; `hint` is asked first. Tried until it is there or is cancelled. More than [`MAX_SET`] relays are
    /// not ordered, but counted as dropped.
    pub fn want_set(
        &mut self,
        (root, relays, at): ([u8; 32], u32, UnixMillis),
        hint: Option<NodeId>,
        candidates: Arc<NamedSet>,
        now: Now,
    ) {
        if relays > MAX_SET {
            return self.drops.count(DropReason::QueueFull);
        }
        if let Some(set) = self.jobs.want_set((root, relays, at), hint, candidates) {
            self.push(Output::Set { root, set });
        }
        self.assign(now);
    }

    /// Orders the state with this hash, of at most [`MAX_STATE`] bytes, in the place of one that was ordered before.
    pub fn want_state(&mut self, hash: [u8; 32], now: Now) {
        self.jobs.want_state(hash);
        self.assign(now);
    }

    /// Orders the links after `after` from up to three peers, in the place of those that were ordered before. Each answer
    /// is an output.
    pub fn want_links(&mut self, after: Epoch, now: Now) {
        self.jobs.want_links(after);
        self.assign(now);
    }

    /// The set that was ordered is no longer wanted.
    pub fn cancel_set(&mut self) {
        self.jobs.cancel(Kind::Set);
    }

    /// The state that was ordered is no longer wanted.
    pub fn cancel_state(&mut self) {
        self.jobs.cancel(Kind::State);
    }

    /// Answers a request of `peer`.
    pub fn handle_request(
        &mut self,
        peer: NodeId,
        request: Request,
        set: &mut RelaySet,
        archive: &dyn Archive,
        now: Now,
    ) -> Response {
        let live = self.items(set, now);
        let Some(state) = self.peers.get_mut(&peer) else { return Response::Busy };
        let price = serve::price(&request, &live, archive);
        let admission = state.allowance.admit(&mut self.pool, price, now.mono);
        if admission != Admission::Served {
            self.drops.count(DropReason::RateLimited);
            if admission == Admission::Flood {
                self.push(Output::Flooding { peer });
            }
            return Response::Busy;
        }
        let Ok(response) = serve::answer(&request, &live, set, archive, now) else {
            self.lied(peer, DropReason::Malformed);
            return Response::Unknown;
        };
        if let (Request::Reconcile { scope: Scope::Live, .. }, Response::Reconcile { message, .. }) =
            (&request, &response)
            && !reconcile::is_settled(message)
        {
            let patience = self.peers.get(&peer).map_or(LAST_ROUND, |peer| peer.patience);
            self.start(peer, patience, set, now);
        }
        response
    }

    /// Takes the answer to our request to `peer`.
    pub fn handle_response(&mut self, peer: NodeId, response: Response, set: &mut RelaySet, now: Now) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        match std::mem::replace(&mut state.lane, Lane::Idle) {
            // Of a request that was given up.
            Lane::Idle => {}
            Lane::Live(session) => self.handle_live(peer, session, response, set, now),
            Lane::Job(kind, order) => {
                let network = (&self.network, &self.schedule);
                let step = self.jobs.handle_response((kind, order), (peer, response), network, set, now);
                if let Some(step) = step {
                    self.follow(peer, (kind, order), step);
                }
            }
        }
        self.assign(now);
    }

    /// Our request to `peer` failed; the next round, or another peer, is asked.
    pub fn handle_failure(&mut self, peer: NodeId, now: Now) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let lane = std::mem::replace(&mut state.lane, Lane::Idle);
        self.end(peer, lane);
        self.assign(now);
    }

    /// Starts the next round, one random peer, and asks again for what is ordered.
    pub fn handle_timeout(&mut self, set: &mut RelaySet, now: Now) {
        self.assign(now);
        if now.mono < self.next_round {
            return;
        }
        self.next_round = now.mono + self.round;
        self.round = (self.round * 2).min(LAST_ROUND);
        if self.peers.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.peers.len());
        if let Some(peer) = self.peers.keys().nth(at).copied() {
            self.start(peer, SESSION_INTERVAL, set, now);
        }
    }

    /// When [`Exchange::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [Some(self.next_round), self.jobs.poll_timeout()].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// What was refused, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// What one peer did not know, others may not know either: the row of rounds starts anew.
    fn hurry(&mut self, now: Now) {
        self.round = FIRST_ROUND;
        self.next_round = self.next_round.min(now.mono + FIRST_ROUND);
    }

    /// The live set as it can be reconciled.
    fn items(&mut self, set: &mut RelaySet, now: Now) -> Arc<Items> {
        if let Some((at, _, items)) = &self.live
            && now.mono < *at + ITEMS_INTERVAL
        {
            return items.clone();
        }
        let digest = set.digest();
        let unchanged = self.live.take().filter(|(_, before, _)| *before == digest);
        let items = unchanged.map_or_else(
            || Arc::new(Items::new(set.iter().map(|descriptor| (descriptor.seq(), descriptor.hash())))),
            |(.., items)| items,
        );
        self.live = Some((now.mono, digest, items.clone()));
        items
    }

    /// Begins sessions with so many random peers at once.
    pub fn meet(&mut self, peers: usize, set: &mut RelaySet, now: Now) {
        let connected: Vec<_> = self.peers.keys().copied().collect();
        for peer in connected.sample(&mut self.rng, peers) {
            self.start(*peer, SESSION_INTERVAL, set, now);
        }
    }

    /// Begins a session with `peer`, unless the last one began less than `interval` ago.
    fn start(&mut self, peer: NodeId, interval: Duration, set: &mut RelaySet, now: Now) {
        let live = self.items(set, now);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let is_fresh = state.started.is_some_and(|at| now.mono < at + interval);
        if !matches!(state.lane, Lane::Idle) || is_fresh {
            return;
        }
        state.started = Some(now.mono);
        let (session, request) = Session::start(peer, &live, now);
        self.send(peer, request, Lane::Live(Box::new(session)));
    }

    fn handle_live(
        &mut self,
        peer: NodeId,
        mut session: Box<Session>,
        response: Response,
        set: &mut RelaySet,
        now: Now,
    ) {
        if let (Some(sent), Response::Reconcile { now_ms, .. }) = (session.clock_asked(), &response) {
            self.report_clock(peer, sent, *now_ms, now);
        }
        let live = self.items(set, now);
        let step = session.handle_response(response, &live, set, now);
        if session.is_useful {
            self.hurry(now);
        }
        match step {
            // An order goes first; what is missing here is still missing in the next session.
            Step::Ask(_) if self.jobs.wants(peer) => {}
            Step::Ask(request) => {
                self.send(peer, request, Lane::Live(session));
                return;
            }
            Step::Done(()) => {}
            Step::Ended(reason) => self.count(reason),
            Step::Lied(reason) => self.lied(peer, reason),
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            let is_futile = session.is_different && !session.is_useful;
            let longer = (state.patience * 2).min(LAST_ROUND);
            state.patience = if is_futile { longer } else { SESSION_INTERVAL };
        }
    }

    /// Gives what is ordered to peers that are idle.
    fn assign(&mut self, now: Now) {
        if self.jobs.is_empty() {
            return;
        }
        for kind in Kind::ALL {
            // Each turn asks a peer that was not asked yet, or is the last.
            loop {
                let peers: Vec<_> =
                    self.peers.iter().map(|(peer, state)| (*peer, matches!(state.lane, Lane::Idle))).collect();
                let Some(tries) = self.jobs.tries(kind) else { break };
                if tries.is_over(&peers) {
                    self.jobs.cancel(kind);
                    break;
                }
                let Next::Peer(peer) = tries.next(&peers, &mut self.rng, now) else { break };
                let Some((order, step)) = self.jobs.start(kind) else { break };
                self.follow(peer, (kind, order), step);
            }
        }
    }

    /// What was under way to `peer` has no answer.
    fn end(&mut self, peer: NodeId, lane: Lane) {
        match lane {
            Lane::Job(kind, order) => self.follow(peer, (kind, order), Step::Ended(None)),
            Lane::Live(_) | Lane::Idle => {}
        }
    }

    /// Does what follows from an answer to an order.
    fn follow(&mut self, peer: NodeId, (kind, order): (Kind, u64), step: Step<Output>) {
        let is_under_way = match step {
            Step::Ask(request) => self.send(peer, request, Lane::Job(kind, order)),
            Step::Done(output) => {
                // What nobody was told of is fetched again.
                if self.push(output)
                    && let Some(tries) = self.jobs.tries(kind).filter(|tries| tries.order == order)
                {
                    tries.handle_answer();
                }
                false
            }
            Step::Ended(reason) => {
                self.count(reason);
                false
            }
            Step::Lied(reason) => {
                self.lied(peer, reason);
                false
            }
        };
        if let Some(tries) = self.jobs.tries(kind).filter(|tries| tries.order == order && !is_under_way) {
            tries.handle_end();
        }
    }

    /// Whether the request is on its way.
    fn send(&mut self, to: NodeId, request: Request, lane: Lane) -> bool {
        let is_sent = self.push(Output::Send { to, request });
        if let Some(state) = self.peers.get_mut(&to) {
            state.lane = if is_sent { lane } else { Lane::Idle };
        }
        is_sent
    }

    fn lied(&mut self, peer: NodeId, reason: DropReason) {
        self.drops.count(reason);
        self.push(Output::Misbehaved { peer });
    }

    fn count(&self, reason: Option<DropReason>) {
        if let Some(reason) = reason {
            self.drops.count(reason);
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

    fn push(&mut self, output: Output) -> bool {
        let is_pushed = self.outputs.push(output).is_ok();
        if !is_pushed {
            self.drops.count(DropReason::QueueFull);
        }
        is_pushed
    }
}

#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod jobs_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod world;
