//! Where the swarm and the threads leave things for each other.

use std::{
    collections::{BTreeSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use fog_base::{DropCounters, DropReason, NodeId};

use super::{
    disk::Reply,
    lock,
    pipe::{End, Pipe},
};
use crate::{
    core::{blob::BlobId, manifest::Manifest, seal::Key},
    event::{Event, TaskId},
};

/// What the node asked for and the engine did not take yet; it takes all of it at once.
const MAX_COMMANDS: usize = 4_096;
/// What the swarm did not take yet.
const MAX_TOLD: usize = 4_096;

/// What the behaviour wants of the engine.
#[derive(Debug)]
pub(crate) enum Command {
    Connected(NodeId),
    Disconnected(NodeId),
    Share { task: TaskId, path: PathBuf, key: Option<Key>, is_private: bool },
    Fetch { task: TaskId, manifest: Manifest, out: PathBuf, sources: Vec<NodeId>, is_private: bool },
    AddSource(TaskId, NodeId),
    Cancel(TaskId),
    Pause(TaskId),
    Unshare(BlobId),
    Avoid(BTreeSet<NodeId>),
}

/// What the engine wants of the behaviour.
#[derive(Debug)]
pub(crate) enum Told {
    Event(Event),
    /// Connect to this node.
    Dial(NodeId),
    /// Open a stream to this node.
    Open(NodeId, End),
}

#[derive(Debug, Default)]
struct Inbox {
    commands: VecDeque<Command>,
    replies: VecDeque<Reply>,
    /// Pipes that have something, each once.
    pipes: VecDeque<Arc<Pipe>>,
}

/// What the engine finds when it looks.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) commands: VecDeque<Command>,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) pipes: VecDeque<Arc<Pipe>>,
}

#[derive(Debug, Default)]
struct Outbox {
    told: VecDeque<Told>,
    waker: Option<Waker>,
    has_ended: bool,
}

/// The meeting place of the swarm's tasks, the engine and the disk threads.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    outbox: Mutex<Outbox>,
    is_stopped: AtomicBool,
    pub(crate) drops: DropCounters,
}

impl Hub {
    /// False if too many wait.
    pub(crate) fn command(&self, command: Command) -> bool {
        let mut inbox = lock(&self.inbox);
        let is_room = inbox.commands.len() < MAX_COMMANDS;
        if is_room {
            inbox.commands.push_back(command);
            self.wake.notify_one();
        } else {
            self.drops.count(DropReason::QueueFull);
        }
        is_room
    }

    pub(crate) fn reply(&self, reply: Reply) {
        lock(&self.inbox).replies.push_back(reply);
        self.wake.notify_one();
    }

    /// Lists a pipe that has something; whoever calls holds that it is listed once.
    pub(crate) fn ready(&self, pipe: Arc<Pipe>) {
        lock(&self.inbox).pipes.push_back(pipe);
        self.wake.notify_one();
    }

    /// What came, when something did, or at `until`.
    pub(crate) fn wait(&self, until: Option<Instant>, now: Instant) -> Found {
        let mut inbox = lock(&self.inbox);
        let is_empty = inbox.commands.is_empty() && inbox.replies.is_empty() && inbox.pipes.is_empty();
        let time = until.map_or(Duration::from_secs(60), |until| until.saturating_duration_since(now));
        if is_empty && !time.is_zero() && !self.is_stopped() {
            (inbox, _) = self.wake.wait_timeout(inbox, time).unwrap_or_else(PoisonError::into_inner);
        }
        Found {
            commands: std::mem::take(&mut inbox.commands),
            replies: std::mem::take(&mut inbox.replies),
            pipes: std::mem::take(&mut inbox.pipes),
        }
    }

    pub(crate) fn stop(&self) {
        let _inbox = lock(&self.inbox);
        self.is_stopped.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Tells the behaviour. Progress that nobody took is replaced by what is newer.
    pub(crate) fn tell(&self, told: Told) {
        let mut outbox = lock(&self.outbox);
        if let Told::Event(Event::Progress { task, .. }) = &told {
            let older = |told: &Told| matches!(told, Told::Event(Event::Progress { task: other, .. }) if other == task);
            outbox.told.retain(|told| !older(told));
        }
        let may_wait = !matches!(told, Told::Event(Event::Blame { .. } | Event::Progress { .. }) | Told::Dial(_));
        if outbox.told.len() < MAX_TOLD || may_wait {
            outbox.told.push_back(told);
        } else {
            self.drops.count(DropReason::QueueFull);
        }
        outbox.waker.take().into_iter().for_each(Waker::wake);
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
}
