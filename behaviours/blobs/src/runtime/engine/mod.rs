//! The thread that decides and hashes: it feeds the upload and the downloads with what comes from streams, files and the node,
//! and does what they say. No rules of the protocol.

mod fetch;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fetch::Fetch;
use fog_base::{NodeId, Now, UnixMillis};
use streams::{Outgoing, Pace};

use super::{
    disk::{Disk, Job, Load, Opened, Reply, Write},
    hub::{Command, Hub, Told},
    pipe::Pipe,
};
use crate::{
    core::{
        bitmap::Bitmap,
        blob::{Blob, BlobId},
        manifest::Manifest,
        reject::Reject,
        seal::Key,
        upload::{self, Upload},
    },
    event::{Event, Failure, TaskId},
    ids::peer_id,
};

/// Imports and fetches at once; with [`fetch::WINDOW_BYTES`] each, this bounds the memory of all of them.
const MAX_ACTIVE: usize = 16;
/// How often progress is told and sources are looked at.
const TICK: Duration = Duration::from_millis(500);

/// What bounds the engine.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes a second that are received; `None` for no limit.
    pub(crate) down: Option<u64>,
    /// A fetch of which nothing comes for so long has failed.
    pub(crate) patience: Duration,
}

/// What a task is about.
#[derive(Debug)]
enum Task {
    Importing { is_private: bool, is_cancelled: bool },
    Sharing(BlobId),
    Opening { is_private: bool, wanted: Vec<NodeId>, stopped: Option<Failure> },
    Fetching(Box<Fetch>),
}

/// The cores, and what is between them and the world.
#[derive(Debug)]
pub(crate) struct Engine {
    hub: Arc<Hub>,
    disk: Arc<Disk>,
    limits: Limits,
    /// Random: which piece comes first.
    seed: u64,
    upload: Upload,
    tasks: BTreeMap<TaskId, Task>,
    /// Tasks that have failed, and are told of it when the disk has done its part.
    ending: BTreeMap<BlobId, Vec<(TaskId, Failure)>>,
    /// The task that fetches a blob, until the disk has done its part, and that which has a number on the wire.
    fetched: BTreeMap<BlobId, TaskId>,
    tags: BTreeMap<u32, TaskId>,
    next_tag: u32,
    connected: BTreeSet<NodeId>,
    serving: BTreeMap<NodeId, Arc<Pipe>>,
    sources: BTreeMap<NodeId, Outgoing>,
    /// Nodes that have no part in private files.
    avoided: BTreeSet<NodeId>,
    /// Nodes to which no stream is opened before.
    resting: BTreeMap<NodeId, Instant>,
    pace: Pace,
    held: VecDeque<Arc<Pipe>>,
}

#[expect(clippy::disallowed_methods, reason = "this is where the cores' clock is read")]
fn clock() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix: UnixMillis(0).plus(unix) }
}

impl Engine {
    /// Serves `whole` from the start: blobs, and whether each is private.
    pub(crate) fn new(
        (hub, disk): (Arc<Hub>, Arc<Disk>),
        upload: upload::Config,
        limits: Limits,
        seed: u64,
        whole: Vec<(Blob, bool)>,
    ) -> Self {
        let now = clock();
        let mut upload = Upload::new(upload, now);
        for (blob, is_private) in whole {
            if !upload.serve(blob, Bitmap::full(blob.pieces())) {
                tracing::warn!(blob = %blob.id(), "there are more shared files than are served");
            } else if is_private {
                upload.make_private(blob.id());
            }
        }
        Self {
            pace: Pace::new(limits.down, now.mono),
            hub,
            disk,
            limits,
            seed,
            upload,
            tasks: BTreeMap::new(),
            ending: BTreeMap::new(),
            fetched: BTreeMap::new(),
            tags: BTreeMap::new(),
            next_tag: 0,
            connected: BTreeSet::new(),
            serving: BTreeMap::new(),
            sources: BTreeMap::new(),
            avoided: BTreeSet::new(),
            resting: BTreeMap::new(),
            held: VecDeque::new(),
        }
    }

