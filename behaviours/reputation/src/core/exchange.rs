//! How reports and proofs travel: by gossip when they are new, and between peers that meet for whoever was away.
//!
//! A request names everything that its sender knows; the answer is what the other has beyond that. One request per peer
//! is under way at any time, and no more is asked for than the peer's rate lets us read.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use fog_base::{BoundedQueue, DropCounters, DropReason, NodeId, Now, TokenBucket, UnixMillis};

use super::{
    hearsay, proof,
    receipt::closes,
    reject::Reject,
    report,
    reputation::Reputation,
    shelf::{Hash, Rank, Shelf},
};
use crate::wire::{Item, MAX_ITEMS, Request, Response};

/// How often one random peer is asked, and what is over is forgotten.
const ROUND: Duration = Duration::from_secs(60);
/// A peer that has more is asked for it after this time.
const NEXT_PART: Duration = Duration::from_secs(8);
/// An item that cannot be taken now is not asked for within this time.
const RETRY: Duration = Duration::from_secs(120);
/// What one peer may ask per second, and at once; an honest one asks at most every [`NEXT_PART`].
const SERVE_RATE: (f64, f64) = (0.5, 16.0);
const MAX_OUTPUTS: usize = 1024;

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
    /// Send an item by gossip.
    Publish(Vec<u8>),
}

/// What gossip does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Forward it.
    Accept,
    /// Drop it; the sender may be honest.
    Ignore,
    /// Drop it; no honest peer sends that.
    Reject,
}

/// What came and went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Reports of this node.
    pub reported: u64,
    /// Others' reports that were taken.
    pub reports: u64,
    /// Proofs that were taken, this node's own included.
    pub proofs: u64,
    /// Items that others were given.
    pub served: u64,
}

#[derive(Debug)]
struct Session {
    is_asked: bool,
    /// When the rest is asked for, if there is any.
    next: Option<Instant>,
    served: TokenBucket,
}

/// The exchanges with all connected peers, and what is kept for them.
pub struct Exchange {
    sessions: BTreeMap<NodeId, Session>,
    shelf: Shelf,
    /// From which salts, and the choice of peers, are drawn.
    seed: [u8; 32],
    draws: u64,
    next_round: Instant,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
    counts: Counts,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("sessions", &self.sessions.len())
            .field("kept", &self.shelf.len())
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Without peers. `seed` is random and secret.
    pub fn new(seed: [u8; 32], now: Now) -> Self {
        Self {
            sessions: BTreeMap::new(),
            shelf: Shelf::default(),
            seed,
            draws: 0,
            next_round: now.mono + ROUND,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
            counts: Counts::default(),
        }
    }

    /// Gives others a proof that was kept across a restart.
    pub fn restore_proof(&mut self, proof: &[u8], reputation: &Reputation, now: Now) {
        let item = Item::Proof(proof.to_vec());
        self.keep(&item, item.hash(), Rank::Proof, reputation, now);
    }

    /// A peer was met: it is asked for what it has.
    pub fn handle_connected(&mut self, peer: NodeId, reputation: &Reputation, now: Now) {
        let (rate, burst) = SERVE_RATE;
        let served = TokenBucket::new(rate, burst, now.mono);
        self.sessions.entry(peer).or_insert(Session { is_asked: false, next: None, served });
        self.ask(peer, reputation, now);
    }

    /// A peer is gone.
    pub fn handle_disconnected(&mut self, peer: NodeId) {
        self.sessions.remove(&peer);
    }

    /// Takes an item that `from` forwarded by gossip, and says what gossip does with it.
    pub fn handle_gossip(&mut self, from: NodeId, bytes: &[u8], reputation: &mut Reputation, now: Now) -> Acceptance {
        match self.take(from, bytes, reputation, now) {
            Ok(_) => Acceptance::Accept,
            Err(reject) if reject.weight() >= 1.0 => Acceptance::Reject,
            Err(_) => Acceptance::Ignore,
        }
    }

