//! What the interface and the node say to each other: the values of the local API, the questions, and the trait that asks them.
//!
//! What a peer can choose arrives as [`Clean`] or [`Label`]. Names that a request repeats (`to`, `id`) stay exactly as the node wrote
//! them, and become a [`Label`] where they are drawn.

use std::{collections::BTreeMap, future::Future, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::text::{Clean, Label};

/// How a conversation is sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Signed, and readable by anyone.
    Open,
    Password,
    Group,
    Direct,
    #[default]
    #[serde(other)]
    Unknown,
}

/// How far a message of ours has come. It only advances, in this order (fog-chat README, "Delivery").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub(super) enum State {
    #[default]
    Unknown,
    Queued,
    Sent,
    Carried,
    Failed,
    Delivered,
    Read,
}

impl State {
    /// One or two columns that mean the state without colour.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Queued => "·",
            Self::Sent => "→",
            Self::Carried => "◇",
            Self::Failed => "✗",
            Self::Delivered => "✓",
            Self::Read => "✓✓",
        }
    }
}

impl From<String> for State {
    fn from(name: String) -> Self {
        match name.as_str() {
            "queued" => Self::Queued,
            "sent" => Self::Sent,
            "carried" => Self::Carried,
            "failed" => Self::Failed,
            "delivered" => Self::Delivered,
            "read" => Self::Read,
            _ => Self::Unknown,
        }
    }
}

/// Which ways a message may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Via {
    #[default]
    Auto,
    Lan,
    Direct,
    Mix,
}

impl Via {
    pub(super) const NAMES: &'static [&'static str] = &["auto", "lan", "direct", "mix"];

    pub(super) fn parse(name: &str) -> Option<Self> {
        let all = [Self::Auto, Self::Lan, Self::Direct, Self::Mix];
        Self::NAMES.iter().zip(all).find_map(|(known, via)| (*known == name).then_some(via))
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// `GET /v1/chat/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// Our device: the author of our messages.
    pub(super) device: String,
    pub(super) name: Label,
    /// Peers on this network, and elsewhere.
    pub(super) lan: u64,
    pub(super) net: u64,
    /// Whether a path through the mixnet can be built.
    pub(super) mix: bool,
    pub(super) queued: u64,
    /// Why nobody is in reach, if that is so.
    pub(super) alone: Option<Label>,
}

/// `GET /v1/chat/conversations`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Conversation {
    pub(super) to: String,
    #[serde(default)]
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) unread: u32,
    #[serde(default)]
    pub(super) members: u32,
    #[serde(default)]
    pub(super) topic: Option<Label>,
}

/// A message, as history and events hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) author: String,
    pub(super) name: Label,
    pub(super) seq: u64,
    pub(super) clock: BTreeMap<String, u64>,
    pub(super) text: Clean,
    pub(super) kind: String,
    pub(super) state: Option<State>,
    pub(super) via: Option<Label>,
    pub(super) reason: Option<Label>,
    pub(super) sent_at: Option<Label>,
    pub(super) gap_before: bool,
    pub(super) warning: Option<Label>,
}

/// `POST /v1/chat/messages`, and the fields of a change of state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Sent {
    pub(super) id: String,
    #[serde(default)]
    pub(super) state: State,
    #[serde(default)]
    pub(super) via: Option<Label>,
    #[serde(default)]
    pub(super) reason: Option<Label>,
}

/// `GET /v1/chat/members`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Member {
    pub(super) peer_id: Option<String>,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) role: Label,
}

/// `GET /v1/chat/contacts`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Contact {
    pub(super) name: String,
    #[serde(default)]
    pub(super) verified: bool,
    #[serde(default)]
    pub(super) policy: Label,
    #[serde(default)]
    pub(super) blocked: bool,
}

/// `GET /v1/chat/files`, the lines of `POST /v1/chat/files/get`, and its last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub(super) id: String,
    pub(super) name: Option<Label>,
    pub(super) path: Option<Label>,
    pub(super) bytes: u64,
    pub(super) total_bytes: Option<u64>,
}

