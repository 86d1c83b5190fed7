//! Cells that come in. Whatever is wrong with one, the circuit that it came for ends in the same way, and nothing else changes.

use fog_base::{DropReason, Now};

use super::{Circuit, Core};
use crate::core::{
    cell::{Body, Cell, Command, HopId, TAG_LEN},
    client::{MAX_HELD, Recognised},
    congestion::MAX as MAX_CONGESTION,
    crypto::layer::CellTag,
    edge::EdgeEvent,
    links::Way,
    relay::Next,
    types::{CircuitId, CloseReason, LinkId, Output},
};

/// Cells that may wait in one circuit and one way: what may be under way between its ends, and what does not count.
const MAX_QUEUED: usize = MAX_CONGESTION as usize + 1024;

/// What is to be done with a RELAY cell.
enum Verdict {
    /// It is for this node.
    Own(CellTag),
    /// It goes on in the same circuit.
    Pass(Way),
    /// It goes over to the joined circuit.
    Join(CircuitId),
    /// It waits for what the node is about to do with the circuit.
    Hold,
    /// It was kept.
    Held,
    /// It is for nobody.
    Bad,
}

impl Core {
    /// A cell came on a link.
    pub fn handle_cell(&mut self, link: LinkId, cell: Cell, now: Now) {
        let at = (link, cell.id());
        self.record_cell(link, &cell);
        if cell.command() == Command::Create {
            self.handle_create(at, &cell, now);
            return;
        }
        let Some((id, from)) = self.links.circuit(at) else {
            // It may be gone since; a cell of another's number changes nothing.
            self.drops.count(DropReason::NoRoute);
            return;
        };
        match cell.command() {
            Command::Created => self.handle_created(id, from, &cell, now),
            Command::Relay => self.handle_relay(id, from, cell, now),
            Command::Destroy => {
                self.links.detach(at, now.mono);
                self.handle_destroyed(id, from, now);
            }
            Command::Create => {}
        }
    }

    /// Bytes came on a link that are no cell: the peer is not one of us.
    pub fn handle_garbage(&mut self, link: LinkId) {
        self.drops.count(DropReason::Malformed);
        if let Some(peer) = self.links.peer(link) {
            self.outputs.push_back(Output::Blame(peer, DropReason::Malformed));
        }
        self.outputs.push_back(Output::Disconnect(link));
    }

    fn handle_destroyed(&mut self, id: CircuitId, from: Way, now: Now) {
        if let (Some(Circuit::Client(circuit)), Way::Away) = (self.circuits.get_mut(&id), from) {
            circuit.link = None;
        }
        self.handle_lost(id, CloseReason::Remote, now);
    }

    fn handle_created(&mut self, id: CircuitId, from: Way, cell: &Cell, now: Now) {
        let Some(answer) = sized(cell.body()) else { return self.violate(id, now) };
        match self.circuits.get_mut(&id) {
            Some(Circuit::Client(circuit)) if circuit.layers.is_empty() => self.handle_answered(id, answer, now),
            Some(Circuit::Relay(circuit)) if from == Way::Away && matches!(circuit.next, Next::Creating(_)) => {
                if let Next::Creating(next) = circuit.next {
                    circuit.next = Next::Open(next);
                }
                circuit.deadline = None;
                self.counts.half_open -= 1;
                circuit.edge.send_extended(answer);
                self.list_edge(id);
            }
            Some(_) => self.violate(id, now),
            None => {}
        }
    }

    /// Ends a circuit on which somebody broke the rules, or changed a cell: nobody can tell which.
    pub(super) fn violate(&mut self, id: CircuitId, now: Now) {
        self.drops.count(DropReason::BadPayload);
        self.handle_lost(id, CloseReason::Violation, now);
    }

