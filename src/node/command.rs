//! What can be asked of a running node. Each command carries the channel for its answer.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{
    chat::{Desk, FileEvents},
    report,
};

/// Why a command failed: one line, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What is wrong, in one line.
    pub message: String,
    /// What to do, in one line; empty if nothing helps.
    pub hint: String,
    /// Which exit code and HTTP status that is.
    pub kind: FailureKind,
}

/// The kinds of failure that scripts tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The request makes no sense (exit 2, HTTP 400).
    Usage,
    /// What it names is not here (exit 1, HTTP 404).
    Missing,
    /// What it would make or name is here already (exit 1, HTTP 409).
    Taken,
    /// It was tried and failed (exit 1, HTTP 422).
    Failed,
    /// Time ran out (exit 4, HTTP 504).
    TimedOut,
}

impl Failure {
    /// A failure of the thing that was tried.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: FailureKind::Failed }
    }

    /// A request that makes no sense.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: FailureKind::Usage }
    }

    /// What the request names is not here.
    pub fn missing(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: FailureKind::Missing }
    }

    /// What the request would make or name is here already.
    pub fn taken(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: FailureKind::Taken }
    }

    /// Time ran out.
    pub fn timed_out(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), kind: FailureKind::TimedOut }
    }
}

/// The channel on which a command is answered.
pub type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// A message to send through the mixnet.
#[derive(Debug, Clone)]
pub struct MixSend {
    /// Relay id, invite or contact.
    pub to: String,
    /// The message, at most 1 MiB.
    pub body: Vec<u8>,
    /// Relays on each path; `None` for the default of 4.
    pub hops: Option<usize>,
    /// Whether the sender stays unnamed to the recipient.
    pub anonymous: bool,
    /// Whether to wait until the recipient's node accepted it, even if a mailbox stored it.
    pub wait: bool,
    /// When to give up.
    pub timeout: Duration,
}

/// What `mix send` reports, in order: progress lines, then the end.
#[derive(Debug, Clone)]
pub enum MixSendEvent {
    /// Some more packets were acknowledged.
    Progress(report::SendProgress),
    /// It is over.
    Done(report::Sent),
}

/// A series of pings.
#[derive(Debug, Clone)]
pub struct MixPing {
    /// Relay id, invite or contact.
    pub to: String,
    /// How many.
    pub count: u32,
    /// Relays on each path; `None` for the default of 4.
    pub hops: Option<usize>,
    /// How long to wait for each.
    pub timeout: Duration,
}

/// Something to do with chat; it answers whoever asked itself.
pub struct ChatJob(pub(super) Box<dyn FnOnce(&mut Desk<'_>) + Send>);

impl std::fmt::Debug for ChatJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChatJob")
    }
}

/// A question or an order to the node.
#[derive(Debug)]
pub enum Command {
    /// `fog status`
    Status(Reply<report::Status>),
    /// `fog peers`
    Peers(Reply<Vec<report::Peer>>),
    /// `fog id`, of a running node
    Identity(Reply<report::Identity>),
    /// `fog connect`
    Connect {
        /// A multiaddress or an invite.
        target: String,
        /// When to give up.
        timeout: Duration,
        /// The answer.
        reply: Reply<report::Connected>,
    },
    /// `fog chat …`
    Chat(ChatJob),
    /// `fog chat file send`
    FileSend {
        /// The conversation.
        to: String,
        /// The file.
        path: std::path::PathBuf,
        /// The answer.
        reply: Reply<super::chat::report::FileDone>,
    },
    /// `fog chat file list`
    FileList(Reply<Vec<super::chat::report::File>>),
    /// `fog chat file pause`
    FilePause(String, Reply<super::chat::report::FileProgress>),
    /// `fog chat file get`
    FileGet {
        /// The message.
        id: String,
        /// Where to.
        out: Option<std::path::PathBuf>,
        /// Progress, then the end.
        events: FileEvents,
    },
    /// `fog chat panic`
    ChatPanic(Reply<super::chat::report::Destroyed>),
    /// What `fog service …`, `fog circuits` and the proxy work with.
    Services(Reply<std::sync::Arc<super::services::Desk>>),
    /// What `fog task …` and `fog worker …` work with.
    Tasks(Reply<std::sync::Arc<super::tasks::Desk>>),
    /// `fog relays`
    Relays(Reply<Vec<report::Relay>>),
    /// `fog relays snapshot`
    Snapshot(Reply<report::Snapshot>),
    /// `fog relays verify`
    VerifySeat {
        /// A relay's id.
        relay: String,
        /// The answer.
        reply: Reply<report::Seat>,
    },
    /// `fog reputation`
    Reputation {
        /// A peer's id or invite, or a contact's name; all that are known if there is none.
        peer: Option<String>,
        /// The answer.
        reply: Reply<Vec<report::Reputation>>,
    },
    /// `fog mix send`; events go to `events` until it is done.
    MixSend {
        /// What and to whom.
        send: MixSend,
        /// Progress and the end. Bounded; progress that does not fit is left out, the end is not.
        events: mpsc::Sender<Result<MixSendEvent, Failure>>,
    },
    /// `fog mix ping`; one event for each ping.
    MixPing {
        /// Whom and how often.
        ping: MixPing,
        /// One line for each ping; the channel closes after the last.
        events: mpsc::Sender<Result<report::PingReply, Failure>>,
    },
    /// `fog mix recv`
    MixReceive {
        /// Also those already read, of the last seven days.
        all: bool,
        /// The messages, oldest first; they are marked read.
        reply: Reply<Vec<report::Received>>,
    },
    /// The text of `/metrics`.
    Metrics(Reply<String>),
}
