//! What the mixnet tells the node that it is part of.

use std::time::Duration;

use fog_base::{Epoch, MessageId, NodeId};

use crate::{
    core::{
        Write,
        endpoint::{Delivery, SendError, SentNews},
        loops::LoopEnd,
    },
    wire::Application,
};

/// What the node is told.
#[derive(Debug)]
pub enum Event {
    /// A message has arrived: store it, then call [`crate::Behaviour::accepted`].
    Deliver(Delivery),
    /// News of a message that was sent.
    Sent(SentNews),
    /// An answer to a message that this application sent with [`Kind::Asking`](crate::core::endpoint::Kind).
    Answer(Application, MessageId, Vec<u8>),
    /// A message is not sent.
    SendRefused(MessageId, SendError),
    /// The ping with this number is not sent.
    PingRefused(u64, SendError),
    /// The end of the ping with this number: its round trip, or `None` if it was lost.
    Pong(u64, Option<Duration>),
    /// Store mailbox entries, then call [`crate::Behaviour::persisted`] with this number.
    Persist(u64, Vec<Write>),
    /// A loop has ended: what it says of the relays on its path. Names a path: not to be logged or kept.
    Loop(LoopEnd),
    /// The mailboxes that this node uses have changed: store them, and name them in invites.
    Mailboxes(Vec<NodeId>),
    /// The public mix keys have changed: publish them.
    Keys(Vec<(Epoch, [u8; 32])>),
    /// The mixnet's threads have ended, which they never do by themselves: the node must stop.
    Stopped,
    /// A peer that is no relay sent far more packets than it may, and is being disconnected.
    Flooding(NodeId),
}
