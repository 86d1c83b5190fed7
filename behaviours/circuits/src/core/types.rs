//! What a node says to the core, and what it hears from it.

use std::{fmt, time::Duration};

use fog_base::{DropReason, NodeId};

use super::{
    crypto::handshake::{BINDING_LEN, HopKeys, RelaySecret},
    path::{Hop, NoPath},
};
use crate::wire::{EndReason, StreamId, Target};

/// A circuit on this node, whichever part of it is here. Numbers are used once in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitId(pub u64);

impl fmt::Display for CircuitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link: one stream between this node and a peer, on which cells travel both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A stream of a circuit on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef {
    /// Of which circuit.
    pub circuit: CircuitId,
    /// Its number there.
    pub stream: StreamId,
}

/// What a circuit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Built ahead of need; gets another purpose when it is used.
    Spare,
    /// Streams through an exit.
    General,
    /// Records of services.
    Directory,
    /// A client that introduces itself.
    Introduce,
    /// A client's rendezvous.
    Rendezvous,
    /// A service that can be introduced to.
    ServiceIntroduction,
    /// A service's side of a rendezvous.
    ServiceRendezvous,
    /// Measures, or checks.
    Probe,
}

impl Purpose {
    /// Whether it is about a service: then its second relay is a guard of the second layer.
    pub fn is_of_service(self) -> bool {
        !matches!(self, Self::Spare | Self::General)
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spare => "spare",
            Self::General => "general",
            Self::Directory => "directory",
            Self::Introduce => "introduce",
            Self::Rendezvous => "rendezvous",
            Self::ServiceIntroduction => "service_introduction",
            Self::ServiceRendezvous => "service_rendezvous",
            Self::Probe => "probe",
        }
    }
}

/// What must not be linked has different isolation: it never shares a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Isolation(pub [u8; 32]);

/// Where a circuit ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// At this relay.
    Relay(Hop),
    /// At an exit that opens connections to this port.
    Exit {
        /// Which port.
        port: u16,
    },
}

/// A circuit that is wanted.
#[derive(Debug, Clone)]
pub struct Open {
    /// What for.
    pub purpose: Purpose,
    /// Where it ends.
    pub end: End,
    /// Whose it is.
    pub isolation: Isolation,
    /// How many relays, the last one included: 1 to 8.
    pub hops: usize,
}

/// Which end of a virtual hop this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualRole {
    /// The one who asks, and begins streams.
    Client,
    /// The one who is asked.
    Service,
}

/// The number of the first stream of a circuit.
pub const FIRST_STREAM: StreamId = StreamId(1);

/// The first stream of a virtual hop, if its ends told each other of it before: it has the number 1, and no BEGIN is sent for it.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstStream {
    /// Where to.
    pub target: Target,
    /// Its first bytes, at most 32 KiB.
    pub early: Vec<u8>,
    /// How many of them the service has already: all of them at the service itself.
    pub said: usize,
}

impl fmt::Debug for FirstStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, early, said } = self;
        f.debug_struct("FirstStream").field("target", target).field("early", &early.len()).field("said", said).finish()
    }
}

/// Which end of a circuit this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This node built it.
    Client,
    /// This node is its last relay.
    Relay,
}

/// Why a circuit is gone, for its own node. Nothing of it is told to others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// It was asked for.
    #[error("it was closed")]
    Asked,
    /// A relay closed it, or it was closed at the other end.
    #[error("it was closed by the other side")]
    Remote,
    /// A relay could not be reached, or the link to it broke.
    #[error("the link to a relay broke")]
    Link,
    /// It could not be built, as often as it was tried.
    #[error("it could not be built")]
    Unbuilt,
    /// There are not the relays for it.
    #[error(transparent)]
    NoPath(#[from] NoPath),
    /// Somebody on the path changed cells or broke the rules.
    #[error("a relay broke the rules")]
    Violation,
    /// Too much waited in it, or in all of them.
    #[error("there was too much to hold")]
    Memory,
    /// It was old and not used.
    #[error("it was not used any more")]
    Idle,
}

