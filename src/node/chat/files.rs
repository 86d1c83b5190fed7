//! Files in conversations: what is shared, what is fetched, and who waits for it. The manifest travels as a message, sealed as any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Instant,
};

use fog_base::NodeId;
use fog_blobs::{BlobId, Event, Failure as FileFailure, Manifest, Reject, Resumed, TaskId};
use fog_chat::{
    MessageId,
    core::engine::{Kind, Refusal, Via},
};
use libp2p::PeerId;
use tokio::sync::mpsc;

use super::{
    desk::message_id,
    report::{File, FileDone, FileProgress},
};
use crate::node::{
    behaviour::{node_id, peer_id},
    clock,
    command::{Failure, Reply},
    event_loop::EventLoop,
    reputation::Offence,
};

/// Files of one conversation, and peers that are asked for one file.
const MAX_LISTED: usize = 1000;
const MAX_SOURCES: usize = 16;
/// Fetches at a time, and who follows one of them.
const MAX_WAITING: usize = 64;
const MAX_FOLLOWERS: usize = 16;

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

/// A fetch, and who follows it: nobody, if all have left or the node was started again.
#[derive(Debug)]
struct Fetching {
    hash: BlobId,
    to: Place,
    /// As it was told last: bytes, all bytes, sources.
    progress: Option<(u64, u64, u64)>,
    followers: Vec<(MessageId, FileEvents)>,
}

/// Where a file goes.
#[derive(Debug)]
enum Place {
    /// As somebody said: a folder, or a path.
    Asked(PathBuf),
    /// The file itself.
    File(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Asked(path) | Self::File(path) => path,
        }
    }

    /// Whether a file that is asked for to `out` would be this one.
    fn is_at(&self, out: &Path) -> bool {
        self.path() == out || matches!(self, Self::File(path) if path.parent() == Some(out))
    }
}

impl Fetching {
    fn new(hash: BlobId, to: Place) -> Self {
        Self { hash, to, progress: None, followers: Vec::new() }
    }

    /// Tells `events` of it from now on, first how far it is.
    fn follow(&mut self, id: MessageId, events: &FileEvents) -> Result<(), Failure> {
        self.followers.retain(|(_, events)| !events.is_closed());
        if self.followers.len() >= MAX_FOLLOWERS {
            return Err(Failure::failed("too many follow this file already", "end one of them with Ctrl-C"));
        }
        self.followers.push((id, events.clone()));
        if let Some(progress) = self.progress {
            tell(id, events, progress);
        }
        Ok(())
    }

    fn advance(&mut self, progress: (u64, u64, u64)) {
        self.progress = Some(progress);
        self.followers.retain(|(_, events)| !events.is_closed());
        for (id, events) in &self.followers {
            tell(*id, events, progress);
        }
    }

    fn end(self, outcome: impl Fn(MessageId) -> Result<FileEvent, Failure>) {
        for (id, events) in self.followers {
            end(events, outcome(id));
        }
    }
}

fn tell(id: MessageId, events: &FileEvents, (bytes, total_bytes, sources): (u64, u64, u64)) {
    let progress = FileProgress { id: id.to_string(), bytes, total_bytes, sources };
    let _slow_reader = events.try_send(Ok(FileEvent::Progress(progress)));
}

/// Where the records are, and all that somebody waits for.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    sharing: BTreeMap<TaskId, Sharing>,
    fetching: BTreeMap<TaskId, Fetching>,
    /// Nodes with which no file is exchanged, as the engine knows them.
    avoided: BTreeSet<NodeId>,
}

