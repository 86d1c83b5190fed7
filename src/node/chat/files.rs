//! Files in conversations: what is shared, what is fetched, and who waits for it. The manifest travels as a message, sealed as any other.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use fog_base::NodeId;
use fog_blobs::{Event, Failure as FileFailure, Manifest, TaskId};
use fog_chat::{
    MessageId,
    core::engine::{Kind, Via},
};
use libp2p::PeerId;
use tokio::sync::mpsc;

use super::{
    desk::message_id,
    report::{File, FileDone, FileProgress},
};
use crate::node::{
    behaviour::peer_id,
    clock,
    command::{Failure, Reply},
    event_loop::EventLoop,
    reputation::Offence,
};

/// Files of one conversation, and peers that are asked for one file.
const MAX_LISTED: usize = 1000;
const MAX_SOURCES: usize = 16;
/// Fetches whose progress somebody follows.
const MAX_WAITING: usize = 64;

/// Progress of a fetch, then its end.
pub type FileEvents = mpsc::Sender<Result<FileEvent, Failure>>;

/// What somebody who fetches a file is told.
#[derive(Debug, Clone)]
pub enum FileEvent {
    /// How far it is.
    Progress(FileProgress),
    /// It is here.
    Done(FileDone),
}

#[derive(Debug)]
struct Sharing {
    to: String,
    path: PathBuf,
    began: Instant,
    reply: Reply<FileDone>,
}

/// Where the records are, and all that somebody waits for.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    sharing: BTreeMap<TaskId, Sharing>,
    fetching: BTreeMap<TaskId, (MessageId, FileEvents)>,
}

impl Files {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, sharing: BTreeMap::new(), fetching: BTreeMap::new() }
    }
}

/// Where files go if nobody says otherwise.
pub(super) fn default_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("files")
}

impl EventLoop {
    /// `fog chat file send`: the file is hashed first, and its manifest sent when that is done.
    pub(in crate::node) fn file_send(&mut self, to: String, path: PathBuf, reply: Reply<FileDone>) {
        let checked = self.swarm.behaviour().chat.chat().resolve(&to).map_err(Failure::from).and_then(|_| {
            let is_file = path.is_absolute() && path.is_file();
            let failed =
                || Failure::usage(format!("`{}` is no file", path.display()), "name a file by its absolute path");
            is_file.then_some(()).ok_or_else(failed)
        });
        if let Err(failure) = checked {
            return drop(reply.send(Err(failure)));
        }
        let task = self.swarm.behaviour_mut().blobs.share(&path);
        self.chat.files.sharing.insert(task, Sharing { to, path, began: clock::now().mono, reply });
    }

    /// `fog chat file list`
    pub(in crate::node) fn file_list(&self) -> Result<Vec<File>, Failure> {
        let chat = self.swarm.behaviour().chat.chat();
        let mut files = Vec::new();
        for conversation in chat.conversations() {
            let shown = chat.history(conversation.id, None)?;
            let newest = shown.into_iter().rev().filter(|shown| shown.kind == Kind::FILE).take(MAX_LISTED);
            files.extend(newest.filter_map(|shown| {
                let manifest = Manifest::decode(&shown.body).ok()?;
                Some(File {
                    id: shown.id.to_string(),
                    to: conversation.to.clone(),
                    from: shown.name,
                    name: manifest.name.as_str().to_owned(),
                    hash: manifest.blob.id().to_string(),
                    total_bytes: manifest.blob.size(),
                    sent_at: crate::node::inbox::rfc3339(shown.sent_at),
                })
            }));
        }
        Ok(files)
    }

    /// `fog chat file get`
    pub(in crate::node) fn file_get(&mut self, id: &str, out: Option<PathBuf>, events: FileEvents) {
        if let Err(failure) = self.fetch(id, out, &events) {
            drop(events.try_send(Err(failure)));
        }
    }

    fn fetch(&mut self, id: &str, out: Option<PathBuf>, events: &FileEvents) -> Result<(), Failure> {
        if self.chat.files.fetching.len() >= MAX_WAITING {
            return Err(Failure::failed("too many files are being fetched", "wait until one is here"));
        }
        let id = message_id(id)?;
        let chat = self.swarm.behaviour().chat.chat();
        let shown = chat.shown(&id).filter(|shown| shown.kind == Kind::FILE);
        let shown = shown
            .ok_or_else(|| Failure::failed(format!("no file {id} is here"), "`fog chat file list` lists files"))?;
        let members = chat.members(shown.conversation)?;
        let author = members.iter().find(|member| member.device == shown.author).and_then(|member| member.node);
        let nodes: Vec<NodeId> = author.into_iter().chain(members.iter().filter_map(|member| member.node)).collect();
        let out = out.unwrap_or_else(|| default_folder(&self.config.data_dir));
        if !out.is_absolute() {
            return Err(Failure::usage("the path is not absolute", "name a folder or a file that is not there yet"));
        }
        if out == default_folder(&self.config.data_dir) {
            crate::platform::files::create_private_dir(&out).map_err(|error| {
                Failure::failed(format!("`{}` cannot be made: {error}", out.display()), "name another with --out")
            })?;
        }
        let sources = self.sources(&nodes);
        let task = self.swarm.behaviour_mut().blobs.fetch(&shown.body, out, sources);
        self.chat.files.fetching.insert(task, (id, events.clone()));
        Ok(())
    }