    fn handle_relay(&mut self, id: CircuitId, from: Way, mut cell: Cell, now: Now) {
        let verdict = match self.circuits.get_mut(&id) {
            Some(Circuit::Client(circuit)) => match circuit.open(cell.body_mut()) {
                Recognised::Last(tag) => Verdict::Own(tag),
                Recognised::Held => Verdict::Held,
                Recognised::Before | Recognised::Nobody => Verdict::Bad,
            },
            Some(Circuit::Relay(circuit)) => {
                circuit.last_used = now.mono;
                match (from, &mut circuit.layer) {
                    (Way::Away, Some(_)) if matches!(circuit.next, Next::Open(_)) => Verdict::Pass(Way::Back),
                    (Way::Back, Some(layer)) => match (layer.open(cell.body_mut()), &circuit.next) {
                        (Some(tag), _) => Verdict::Own(tag),
                        (None, Next::Open(_)) => Verdict::Pass(Way::Away),
                        (None, Next::Joined(other)) => Verdict::Join(*other),
                        (None, Next::None) if circuit.held.is_some() => Verdict::Hold,
                        (None, _) => Verdict::Bad,
                    },
                    _ => Verdict::Bad,
                }
            }
            None => return,
        };
        match verdict {
            Verdict::Own(tag) => self.handle_own(id, cell.body(), tag, now),
            Verdict::Pass(way) => self.pass(id, way, cell, now),
            Verdict::Join(other) => self.pass(other, Way::Back, cell, now),
            Verdict::Hold => self.hold(id, cell, now),
            Verdict::Held => {}
            Verdict::Bad => self.violate(id, now),
        }
    }

    fn hold(&mut self, id: CircuitId, cell: Cell, now: Now) {
        let Some(Circuit::Relay(circuit)) = self.circuits.get_mut(&id) else { return };
        match circuit.held.as_mut().filter(|held| held.len() < MAX_HELD) {
            Some(held) => {
                held.push((cell, now.mono));
                self.counts.queued_cells += 1;
            }
            None => self.violate(id, now),
        }
    }

    pub(super) fn pass(&mut self, id: CircuitId, way: Way, cell: Cell, now: Now) {
        let Some(Circuit::Relay(circuit)) = self.circuits.get_mut(&id) else { return };
        circuit.last_used = now.mono;
        self.counts.queued_cells += 1;
        if circuit.push(way, cell, now.mono) > MAX_QUEUED {
            self.drops.count(DropReason::QueueFull);
            self.remove(id, CloseReason::Memory, now);
            return;
        }
        self.list(id, way);
        if self.counts.queued_cells * crate::core::cell::CELL_LEN > self.config.max_held_bytes {
            self.make_room(now);
        }
    }

    /// Closes circuits, those with the oldest waiting cell first, until all together hold a tenth less than they may.
    pub(super) fn make_room(&mut self, now: Now) {
        let most = self.config.max_held_bytes;
        if self.held_bytes() <= most {
            return;
        }
        while self.held_bytes() > most - most / 10 {
            let weight = |(id, circuit): (&CircuitId, &Circuit)| match circuit {
                Circuit::Relay(circuit) if circuit.queued() > 0 => circuit.oldest().map(|oldest| (oldest, *id)),
                Circuit::Relay(circuit) if circuit.edge.held_bytes() > 0 => Some((circuit.last_used, *id)),
                Circuit::Client(circuit) if circuit.held_bytes() > 0 => Some((circuit.last_used, *id)),
                _ => None,
            };
            let Some((_, oldest)) = self.circuits.iter().filter_map(weight).min() else { return };
            self.drops.count(DropReason::QueueFull);
            self.remove(oldest, CloseReason::Memory, now);
        }
    }

    pub(super) fn handle_own(&mut self, id: CircuitId, body: &Body, tag: CellTag, now: Now) {
        let (_, payload) = body.split_at(TAG_LEN);
        self.record_payload(id, body);
        if let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) {
            circuit.last_used = now.mono;
            circuit.asked = None;
            if !circuit.is_open() {
                return self.handle_building(id, payload, now);
            }
        }
        let mut events = Vec::new();
        let Some(edge) = self.edge(id) else { return };
        if edge.handle_payload(payload, tag, now.mono, &mut events).is_err() {
            return self.violate(id, now);
        }
        self.handle_events(id, events, now);
        self.list_edge(id);
    }

    fn handle_events(&mut self, id: CircuitId, events: Vec<EdgeEvent>, now: Now) {
        for event in events {
            if !self.circuits.contains_key(&id) {
                return;
            }
            match event {
                EdgeEvent::Extend(extend) => self.handle_extend(id, extend, now),
                EdgeEvent::Message(command, body) => self.handle_message(id, command, body, now),
                other => self.handle_stream_event(id, other),
            }
        }
    }
}

/// The bytes of a body that says its length first.
pub(super) fn sized(body: &Body) -> Option<&[u8]> {
    let ([a, b], rest) = body.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes([*a, *b])))
}

/// A cell whose body says its length first.
pub(super) fn with_sized(id: HopId, command: Command, bytes: &[u8]) -> Cell {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    Cell::with_body(id, command, &[&len.to_be_bytes(), bytes].concat())
}