impl Files {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, sharing: BTreeMap::new(), fetching: BTreeMap::new(), avoided: BTreeSet::new() }
    }

    pub(super) fn take_resumed(&mut self, resumed: Vec<Resumed>) {
        let of = |one: Resumed| (one.task, Fetching::new(one.hash, Place::File(one.path)));
        self.fetching.extend(resumed.into_iter().map(of));
    }

    /// Follows the fetch of `hash` that goes on, if one does; which it is.
    fn follow(
        &mut self,
        hash: BlobId,
        out: &Path,
        (id, events): (MessageId, &FileEvents),
    ) -> Result<Option<TaskId>, Failure> {
        let Some((task, fetching)) = self.fetching.iter_mut().find(|(_, fetching)| fetching.hash == hash) else {
            return Ok(None);
        };
        if !fetching.to.is_at(out) {
            let message = format!("it is being fetched already, to `{}`", fetching.to.path().display());
            return Err(Failure::taken(message, "wait until it is there: then the same command copies it"));
        }
        fetching.follow(id, events)?;
        Ok(Some(*task))
    }
}

/// Where files go if nobody says otherwise.
pub(super) fn default_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("files")
}

impl EventLoop {
    /// `fog chat file send`: the file is hashed first, and its manifest sent when that is done.
    pub(in crate::node) fn file_send(&mut self, to: String, path: PathBuf, reply: Reply<FileDone>) {
        let chat = self.swarm.behaviour().chat.chat();
        let checked = chat.resolve(&to).and_then(|to| chat.check_files(to)).map_err(Failure::from).and_then(|()| {
            if !path.is_absolute() {
                return Err(Failure::usage("the path is not absolute", "name a file by its absolute path"));
            }
            let failed = || {
                Failure::failed(format!("`{}` is no plain file", path.display()), "name one that is there and yours")
            };
            path.is_file().then_some(()).ok_or_else(failed)
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
        let id = message_id(id)?;
        let chat = self.swarm.behaviour().chat.chat();
        let shown = chat.shown(&id).filter(|shown| shown.kind == Kind::FILE);
        let shown = shown
            .ok_or_else(|| Failure::missing(format!("no file {id} is here"), "`fog chat file list` lists files"))?;
        chat.check_files(shown.conversation)?;
        let manifest = Manifest::decode(&shown.body)
            .map_err(|_| Failure::failed("what was sent is no file", "ask its sender to send it again"))?;
        let members = chat.members(shown.conversation)?;
        let author = members.iter().find(|member| member.device == shown.author).and_then(|member| member.node);
        let nodes: Vec<NodeId> = author.into_iter().chain(members.iter().filter_map(|member| member.node)).collect();
        let (hidden, me) = (chat.hidden_nodes(), self.keys.node_id());
        let mut others = nodes.iter().filter(|node| **node != me).peekable();
        if others.peek().is_some() && others.all(|node| hidden.contains(node)) {
            return Err(Refusal::NoFiles.into());
        }
        let out = out.unwrap_or_else(|| default_folder(&self.config.data_dir));
        if !out.is_absolute() {
            return Err(Failure::usage("the path is not absolute", "name a folder or a file that is not there yet"));
        }
        if out == default_folder(&self.config.data_dir) {
            crate::platform::files::create_private_dir(&out).map_err(|error| {
                Failure::failed(format!("`{}` cannot be made: {error}", out.display()), "name another with --out")
            })?;
        }
        let hash = manifest.blob.id();
        if let Some(task) = self.chat.files.follow(hash, &out, (id, events))? {
            for source in self.sources(&nodes) {
                self.swarm.behaviour_mut().blobs.add_source(task, source);
            }
            return Ok(());
        }
        if self.chat.files.fetching.len() >= MAX_WAITING {
            return Err(Failure::failed("too many files are being fetched", "wait until one is here"));
        }
        let mut fetching = Fetching::new(hash, Place::Asked(out.clone()));
        fetching.follow(id, events)?;
        let sources = self.sources(&nodes);
        let task = self.swarm.behaviour_mut().blobs.fetch(&shown.body, out, sources);
        self.chat.files.fetching.insert(task, fetching);
        Ok(())
    }

    /// `fog chat file pause`
    pub(in crate::node) fn file_pause(&mut self, id: &str) -> Result<FileProgress, Failure> {
        let id = message_id(id)?;
        let shown = self.swarm.behaviour().chat.chat().shown(&id).filter(|shown| shown.kind == Kind::FILE);
        let blob = shown.and_then(|shown| Manifest::decode(&shown.body).ok()).map(|manifest| manifest.blob);
        let is_it = |fetching: &Fetching| blob.is_some_and(|blob| fetching.hash == blob.id());
        let found = self.chat.files.fetching.iter().find(|(_, fetching)| is_it(fetching));
        let (task, fetching) = found.ok_or_else(|| {
            Failure::missing(format!("no file {id} is being fetched"), "`fog chat file list` lists files")
        })?;
        let total = blob.map_or(0, |blob| blob.size());
        let (bytes, total_bytes, sources) = fetching.progress.unwrap_or((0, total, 0));
        if bytes == total_bytes {
            return Err(Failure::failed("all of it is here already", "it is put into its place by itself"));
        }
        self.swarm.behaviour_mut().blobs.pause(*task);
        Ok(FileProgress { id: id.to_string(), bytes, total_bytes, sources })
    }

    /// No file of chat goes over a link with somebody who is written to through the mixnet alone.
    pub(in crate::node) fn avoid_hidden(&mut self) {
        let behaviour = self.swarm.behaviour();
        let hidden = behaviour.chat.chat().hidden_nodes();
        if hidden != self.chat.files.avoided && behaviour.blobs.avoid(&hidden) {
            self.chat.files.avoided = hidden;
        }
    }

    /// Who may have a file: the members whose nodes are known, the author's first; in a room whose authors' nodes are not known those that
    /// are connected, who learn no more than that somebody wants this hash. Nobody who is written to through the mixnet alone.
    fn sources(&mut self, nodes: &[NodeId]) -> Vec<PeerId> {
        let me = self.keys.node_id();
        let hidden = self.swarm.behaviour().chat.chat().hidden_nodes();
        let known: Vec<_> = nodes.iter().filter(|node| **node != me && !hidden.contains(node)).copied().collect();
        for node in &known {
            self.dial_for_chat(*node);
        }
        let mut sources: Vec<_> = known.into_iter().filter_map(peer_id).collect();
        if sources.is_empty() {
            sources.extend(self.wiring.peers.identified().copied());
            sources.retain(|peer| node_id(peer).is_none_or(|node| !hidden.contains(&node)));
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
                if let Some(fetching) = self.chat.files.fetching.get_mut(&task) {
                    fetching.advance((bytes, total, sources as u64));
                }
            }
            Event::Done { task, path, hash, bytes, took, sources } => {
                // Not where: its name is part of the conversation.
                tracing::info!(bytes, "a file is here");
                if let Some(fetching) = self.chat.files.fetching.remove(&task) {
                    let done = |id: MessageId| FileDone {
                        id: id.to_string(),
                        path: path.display().to_string(),
                        hash: hash.to_string(),
                        bytes,
                        seconds: took.as_secs_f64(),
                        sources: sources as u64,
                    };
                    fetching.end(|id| Ok(FileEvent::Done(done(id))));
                }
            }
            Event::Failed { task, reason } => self.file_failed(task, &reason),
            Event::Broken { hash } => {
                tracing::warn!(%hash, "a shared file was changed or removed: it is not offered any more");
                // Those of tasks are no business of chat.
                let shared = self.file_list().unwrap_or_default();
                if let Some(file) = shared.iter().find(|file| file.hash == hash.to_string()) {
                    self.notice(&format!("`{}` was changed or removed, and is not offered any more", file.name));
                }
            }
            Event::Blame { peer, reject } => {
                tracing::debug!(%peer, ?reject, "a peer sent false content");
                if reject == Reject::Lie {
                    self.notice(&format!(
                        "{peer} sent false content of a file; none of it was taken, and it is asked no more"
                    ));
                }
                let now = clock::now();
                if let Some(node) = node_id(&peer) {
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

    fn file_failed(&mut self, task: TaskId, reason: &FileFailure) {
        if let Some(sharing) = self.chat.files.sharing.remove(&task) {
            let message = format!("the file cannot be shared: {reason}");
            drop(sharing.reply.send(Err(Failure::failed(message, "see that it can be read, and does not change"))));
        } else if let Some(fetching) = self.chat.files.fetching.remove(&task) {
            let failure = Failure::failed(format!("the file is not complete: {reason}"), hint(reason));
            fetching.end(|_| Err(failure.clone()));
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

/// What can be done about a fetch that failed.
fn hint(reason: &FileFailure) -> &'static str {
    match reason {
        FileFailure::Exists(_) => "name a folder, or a path where nothing is yet, with --out",
        FileFailure::Paused => "`fog chat file get` with its id goes on with it",
        FileFailure::AlreadyFetching => "an earlier fetch of it is ending: try again in a moment",
        FileFailure::NoSource => {
            "its sender may be away, or have changed, moved or removed it; the same command goes on with what is here of it"
        }
        _ => "what is here of it is kept: the same command goes on with it",
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

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: BlobId = BlobId([1; 32]);
    const ID: MessageId = MessageId([2; 32]);

    fn channel() -> (FileEvents, mpsc::Receiver<Result<FileEvent, Failure>>) {
        mpsc::channel(4)
    }

    fn told(events: &mut mpsc::Receiver<Result<FileEvent, Failure>>) -> Option<String> {
        Some(match events.try_recv().ok()? {
            Ok(FileEvent::Progress(progress)) => format!("{} of {}", progress.bytes, progress.total_bytes),
            Ok(FileEvent::Done(done)) => done.path,
            Err(failure) => failure.message,
        })
    }

    #[test]
    fn whoever_asks_again_follows_the_fetch_that_goes_on_and_hears_its_end() {
        let mut files = Files::new(PathBuf::new());
        let resumed = Resumed { task: TaskId(7), hash: HASH, path: "/to/f.bin".into(), bytes: 9 };
        files.take_resumed(vec![resumed]);
        let (first, mut first_told) = channel();
        // By its folder, and by its path.
        assert_eq!(files.follow(HASH, Path::new("/to"), (ID, &first)).unwrap(), Some(TaskId(7)));
        files.fetching.get_mut(&TaskId(7)).unwrap().advance((3, 9, 1));
        let (second, mut second_told) = channel();
        assert_eq!(files.follow(HASH, Path::new("/to/f.bin"), (ID, &second)).unwrap(), Some(TaskId(7)));
        assert_eq!([told(&mut first_told), told(&mut second_told)], [Some("3 of 9".into()), Some("3 of 9".into())]);
        let refused = files.follow(HASH, Path::new("/elsewhere"), (ID, &second)).unwrap_err();
        assert!(refused.message.contains("/to/f.bin"), "{refused}");
        assert_eq!(files.follow(BlobId([9; 32]), Path::new("/to"), (ID, &second)).unwrap(), None);
        files.fetching.remove(&TaskId(7)).unwrap().end(|_| Err(Failure::failed("over", "")));
        assert_eq!([told(&mut first_told), told(&mut second_told)], [Some("over".into()), Some("over".into())]);
    }

    #[test]
    fn a_folder_that_was_asked_for_is_not_the_folder_around_it() {
        let asked = Place::Asked("/a/b".into());
        assert!(asked.is_at(Path::new("/a/b/")) && !asked.is_at(Path::new("/a")));
    }

    #[test]
    fn followers_are_bounded_and_those_who_left_make_room() {
        let mut fetching = Fetching::new(HASH, Place::Asked("/a".into()));
        let mut stay: Vec<_> = (0..MAX_FOLLOWERS).map(|_| channel()).collect();
        for (events, _) in &stay {
            fetching.follow(ID, events).unwrap();
        }
        let (late, _late_told) = channel();
        assert!(fetching.follow(ID, &late).is_err());
        drop(stay.pop());
        fetching.follow(ID, &late).unwrap();
        assert_eq!(fetching.followers.len(), MAX_FOLLOWERS);
    }
}