/// `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Peer {
    pub(super) peer_id: Label,
    pub(super) path: Label,
    pub(super) rtt_ms: Option<f64>,
}

/// The answer to an [`Action`]: what the node named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) to: Option<String>,
    pub(super) id: Option<Label>,
    pub(super) peer_id: Option<Label>,
    /// Safety words: all, or a list for each side.
    pub(super) words: Option<serde_json::Value>,
}

/// A line of `GET /v1/chat/events`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum NodeEvent {
    Message {
        to: String,
        #[serde(flatten)]
        message: Message,
    },
    /// A message was taken back, because its clock proved false.
    Retracted {
        to: String,
        id: String,
    },
    State(Sent),
    Members {
        to: String,
    },
    Notice {
        to: Option<String>,
        text: Clean,
    },
    #[serde(other)]
    Other,
}

/// What changes something: a POST. It is its own body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Action {
    Join {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    },
    Leave {
        to: String,
    },
    CreateGroup {
        name: String,
    },
    Invite {
        group: String,
        peer: String,
    },
    Accept {
        to: String,
    },
    Remove {
        group: String,
        peer: String,
    },
    Role {
        group: String,
        peer: String,
        role: &'static str,
    },
    AddContact {
        invite: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Without `verified`: only tells the safety words.
    Verify {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        verified: Option<bool>,
    },
    Policy {
        name: String,
        policy: &'static str,
    },
    Block {
        name: String,
        blocked: bool,
    },
    Read {
        to: String,
    },
    SendFile {
        to: String,
        path: String,
    },
    Connect {
        target: String,
    },
    Topic {
        to: String,
        topic: String,
    },
    Nick {
        name: String,
    },
    /// Stops a fetch.
    Pause {
        id: String,
    },
    Panic {},
}

/// A question of the interface, or a thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Status,
    Conversations,
    Contacts {
        is_asked_for: bool,
    },
    Files,
    Peers,
    Doctor,
    Ping {
        name: String,
    },
    Trace {
        name: String,
    },
    /// Writes all of a conversation to a new file.
    Export {
        to: String,
        path: String,
    },
    Identity,
    History {
        to: String,
        limit: usize,
    },
    Members {
        to: String,
        is_asked_for: bool,
    },
    Send {
        number: u64,
        to: String,
        text: String,
        via: Via,
        expire: Option<Duration>,
    },
    Act(Action),
    Why {
        id: String,
    },
    Get {
        id: String,
        out: Option<String>,
    },
    /// Files and folders whose path begins so.
    Paths {
        prefix: String,
    },
    Redraw,
    Quit,
}

/// A question, and the conversation in which it was asked: there the answer is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) at: String,
    pub(super) what: What,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Status(Status),
    Conversations(Vec<Conversation>),
    Contacts(Vec<Contact>),
    Files(Vec<File>),
    Peers(Vec<Peer>),
    Identity(Clean),
    History(Vec<Message>),
    Members(Vec<Member>),
    Sent(Sent),
    Done(Done),
    /// Lines for the conversation in which it was asked.
    Told(Clean),
    Got(File),
    Paths(Vec<String>),
}

/// Why the node did not do it, and what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) message: Label,
    pub(super) hint: Label,
}

impl Refusal {
    pub(super) fn new(message: &str, hint: &str) -> Self {
        Self { message: Label::new(message), hint: Label::new(hint) }
    }
}

/// What reaches the interface from outside.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// The stream of events is there, from now on.
    Connected,
    /// It broke; it is tried again.
    Disconnected(Refusal),
    Node(NodeEvent),
    Progress(File),
    Answer {
        ask: Ask,
        reply: Result<Reply, Refusal>,
    },
}

/// A running node.
pub(super) trait Node {
    /// Asks. [`What::Paths`], [`What::Redraw`] and [`What::Quit`] are not for the node.
    fn ask(&self, what: What, progress: mpsc::Sender<Event>) -> impl Future<Output = Result<Reply, Refusal>>;

    /// Follows the node's events, and tries again when they end, until `events` is closed.
    fn follow(&self, events: mpsc::Sender<Event>);
}