    /// Who may have a file: the members whose nodes are known, the author's first; in a room whose authors' nodes are not known those that
    /// are connected, who learn no more than that somebody wants this hash.
    fn sources(&mut self, nodes: &[NodeId]) -> Vec<PeerId> {
        let me = self.keys.node_id();
        let known: Vec<_> = nodes.iter().filter(|node| **node != me).copied().collect();
        for node in &known {
            self.dial_for_chat(*node);
        }
        let mut sources: Vec<_> = known.into_iter().filter_map(peer_id).collect();
        if sources.is_empty() {
            sources.extend(self.wiring.peers.identified().copied());
        }
        sources.truncate(MAX_SOURCES);
        sources
    }

    /// What becomes of files.
    pub(in crate::node) fn on_blobs(&mut self, event: Event) {
        let Some(event) = self.wants.handle_blob(event) else { return };
        match event {
            Event::Shared { task, manifest, hash, bytes } => self.shared(task, &manifest, (hash.to_string(), bytes)),
            Event::Progress { task, bytes, total, sources } => {
                if let Some((id, events)) = self.chat.files.fetching.get(&task) {
                    let progress =
                        FileProgress { id: id.to_string(), bytes, total_bytes: total, sources: sources as u64 };
                    let _slow_reader = events.try_send(Ok(FileEvent::Progress(progress)));
                }
            }
            Event::Done { task, path, hash, bytes, took, sources } => {
                // Not where: its name is part of the conversation.
                tracing::info!(bytes, "a file is here");
                if let Some((id, events)) = self.chat.files.fetching.remove(&task) {
                    let done = FileDone {
                        id: id.to_string(),
                        path: path.display().to_string(),
                        hash: hash.to_string(),
                        bytes,
                        seconds: took.as_secs_f64(),
                        sources: sources as u64,
                    };
                    end(events, Ok(FileEvent::Done(done)));
                }
            }
            Event::Failed { task, reason } => {
                let hint = match &reason {
                    FileFailure::Exists(_) => "name a folder, or a path where nothing is yet, with --out",
                    _ => "what is here of it is kept: the same command goes on with it",
                };
                let failure = Failure::failed(format!("the file is not complete: {reason}"), hint);
                if let Some(sharing) = self.chat.files.sharing.remove(&task) {
                    let failure =
                        Failure::failed(format!("the file cannot be shared: {reason}"), "see that it can be read");
                    drop(sharing.reply.send(Err(failure)));
                } else if let Some((_, events)) = self.chat.files.fetching.remove(&task) {
                    end(events, Err(failure));
                }
            }
            Event::Broken { hash } => {
                tracing::warn!(%hash, "a shared file was changed or removed: it is not offered any more");
            }
            Event::Blame { peer, reject } => {
                tracing::debug!(%peer, ?reject, "a peer sent false content");
                let now = clock::now();
                if let Some(node) = crate::node::behaviour::node_id(&peer) {
                    let actions = self.wiring.handle_offence(node, Offence::Invalid, now);
                    self.perform(actions, now);
                }
            }
            Event::Stopped => {
                tracing::error!("the files have failed: the node stops");
                self.shutdown.cancel();
            }
        }
    }

    fn shared(&mut self, task: TaskId, manifest: &[u8], (hash, bytes): (String, u64)) {
        let Some(Sharing { to, path, began, reply }) = self.chat.files.sharing.remove(&task) else { return };
        let now = clock::now();
        let chat = self.swarm.behaviour_mut().chat.chat_mut();
        let sent = chat.resolve(&to).and_then(|to| chat.send(to, Kind::FILE, manifest, Via::Auto, now));
        let outcome = sent.map_err(Failure::from).map(|id| FileDone {
            id: id.to_string(),
            path: path.display().to_string(),
            hash,
            bytes,
            seconds: now.mono.saturating_duration_since(began).as_secs_f64(),
            sources: 0,
        });
        if outcome.is_err() {
            self.swarm.behaviour_mut().blobs.cancel(task);
        }
        drop(reply.send(outcome));
    }
}

/// The end is never left out, however slow its reader.
fn end(events: FileEvents, event: Result<FileEvent, Failure>) {
    if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
        tokio::spawn(async move {
            let _gone = events.send(event).await;
        });
    }
}
