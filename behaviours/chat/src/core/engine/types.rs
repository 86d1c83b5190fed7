//! What goes into the engine and what comes out of it.

use std::{collections::BTreeMap, fmt};

use fog_base::{DropReason, NetworkId, NodeId, UnixMillis};

use super::card::Card;
use crate::core::{
    dag,
    delivery::{Policy, Reason, State, Transport},
    id::{ConversationId, DeviceId, MessageId},
    message::Kind,
    reject::Reject,
    secrets::room::{Room, RoomError},
};

/// What a device is told about its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The network.
    pub network: NetworkId,
    /// The node that this device is reached at.
    pub node: NodeId,
    /// How the person wants to be called; cleaned when it is used.
    pub name: String,
    /// The node's key for sealed packets.
    pub seal_key: [u8; 32],
}

/// Sealed rows as the store keeps them; reads are synchronous.
pub trait Rows {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Visits the rows whose key begins with `prefix`, in the order of the keys, until `visit` says false.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool);
}

/// One write.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The sealed value; `None` deletes the row.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.value.as_ref().map(Vec::len);
        f.debug_struct("Row").field("kind", &self.key.first()).field("bytes", &length).finish_non_exhaustive()
    }
}

/// Why a device cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The rows of the device itself do not open.
    #[error("the chat's rows do not open: another key file, or a damaged store")]
    Unreadable,
}

/// The key of a password room.
#[derive(Debug, Clone)]
pub struct RoomKey(pub(super) Room);

impl RoomKey {
    /// Argon2id: takes 64 MiB and a fraction of a second.
    pub fn derive(network: &NetworkId, name: &str, password: &str) -> Result<Self, RoomError> {
        Room::with_password(network, name, password).map(Self)
    }
}

/// Why the engine does not do what a person asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody and nothing of this name.
    #[error("`{0}` is not known")]
    Unknown(String),
    /// The device has no card of this peer.
    #[error("no card of `{0}` has come yet")]
    NoCard(String),
    /// A name that cannot be one.
    #[error(
        "a name has 1 to 64 bytes, no spaces or control characters, begins with none of `@`, `#` and `&`, and is no peer id"
    )]
    BadName,
    /// The name is taken.
    #[error("`{0}` is taken: it is the name of another one")]
    NameTaken(String),
    /// A text with characters that would change the terminal or the direction of writing.
    #[error("the text has control characters, escapes or marks that change the direction of writing")]
    BadText,
    /// More than one line, or too long.
    #[error("a topic is one line of at most {0} bytes")]
    BadTopic(usize),
    /// Rooms and groups keep what was said.
    #[error("what is said in rooms and groups does not expire: members bring it to each other")]
    NeverExpires,
    /// Too long, or empty.
    #[error("a message has 1 to {0} bytes")]
    TooLong(usize),
    /// The policy of the contact forbids what was asked for.
    #[error("this way is not allowed here")]
    Forbidden,
    /// The policy of the contact forbids links, and files go over nothing else.
    #[error("files go over links alone, which the contact's policy forbids")]
    NoFiles,
    /// The contact is blocked.
    #[error("the contact is blocked")]
    Blocked,
    /// A bound is reached.
    #[error("there is no room for more {0}")]
    Full(&'static str),
    /// The conversation is of another kind.
    #[error("this is not possible in this conversation")]
    WrongKind,
    /// The password, or that there is one, is not the one by which the room was joined.
    #[error("`{0}` was joined with another password")]
    OtherPassword(String),
    /// Not a member, or not entitled.
    #[error("this device is not entitled to that in this group")]
    NotEntitled,
    /// It changes nothing.
    #[error("nothing would change")]
    Pointless,
    /// It is the own device.
    #[error("that is this device itself")]
    Oneself,
    /// The author's own history is in dispute.
    #[error("this device has conflicting histories in this conversation")]
    Disputed,
    /// Rows with own messages were lost: writing on would use their numbers twice.
    #[error("messages of this device are missing from its store")]
    Incomplete,
    /// A card that is refused.
    #[error("the card is not valid: {0}")]
    BadCard(Reject),
    /// The store failed.
    #[error("the store does not take what chat writes")]
    StoreFailed,
}

