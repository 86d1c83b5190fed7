//! Streams and messages of circuits, as this node uses them.

use fog_base::{DropReason, Now};

use super::{Circuit, Core, HOLD};
use crate::{
    core::{
        client::ClientCircuit,
        edge::{EdgeEvent, MAX_MESSAGE},
        relay::Next,
        types::{CircuitId, End, Isolation, Open, Output, Purpose, Side, StreamRef},
    },
    wire::{EndReason, MESSAGES, Target},
};

impl Core {
    /// Begins a stream on a circuit of this node's own, which need not be open yet. `early` goes with the request. `None` if the
    /// circuit is gone or has too many streams.
    pub fn open_stream(&mut self, circuit: CircuitId, target: Target, early: Vec<u8>, now: Now) -> Option<StreamRef> {
        let Some(Circuit::Client(client)) = self.circuits.get_mut(&circuit) else { return None };
        client.last_used = now.mono;
        let stream = client.edge.begin(target, early)?;
        self.list_edge(circuit);
        Some(StreamRef { circuit, stream })
    }

    /// A circuit that a stream to this port may use: one of the same isolation, or a new one.
    pub fn circuit_for(&mut self, port: u16, isolation: Isolation, now: Now) -> CircuitId {
        let is_fit = |circuit: &ClientCircuit| {
            let is_clean =
                circuit.used.is_some_and(|used| now.mono.saturating_duration_since(used) < self.config.max_dirtiness);
            let goes_there = match &circuit.end {
                Some(End::Exit { port: other }) => {
                    let exit = circuit.path.last().filter(|_| circuit.path.len() == circuit.hops);
                    *other == port || exit.is_some_and(|exit| self.paths.is_open(&exit.relay.id, port))
                }
                _ => false,
            };
            circuit.purpose == Purpose::General && circuit.isolation == isolation && is_clean && goes_there
        };
        let fit = self.circuits.iter().filter_map(|(id, circuit)| match circuit {
            Circuit::Client(circuit) if is_fit(circuit) => Some((!circuit.is_open(), *id)),
            _ => None,
        });
        if let Some((_, id)) = fit.min() {
            return id;
        }
        let hops = self.config.hops;
        self.open(Open { purpose: Purpose::General, end: End::Exit { port }, isolation, hops }, now)
    }

    /// Opens a stream that the other end began.
    pub fn accept(&mut self, stream: StreamRef) {
        if let Some(edge) = self.edge(stream.circuit) {
            edge.accept(stream.stream);
            self.list_edge(stream.circuit);
        }
    }

    /// Ends a stream both ways.
    pub fn reset(&mut self, stream: StreamRef, reason: EndReason) {
        if let Some(edge) = self.edge(stream.circuit) {
            edge.reset(stream.stream, reason);
            self.list_edge(stream.circuit);
        }
    }

    /// Sends bytes on a stream; when little of them is left, [`Output::Sent`] says so.
    pub fn write(&mut self, stream: StreamRef, bytes: Vec<u8>) {
        if let Some(edge) = self.edge(stream.circuit) {
            edge.write(stream.stream, bytes);
            self.list_edge(stream.circuit);
        }
    }

    /// Bytes of a stream that wait to be sent.
    pub fn unsent(&mut self, stream: StreamRef) -> Option<usize> {
        self.edge(stream.circuit)?.unsent(stream.stream)
    }

    /// Sends no more bytes on a stream; it goes on the other way.
    pub fn finish(&mut self, stream: StreamRef) {
        if let Some(edge) = self.edge(stream.circuit) {
            edge.finish(stream.stream);
            self.list_edge(stream.circuit);
        }
    }

    /// So many of the bytes of [`Output::Received`] were read.
    pub fn handle_consumed(&mut self, stream: StreamRef, count: u64) {
        if let Some(edge) = self.edge(stream.circuit) {
            edge.handle_consumed(stream.stream, count);
            self.list_edge(stream.circuit);
        }
    }

    /// Sends a message to the other end of a circuit; false if it cannot be.
    pub fn send_message(&mut self, circuit: CircuitId, command: u8, body: Vec<u8>, now: Now) -> bool {
        if !MESSAGES.contains(&command) || body.len() > MAX_MESSAGE {
            return false;
        }
        match self.circuits.get_mut(&circuit) {
            Some(Circuit::Client(client)) => client.last_used = now.mono,
            Some(Circuit::Relay(relay)) => relay.is_known = true,
            None => return false,
        }
        let is_sent = self.edge(circuit).is_some_and(|edge| edge.send_message(command, body));
        self.list_edge(circuit);
        is_sent
    }

