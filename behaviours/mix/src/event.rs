//! What the mixnet tells the node that it is part of.

use std::time::Duration;

use fog_base::{Epoch, MessageId, NodeId};

use crate::{
    core::{
        Write,
        endpoint::{Delivery, Output, SendError, SentNews},
        loops::LoopEnd,
    },
    runtime::engine,
};

/// What the node is told.
#[derive(Debug)]
pub enum Event {
    /// A message has arrived: store it, then call [`crate::Behaviour::accepted`].
    Deliver(Delivery),
    /// An answer by a reply block that a message carried: what its [`crate::core::endpoint::Kind::Tasks`] said, and the answer.
    Answer(u64, Vec<u8>),
    /// News of a message that was sent.
    Sent(SentNews),
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

impl Event {
    /// What the node is told of what the engine says, if anything: the rest is the swarm's, or the engine does it itself.
    pub(crate) fn of(event: engine::Event) -> Option<Self> {
        Some(match event {
            engine::Event::Endpoint(Output::Deliver(delivery)) => Self::Deliver(delivery),
            engine::Event::Endpoint(Output::Answer { tag, data }) => Self::Answer(tag, data),
            engine::Event::Endpoint(Output::Sent(news)) => Self::Sent(news),
            engine::Event::Endpoint(Output::Pong { ping, rtt }) => Self::Pong(ping, rtt),
            engine::Event::Endpoint(Output::Loop(end)) => Self::Loop(end),
            engine::Event::Endpoint(Output::Mailboxes(relays)) => Self::Mailboxes(relays),
            engine::Event::SendRefused(message, why) => Self::SendRefused(message, why),
            engine::Event::PingRefused(ping, why) => Self::PingRefused(ping, why),
            engine::Event::Persist(token, writes) => Self::Persist(token, writes),
            engine::Event::Keys(keys) => Self::Keys(keys),
            engine::Event::Endpoint(Output::Send { .. } | Output::Claim { .. } | Output::Done { .. })
            | engine::Event::Dial(_)
            | engine::Event::Push(..) => return None,
        })
    }
}
