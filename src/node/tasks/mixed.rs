//! The driver's part in tasks that go through the mixnet: as a coordinator it asks under a key of each execution and gives reply blocks, as a
//! worker it answers by them. Nothing here ever goes onto a stream.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use fog_base::{DropReason, MessageId, NetworkId, NodeId, Now};
use fog_mix::core::endpoint::ReplyBlock;
use fog_tasks::{
    core::{
        ids::ExecutionId,
        mixed::{Answers, Blocks, blocks},
    },
    wire::{
        Message, ToCoordinator, ToWorker,
        mixed::{MAX_TOGETHER, Request, pieces},
    },
};
use tokio::sync::watch;

use super::driver::{Driver, Want};
use crate::node::{chat::random, metrics::Metrics};

/// What the mixnet brings and tells.
#[derive(Debug)]
pub(super) enum News {
    /// Somebody without a name says something to this node's worker.
    Request { blocks: Vec<ReplyBlock>, body: Vec<u8> },
    /// A part of a worker's answer, and the message that its reply block was given with.
    Answer { message: MessageId, piece: Vec<u8> },
}

/// What this node has to do with the mixnet.
pub(super) struct Mixed {
    network: NetworkId,
    blocks: Blocks<ReplyBlock>,
    answers: Answers,
    /// Of the nodes to which the mixnet leads.
    relays: watch::Receiver<BTreeSet<NodeId>>,
}

/// Messages of executions, by the way that they took: what the desk tells.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) stream_sent: AtomicU64,
    pub(super) stream_received: AtomicU64,
    mixnet_sent: AtomicU64,
    mixnet_received: AtomicU64,
}

impl Ways {
    pub(super) fn add_metrics(&self, metrics: &mut Metrics) {
        let all = |stream: &AtomicU64, mixnet: &AtomicU64| {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            vec![("stream".to_owned(), read(stream)), ("mixnet".to_owned(), read(mixnet))]
        };
        let (sent, received) =
            (all(&self.stream_sent, &self.mixnet_sent), all(&self.stream_received, &self.mixnet_received));
        metrics.counters("task_messages_sent", "Messages about executions to other nodes", "way", sent);
        metrics.counters("task_messages_received", "Messages about executions of other nodes", "way", received);
    }
}

impl Mixed {
    pub(super) fn new(network: NetworkId, relays: watch::Receiver<BTreeSet<NodeId>>) -> Self {
        Self { network, blocks: Blocks::default(), answers: Answers::default(), relays }
    }

    /// The nodes to which the mixnet leads.
    pub(super) fn relays(&mut self) -> BTreeSet<NodeId> {
        self.relays.borrow_and_update().clone()
    }
}

impl Driver {
    /// Which nodes the mixnet leads to may have changed.
    pub(super) fn follow_relays(&mut self, now: Now) {
        // Without the desk the node is stopping.
        if self.mixed.relays.has_changed().unwrap_or(false) {
            let relays = self.mixed.relays();
            self.coordinator.set_relays(relays, now);
        }
    }

    /// Says something to the worker of an execution.
    pub(super) fn ask_worker(&mut self, to: NodeId, execution: ExecutionId, messages: &[ToWorker]) {
        for some in messages.chunks(MAX_TOGETHER) {
            let key = self.coordinator.execution_key(execution);
            let body = Request::sign(some, &key, &self.mixed.network, to);
            let blocks = some.iter().map(blocks).sum();
            let message = MessageId(random());
            self.mixed.answers.ask(message, to, execution);
            self.counts.ways.mixnet_sent.fetch_add(some.len() as u64, Ordering::Relaxed);
            self.want(Want::Mix { message, to, blocks, body });
        }
    }

    /// Sends a message to another node, by its way: a key that came through the mixnet has no other.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let message = self.lies.sent(message);
        if let Message::ToCoordinator(message) = &message
            && self.answer_nameless(to, message)
        {
            return;
        }
        if !matches!(message, Message::Offers(_)) {
            self.counts.ways.stream_sent.fetch_add(1, Ordering::Relaxed);
        }
        if !self.streams.send(to, message.encode()) {
            tracing::debug!(%to, "too much waits for a peer");
        }
    }

    /// Answers a coordinator without a name; false if `to` is none, but a node.
    fn answer_nameless(&mut self, to: NodeId, message: &ToCoordinator) -> bool {
        if !self.mixed.blocks.knows(&to) {
            return false;
        }
        let pieces = pieces(&Message::ToCoordinator(message.clone()).encode()).unwrap_or_default();
        match self.mixed.blocks.take(&to, pieces.len()) {
            Some(blocks) => {
                self.counts.ways.mixnet_sent.fetch_add(1, Ordering::Relaxed);
                for (block, piece) in blocks.into_iter().zip(pieces) {
                    self.want(Want::Answer { block: Box::new(block), piece });
                }
            }
            // Its next request brings more of them, and what is not heard is said again.
            None => self.drops.count(DropReason::NoRoute),
        }
        true
    }

    pub(super) fn on_mixed(&mut self, news: News, now: Now) {
        match news {
            News::Request { blocks, body } => match Request::open(&body, &self.mixed.network, self.me) {
                Ok(Request { coordinator, messages }) => {
                    if !self.worker.takes_nameless() {
                        return self.drops.count(DropReason::NoRoute);
                    }
                    if !self.mixed.blocks.add(coordinator, blocks, now.mono) {
                        return self.drops.count(DropReason::QueueFull);
                    }
                    for message in messages {
                        self.counts.ways.mixnet_received.fetch_add(1, Ordering::Relaxed);
                        if let Err(reject) = self.worker.handle_nameless(coordinator, message, now) {
                            tracing::debug!(?reject, "a message of tasks from the mixnet is not taken");
                        }
                    }
                }
                Err(_) => self.drops.count(DropReason::Malformed),
            },
            News::Answer { message, piece } => {
                let Some((worker, execution, answer)) = self.mixed.answers.take(message, &piece) else { return };
                let Ok(Message::ToCoordinator(message)) = Message::decode(&answer) else {
                    return self.drops.count(DropReason::Malformed);
                };
                self.counts.ways.mixnet_received.fetch_add(1, Ordering::Relaxed);
                if let Err(reject) = self.coordinator.handle_answer(worker, execution, message, now) {
                    tracing::debug!(?reject, "an answer from the mixnet is not taken");
                }
            }
        }
    }
}