    /// Answers a request of `peer`.
    pub fn handle_request(
        &mut self,
        peer: NodeId,
        request: &Request,
        reputation: &mut Reputation,
        now: Now,
    ) -> Response {
        let Some(session) = self.sessions.get_mut(&peer) else { return Response::Busy };
        if !session.served.try_take(now.mono) {
            reputation.handle_misuse(peer, Reject::Flood, now.unix);
            return Response::Busy;
        }
        let Request { salt, known, limit } = request;
        let max = usize::from(*limit).min(MAX_ITEMS);
        let (items, more) = self.shelf.missing(salt, known, max, now.unix);
        self.counts.served += items.len() as u64;
        Response::Items { items, more }
    }

    /// Takes the answer to our request.
    pub fn handle_response(&mut self, peer: NodeId, response: Response, reputation: &mut Reputation, now: Now) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.is_asked = false;
        let Response::Items { items, more } = response else { return };
        session.next = more.then(|| now.mono + NEXT_PART);
        for bytes in items {
            match self.take(peer, &bytes, reputation, now) {
                // Gossip passed it on when it was new, and it must reach those as well who were away then.
                Ok(Item::Proof(_)) => self.push(Output::Publish(bytes)),
                Ok(Item::Report(_)) => {}
                // The rest is no better, or is not read.
                Err(reject) if reject.weight() > 0.0 || reject == Reject::RateLimited => break,
                Err(_) => {}
            }
        }
    }

    /// Our request to `peer` failed; another round asks again.
    pub fn handle_failure(&mut self, peer: NodeId) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.is_asked = false;
            session.next = None;
        }
    }

    /// Publishes a report that this node signed.
    pub fn handle_own_report(&mut self, report: Vec<u8>, reputation: &Reputation, now: Now) {
        let item = Item::Report(report);
        self.counts.reported += 1;
        self.keep(&item, item.hash(), Rank::Trusted, reputation, now);
        self.push(Output::Publish(item.encode()));
    }

    /// Takes a proof out of this node's own protocols, and publishes it.
    pub fn handle_own_proof(&mut self, proof: Vec<u8>, reputation: &mut Reputation, now: Now) -> Result<(), Reject> {
        reputation.handle_proof(None, &proof, now)?;
        let item = Item::Proof(proof);
        self.counts.proofs += 1;
        self.keep(&item, item.hash(), Rank::Proof, reputation, now);
        self.push(Output::Publish(item.encode()));
        Ok(())
    }

    /// Asks whoever is due.
    pub fn handle_timeout(&mut self, reputation: &Reputation, now: Now) {
        let due = |(peer, session): (&NodeId, &Session)| session.next.is_some_and(|at| at <= now.mono).then_some(*peer);
        let mut peers: Vec<_> = self.sessions.iter().filter_map(due).collect();
        if now.mono >= self.next_round {
            self.next_round = now.mono + ROUND;
            self.shelf.sweep(now.unix);
            let [a, b, c, d, ..] = self.draw();
            let at = u32::from_be_bytes([a, b, c, d]) as usize % self.sessions.len().max(1);
            peers.extend(self.sessions.keys().nth(at));
        }
        for peer in peers {
            self.ask(peer, reputation, now);
        }
    }

    /// When [`Exchange::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.values().filter_map(|session| session.next).chain([self.next_round]).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// What was dropped here, by reason; [`Reputation::drops`] has what was refused.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// What came and went.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many items are kept for others.
    pub fn kept(&self) -> usize {
        self.shelf.len()
    }

    fn take(&mut self, from: NodeId, bytes: &[u8], reputation: &mut Reputation, now: Now) -> Result<Item, Reject> {
        let hash = *blake3::hash(bytes).as_bytes();
        if self.shelf.knows(&hash) {
            self.drops.count(DropReason::Replayed);
            return Err(Reject::Replayed);
        }
        let Some(item) = Item::decode(bytes) else {
            reputation.handle_misuse(from, Reject::Malformed, now.unix);
            return Err(Reject::Malformed);
        };
        let outcome = match &item {
            Item::Report(report) => reputation.handle_report(from, report, now),
            Item::Proof(proof) => reputation.handle_proof(Some(from), proof, now),
        };
        match outcome {
            Ok(()) => {
                match item {
                    Item::Report(_) => self.counts.reports += 1,
                    Item::Proof(_) => self.counts.proofs += 1,
                }
                let rank = rank(&item, reputation, now);
                self.keep(&item, hash, rank, reputation, now);
                Ok(item)
            }
            Err(reject) => {
                if let Some(for_how_long) = useless_for(reject, reputation.schedule().length()) {
                    self.shelf.dismiss(hash, now.unix.plus(for_how_long));
                }
                Err(reject)
            }
        }
    }

    fn keep(&mut self, item: &Item, hash: Hash, rank: Rank, reputation: &Reputation, now: Now) {
        let Some(until) = ends(item, reputation, now.unix) else { return };
        if !self.shelf.keep(hash, rank, item.encode(), until) {
            self.drops.count(DropReason::QueueFull);
        }
    }

    fn ask(&mut self, peer: NodeId, reputation: &Reputation, now: Now) {
        let limit = reputation.quota(peer, now.mono).min(MAX_ITEMS);
        let Some(session) = self.sessions.get_mut(&peer).filter(|session| !session.is_asked) else { return };
        session.next = None;
        if limit == 0 {
            session.next = Some(now.mono + NEXT_PART);
            return;
        }
        session.is_asked = true;
        let salt = self.draw();
        let request = Request { salt, known: self.shelf.names(&salt), limit: u8::try_from(limit).unwrap_or(u8::MAX) };
        if self.outputs.push(Output::Send { to: peer, request }).is_err() {
            self.drops.count(DropReason::QueueFull);
            self.handle_failure(peer);
        }
    }

    fn draw(&mut self) -> [u8; 32] {
        self.draws += 1;
        *blake3::keyed_hash(&self.seed, &self.draws.to_be_bytes()).as_bytes()
    }

    fn push(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }
}

