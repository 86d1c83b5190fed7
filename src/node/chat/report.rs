//! What chat tells: the JSON values of INTERFACE's "BitChat".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// The message, in hex.
    pub id: String,
    /// `queued`, `sent`, `carried`, `delivered`, `read` or `failed`.
    pub state: String,
    /// Which way brought it as far as that.
    pub via: Option<String>,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
}

/// A message as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// The message, in hex.
    pub id: String,
    /// The conversation: `@name`, `#room` or `&group`.
    pub to: String,
    /// The device that wrote it.
    pub author: String,
    /// What this node calls the author.
    pub name: String,
    /// How many messages the author has written here, with this one.
    pub seq: u32,
    /// The newest message of each author that this one's author knew.
    pub clock: BTreeMap<String, u32>,
    /// The messages that it names as the newest known, in hex.
    pub parents: Vec<String>,
    /// What it says. Topics, membership changes and files are told in words.
    pub text: String,
    /// `text`, `topic`, `membership`, `file` or `other`.
    pub kind: String,
    /// As in [`Sent`]; a message of others is `delivered` or `read`.
    pub state: String,
    /// Which way it went, or came.
    pub via: Option<String>,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// When its author says that it was sent; the order does not depend on it.
    pub sent_at: String,
    /// Whether something that came before it is missing here.
    pub gap_before: bool,
    /// What a reader should know of its author.
    pub warning: Option<String>,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// `@name`, `#room` or `&group`.
    pub to: String,
    /// `open`, `password`, `group` or `direct`.
    pub kind: String,
    /// Messages of others that were not read.
    pub unread: u32,
    /// Members, or authors seen in a room.
    pub members: u32,
    /// When the newest message was sent, as its author says.
    pub last_at: Option<String>,
    /// What it is about, if somebody said so.
    #[serde(default)]
    pub topic: Option<String>,
}

/// Where something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// `@name`, `#room` or `&group`.
    pub to: String,
}

/// Somebody in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The node, if it is known; else the device.
    pub peer_id: String,
    /// The device.
    pub device: String,
    /// What this node calls it.
    pub name: String,
    /// `owner`, `admin`, `member` or `invited`.
    pub role: String,
}

/// Somebody whose invite this node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contact {
    /// What this node calls them.
    pub name: String,
    /// Their node.
    pub peer_id: String,
    /// Their device.
    pub device: String,
    /// Whether the safety words were compared.
    pub verified: bool,
    /// `auto`, or `mix`: nothing leaves but through the mixnet.
    pub policy: String,
    /// Whether their messages are refused.
    pub blocked: bool,
    /// The words to compare: those of the lower device first. Only where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
}

/// How far somebody is from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// What this node calls them.
    pub name: String,
    /// What they call themselves.
    pub calls_itself: String,
    /// Their node.
    pub peer_id: String,
    /// Their device.
    pub device: String,
    /// `auto`, or `mix`.
    pub policy: String,
    /// Whether their messages are refused.
    pub blocked: bool,
    /// `lan` or `direct`, if their node is connected.
    pub connected: Option<String>,
    /// The ways by which a message would be tried now, the first one first.
    pub ways: Vec<String>,
    /// Mailboxes that their card tells of.
    pub mailboxes: u64,
    /// Whether something that they wrote has come: before, messages go to their inbox.
    pub has_written: bool,
    /// By which way the last sign of them came, since the node was started.
    pub last_via: Option<String>,
    /// Frames that wait to be sealed.
    pub waiting: u64,
    /// Frames that they have not acknowledged.
    pub under_way: u64,
    /// Of these, those that their mailboxes have.
    pub in_mailboxes: u64,
}

/// How chat fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChatStatus {
    /// This node's device.
    pub device: String,
    /// What this node calls itself.
    pub name: String,
    /// Neighbours that are connected.
    pub lan: u64,
    /// Other peers that are connected.
    pub net: u64,
    /// Why nobody is in reach, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    /// Whether messages can go through the mixnet.
    pub mix: bool,
    /// Messages of this node that have not left.
    pub queued: u64,
    /// Messages that this node carries for others.
    pub carried: u64,
}

/// Something that happened, as `/v1/chat/events` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum News {
    /// A message is shown, or moved because an earlier one came.
    Message(Box<Line>),
    /// A message is not shown any more.
    Retracted {
        /// The conversation.
        to: String,
        /// Which, in hex.
        id: String,
    },
    /// A message of this node came further.
    State(Sent),
    /// Who is in a conversation changed.
    Members {
        /// Which.
        to: String,
    },
    /// Something that a person should know.
    Notice {
        /// Where, if it is about one conversation.
        to: Option<String>,
        /// In words.
        text: String,
    },
}

/// The causal proof of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The message, in hex.
    pub id: String,
    /// The conversation.
    pub to: String,
    /// The device that signed it.
    pub author: String,
    /// Its number among the author's messages here.
    pub seq: u32,
    /// One more than the largest of its predecessors'.
    pub lamport: u64,
    /// `complete`, `gap` (something before it is missing) or `disputed`.
    pub standing: String,
    /// Its clock, recomputed from its predecessors, if all are here.
    pub clock: BTreeMap<String, u32>,
    /// What it names as coming before it.
    pub predecessors: Vec<Predecessor>,
}

/// A message that another one names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Predecessor {
    /// Which, in hex.
    pub id: String,
    /// Whether it is here.
    pub known: bool,
}

/// Chat's state is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Destroyed {
    /// Always true: what could not be destroyed is an error.
    pub destroyed: bool,
}

/// A file in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    /// The message that it came in, in hex.
    pub id: String,
    /// The conversation.
    pub to: String,
    /// What this node calls its sender.
    pub from: String,
    /// Its name.
    pub name: String,
    /// The hash of what travels, in hex.
    pub hash: String,
    /// Its size.
    pub total_bytes: u64,
    /// When its sender says that it was sent.
    pub sent_at: String,
}

/// How far a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileProgress {
    /// The message that it came in, in hex.
    pub id: String,
    /// Bytes that are here and verified.
    pub bytes: u64,
    /// Its size.
    pub total_bytes: u64,
    /// Peers that have some of it.
    pub sources: u64,
}

/// A file is here, or offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileDone {
    /// The message that it came in, in hex.
    pub id: String,
    /// Where it is.
    pub path: String,
    /// The hash of what travels, in hex.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Peers that sent a part of it.
    pub sources: u64,
}
