//! Tasks that go through the mixnet: each execution elsewhere has a key of its own, and is heard only by the reply blocks that were given
//! for it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{NodeId, Now};

use super::{Coordinator, Output, execution::Execution};
use crate::{
    core::{
        ids::ExecutionId,
        mixed,
        reject::Reject,
        signer::Signer,
        terms::{Privacy, Terms},
        timers::Resend,
    },
    wire::{ToCoordinator, ToWorker},
};

/// What the coordinator knows of the mixnet.
#[derive(Debug, Clone)]
pub(super) struct Mixed {
    /// What the keys of executions are made of.
    secret: [u8; 32],
    /// Workers to which it leads.
    pub(super) relays: BTreeSet<NodeId>,
    /// The execution whose reply block brought what is being heard.
    pub(super) answered: Option<ExecutionId>,
}

impl Mixed {
    pub(super) fn new(key: &SigningKey) -> Self {
        let secret = blake3::derive_key("fog task keys v1", key.as_bytes());
        Self { secret, relays: BTreeSet::new(), answered: None }
    }
}

impl Coordinator {
    /// The nodes to which the mixnet leads, from now on.
    pub fn set_relays(&mut self, relays: BTreeSet<NodeId>, now: Now) {
        self.mixed.relays = relays;
        self.after(now);
    }

    /// The key that stands for this node in an execution that goes through the mixnet.
    pub fn execution_key(&self, execution: ExecutionId) -> Arc<SigningKey> {
        mixed::key(&self.mixed.secret, execution)
    }

    /// Takes what came by a reply block that was given to `worker` for `execution`. Nothing but that execution is heard so, and it is heard
    /// in no other way: else a worker could try whether two executions, or an execution and a peer, are one node's.
    pub fn handle_answer(
        &mut self,
        worker: NodeId,
        execution: ExecutionId,
        message: ToCoordinator,
        now: Now,
    ) -> Result<(), Reject> {
        self.mixed.answered = Some(execution);
        let taken = self.handle_message(worker, message, now);
        self.mixed.answered = None;
        taken
    }

    /// Whether an execution may be spoken of by whom it is.
    pub(super) fn is_heard(&self, execution: &Execution) -> bool {
        match self.mixed.answered {
            Some(answered) => execution.nameless && answered == execution.id,
            None => !execution.nameless,
        }
    }

    /// Answers what a worker said, by the way that it came.
    pub(super) fn tell(&mut self, to: NodeId, execution: ExecutionId, message: ToWorker) {
        match self.mixed.answered {
            None => self.send(to, message),
            Some(answered) if answered == execution => self.push(Output::Mixed { to, execution, message }),
            Some(_) => {}
        }
    }

    pub(super) fn signer_of(&self, nameless: bool, execution: ExecutionId) -> Signer {
        if nameless { Signer::new(self.execution_key(execution), *self.signer.network()) } else { self.signer.clone() }
    }

    pub(super) fn is_nameless(&self, terms: &Terms, worker: NodeId) -> bool {
        terms.privacy == Privacy::Mixed && worker != self.signer.me()
    }

    /// How often its worker is to say that it lives.
    pub(super) fn heartbeat_of(&self, execution: &Execution) -> Duration {
        if execution.nameless { mixed::HEARTBEAT } else { self.config.heartbeat }
    }

    /// How long its lease lasts, and how often that is renewed.
    pub(super) fn lease_of(&self, execution: &Execution) -> (Duration, Duration) {
        if execution.nameless { (mixed::LEASE, mixed::RENEW) } else { (self.config.lease, self.config.lease / 2) }
    }
}

impl Execution {
    /// Says something to its worker, by its way.
    pub(super) fn say(&self, message: ToWorker) -> Output {
        let (to, execution) = (self.worker, self.id);
        if self.nameless { Output::Mixed { to, execution, message } } else { Output::Send { to, message } }
    }
}

/// Something is said for the first time now.
pub(super) fn resend(nameless: bool, now: Instant) -> Resend {
    if nameless { Resend::paced(now, mixed::RESEND) } else { Resend::new(now) }
}
