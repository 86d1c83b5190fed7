//! Where the swarm, the applications and the threads leave things for each other.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use fog_base::{DropCounters, DropReason, NodeId};
use futures::channel::oneshot;

use super::{
    flow::Flow,
    lock,
    pipe::{End, Pipe},
};
use crate::{
    core::{
        node::Counts,
        types::{Answer, CircuitId, CircuitInfo, CloseReason, FirstStream, Isolation, LinkId, Open, Side, VirtualRole},
    },
    event::Event,
    wire::{EndReason, Target},
};

/// What was asked for and the engine did not take yet; it takes all of it at once. What finds no room ends its circuit or its stream.
const MAX_COMMANDS: usize = 16_384;
/// Messages that the swarm did not take yet, with all else that it is told. What finds no room ends its circuit.
const MAX_TOLD: usize = 16_384;
/// All that it is told, but for the beginnings and ends of circuits, of which each has one.
const MAX_TOLD_WITHOUT_MESSAGES: usize = 2 * MAX_TOLD;

/// Secret.
pub(crate) struct Seed(pub(crate) zeroize::Zeroizing<[u8; 64]>);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// What the node wants of the engine.
#[derive(Debug)]
pub(crate) enum Command {
    Open(CircuitId, Open),
    Close(CircuitId),
    Message(CircuitId, u8, Vec<u8>),
    /// As [`Command::Message`], if there is room for it; and whether there was.
    Offer(CircuitId, u8, Vec<u8>, oneshot::Sender<bool>),
    /// The first stream, and at a client its application's side.
    VirtualHop {
        circuit: CircuitId,
        role: VirtualRole,
        seed: Seed,
        transcript: [u8; 32],
        first: Option<FirstStream>,
        flow: Option<Arc<Flow>>,
    },
    HoldAfter(Vec<u8>),
    Join(CircuitId, CircuitId),
    Stream {
        circuit: CircuitId,
        target: Target,
        early: Vec<u8>,
        flow: Arc<Flow>,
    },
    StreamFor {
        target: Target,
        isolation: Isolation,
        early: Vec<u8>,
        flow: Arc<Flow>,
    },
    Accept(Arc<Flow>),
    Refuse(Arc<Flow>, EndReason),
    List(oneshot::Sender<Vec<CircuitInfo>>),
}

/// What the engine wants of the behaviour.
#[derive(Debug)]
pub(crate) enum Told {
    Event(Event),
    /// Open a link to this node; connect if there is no connection.
    Link {
        node: NodeId,
        addresses: Vec<Vec<u8>>,
        is_hint: bool,
        end: End,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) commands: VecDeque<Command>,
    /// Circuits that are to be closed, after all commands: there is always room for it, as there is for the circuits themselves.
    pub(crate) closing: BTreeSet<CircuitId>,
    pub(crate) answers: Vec<Answer>,
    /// Links and streams that have something, each once.
    pub(crate) pipes: Vec<Arc<Pipe>>,
    pub(crate) flows: Vec<Arc<Flow>>,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        let has_none = self.commands.is_empty() && self.closing.is_empty() && self.answers.is_empty();
        has_none && self.pipes.is_empty() && self.flows.is_empty()
    }
}

#[derive(Debug, Default)]
struct Outbox {
    told: VecDeque<Told>,
    waker: Option<Waker>,
    has_ended: bool,
}

/// The meeting place.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// Whether the engine waits to be woken; changed with the inbox locked.
    is_waiting: AtomicBool,
    outbox: Mutex<Outbox>,
    counts: Mutex<Counts>,
    is_stopped: AtomicBool,
    numbers: AtomicU64,
    pub(crate) drops: Arc<DropCounters>,
}

impl Hub {
    /// If too many wait, it is not done, and the circuit or the stream that it is about ends: nobody waits for what never comes.
    pub(crate) fn command(&self, command: Command) {
        let mut inbox = lock(&self.inbox);
        if let Command::Close(circuit) = command {
            // What was asked for before is done before; what is asked for later is of no use.
            inbox.closing.insert(circuit);
            return self.wake(inbox);
        }
        if inbox.commands.len() < MAX_COMMANDS {
            inbox.commands.push_back(command);
            return self.wake(inbox);
        }
        self.drops.count(DropReason::QueueFull);
        match command {
            Command::Message(circuit, ..) => _ = inbox.closing.insert(circuit),
            Command::Join(a, b) => inbox.closing.extend([a, b]),
            Command::VirtualHop { circuit, flow, .. } => {
                inbox.closing.insert(circuit);
                drop(inbox);
                flow.into_iter().for_each(|flow| flow.ended(Some(EndReason::Busy)));
            }
            command => {
                drop(inbox);
                self.refuse(command);
            }
        }
    }

