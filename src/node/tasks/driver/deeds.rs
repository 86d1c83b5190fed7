//! What follows from the cores, and when: behind the disk, or at once.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fog_base::NodeId;
use fog_tasks::{
    Content, Outcome,
    core::{
        coordinator::TaskEvent,
        ids::{ExecutionId, TaskId},
        work::Work,
    },
    wire::{Message, Source, ToWorker},
};

use super::{Driver, Fetch, Want};
use crate::{
    node::clock,
    store::{Batch, Committed, Durability, WriterFull},
};

/// How long the driver waits before it asks a store that does not keep up again.
const STORE_PAUSE: Duration = Duration::from_millis(50);

/// What is done when everything before it is on the disk; or at once, if nobody outside of this process sees it.
pub(super) enum Deed {
    Send(NodeId, Message),
    Mixed(NodeId, ExecutionId, ToWorker),
    Stage(ExecutionId, Vec<(Content, Source)>),
    Run(ExecutionId, Arc<Work>, Duration),
    Stop(ExecutionId),
    Release(ExecutionId),
    Share(ExecutionId, Arc<Outcome>),
    Want(Want),
    FetchOutput(TaskId, Vec<u8>, NodeId),
    Event(TaskId, TaskEvent),
    Forget(TaskId),
    Reply(Box<dyn FnOnce() + Send>),
}

impl Deed {
    /// Whether it is between this node's coordinator and its worker, or a run on this host.
    pub(super) fn stays_inside(&self, me: NodeId) -> bool {
        match self {
            Self::Send(to, _) => *to == me,
            Self::Stage(..) | Self::Run(..) | Self::Stop(_) | Self::Share(..) | Self::Release(_) => true,
            _ => false,
        }
    }
}

impl Driver {
    /// Gives a batch to the store. A store that does not keep up is waited for: nothing that follows may leave before.
    pub(super) fn submit(&self, mut batch: Batch) -> Committed {
        loop {
            match self.writer.submit(batch, Durability::Synced) {
                Ok(committed) => return committed,
                Err(WriterFull(back)) => batch = back,
            }
            std::thread::sleep(STORE_PAUSE);
        }
    }

    /// Does these, after all that is held back.
    pub(super) fn then(&mut self, deeds: Vec<Deed>) {
        match self.held.back_mut() {
            Some((_, held)) => held.extend(deeds),
            None => self.perform(deeds),
        }
    }

    pub(super) fn perform(&mut self, deeds: Vec<Deed>) {
        let mut deeds = VecDeque::from(deeds);
        while let Some(deed) = deeds.pop_front() {
            let now = clock::now();
            match deed {
                Deed::Send(to, message) if to == self.me => self.hear(to, message, now),
                Deed::Send(to, message) => self.send(to, message),
                Deed::Mixed(to, execution, message) => {
                    // What is said of an execution in one go arrives in one, and in this order.
                    let mut messages = vec![message];
                    while let Some(Deed::Mixed(_, of, _)) = deeds.front()
                        && *of == execution
                    {
                        if let Some(Deed::Mixed(_, _, message)) = deeds.pop_front() {
                            messages.push(message);
                        }
                    }
                    self.ask_worker(to, execution, &messages);
                }
                Deed::Stage(execution, items) => self.stage(execution, items, now),
                Deed::Run(execution, work, wall) => self.start(execution, work, wall, now),
                Deed::Stop(execution) => {
                    self.runs.stop(execution);
                    self.lacking.remove(&execution);
                }
                Deed::Release(execution) => self.release(execution),
                Deed::Share(execution, outcome) => self.share(execution, &outcome),
                Deed::Want(want) => self.want(want),
                Deed::FetchOutput(task, manifest, from) => {
                    self.fetch(Fetch::Output(task, from), manifest, from);
                }
                Deed::Event(task, event) => self.on_event(task, event),
                Deed::Forget(task) => self.forget(task),
                Deed::Reply(reply) => reply(),
            }
        }
    }
}
