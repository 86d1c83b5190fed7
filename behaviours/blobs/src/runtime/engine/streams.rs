//! Streams and what comes through them: who serves whom, and what is not a message of an honest peer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now};

use super::{Engine, Task};
use crate::{
    core::reject::Reject,
    event::TaskId,
    runtime::{
        hub::Told,
        pipe::{News, Over, Pipe, Received, Side},
    },
    wire::{FromSource, ToSource},
};

/// Streams of peers that fetch.
const MAX_SERVING: usize = 256;
/// No stream is opened to a node for so long after one has failed, after it did what no honest peer does, and after it said that it
/// does not speak the protocol.
const REST: Duration = Duration::from_secs(2);
const LONG_REST: Duration = Duration::from_secs(60);
/// Messages of downloads that are over, on one stream, since the last download began: more than was requested of any peer.
const MAX_LATE: u32 = 4_096;

/// Bytes that are received, spread over time: who has had more than its rate waits.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self { rate, next: now }
    }

    /// When more may be received.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    fn came(&mut self, bytes: u64, now: Instant) {
        if let Some(rate) = self.rate.filter(|_| bytes > 0) {
            let took = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            self.next = self.next.max(now) + took;
        }
    }
}

/// A stream to a source.
#[derive(Debug)]
pub(super) struct Outgoing {
    pipe: Arc<Pipe>,
    is_open: bool,
    late: u32,
}

impl Outgoing {
    pub(super) fn send(&self, message: &ToSource) -> bool {
        self.pipe.send(message)
    }
}

impl Engine {
    /// Whether something is fetched that this node may have.
    pub(super) fn is_wanted(&self, node: NodeId) -> bool {
        self.tasks.values().any(|task| matches!(task, Task::Fetching(fetch) if fetch.wants(node)))
    }

    /// Opens a stream to a node that is wanted, if it is connected.
    pub(super) fn seek(&mut self, node: NodeId) {
        let is_ready = self.connected.contains(&node) && !self.resting.contains_key(&node);
        if is_ready && !self.sources.contains_key(&node) && self.is_wanted(node) {
            let (pipe, end) = Pipe::new(&self.hub, node, Side::Fetches);
            self.sources.insert(node, Outgoing { pipe, is_open: false, late: 0 });
            self.hub.tell(Told::Open(node, end));
        }
    }

    /// Tells the downloads that a source's stream is open.
    pub(super) fn attach(&mut self, node: NodeId, now: Now) {
        let Some(source) = self.sources.get_mut(&node).filter(|source| source.is_open) else { return };
        source.late = 0;
        for task in self.tasks.values_mut() {
            if let Task::Fetching(fetch) = task
                && fetch.wants(node)
            {
                fetch.handle_source(node, now);
            }
        }
    }

    /// Ends the stream to a source when it has taken what it was told.
    pub(super) fn close_source(&mut self, node: NodeId) {
        if let Some(source) = self.sources.get(&node) {
            source.pipe.close();
        }
        self.detach(node, super::clock());
    }

    fn detach(&mut self, node: NodeId, now: Now) {
        if self.sources.remove(&node).is_some() {
            for task in self.tasks.values_mut() {
                if let Task::Fetching(fetch) = task {
                    fetch.handle_gone(node, now);
                }
            }
        }
    }

    pub(super) fn stop_serving(&mut self, node: NodeId, now: Now) {
        if let Some(pipe) = self.serving.remove(&node) {
            pipe.close();
        }
        self.upload.handle_gone(node, now);
    }

    /// Something happened to a stream.
    pub(super) fn handle_pipe(&mut self, pipe: Arc<Pipe>, now: Now) {
        if pipe.side == Side::Fetches && self.pace.next() > now.mono {
            return self.held.push_back(pipe);
        }
        let news = pipe.take();
        match pipe.side {
            _ if news.is_closed => {}
            Side::Serves => self.handle_serving(&pipe, news, now),
            Side::Fetches => self.handle_fetching(&pipe, news, now),
        }
    }

    fn handle_serving(&mut self, pipe: &Arc<Pipe>, news: News, now: Now) {
        let node = pipe.node;
        if !self.serving.get(&node).is_some_and(|known| Arc::ptr_eq(known, pipe)) {
            // A new stream takes the place of an older one.
            self.stop_serving(node, now);
            if self.serving.len() >= MAX_SERVING {
                return pipe.close();
            }
            self.serving.insert(node, Arc::clone(pipe));
        }
        for _ in 0..news.written {
            self.upload.handle_sent(node, now);
        }
        for message in news.received {
            let Received::Asked(message) = message else { continue };
            let fetching = match &message {
                // Who wants what this node fetches fetches it as well, and may have what is missing here.
                ToSource::Want(blob) => self.fetched.get(blob).copied(),
                _ => None,
            };
            if let Err(reject) = self.upload.handle_message(node, message, now)
                && reject.weight() > 0.0
            {
                self.blame(node, reject);
                return self.stop_serving(node, now);
            }
            fetching.into_iter().for_each(|task| self.add_source(task, node, now));
        }
        if let Some(over) = news.over {
            if over == Over::Malformed {
                self.blame(node, Reject::Malformed);
            }
            self.stop_serving(node, now);
        }
    }

    fn handle_fetching(&mut self, pipe: &Arc<Pipe>, news: News, now: Now) {
        let node = pipe.node;
        let Some(source) = self.sources.get_mut(&node).filter(|source| Arc::ptr_eq(&source.pipe, pipe)) else {
            return pipe.close();
        };
        if news.is_open && !std::mem::replace(&mut source.is_open, true) {
            self.attach(node, now);
        }
        for message in news.received {
            let Received::Told(message) = message else { continue };
            if let Err(reject) = self.take(node, message, now)
                && reject.weight() > 0.0
            {
                self.blame(node, reject);
                self.resting.insert(node, now.mono + LONG_REST);
                return self.close_source(node);
            }
        }
        if let Some(over) = news.over {
            if over == Over::Malformed {
                self.blame(node, Reject::Malformed);
            }
            let rest = if over == Over::Gone { REST } else { LONG_REST };
            self.resting.insert(node, now.mono + rest);
            pipe.close();
            self.detach(node, now);
        }
    }

    fn take(&mut self, node: NodeId, message: FromSource, now: Now) -> Result<(), Reject> {
        let task: Option<TaskId> = match &message {
            FromSource::Have(blob, _) | FromSource::Gained(blob, _) => self.fetched.get(blob).copied(),
            FromSource::Step(id, bytes) => {
                self.pace.came(bytes.len() as u64, now.mono);
                self.tags.get(&id.download).copied()
            }
            FromSource::End(id, _) => self.tags.get(&id.download).copied(),
        };
        if let Some(Task::Fetching(fetch)) = task.and_then(|task| self.tasks.get_mut(&task)) {
            return fetch.handle_message(node, message, now);
        }
        let source = self.sources.get_mut(&node).ok_or(Reject::UnknownPeer)?;
        source.late += 1;
        self.hub.drops.count(Reject::Late.drop_reason());
        if source.late > MAX_LATE { Err(Reject::Unrequested) } else { Ok(()) }
    }
}