    /// As [`Core::send_message`], if there is room; if there is none it is dropped and counted, and the circuit stays.
    pub fn offer_message(&mut self, circuit: CircuitId, command: u8, body: Vec<u8>, now: Now) -> bool {
        let is_room = self.edge(circuit).is_some_and(|edge| edge.has_room_for_message());
        let is_sent = is_room && self.send_message(circuit, command, body, now);
        if !is_sent {
            self.drops.count(DropReason::QueueFull);
        }
        is_sent
    }

    /// Sends a cell of nothing to the other end: what a padding machine does.
    pub fn send_padding(&mut self, circuit: CircuitId) {
        if let Some(edge) = self.edge(circuit) {
            edge.send_padding();
            self.list_edge(circuit);
        }
    }

    /// The first stream of a virtual hop, when its service's end has begun.
    pub(super) fn tell_begun(&mut self, circuit: CircuitId) {
        let Some(Circuit::Client(client)) = self.circuits.get_mut(&circuit) else { return };
        for event in std::mem::take(&mut client.begun) {
            self.handle_stream_event(circuit, event);
        }
    }

    pub(super) fn tell_drained(&mut self, circuit: CircuitId) {
        let Some(edge) = self.edge(circuit) else { return };
        let drained = edge.take_drained();
        self.outputs.extend(drained.into_iter().map(|stream| Output::Sent(StreamRef { circuit, stream })));
    }

    pub(super) fn handle_message(&mut self, circuit: CircuitId, command: u8, body: Vec<u8>, now: Now) {
        let until = self.hold_after.contains(&command).then_some(now.mono + HOLD);
        let (side, binding, timer) = match self.circuits.get_mut(&circuit) {
            Some(Circuit::Client(client)) => {
                let until = until.filter(|_| !client.is_virtual && client.held.is_none());
                if until.is_some() {
                    (client.held, client.deadline) = (Some(Vec::new()), until);
                }
                (Side::Client, client.binding, until)
            }
            Some(Circuit::Relay(relay)) => {
                relay.is_known = true;
                let until = until.filter(|_| matches!(relay.next, Next::None) && relay.held.is_none());
                if until.is_some() {
                    (relay.held, relay.deadline) = (Some(Vec::new()), until);
                }
                (Side::Relay, relay.binding, until)
            }
            None => return,
        };
        if let Some(until) = timer {
            self.set_timer(circuit, until);
        }
        self.outputs.push_back(Output::Message { circuit, side, command, body, binding });
    }

    pub(super) fn handle_stream_event(&mut self, circuit: CircuitId, event: EdgeEvent) {
        let at = |stream| StreamRef { circuit, stream };
        let output = match event {
            EdgeEvent::Begin(stream, target) => {
                if !self.takes(circuit, &target) {
                    return self.reset(at(stream), EndReason::Refused);
                }
                if let Some(Circuit::Relay(relay)) = self.circuits.get_mut(&circuit) {
                    relay.is_known = true;
                }
                Output::Inbound { stream: at(stream), target }
            }
            EdgeEvent::Connected(stream) => Output::Connected(at(stream)),
            EdgeEvent::Data(stream) => {
                let Some(edge) = self.edge(circuit) else { return };
                Output::Received(at(stream), edge.take_received(stream))
            }
            EdgeEvent::Fin(stream) => Output::Finished(at(stream)),
            EdgeEvent::Ended(stream, reason) => Output::Ended(at(stream), reason),
            EdgeEvent::Message(..) | EdgeEvent::Extend(_) => return,
        };
        self.outputs.push_back(output);
    }

    /// Whether a stream that the other end begins may be handed on: to a service through its virtual hop, to a host at an exit.
    fn takes(&self, circuit: CircuitId, target: &Target) -> bool {
        match (self.circuits.get(&circuit), target) {
            (Some(Circuit::Client(client)), Target::Service(_)) => client.service.is_some(),
            (Some(Circuit::Relay(_)), Target::Host(host, port)) => self.config.exit.allows_host(host, *port),
            _ => false,
        }
    }
}