fn rank(item: &Item, reputation: &Reputation, now: Now) -> Rank {
    match item {
        Item::Proof(_) => Rank::Proof,
        Item::Report(bytes) => {
            let claim = report::Claim::parse(bytes, &reputation.schedule(), now.unix);
            let trusted =
                |claim: report::Claim| reputation.trust(claim.reporter(), now.unix).belief() >= hearsay::TRUSTED;
            if claim.is_ok_and(trusted) { Rank::Trusted } else { Rank::Stranger }
        }
    }
}

/// For how long the same bytes need not come again. What may be taken later is left out for a while, so that it does not
/// stand before other items in every answer.
fn useless_for(reject: Reject, epoch: Duration) -> Option<Duration> {
    match reject {
        // Then it is over.
        Reject::Expired | Reject::Replayed | Reject::UnknownVersion | Reject::NotOurs => Some(3 * epoch),
        Reject::TooEarly | Reject::Full | Reject::Banned | Reject::Stranger => Some(RETRY),
        // It was not read.
        Reject::RateLimited | Reject::Flood => None,
        // Its sender answers for it, and nobody honest brings it.
        Reject::Malformed | Reject::BadSignature | Reject::SelfPraise | Reject::NoReceipts | Reject::NoProof => None,
    }
}

/// Until when an item is of use to others.
fn ends(item: &Item, reputation: &Reputation, now: UnixMillis) -> Option<UnixMillis> {
    match item {
        Item::Report(bytes) => {
            let schedule = reputation.schedule();
            let claim = report::Claim::parse(bytes, &schedule, now).ok()?;
            Some(closes(&schedule, claim.epoch()))
        }
        Item::Proof(bytes) => {
            let claim = proof::Claim::parse(bytes, reputation.provable(), now).ok()?;
            Some(UnixMillis(claim.seq()).plus(proof::MAX_AGE))
        }
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
