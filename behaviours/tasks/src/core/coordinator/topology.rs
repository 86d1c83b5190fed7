//! Who was there when something went wrong: snapshots for diagnosis, the last hundred.

use std::time::Duration;

use fog_base::{NodeId, Now, UnixMillis};

use super::Coordinator;
use crate::core::{
    explain::{self, Explanation},
    matcher::{Known, Needs},
    offers::{Accept, Listed, OfferReject},
    terms::Terms,
    work::Work,
};

/// At least this between two snapshots of one reason.
const GAP: Duration = Duration::from_secs(1);

/// One worker in a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Who.
    pub worker: NodeId,
    /// Whether there is a connection. This node's own worker needs none.
    pub connected: bool,
    /// To it and back.
    pub rtt: Option<Duration>,
    /// Slots that it offers; 0 where it is not eligible.
    pub slots: usize,
    /// Executions that it has of this node.
    pub busy: usize,
    /// Whether it is left alone after failures.
    pub broken: bool,
    /// The probability that its next result is right.
    pub credibility: f64,
    /// The probability that it ends what it takes on.
    pub availability: f64,
}

/// All workers at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When.
    pub at: UnixMillis,
    /// Why it was taken: `worker_gone`, `worker_failed`, `worker_new` or `asked`.
    pub reason: &'static str,
    /// About whom.
    pub worker: Option<NodeId>,
    /// Tasks that have not ended.
    pub open_tasks: usize,
    /// Those that wait for a worker.
    pub waiting_tasks: usize,
    /// Who is there, by id; at most 256, those that are busy first.
    pub workers: Vec<WorkerView>,
}

/// The most workers in a snapshot.
const MAX_WORKERS: usize = 256;

impl Coordinator {
    /// The last snapshots, oldest first.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.iter()
    }

    /// Which workers fit a task, which do not and why, and what its user could give up to get more.
    pub fn explain(&self, work: &Work, terms: &Terms, now: Now) -> Explanation {
        let known: Vec<_> =
            self.offers.iter(now.unix).map(|(worker, listed)| self.known(worker, listed, now)).collect();
        explain::explain(&Needs::new(work, terms), &known)
    }

    /// A worker, as the matcher sees it.
    pub(super) fn known<'a>(&self, worker: NodeId, listed: &'a Listed, now: Now) -> Known<'a> {
        Known {
            worker,
            offer: listed.offer(),
            age: listed.age(now.unix),
            credibility: self.standings.credibility(worker, now.unix),
            own: worker == self.signer.me(),
            mixed: worker == self.signer.me() || self.mixed.relays.contains(&worker),
        }
    }

    /// How it is now.
    pub fn topology(&self, now: Now) -> Snapshot {
        self.look("asked", None, now)
    }

    pub(super) fn on_offer(&mut self, bytes: &[u8], now: Now) -> Result<Accept, OfferReject> {
        let standings = &self.standings;
        let taken = self.offers.handle(bytes, |worker| !standings.is_newcomer(worker), now.unix)?;
        if let Accept::New(worker) = taken {
            let known = self.workers.get(worker).is_some();
            let offer = self.offers.get(worker, now.unix).map(Listed::offer);
            let slots = offer.filter(|offer| offer.eligible).map_or(0, |offer| offer.slots);
            self.workers.offers(worker, slots);
            if !known {
                self.snapshot("worker_new", Some(worker), now);
            }
        }
        Ok(taken)
    }

    pub(super) fn snapshot(&mut self, reason: &'static str, worker: Option<NodeId>, now: Now) {
        let same = |snapshot: &&Snapshot| snapshot.reason == reason;
        let recent = self.snapshots.iter().rev().find(same).is_some_and(|last| now.unix.since(last.at) < GAP);
        if recent || self.config.max_snapshots == 0 {
            return;
        }
        while self.snapshots.len() >= self.config.max_snapshots {
            self.snapshots.pop_front();
        }
        let snapshot = self.look(reason, worker, now);
        self.snapshots.push_back(snapshot);
    }

    fn look(&self, reason: &'static str, about: Option<NodeId>, now: Now) -> Snapshot {
        let mut workers: Vec<_> = self.workers.iter().collect();
        workers.sort_by_key(|(id, _)| (std::cmp::Reverse(self.workers.busy(**id)), **id));
        let view = |(id, worker): (&NodeId, &super::workers::Worker)| WorkerView {
            worker: *id,
            connected: worker.connected || *id == self.signer.me(),
            rtt: worker.rtt,
            slots: worker.slots,
            busy: self.workers.busy(*id),
            broken: self.workers.is_broken(*id, now),
            credibility: self.standings.credibility(*id, now.unix),
            availability: self.standings.availability(*id, now.unix),
        };
        Snapshot {
            at: now.unix,
            reason,
            worker: about,
            open_tasks: self.open,
            waiting_tasks: self.hungry.len(),
            workers: workers.into_iter().take(MAX_WORKERS).map(view).collect(),
        }
    }
}
