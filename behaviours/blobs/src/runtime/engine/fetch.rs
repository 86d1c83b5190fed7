//! One file that is being fetched: the download, who may have it, and when something is due.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use fog_base::{DropCounters, DropReason, NodeId, Now};

use super::{Engine, TICK, Task};
use crate::{
    core::{
        bitmap::Bitmap,
        blob::{Blob, BlobId, PIECE_GROUPS},
        download::{Config, Download, Output, Report},
        reject::Reject,
        slice::Verified,
    },
    event::{Event, TaskId},
    runtime::{disk::Write, record::MAX_SOURCES},
    wire::{FromSource, ToSource},
};

/// How often what was written is put on the disk, if it was not for another reason.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// How often nodes that may have it and are not connected are dialled.
const DIAL: Duration = Duration::from_secs(15);

/// A file that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    download: Download,
    tag: u32,
    is_private: bool,
    /// Who may have it.
    wanted: BTreeSet<NodeId>,
    is_changed: bool,
    /// Who sent something.
    helped: BTreeSet<NodeId>,
    written: Bitmap,
    begun: Instant,
    came: Instant,
    /// The bytes that were told last.
    told: u64,
    tick_at: Instant,
    checkpoint_at: Instant,
    dial_at: Instant,
    is_finishing: bool,
}

/// What is due.
#[derive(Debug)]
pub(super) struct Tick {
    pub(super) progress: Option<Event>,
    pub(super) is_checkpoint: bool,
    /// Who may have it, if that has changed.
    pub(super) sources: Option<Vec<NodeId>>,
    pub(super) dials: bool,
}

impl Fetch {
    pub(super) fn new((blob, is_private): (Blob, bool), have: Bitmap, ids: (u32, u64), now: Now) -> Option<Self> {
        let (tag, seed) = ids;
        let download = Download::new(blob, have.clone(), tag, seed, Config::default(), now)?;
        Some(Self {
            download,
            tag,
            is_private,
            wanted: BTreeSet::new(),
            is_changed: false,
            helped: BTreeSet::new(),
            written: have,
            begun: now.mono,
            came: now.mono,
            told: 0,
            tick_at: now.mono,
            checkpoint_at: now.mono + CHECKPOINT,
            dial_at: now.mono,
            is_finishing: false,
        })
    }

    pub(super) fn id(&self) -> BlobId {
        self.download.blob().id()
    }

    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    pub(super) fn wanted(&self) -> Vec<NodeId> {
        self.wanted.iter().copied().collect()
    }

    pub(super) fn wants(&self, node: NodeId) -> bool {
        self.wanted.contains(&node)
    }

    /// This node may have it, and is not asked if it is avoided and the file private.
    pub(super) fn want(&mut self, node: NodeId, avoided: &BTreeSet<NodeId>, drops: &DropCounters) {
        if self.is_private && avoided.contains(&node) {
            return;
        }
        if self.wanted.len() < MAX_SOURCES {
            self.is_changed |= self.wanted.insert(node);
            self.dial_at = self.begun;
        } else {
            drops.count(DropReason::QueueFull);
        }
    }

    /// These nodes are not asked any more, if the file is private.
    pub(super) fn avoid(&mut self, nodes: &BTreeSet<NodeId>, now: Now) {
        if !self.is_private {
            return;
        }
        for node in nodes {
            if self.wanted.remove(node) {
                self.is_changed = true;
                self.download.handle_gone(*node, now);
            }
        }
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.is_finishing
    }

    /// How long nothing has come.
    pub(super) fn waits(&self, now: Now) -> Duration {
        if self.is_finishing { Duration::ZERO } else { now.mono.saturating_duration_since(self.came) }
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.download.poll_timeout().into_iter().chain([self.tick_at]).min()
    }

    /// The pieces that are whole now.
    pub(super) fn handle_written(&mut self, groups: &[u64], is_written: bool, now: Now) -> BTreeSet<u64> {
        let mut pieces = BTreeSet::new();
        for group in groups {
            self.download.handle_written(*group, is_written, now);
            if is_written && self.written.set(*group) {
                pieces.insert(group / PIECE_GROUPS);
            }
        }
        pieces.retain(|piece| self.written.has_all(self.download.blob().piece_groups(*piece)));
        pieces
    }

