//! What the node, and other protocols, hold of circuits: cheap to copy, and usable from any task.

use std::sync::Arc;

use fog_base::DropCounters;
use futures::channel::oneshot;
use zeroize::Zeroizing;

use crate::{
    core::{
        node::Counts,
        types::{CircuitId, CircuitInfo, FirstStream, Isolation, Open, VirtualRole},
    },
    runtime::{
        flow::{Flow, Stream},
        hub::{Command, Hub, Seed},
    },
    wire::Target,
};

/// The circuits of a node. No call waits; a call that cannot be done closes the circuit that it is about, or ends its stream.
#[derive(Debug, Clone)]
pub struct Circuits(pub(crate) Arc<Hub>);

impl Circuits {
    /// Builds a circuit; ends in [`Event::Opened`](crate::Event::Opened) or [`Event::Closed`](crate::Event::Closed).
    pub fn open(&self, open: Open) -> CircuitId {
        let circuit = self.0.next_circuit();
        self.0.command(Command::Open(circuit, open));
        circuit
    }

    /// Closes a circuit, whichever end of it is here. What was not sent is lost.
    pub fn close(&self, circuit: CircuitId) {
        self.0.command(Command::Close(circuit));
    }

    /// Sends a message to the other end: `command` is 64 to 127, `body` at most 32 KiB, and at most 64 messages wait.
    pub fn send_message(&self, circuit: CircuitId, command: u8, body: Vec<u8>) {
        self.0.command(Command::Message(circuit, command, body));
    }

    /// As [`Circuits::send_message`], if there is room; false, and the circuit stays, if there is none or the circuit is gone.
    pub fn offer_message(
        &self,
        circuit: CircuitId,
        command: u8,
        body: Vec<u8>,
    ) -> impl Future<Output = bool> + Send + use<> {
        let (give, take) = oneshot::channel();
        self.0.command(Command::Offer(circuit, command, body, give));
        async move { take.await.unwrap_or(false) }
    }

    /// After a message of one of these commands this node joins the circuit on which it came, or adds a virtual hop to it: cells that come
    /// before it has are held, at most 256 for at most 10 s. Holds for all circuits; replaces what was said before.
    pub fn hold_after(&self, commands: &[u8]) {
        self.0.command(Command::HoldAfter(commands.to_vec()));
    }

    /// Adds a hop whose other end is at the other end of an open circuit, beyond its last relay.
    pub fn add_virtual_hop(&self, circuit: CircuitId, role: VirtualRole, seed: &[u8; 64], transcript: &[u8; 32]) {
        self.virtual_hop(circuit, role, (seed, transcript), None, None);
    }

    /// As [`Circuits::add_virtual_hop`] at the client, where the service has heard of the first stream: it need not be begun, and what the
    /// service has of its first bytes is not sent again.
    pub fn add_virtual_hop_with_stream(
        &self,
        circuit: CircuitId,
        (seed, transcript): (&[u8; 64], &[u8; 32]),
        first: FirstStream,
    ) -> Stream {
        let flow = Flow::new(&self.0);
        self.virtual_hop(circuit, VirtualRole::Client, (seed, transcript), Some(first), Some(Arc::clone(&flow)));
        Stream(flow)
    }

    /// As [`Circuits::add_virtual_hop`] at the service, which has heard of the first stream: [`Event::Inbound`](crate::Event::Inbound) follows for it.
    pub fn add_virtual_hop_with_request(
        &self,
        circuit: CircuitId,
        (seed, transcript): (&[u8; 64], &[u8; 32]),
        first: FirstStream,
    ) {
        self.virtual_hop(circuit, VirtualRole::Service, (seed, transcript), Some(first), None);
    }

    fn virtual_hop(
        &self,
        circuit: CircuitId,
        role: VirtualRole,
        (seed, transcript): (&[u8; 64], &[u8; 32]),
        first: Option<FirstStream>,
        flow: Option<Arc<Flow>>,
    ) {
        let (seed, transcript) = (Seed(Zeroizing::new(*seed)), *transcript);
        self.0.command(Command::VirtualHop { circuit, role, seed, transcript, first, flow });
    }

    /// Joins two circuits whose last relay is this node.
    pub fn join(&self, a: CircuitId, b: CircuitId) {
        self.0.command(Command::Join(a, b));
    }

    /// A stream on a circuit that this node built, which need not be open yet. `early`, at most 32 KiB, goes with the request.
    pub fn open_stream(&self, circuit: CircuitId, target: Target, early: Vec<u8>) -> Stream {
        self.stream(|flow| Command::Stream { circuit, target, early, flow })
    }

    /// A stream to a host through an exit, on a circuit of this isolation: one that is there, or a new one.
    pub fn connect(&self, target: Target, isolation: Isolation, early: Vec<u8>) -> Stream {
        self.stream(|flow| Command::StreamFor { target, isolation, early, flow })
    }

    fn stream(&self, command: impl FnOnce(Arc<Flow>) -> Command) -> Stream {
        let flow = Flow::new(&self.0);
        self.0.command(command(Arc::clone(&flow)));
        Stream(flow)
    }

    /// The circuits that this node built, in the order of their numbers.
    pub async fn list(&self) -> Vec<CircuitInfo> {
        let (give, take) = oneshot::channel();
        self.0.command(Command::List(give));
        take.await.unwrap_or_default()
    }

    /// How many there are; a second old at most.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.0.drops
    }
}