    /// Works until it is stopped; then what was written is put on the disk.
    pub(crate) fn run(mut self) {
        while !self.hub.is_stopped() {
            let found = self.hub.wait(self.wakes_at(), clock().mono);
            let now = clock();
            for command in found.commands {
                self.handle_command(command, now);
            }
            for reply in found.replies {
                self.handle_reply(reply, now);
            }
            for pipe in found.pipes {
                self.handle_pipe(pipe, now);
            }
            self.handle_timeouts(now);
            self.flush(now);
        }
        for task in self.tasks.values() {
            if let Task::Fetching(fetch) = task {
                self.disk.writes.push(Write::Close(fetch.id()));
            }
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        let fetches = self.tasks.values().filter_map(|task| match task {
            Task::Fetching(fetch) => fetch.wakes_at(),
            _ => None,
        });
        let paced = (!self.held.is_empty()).then(|| self.pace.next());
        fetches.chain(self.upload.poll_timeout()).chain(paced).min()
    }

    fn handle_command(&mut self, command: Command, now: Now) {
        match command {
            Command::Connected(node) => {
                self.connected.insert(node);
                self.resting.remove(&node);
                self.seek(node);
            }
            Command::Disconnected(node) => {
                self.connected.remove(&node);
            }
            Command::Share { task, path, key, is_private } => self.share(task, path, key, is_private),
            Command::Fetch { task, manifest, out, sources, is_private } => {
                self.fetch(task, manifest, (out, is_private), sources);
            }
            Command::AddSource(task, node) => self.add_source(task, node, now),
            Command::Cancel(task) => self.cancel(task),
            Command::Pause(task) => self.pause(task),
            Command::Unshare(blob) => self.unshare(blob),
            Command::Avoid(nodes) => self.avoid(nodes, now),
        }
    }

    fn avoid(&mut self, nodes: BTreeSet<NodeId>, now: Now) {
        for task in self.tasks.values_mut() {
            if let Task::Fetching(fetch) = task {
                fetch.avoid(&nodes, now);
            }
        }
        for node in &nodes {
            if self.sources.contains_key(node) && !self.is_wanted(*node) {
                self.close_source(*node);
            }
        }
        self.upload.avoid(nodes.clone());
        self.avoided = nodes;
    }

    fn is_room(&self) -> bool {
        self.tasks.values().filter(|task| !matches!(task, Task::Sharing(_))).count() < MAX_ACTIVE
    }

    fn share(&mut self, task: TaskId, path: PathBuf, key: Option<Key>, is_private: bool) {
        if !self.is_room() {
            return self.fail(task, Failure::TooMany);
        }
        self.tasks.insert(task, Task::Importing { is_private, is_cancelled: false });
        self.disk.jobs.push(Job::Import { task, path, key });
    }

    fn fetch(&mut self, task: TaskId, manifest: Manifest, (out, is_private): (PathBuf, bool), sources: Vec<NodeId>) {
        let blob = manifest.blob.id();
        if self.fetched.contains_key(&blob) || self.ending.contains_key(&blob) {
            return self.fail(task, Failure::AlreadyFetching);
        }
        if !self.is_room() {
            return self.fail(task, Failure::TooMany);
        }
        self.fetched.insert(blob, task);
        self.tasks.insert(task, Task::Opening { is_private, wanted: Vec::new(), stopped: None });
        self.disk.jobs.push(Job::Open { task, manifest, out, sources });
    }

    fn add_source(&mut self, task: TaskId, node: NodeId, now: Now) {
        match self.tasks.get_mut(&task) {
            Some(Task::Opening { wanted, .. }) => wanted.push(node),
            Some(Task::Fetching(fetch)) => {
                fetch.want(node, &self.avoided, &self.hub.drops);
                self.attach(node, now);
                self.seek(node);
            }
            _ => {}
        }
    }

    fn cancel(&mut self, task: TaskId) {
        match self.tasks.get_mut(&task) {
            Some(Task::Importing { is_cancelled, .. }) => *is_cancelled = true,
            Some(Task::Opening { stopped, .. }) => *stopped = Some(Failure::Cancelled),
            Some(Task::Sharing(blob)) => {
                let blob = *blob;
                self.unshare(blob);
            }
            Some(Task::Fetching(fetch)) => {
                let blob = fetch.id();
                self.end(task);
                self.stop(vec![task], Failure::Cancelled, blob, Write::Forget(blob));
            }
            None => {}
        }
    }

    /// What is shared is not concerned.
    fn pause(&mut self, task: TaskId) {
        match self.tasks.get_mut(&task) {
            Some(Task::Opening { stopped, .. }) => *stopped = stopped.take().or(Some(Failure::Paused)),
            // All is here: it ends by itself.
            Some(Task::Fetching(fetch)) if !fetch.is_finishing() => {
                let blob = fetch.id();
                self.end(task);
                self.stop(vec![task], Failure::Paused, blob, Write::Pause(blob));
            }
            _ => {}
        }
    }

    /// What is fetched is not concerned.
    fn unshare(&mut self, blob: BlobId) {
        if self.fetched.contains_key(&blob) {
            return;
        }
        let of_it = |task: &Task| matches!(task, Task::Sharing(shared) if *shared == blob);
        let tasks = self.tasks.iter().filter(|(_, task)| of_it(task)).map(|(task, _)| *task).collect();
        self.stop(tasks, Failure::Cancelled, blob, Write::Forget(blob));
    }

    /// These tasks fail when the disk has done its part.
    fn stop(&mut self, tasks: Vec<TaskId>, why: Failure, blob: BlobId, write: Write) {
        self.upload.stop_serving(blob);
        let ending = self.ending.entry(blob).or_default();
        for task in tasks {
            self.tasks.remove(&task);
            ending.push((task, why.clone()));
        }
        self.disk.writes.push(write);
    }

    fn handle_ended(&mut self, blob: BlobId) {
        self.fetched.remove(&blob);
        for (task, reason) in self.ending.remove(&blob).unwrap_or_default() {
            self.fail(task, reason);
        }
    }

    fn fail(&mut self, task: TaskId, reason: Failure) {
        self.tasks.remove(&task);
        self.tell(Event::Failed { task, reason });
    }

    fn tell(&self, event: Event) {
        self.hub.tell(Told::Event(event));
    }

    fn blame(&self, node: NodeId, reject: Reject) {
        if let Some(peer) = peer_id(node) {
            self.tell(Event::Blame { peer, reject });
        }
    }

    fn handle_reply(&mut self, reply: Reply, now: Now) {
        match reply {
            Reply::Loaded { to, id, steps } => self.upload.handle_loaded(to, id, steps, now),
            Reply::Written { blob, groups, failure } => self.handle_written(blob, &groups, failure, now),
            Reply::Ended(blob) => self.handle_ended(blob),
            Reply::Imported { task, outcome } => self.handle_imported(task, outcome),
            Reply::Opened { task, manifest, outcome } => self.handle_opened(task, &manifest, outcome, now),
            Reply::Finished { task, outcome } => self.handle_finished(task, outcome, now),
        }
    }

    fn handle_imported(&mut self, task: TaskId, outcome: Result<Manifest, Failure>) {
        let Some(&Task::Importing { is_private, is_cancelled }) = self.tasks.get(&task) else { return };
        let manifest = match outcome {
            Ok(manifest) => manifest,
            Err(reason) => return self.fail(task, reason),
        };
        let blob = manifest.blob;
        let bytes = manifest.encode().map_err(|_| Failure::Manifest);
        let is_served = !is_cancelled && self.upload.serve(blob, Bitmap::full(blob.pieces()));
        match bytes {
            Ok(manifest) if is_served => {
                if is_private {
                    self.upload.make_private(blob.id());
                }
                self.tasks.insert(task, Task::Sharing(blob.id()));
                self.tell(Event::Shared { task, manifest, hash: blob.id(), bytes: blob.size() });
            }
            bytes => {
                let why = if is_cancelled { Failure::Cancelled } else { Failure::TooMany };
                let why = bytes.err().unwrap_or(why);
                self.stop(vec![task], why, blob.id(), Write::Forget(blob.id()));
            }
        }
    }

    fn handle_opened(&mut self, task: TaskId, manifest: &Manifest, outcome: Result<Opened, Failure>, now: Now) {
        let blob = manifest.blob;
        let Some(Task::Opening { is_private, wanted, stopped }) = self.tasks.remove(&task) else { return };
        let opened = match outcome {
            Ok(Opened::Partial { .. }) if stopped == Some(Failure::Paused) => {
                return self.stop(vec![task], Failure::Paused, blob.id(), Write::Pause(blob.id()));
            }
            Ok(Opened::Partial { .. }) if stopped.is_some() => {
                return self.stop(vec![task], Failure::Cancelled, blob.id(), Write::Forget(blob.id()));
            }
            Ok(Opened::Copied(path)) => {
                self.fetched.remove(&blob.id());
                let (hash, bytes) = (blob.id(), blob.size());
                self.tasks.insert(task, Task::Sharing(hash));
                return self.tell(Event::Done { task, path, hash, bytes, took: Duration::ZERO, sources: 0 });
            }
            Ok(Opened::Partial { have, pieces, sources }) => {
                let tag = self.next_tag;
                self.next_tag = tag.wrapping_add(1);
                let seed = self.seed.wrapping_add(u64::from(tag));
                let is_served = self.upload.serve(blob, pieces);
                if is_private {
                    self.upload.make_private(blob.id());
                }
                let fetch = is_served.then(|| Fetch::new((blob, is_private), have, (tag, seed), now)).flatten();
                let fetch = fetch.map(|mut fetch| {
                    sources.into_iter().for_each(|node| fetch.want(node, &self.avoided, &self.hub.drops));
                    fetch
                });
                fetch.ok_or(Failure::TooMany)
            }
            Err(reason) => Err(reason),
        };
        match opened {
            Ok(mut fetch) => {
                wanted.into_iter().for_each(|node| fetch.want(node, &self.avoided, &self.hub.drops));
                let nodes = fetch.wanted();
                self.tags.insert(fetch.tag(), task);
                self.tasks.insert(task, Task::Fetching(Box::new(fetch)));
                for node in nodes {
                    self.attach(node, now);
                    self.seek(node);
                }
            }
            Err(reason) => self.stop(vec![task], reason, blob.id(), Write::Close(blob.id())),
        }
    }

    fn handle_written(&mut self, blob: BlobId, groups: &[u64], failure: Option<Failure>, now: Now) {
        let Some(task) = self.fetched.get(&blob).copied() else { return };
        let Some(Task::Fetching(fetch)) = self.tasks.get_mut(&task) else { return };
        for piece in fetch.handle_written(groups, failure.is_none(), now) {
            self.upload.handle_gained(blob, piece);
        }
        if let Some(reason) = failure {
            self.give_up(task, reason);
        }
    }

    /// The fetch ends; what it has stays.
    fn give_up(&mut self, task: TaskId, reason: Failure) {
        if let Some(Task::Fetching(fetch)) = self.tasks.get(&task) {
            let blob = fetch.id();
            self.end(task);
            self.stop(vec![task], reason, blob, Write::Close(blob));
        }
    }

    fn handle_finished(&mut self, task: TaskId, outcome: Result<PathBuf, Failure>, now: Now) {
        let Some(Task::Fetching(fetch)) = self.tasks.get(&task) else { return };
        match outcome {
            Ok(path) => {
                let done = fetch.done(task, path, now);
                let blob = fetch.id();
                self.end(task);
                self.fetched.remove(&blob);
                self.tasks.insert(task, Task::Sharing(blob));
                self.tell(done);
            }
            Err(reason) => self.give_up(task, reason),
        }
    }

    fn handle_timeouts(&mut self, now: Now) {
        if self.upload.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.upload.handle_timeout(now);
        }
        while self.pace.next() <= now.mono {
            let Some(pipe) = self.held.pop_front() else { break };
            self.handle_pipe(pipe, now);
        }
        let due: Vec<TaskId> = self.tasks.iter().filter(|(_, task)| is_due(task, now)).map(|(task, _)| *task).collect();
        for task in due {
            let Some(Task::Fetching(fetch)) = self.tasks.get_mut(&task) else { continue };
            let Some(tick) = fetch.handle_timeout(task, now) else { continue };
            let (is_hopeless, wanted) = (fetch.waits(now) >= self.limits.patience, fetch.wanted());
            let blob = fetch.id();
            tick.progress.into_iter().for_each(|progress| self.tell(progress));
            if tick.is_checkpoint {
                self.disk.writes.push(Write::Checkpoint(blob, tick.sources));
            }
            if is_hopeless {
                self.give_up(task, Failure::NoSource);
                continue;
            }
            self.resting.retain(|_, until| *until > now.mono);
            for node in wanted {
                self.seek(node);
                if tick.dials && !self.connected.contains(&node) {
                    self.hub.tell(Told::Dial(node));
                }
            }
        }
    }

    /// Does what the cores say.
    fn flush(&mut self, now: Now) {
        while let Some(output) = self.upload.poll_output() {
            match output {
                upload::Output::Send { to, message } => {
                    if !self.serving.get(&to).is_some_and(|pipe| pipe.send(&message)) {
                        self.stop_serving(to, now);
                    }
                }
                upload::Output::Load { to, id, blob, steps } => self.disk.loads.push(Load { to, id, blob, steps }),
                upload::Output::Broken { blob, group } => {
                    tracing::debug!(%blob, ?group, "a shared file is not what it was");
                    self.tell(Event::Broken { hash: blob });
                }
            }
        }
        let tasks: Vec<TaskId> = self.tags.values().copied().collect();
        for task in tasks {
            self.flush_fetch(task);
        }
    }
}

impl Drop for Engine {
    /// However it ends, the other threads end and the node hears of it.
    fn drop(&mut self) {
        self.disk.loads.close();
        self.disk.jobs.close();
        self.disk.writes.close();
        self.hub.end();
    }
}

fn is_due(task: &Task, now: Now) -> bool {
    matches!(task, Task::Fetching(fetch) if fetch.wakes_at().is_some_and(|at| at <= now.mono))
}