    /// As [`Hub::command`] without room, for what is about no circuit that is there.
    fn refuse(&self, command: Command) {
        match command {
            Command::Open(circuit, _) => {
                let (side, reason) = (Side::Client, CloseReason::Memory);
                self.tell(Told::Event(Event::Closed { circuit, side, reason }));
            }
            Command::Stream { flow, .. } | Command::StreamFor { flow, .. } => flow.ended(Some(EndReason::Busy)),
            // Its application is told, and the engine finds it dropped, which ends it at the other end too.
            Command::Accept(flow) | Command::Refuse(flow, _) => {
                flow.ended(Some(EndReason::Busy));
                flow.give_up();
            }
            // Whoever waits for the answer hears that there is none.
            _ => {}
        }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        let mut inbox = lock(&self.inbox);
        inbox.answers.push(answer);
        self.wake(inbox);
    }

    /// Lists a link that has something; whoever calls holds that it is listed once.
    pub(crate) fn pipe_is_ready(&self, pipe: Arc<Pipe>) {
        let mut inbox = lock(&self.inbox);
        inbox.pipes.push(pipe);
        self.wake(inbox);
    }

    /// As [`Hub::pipe_is_ready`], for a stream.
    pub(crate) fn flow_is_ready(&self, flow: Arc<Flow>) {
        let mut inbox = lock(&self.inbox);
        inbox.flows.push(flow);
        self.wake(inbox);
    }

    /// Wakes the engine if it waits: to wake who does not costs a call of the system too.
    fn wake(&self, inbox: MutexGuard<'_, Inbox>) {
        let is_waiting = self.is_waiting.swap(false, Ordering::Relaxed);
        drop(inbox);
        if is_waiting {
            self.wake.notify_one();
        }
    }

    /// What came, when something did, or at `until`.
    pub(crate) fn wait(&self, until: Instant, now: Instant) -> Inbox {
        let mut inbox = lock(&self.inbox);
        let time = until.saturating_duration_since(now).min(Duration::from_secs(60));
        if inbox.is_empty() && !time.is_zero() && !self.is_stopped() {
            self.is_waiting.store(true, Ordering::Relaxed);
            (inbox, _) = self.wake.wait_timeout(inbox, time).unwrap_or_else(PoisonError::into_inner);
            self.is_waiting.store(false, Ordering::Relaxed);
        }
        std::mem::take(&mut inbox)
    }

    pub(crate) fn stop(&self) {
        let inbox = lock(&self.inbox);
        self.is_stopped.store(true, Ordering::Release);
        self.wake(inbox);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Tells the behaviour; false if it takes nothing. It takes always that a circuit is there, or gone.
    pub(crate) fn tell(&self, told: Told) -> bool {
        let mut outbox = lock(&self.outbox);
        let is_room = match &told {
            Told::Event(Event::Opened { .. } | Event::Closed { .. }) => true,
            Told::Event(Event::Message { .. }) => outbox.told.len() < MAX_TOLD,
            _ => outbox.told.len() < MAX_TOLD_WITHOUT_MESSAGES,
        };
        if is_room {
            outbox.told.push_back(told);
            outbox.waker.take().into_iter().for_each(Waker::wake);
        } else {
            self.drops.count(DropReason::QueueFull);
        }
        is_room
    }

    /// The engine has ended.
    pub(crate) fn end(&self) {
        let mut outbox = lock(&self.outbox);
        outbox.has_ended = true;
        outbox.waker.take().into_iter().for_each(Waker::wake);
    }

    /// What the behaviour is told next; `None` once, when the engine has ended.
    pub(crate) fn poll_told(&self, cx: &Context<'_>) -> Poll<Option<Told>> {
        let mut outbox = lock(&self.outbox);
        if let Some(told) = outbox.told.pop_front() {
            return Poll::Ready(Some(told));
        }
        if std::mem::take(&mut outbox.has_ended) {
            return Poll::Ready(None);
        }
        outbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_link(&self) -> LinkId {
        LinkId(self.number())
    }

    pub(crate) fn next_flow(&self) -> u64 {
        self.number()
    }

    /// An odd number.
    pub(crate) fn next_circuit(&self) -> CircuitId {
        CircuitId(self.number() * 2 + 1)
    }

    pub(crate) fn set_counts(&self, counts: Counts) {
        *lock(&self.counts) = counts;
    }

    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