    pub(super) fn handle_source(&mut self, node: NodeId, now: Now) {
        if let Err(reject) = self.download.handle_source(node, now) {
            tracing::debug!(?node, %reject, "a source is not taken");
            self.wanted.remove(&node);
        }
    }

    pub(super) fn handle_gone(&mut self, node: NodeId, now: Now) {
        self.download.handle_gone(node, now);
    }

    pub(super) fn handle_message(&mut self, node: NodeId, message: FromSource, now: Now) -> Result<(), Reject> {
        let is_step = matches!(message, FromSource::Step(..));
        let taken = self.download.handle_message(node, message, now);
        if is_step && taken.is_ok() {
            self.helped.insert(node);
            self.came = now.mono;
        }
        if matches!(taken, Err(Reject::Lie | Reject::OtherSize)) {
            self.is_changed |= self.wanted.remove(&node);
        }
        taken
    }

    /// What is due, if a tick is.
    pub(super) fn handle_timeout(&mut self, task: TaskId, now: Now) -> Option<Tick> {
        if self.download.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.download.handle_timeout(now);
        }
        if now.mono < self.tick_at {
            return None;
        }
        self.tick_at = now.mono + TICK;
        let progress = self.download.progress(now);
        let is_news = progress.bytes != self.told;
        self.told = progress.bytes;
        let (bytes, total, sources) = (progress.bytes, progress.total_bytes, progress.sources);
        let is_checkpoint = now.mono >= self.checkpoint_at;
        if is_checkpoint {
            self.checkpoint_at = now.mono + CHECKPOINT;
        }
        let is_changed = is_checkpoint && std::mem::take(&mut self.is_changed);
        let dials = now.mono >= self.dial_at;
        if dials {
            self.dial_at = now.mono + DIAL;
        }
        Some(Tick {
            progress: is_news.then_some(Event::Progress { task, bytes, total, sources }),
            is_checkpoint,
            sources: is_changed.then(|| self.wanted()),
            dials,
        })
    }

    pub(super) fn done(&self, task: TaskId, path: PathBuf, now: Now) -> Event {
        let (hash, bytes) = (self.id(), self.download.blob().size());
        let took = now.mono.saturating_duration_since(self.begun);
        Event::Done { task, path, hash, bytes, took, sources: self.helped.len() }
    }
}

impl Engine {
    /// Does what a download says.
    pub(super) fn flush_fetch(&mut self, task: TaskId) {
        let Some(Task::Fetching(fetch)) = self.tasks.get_mut(&task) else { return };
        let (blob, mut groups): (BlobId, Vec<Verified>) = (fetch.id(), Vec::new());
        let mut deaf = Vec::new();
        while let Some(output) = fetch.download.poll_output() {
            match output {
                Output::Send { to, message } => {
                    if self.sources.get(&to).is_some_and(|source| !source.send(&message)) {
                        deaf.push(to);
                    }
                }
                Output::Persist(verified) => groups.push(verified),
                Output::Report(Report::Stalled { peer } | Report::Lied { peer, .. }) => {
                    // A lie is blamed with the message that it is in; a stall is nobody's proven fault.
                    tracing::debug!(?peer, "a source has stalled or lied");
                }
                Output::Done => {
                    fetch.is_finishing = true;
                    self.disk.writes.push(Write::Finish(task, blob));
                }
            }
        }
        if !groups.is_empty() {
            self.disk.writes.push(Write::Groups(blob, groups));
        }
        for node in deaf {
            self.close_source(node);
        }
    }

    /// The task is over; its sources are told, and streams that nobody needs are closed.
    pub(super) fn end(&mut self, task: TaskId) {
        let Some(Task::Fetching(fetch)) = self.tasks.remove(&task) else { return };
        self.tags.remove(&fetch.tag);
        for node in fetch.wanted.iter().chain(&fetch.helped) {
            let is_needed = self.is_wanted(*node);
            let Some(source) = self.sources.get_mut(node) else { continue };
            source.send(&ToSource::Forget(fetch.id()));
            if !is_needed {
                self.close_source(*node);
            }
        }
    }
}
