//! What goes into an endpoint and what comes out of it.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use fog_base::{EpochSchedule, MessageId, NetworkId, NodeId, relay::NoPath};
use fog_sphinx::SURB_LEN;
use zeroize::Zeroizing;

use crate::{
    core::{PacketBuf, cover::Cover, delay::Delays, loops::LoopEnd, mailbox::Slot, outgoing::Address},
    wire::{Application, MAX_MESSAGE},
};

/// What does not change while a node runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Its network.
    pub network: NetworkId,
    /// How UTC is cut into epochs.
    pub schedule: EpochSchedule,
    /// The network's delays.
    pub delays: Delays,
    /// Ticks of the send clock per second.
    pub send_per_second: f64,
    /// What else is sent.
    pub cover: Cover,
    /// Loops per second, unless `cover` is none, or [`Endpoint::set_loops`](super::Endpoint::set_loops) says otherwise.
    pub loops_per_second: f64,
    /// Relays on each path.
    pub hops: usize,
    /// Whether this node wants to be a relay: then it needs a mailbox only if it does not become one.
    pub offers_roles: bool,
}

/// The endpoint's keys.
pub struct Secrets {
    /// Signs messages.
    pub identity: SigningKey,
    /// Opens sealed contents.
    pub seal: Zeroizing<[u8; 32]>,
    /// Claims the node's slot at mailboxes.
    pub slot: SigningKey,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// What an earlier run left.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Messages that were delivered, with their creation in Unix seconds.
    pub seen: Vec<(MessageId, u64)>,
    /// The mailboxes that invites name.
    pub mailboxes: Vec<NodeId>,
}

/// What a message says of its sender, and for whom in the recipient's node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Signed by the sender's node.
    Signed,
    /// From nobody in particular.
    Anonymous,
    /// For the chat of the recipient's node; chat's own bytes say who wrote it.
    Chat,
    /// For this application of the recipient's node, from nobody in particular, with so many blocks by which it can answer:
    /// [`Output::Answer`]. At most [`MAX_BLOCKS`](crate::wire::MAX_BLOCKS).
    Asking(Application, usize),
}

/// A reply block: whoever has it can answer once, and learns nobody's name.
pub type ReplyBlock = [u8; SURB_LEN];

/// For whom in the recipient's node a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// A person.
    Person,
    /// Its chat.
    Chat,
    /// An application, which may answer by these reply blocks.
    Application(Application, Vec<ReplyBlock>),
}

/// A message to send.
#[derive(Debug, Clone)]
pub struct Send {
    /// Its id: random, chosen by the caller, who hears of it by this name.
    pub id: MessageId,
    /// To whom.
    pub to: Address,
    /// The message.
    pub body: Vec<u8>,
    /// Relays on each path; `None` for the default.
    pub hops: Option<usize>,
    /// What it says of its sender, and for whom in the recipient's node it is.
    pub kind: Kind,
    /// When to give up.
    pub timeout: Duration,
}

/// A round trip to measure.
#[derive(Debug, Clone)]
pub struct Ping {
    /// Its number, chosen by the caller.
    pub id: u64,
    /// To whom.
    pub to: Address,
    /// Relays on each path; `None` for the default.
    pub hops: Option<usize>,
    /// When it counts as lost.
    pub timeout: Duration,
}

/// Why a message or a ping is not even tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Larger than a message may be.
    #[error("a message has at most {MAX_MESSAGE} bytes, this one has {0}")]
    TooLarge(usize),
    /// Not 1 to 5 hops.
    #[error("a path has 1 to {max} hops, not {0}", max = fog_sphinx::MAX_HOPS)]
    Hops(usize),
    /// Too much is on its way already.
    #[error("too many messages are on their way; wait until some have arrived")]
    Busy,
    /// The recipient's key cannot be used.
    #[error("the recipient's key is not valid")]
    BadKey,
    /// No path.
    #[error(transparent)]
    NoPath(#[from] NoPath),
    /// Neither a relay nor a client of a mailbox: no answer could reach this node.
    #[error("this node has no mailbox yet, so no acknowledgement could reach it")]
    NoReturn,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentState {
    /// More of it was acknowledged.
    Progress,
    /// A mailbox has all of it.
    Stored,
    /// The recipient's node accepted it. Nothing follows.
    Delivered,
    /// Time ran out. Nothing follows.
    Failed,
}

/// A message that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: MessageId,
    /// Who signed it; `None` if nobody did.
    pub from: Option<NodeId>,
    /// For whom it is.
    pub audience: Audience,
    /// The message.
    pub body: Vec<u8>,
    /// When it was made, Unix seconds.
    pub created: u64,
}

/// News of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentNews {
    /// The message.
    pub message: MessageId,
    /// What became of it.
    pub state: SentState,
    /// Fragments acknowledged.
    pub acknowledged: u64,
    /// Fragments.
    pub packets: u64,
    /// Packets sent again.
    pub retransmissions: u64,
}

/// What the endpoint wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a packet to a relay.
    Send {
        /// The first hop.
        first: NodeId,
        /// The packet.
        packet: PacketBuf,
        /// Whether it is a loop or a drop packet: for counting only.
        cover: bool,
    },
    /// Hand a message to the application, which answers with [`Endpoint::accepted`] once it is stored.
    Deliver(Delivery),
    /// News of a message that was sent.
    Sent(SentNews),
    /// An answer by one of the reply blocks that a message of [`Kind::Asking`] brought.
    Answer {
        /// Who asked.
        application: Application,
        /// The message.
        message: MessageId,
        /// [`ANSWER_LEN`](crate::wire::ANSWER_LEN) bytes.
        data: Vec<u8>,
    },
    /// The end of a ping.
    Pong {
        /// Which ping.
        ping: u64,
        /// The round trip; `None` if it was lost.
        rtt: Option<Duration>,
    },
    /// Claim this node's slot at a relay.
    Claim {
        /// The relay.
        relay: NodeId,
        /// The signed claim.
        record: Vec<u8>,
    },
    /// Tell a mailbox that packets are no longer needed.
    Done {
        /// The relay.
        relay: NodeId,
        /// The slot.
        slot: Slot,
        /// The packets.
        ids: Vec<u64>,
    },
    /// A loop has ended, as far as its relays are to be judged by it.
    Loop(LoopEnd),
    /// The mailboxes in use have changed: store them, name them in invites.
    Mailboxes(Vec<NodeId>),
}