/// Work for another thread: the answer to a handshake.
pub struct Job {
    pub(super) circuit: CircuitId,
    pub(super) secret: std::sync::Arc<RelaySecret>,
    pub(super) request: Vec<u8>,
    pub(super) seed: [u8; 64],
}

/// What came of a [`Job`].
#[derive(Debug)]
pub struct Answer {
    pub(super) circuit: CircuitId,
    pub(super) result: Option<(HopKeys, Vec<u8>)>,
}

impl Job {
    /// There is nobody to do it.
    pub fn give_up(self) -> Answer {
        Answer { circuit: self.circuit, result: None }
    }

    /// Does the work: about a quarter of a millisecond.
    pub fn run(self) -> Answer {
        // The extra data says the versions that the client speaks; there is one.
        let reply = |_: &[u8]| vec![super::VERSION];
        let result = super::crypto::handshake::answer(&self.secret, &self.request, &self.seed, reply).ok();
        Answer { circuit: self.circuit, result }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({})", self.circuit)
    }
}

/// What is to be done, or is told.
#[derive(Debug)]
pub enum Output {
    /// Open a link to this node, which may be at these addresses.
    Connect {
        /// Which node.
        node: NodeId,
        /// Multiaddresses in binary.
        addresses: Vec<Vec<u8>>,
        /// Whether another node named these addresses: then only global ones are dialled.
        is_hint: bool,
    },
    /// Close this link: the peer broke the rules.
    Disconnect(LinkId),
    /// Run this, and bring the answer.
    Run(Job),
    /// A circuit is there.
    Opened {
        /// Which circuit.
        circuit: CircuitId,
        /// What it is for.
        purpose: Purpose,
        /// Its relays.
        hops: Vec<NodeId>,
        /// What this node and the last relay know of it.
        binding: [u8; BINDING_LEN],
    },
    /// A circuit is gone, with all its streams.
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
        /// The message.
        body: Vec<u8>,
        /// What both ends know of the circuit.
        binding: [u8; BINDING_LEN],
    },
    /// The other end begins a stream.
    Inbound {
        /// Which stream.
        stream: StreamRef,
        /// Where to.
        target: Target,
    },
    /// A stream that this node began is open.
    Connected(StreamRef),
    /// Bytes came on a stream.
    Received(StreamRef, Vec<u8>),
    /// The other end has no more bytes for a stream.
    Finished(StreamRef),
    /// A stream is over.
    Ended(StreamRef, EndReason),
    /// Bytes of a stream were sent: there is room for more.
    Sent(StreamRef),
    /// A peer did what no honest peer does.
    Blame(NodeId, DropReason),
    /// Bytes came; only if the configuration asks.
    Recorded(super::node::record::Record),
    /// What became of circuits of this node's own since the last time: for its own opinion of relays, and nobody else's.
    Experience(Vec<Experience>),
}

/// What became of circuits over these relays.
#[derive(Debug, Clone, PartialEq)]
pub struct Experience {
    /// The relays that had a part in it.
    pub relays: Vec<NodeId>,
    /// Whether they did what they took on.
    pub is_good: bool,
    /// How much it says; 1 is a circuit that was built, or that ended before its time.
    pub weight: f64,
}

/// A circuit as `fog circuits` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitInfo {
    /// Which circuit.
    pub circuit: CircuitId,
    /// `connecting`, `building` or `open`.
    pub state: &'static str,
    /// What it is for.
    pub purpose: Purpose,
    /// Its relays so far.
    pub hops: Vec<NodeId>,
    /// Its streams.
    pub streams: usize,
    /// How old it is.
    pub age: Duration,
    /// Bytes in cells that this node sent on it.
    pub bytes_up: u64,
    /// Bytes in cells that came for it.
    pub bytes_down: u64,
}
