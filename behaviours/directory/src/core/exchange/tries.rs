//! Which peer is asked next for what is wanted: the one that is said to have it, then any other, each once; after the
//! last one a pause that doubles, and all of them again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now};
use rand::{RngExt, rngs::StdRng};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Who was asked.
#[derive(Debug)]
pub(super) struct Tries {
    /// Tells answers to this order from those to an earlier one.
    pub(super) order: u64,
    hint: Option<NodeId>,
    /// Connected peers only.
    tried: BTreeSet<NodeId>,
    /// How many are being asked.
    under_way: usize,
    at_once: usize,
    has_answer: bool,
    pause: Duration,
    resume: Option<Instant>,
}

/// Who is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Peer(NodeId),
    /// Nobody now.
    Wait,
}

impl Tries {
    pub(super) fn new(order: u64, hint: Option<NodeId>, at_once: usize) -> Self {
        Self {
            order,
            hint,
            tried: BTreeSet::new(),
            under_way: 0,
            at_once,
            has_answer: false,
            pause: FIRST_PAUSE,
            resume: None,
        }
    }

    pub(super) fn set_hint(&mut self, hint: Option<NodeId>) {
        self.hint = hint.or(self.hint);
    }

    /// Whether `peer` could be asked if it had nothing else to do.
    pub(super) fn wants(&self, peer: NodeId) -> bool {
        self.under_way < self.at_once && !self.tried.contains(&peer)
    }

    /// Whom to ask, out of peers and whether each is idle.
    pub(super) fn next(&mut self, peers: &[(NodeId, bool)], rng: &mut StdRng, now: Now) -> Next {
        if self.under_way >= self.at_once {
            return Next::Wait;
        }
        if self.resume.is_some_and(|at| at <= now.mono) {
            self.resume = None;
            self.tried.clear();
        }
        let untried: Vec<_> = peers.iter().filter(|(peer, _)| !self.tried.contains(peer)).collect();
        if untried.is_empty() && self.under_way == 0 && self.resume.is_none() {
            self.resume = Some(now.mono + self.pause);
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        }
        let idle: Vec<_> = untried.into_iter().filter(|(_, is_idle)| *is_idle).map(|(peer, _)| *peer).collect();
        if idle.is_empty() {
            return Next::Wait;
        }
        let hinted = self.hint.filter(|hint| idle.contains(hint));
        let chosen = hinted.or_else(|| idle.get(rng.random_range(0..idle.len())).copied());
        chosen.map_or(Next::Wait, |peer| {
            self.tried.insert(peer);
            self.under_way += 1;
            Next::Peer(peer)
        })
    }

    /// A peer that was asked has answered for good, or failed.
    pub(super) fn handle_end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn handle_disconnected(&mut self, peer: NodeId) {
        self.tried.remove(&peer);
    }

    /// When [`Tries::next`] is due without anything else happening.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.resume.filter(|_| self.under_way < self.at_once)
    }

    /// One answer of those that are wanted has come.
    pub(super) fn handle_answer(&mut self) {
        self.at_once = self.at_once.saturating_sub(1);
        self.has_answer = true;
    }

    /// Whether all wanted answers have come, or one and nobody else can be asked.
    pub(super) fn is_over(&self, peers: &[(NodeId, bool)]) -> bool {
        let is_exhausted = self.under_way == 0 && peers.iter().all(|(peer, _)| self.tried.contains(peer));
        self.at_once == 0 || (self.has_answer && is_exhausted)
    }
}