impl Refusal {
    /// What can be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "`fog chat conversations` and `fog chat contact list` show what is known",
            Self::NoCard(_) => "add the peer's invite, or connect to it",
            Self::BadName | Self::NameTaken(_) => "choose another name",
            Self::BadTopic(_) => "say the rest in a message",
            Self::NeverExpires => "write to one person, or leave the expiry out",
            Self::BadText | Self::TooLong(_) => "shorten or clean the text; send long ones as a file",
            Self::Forbidden => "`fog chat contact policy` changes it; rooms and groups choose no way",
            Self::NoFiles => "`fog chat contact policy NAME auto` lets your node and theirs meet",
            Self::Blocked => "`fog chat contact unblock NAME` takes that back",
            Self::Full(_) => "wait until something is delivered, or leave a conversation",
            Self::WrongKind => "`fog chat conversations` shows what kind it is",
            Self::OtherPassword(_) => "leave the room first, then join it again",
            Self::NotEntitled => "ask an admin of the group; if you are only invited: `fog chat group accept`",
            Self::Pointless | Self::Oneself => "nothing needs to be done",
            Self::Disputed => "begin as a new device",
            Self::Incomplete => "connect to other members: they bring back what they have",
            Self::BadCard(_) => "ask for a new invite",
            Self::StoreFailed => "look at the disk; chat goes on by itself when there is room",
        }
    }
}

/// What a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConversationKind {
    /// Anybody who knows its name is in it.
    Open,
    /// Whoever knows the password is in it.
    Password,
    /// Its members are in it.
    Group,
    /// Two devices.
    Direct,
}

impl ConversationKind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Password => "password",
            Self::Group => "group",
            Self::Direct => "direct",
        }
    }
}

/// A conversation as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// What [`super::Chat::resolve`] takes: `#room`, `&group`, `@name`.
    pub to: String,
    /// What it is.
    pub kind: ConversationKind,
    /// Messages of others that were not read.
    pub unread: u32,
    /// Members, or in rooms the authors that were seen.
    pub members: u32,
    /// When the latest message was sent, as its author says.
    pub last_at: Option<UnixMillis>,
    /// What it is about, if somebody said so.
    pub topic: Option<String>,
}

/// What somebody may do in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Began the group.
    Owner,
    /// Invites and removes.
    Admin,
    /// Writes.
    Member,
    /// Was invited and has not joined.
    Invited,
}

impl Role {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Invited => "invited",
        }
    }
}

/// Somebody in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Its node, if a card of it is known.
    pub node: Option<NodeId>,
    /// The contact's name, or the one that the card says.
    pub name: String,
    /// What it may do; in rooms always [`Role::Member`].
    pub role: Role,
}

/// Somebody whom a person knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// What the person calls it.
    pub name: String,
    /// The device.
    pub device: DeviceId,
    /// Its node.
    pub node: NodeId,
    /// Whether the safety words were compared.
    pub verified: bool,
    /// What transports its messages may use.
    pub policy: Policy,
    /// Whether it is not heard.
    pub blocked: bool,
}

/// How far somebody is from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Who, and what is allowed.
    pub contact: Contact,
    /// The connection to its node, if there is one.
    pub connected: Option<Transport>,
    /// The ways that a message would be tried by now, the first one first.
    pub ways: Vec<Transport>,
    /// Mailboxes that it has told of.
    pub mailboxes: usize,
    /// Whether anything that it wrote has come here: before, messages go to its inbox.
    pub has_written: bool,
    /// By which way the last sign of it came, receipts too, since this node was started.
    pub last_via: Option<Transport>,
    /// Frames that wait to be sealed.
    pub waiting: usize,
    /// Frames that it has not acknowledged.
    pub under_way: usize,
    /// Of these, those that its mailboxes have.
    pub in_mailboxes: usize,
}

/// A message as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where.
    pub conversation: ConversationId,
    /// Which.
    pub id: MessageId,
    /// Who wrote it.
    pub author: DeviceId,
    /// The author's name here.
    pub name: String,
    /// The author's number.
    pub seq: u32,
    /// The recomputed clock; empty while something before is missing.
    pub clock: BTreeMap<DeviceId, u32>,
    /// The author's previous message first.
    pub parents: Vec<MessageId>,
    /// What it is.
    pub kind: Kind,
    /// The text, cleaned; the bytes of other kinds.
    pub body: Vec<u8>,
    /// How far it is; [`State::Delivered`] for what others wrote.
    pub state: State,
    /// By which way it came there, or here.
    pub via: Option<Transport>,
    /// Why it failed, or what it waits for.
    pub reason: Option<Reason>,
    /// When it was sent, as its author says.
    pub sent_at: UnixMillis,
    /// Whether something before it is missing.
    pub gap_before: bool,
    /// What a person should know of it.
    pub warning: Option<String>,
}

