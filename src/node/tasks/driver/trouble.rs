//! When the store does not take what tasks rest on, as on a full disk: nothing is done or said of them until it takes something again; then the
//! cores begin anew from what it has, as after a restart. What they knew beside may rest on rows that are not there: a run could be paid twice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, NodeId, Now};
use fog_tasks::core::{coordinator::Coordinator, ids::TaskId, pay::LocalAccounts, worker::Worker};

use super::Driver;
use crate::{
    node::{chat::random, clock},
    store::{Batch, Store, StoreError, Table},
};

/// After which time the store is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The key of no row: that it is removed shows whether the store writes.
const PROBE: [u8; 1] = [0];

/// Tasks stand still.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    /// The store is tried then.
    Until(Instant),
    /// It was asked to write, and has not answered.
    Asked,
}

/// What the cores are made from.
pub(in crate::node::tasks) struct Ground {
    pub(in crate::node::tasks) me: NodeId,
    pub(in crate::node::tasks) key: Arc<SigningKey>,
    pub(in crate::node::tasks) network: NetworkId,
    pub(in crate::node::tasks) store: Arc<dyn Store>,
}

impl Ground {
    /// The cores as the store has them.
    pub(in crate::node::tasks) fn cores(&self, now: Now) -> Result<(Coordinator, Worker), StoreError> {
        let rows = self.store.scan(Table::Tasks, &[])?;
        let key = || Arc::clone(&self.key);
        let mut coordinator = Coordinator::new(Default::default(), key(), self.network, random(), now);
        let accounts = LocalAccounts::new(self.me, Default::default());
        let mut worker = Worker::new(Default::default(), key(), self.network, accounts, now);
        worker.restore(rows.iter().cloned(), now);
        coordinator.restore(rows, now);
        Ok((coordinator, worker))
    }
}

impl Driver {
    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.trouble {
            None => [self.coordinator.poll_timeout(), self.worker.poll_timeout()].into_iter().flatten().min(),
            Some(Trouble::Until(at)) => Some(at),
            Some(Trouble::Asked) => None,
        }
    }

    /// The store answered to what is held back longest.
    pub(super) fn on_committed(&mut self, outcome: Result<(), StoreError>) {
        let Some((_, deeds)) = self.held.pop_front() else { return };
        match outcome {
            Ok(()) if self.trouble.is_none() => self.perform(deeds),
            Ok(()) => self.begin_anew(clock::now()),
            Err(error) => self.stand_still(&error),
        }
    }

    /// Whether tasks stand still. The store is tried when that is due.
    pub(super) fn stands_still(&mut self, now: Now) -> bool {
        let Some(trouble) = self.trouble else { return false };
        // What follows from offers, connections and the host.
        while self.coordinator.poll_output().is_some() {}
        while self.worker.poll_output().is_some() {}
        if matches!(trouble, Trouble::Until(at) if at <= now.mono) {
            let mut probe = Batch::new();
            probe.delete(Table::Tasks, PROBE);
            self.held.push_back((Some(self.submit(probe)), Vec::new()));
            self.trouble = Some(Trouble::Asked);
        }
        true
    }

    fn stand_still(&mut self, error: &StoreError) {
        if self.trouble.replace(Trouble::Until(clock::now().mono + RETRY)).is_some() {
            return;
        }
        tracing::error!(%error, hint = error.hint(), "tasks stand still: the store does not take their state; it is tried again");
        self.counts.stands_still.store(true, Ordering::Relaxed);
        self.held.clear();
        self.runs.stop_all();
        self.staged.clear();
        self.lacking.clear();
        self.wanted.clear();
        for execution in self.outputs.keys().copied().collect::<Vec<_>>() {
            self.release(execution);
        }
    }

    /// Goes on from what the store has. What is known of others and of this host stays.
    fn begin_anew(&mut self, now: Now) {
        let (mut coordinator, mut worker) = match self.ground.cores(now) {
            Ok(cores) => cores,
            Err(error) => return self.stand_still(&error),
        };
        for (worker, listed) in self.coordinator.offers().iter(now.unix) {
            if let Err(reject) = coordinator.handle_offer(listed.bytes(), now) {
                tracing::debug!(%worker, ?reject, "an offer is not taken again");
            }
        }
        for (worker, prior) in self.coordinator.priors() {
            coordinator.set_prior(worker, prior);
        }
        for peer in self.coordinator.connected() {
            coordinator.handle_connected(peer, None, now);
        }
        coordinator.set_relays(self.mixed.relays(), now);
        worker.set_frozen(self.worker.is_frozen(), now);
        (self.coordinator, self.worker) = (coordinator, worker);
        // Who waits for a task that the store has as ended, or not at all, need not.
        let open = |task: &TaskId| self.coordinator.task(*task).is_some_and(|task| task.end.is_none());
        self.waiters.retain(|task, _| open(task));
        self.logs.keep(open);
        let free = self.needed.keep(|task| self.coordinator.task(*task).is_some());
        self.unshare(free);
        self.trouble = None;
        self.counts.stands_still.store(false, Ordering::Relaxed);
        tracing::info!("the store takes the state of tasks again: they go on");
        self.offer(now);
        self.settle(now);
    }
}
