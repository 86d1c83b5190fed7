//! What the files of this node tell the node that it is part of.

use std::{fmt, path::PathBuf, time::Duration};

use libp2p::PeerId;

use crate::core::{blob::BlobId, reject::Reject};

/// A file that is being imported, shared or fetched. Numbers are this process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file is offered from now on, and after every restart until the task is cancelled.
    Shared {
        /// Which task.
        task: TaskId,
        /// What others need to fetch and read it. It contains the key: it belongs inside an encrypted message.
        manifest: Vec<u8>,
        /// The hash of what travels.
        hash: BlobId,
        /// The size of the file, in bytes.
        bytes: u64,
    },
    /// How far a fetch is; twice a second while something comes.
    Progress {
        /// Which task.
        task: TaskId,
        /// Bytes that were verified.
        bytes: u64,
        /// Bytes of the file.
        total: u64,
        /// Sources that said what they have.
        sources: usize,
    },
    /// A file is there, synced, under its name.
    Done {
        /// Which task.
        task: TaskId,
        /// Where it is.
        path: PathBuf,
        /// The hash of what travelled.
        hash: BlobId,
        /// The size of the file, in bytes.
        bytes: u64,
        /// How long it took in this process.
        took: Duration,
        /// Peers that sent a part of it.
        sources: usize,
    },
    /// A task has ended. What a fetch had stays on the disk, and the same fetch takes it up, unless the task was cancelled.
    Failed {
        /// Which task.
        task: TaskId,
        /// Why.
        reason: Failure,
    },
    /// What is stored of a shared file is not what it was: it is not served any more.
    Broken {
        /// The hash of what travelled.
        hash: BlobId,
    },
    /// A peer did what no honest peer does: for its score.
    Blame {
        /// Which peer.
        peer: PeerId,
        /// What it did.
        reject: Reject,
    },
    /// The threads have ended, which they never do by themselves: the node must stop.
    Stopped,
}

/// Why a task ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not a manifest of this version.
    #[error("not a valid manifest")]
    Manifest,
    /// There is a file of this name, and nothing is overwritten.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// Another task fetches the same blob.
    #[error("it is being fetched already")]
    AlreadyFetching,
    /// More tasks or shared files than there may be.
    #[error("there are too many files")]
    TooMany,
    /// The disk, or this user's part of it, is full.
    #[error("the disk is full")]
    DiskFull,
    /// A file could not be read or written.
    #[error("{0}")]
    Disk(String),
    /// Nothing came from anybody for [`crate::Config::patience`].
    #[error("nobody who was asked has it")]
    NoSource,
    /// [`crate::Behaviour::cancel`] was called.
    #[error("it was cancelled")]
    Cancelled,
    /// [`crate::Behaviour::pause`] was called.
    #[error("it was paused")]
    Paused,
}

/// A fetch that was not over when the last process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The task that goes on with it.
    pub task: TaskId,
    /// The hash of what travels.
    pub hash: BlobId,
    /// Where the file goes.
    pub path: PathBuf,
    /// The size of the file, in bytes.
    pub bytes: u64,
}