/// Why a message stands where it stands, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Which.
    pub id: MessageId,
    /// Where.
    pub conversation: ConversationId,
    /// Its causal proof.
    pub order: dag::Why,
    /// How far it is.
    pub state: State,
    /// By which way.
    pub via: Option<Transport>,
    /// Why it failed, or what it waits for.
    pub reason: Option<Reason>,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = &self.order;
        writeln!(f, "message {}", self.id)?;
        writeln!(f, "author {}, number {}, lamport {}", order.author, order.seq, order.lamport)?;
        writeln!(f, "order {}", order.standing.name())?;
        for (id, standing) in &order.predecessors {
            writeln!(f, "after {id} ({})", standing.name())?;
        }
        for (author, seq) in &order.clock {
            writeln!(f, "clock {author} {seq}")?;
        }
        if let Some(seq) = order.disputed_from {
            writeln!(f, "its author sent conflicting histories from number {seq} on")?;
        }
        for device in &order.seen_by {
            writeln!(f, "seen by {device}")?;
        }
        write!(f, "state {}", self.state.name())?;
        if let Some(via) = self.via {
            write!(f, " by {}", via.name())?;
        }
        self.reason.map_or(Ok(()), |reason| write!(f, " ({})", reason.name()))
    }
}

/// What the engine counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Own messages that wait for something.
    pub queued: usize,
    /// Envelopes carried for others.
    pub carried_for_others: usize,
    /// Conversations.
    pub conversations: usize,
    /// What was not taken, by reason.
    pub drops: BTreeMap<DropReason, u64>,
    /// How often a direct conversation lost step.
    pub desynced: u64,
    /// How often one healed.
    pub healed: u64,
}

/// What gossip does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// It is forwarded.
    Accept,
    /// It is not forwarded, and nobody is blamed.
    Ignore,
    /// It is not forwarded, and who sent it is blamed.
    Reject,
}

/// How far a payload is in the mixnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixProgress {
    /// It left.
    Sent,
    /// A mailbox of the recipient has it.
    Stored,
    /// The recipient's node has it.
    Acknowledged,
    /// It was given up.
    Failed,
}

/// Where a payload goes through the mixnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixAddress {
    /// The recipient's node.
    pub node: NodeId,
    /// Its key for sealed packets.
    pub seal_key: [u8; 32],
    /// Its mailboxes: relay and slot.
    pub mailboxes: Vec<(NodeId, [u8; 32])>,
}

impl From<&Card> for MixAddress {
    fn from(card: &Card) -> Self {
        Self { node: card.node, seal_key: card.seal_key, mailboxes: card.mailboxes.clone() }
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write the rows as one batch, then call [`super::Chat::handle_persisted`]. What depends on it stays inside until then.
    Persist {
        /// The number of the batch.
        number: u64,
        /// The rows.
        rows: Vec<Row>,
        /// Whether they must be on disk before the call.
        is_synced: bool,
    },
    /// Take part in the topic of a bucket.
    Subscribe(u8),
    /// No longer.
    Unsubscribe(u8),
    /// Give an envelope to gossip.
    Publish {
        /// By which [`super::Chat::handle_published`] names it.
        handle: u64,
        /// The topic.
        bucket: u8,
        /// The envelope.
        bytes: Vec<u8>,
    },
    /// Ask a connected peer; the answer goes to [`super::Chat::handle_response`].
    Request {
        /// Whom.
        to: NodeId,
        /// By which the answer names it.
        request: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a payload through the mixnet, and to the recipient's mailboxes if it is away.
    Mix {
        /// By which [`super::Chat::handle_mix_progress`] names it.
        handle: u64,
        /// Where.
        to: MixAddress,
        /// What.
        bytes: Vec<u8>,
    },
    /// A connection to this node is wanted.
    Dial(NodeId),
    /// A peer sent what nobody honest sends.
    Blame {
        /// Who.
        node: NodeId,
        /// What.
        reject: Reject,
    },
    /// What a person should see.
    Event(Event),
}

/// What a person should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message is shown: a new one, or a gap before it was filled.
    Message(MessageId),
    /// A message is no longer shown.
    Retracted {
        /// Where.
        conversation: ConversationId,
        /// Which.
        message: MessageId,
    },
    /// The state of an own message advanced.
    State(MessageId),
    /// The members of a conversation changed.
    Members(ConversationId),
    /// Somebody who is no contact invited this device.
    Invited {
        /// Into which group.
        group: ConversationId,
        /// Who.
        by: DeviceId,
    },
    /// An author sent conflicting histories.
    Forked {
        /// Where.
        conversation: ConversationId,
        /// Who.
        author: DeviceId,
    },
    /// Messages of a device cannot be read; a new session is on its way.
    Desynced(DeviceId),
    /// They can be read again.
    Healed(DeviceId),
    /// The device's invite is needed again.
    NeedsInvite(DeviceId),
    /// A contact calls itself otherwise than before.
    Renamed {
        /// Who.
        device: DeviceId,
        /// What it was called here, and is, if it had a name that says something.
        was: String,
    },
    /// The node of a contact has another device than before.
    NewDevice {
        /// The new one.
        device: DeviceId,
        /// The contact.
        of: DeviceId,
    },
}
