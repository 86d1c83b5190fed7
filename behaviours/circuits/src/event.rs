//! What circuits tell the node that they are part of.

use std::sync::Arc;

use fog_base::{DropReason, NodeId};
use libp2p::PeerId;

use crate::{
    core::{
        crypto::handshake::BINDING_LEN,
        node::record::Record,
        types::{CircuitId, CloseReason, Experience, Purpose, Side},
    },
    runtime::{
        flow::{Flow, Stream},
        hub::{Command, Hub},
    },
    wire::{EndReason, Target},
};

/// What the node is told.
#[derive(Debug)]
pub enum Event {
    /// A circuit is there.
    Opened {
        /// Which circuit.
        circuit: CircuitId,
        /// What it is for.
        purpose: Purpose,
        /// Its relays.
        hops: Vec<NodeId>,
        /// What this node and the last relay alone know of it.
        binding: [u8; BINDING_LEN],
    },
    /// A circuit is gone, with all its streams: one of this node's own, or one that ended here and was told of.
    Closed {
        /// Which circuit.
        circuit: CircuitId,
        /// Which end this node was.
        side: Side,
        /// Why.
        reason: CloseReason,
    },
    /// A message came.
    Message {
        /// On which circuit.
        circuit: CircuitId,
        /// Which end this node is.
        side: Side,
        /// 64 to 127.
        command: u8,
        /// At most 32 KiB.
        body: Vec<u8>,
        /// What both ends of the circuit, and nobody else, know of it.
        binding: [u8; BINDING_LEN],
    },
    /// The other end begins a stream: at an exit, or at a service through its virtual hop.
    Inbound {
        /// On which circuit.
        circuit: CircuitId,
        /// Where to. An exit resolves a name itself and asks its policy for every address.
        target: Target,
        /// To be answered; dropped, it refuses.
        request: Inbound,
    },
    /// A peer did what no honest peer does: for its score.
    Blame {
        /// Which peer.
        peer: PeerId,
        /// What it did.
        reason: DropReason,
    },
    /// Bytes came; only if the configuration asks.
    Recorded(Record),
    /// What became of this node's own circuits: once in a minute or so, together and in no order. For its own opinion of relays; whoever told it to
    /// others would tell which relays it uses.
    Experience(Vec<Experience>),
    /// The threads have ended, which they never do by themselves: the node must stop.
    Stopped,
}

/// A stream that the other end has begun.
#[derive(Debug)]
pub struct Inbound {
    pub(crate) flow: Arc<Flow>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) is_answered: bool,
}

impl Inbound {
    /// Opens it. What the other end has sent already can be read at once.
    pub fn accept(mut self) -> Stream {
        self.is_answered = true;
        self.hub.command(Command::Accept(Arc::clone(&self.flow)));
        Stream(Arc::clone(&self.flow))
    }

    /// Refuses it.
    pub fn refuse(mut self, reason: EndReason) {
        self.answer(reason);
    }

    fn answer(&mut self, reason: EndReason) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.hub.command(Command::Refuse(Arc::clone(&self.flow), reason));
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.answer(EndReason::Other);
    }
}
