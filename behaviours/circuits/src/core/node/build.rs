//! Building this node's own circuits: paths, handshakes hop by hop, timeouts, and other paths when one fails.

use std::time::Instant;

use fog_base::{DropReason, NodeId, Now};
use rand::RngExt;

use super::{Circuit, Core, MAX_HOPS, cells, experience};
use crate::{
    core::{
        VERSION,
        cell::{Body, Command},
        client::{ClientCircuit, Stage},
        crypto::{
            handshake::{HopKeys, Waiting},
            layer::{ClientLayer, RelayLayer},
        },
        path::NoPath,
        timeouts::steps,
        types::{CircuitId, CloseReason, End, FirstStream, LinkId, Open, Output, Purpose, VirtualRole},
    },
    wire::{Extend, Frame, Frames},
};

/// What an attempt that failed at a given end takes of the attempts: there are two of them.
const END_FAILED: u32 = 3;

impl Core {
    /// Builds a circuit, or takes a spare one further. Ends in [`Output::Opened`] or [`Output::Closed`].
    pub fn open(&mut self, open: Open, now: Now) -> CircuitId {
        let id = self.next_id();
        self.open_as(id, open, now);
        id
    }

    /// As [`Core::open`], with a number that the node has chosen: an odd one, never used before.
    pub fn open_as(&mut self, id: CircuitId, open: Open, now: Now) {
        let is_admitted = open.purpose != Purpose::ServiceRendezvous || self.admit_rendezvous(now);
        if is_admitted && self.take_spare(id, &open, now) {
            return;
        }
        let is_possible = (1..=MAX_HOPS).contains(&open.hops);
        let is_room = is_admitted && self.counts.own < self.config.max_own;
        let Open { purpose, end, isolation, hops } = open;
        let mut circuit = ClientCircuit::new(purpose, Some(end), isolation, hops, now.mono);
        circuit.attempts = self.config.attempts;
        circuit.used = Some(now.mono);
        self.insert_as(id, Circuit::Client(Box::new(circuit)));
        match (is_possible, is_room) {
            (true, true) => self.start(id, now),
            (true, false) => {
                self.drops.count(DropReason::QueueFull);
                self.remove(id, CloseReason::Memory, now);
            }
            (false, _) => self.remove(id, CloseReason::NoPath(NoPath::TooFewRelays), now),
        }
    }

    /// Whether a service may have another rendezvous: strangers ask for them, so they take three quarters of this node's own circuits at most.
    /// Beyond, the one without streams goes that was unused longest; if all have streams, there is no other.
    fn admit_rendezvous(&mut self, now: Now) -> bool {
        let most = self.config.max_own - self.config.max_own / 4;
        let of_services = self.circuits.iter().filter_map(|(id, circuit)| match circuit {
            Circuit::Client(circuit) if circuit.purpose == Purpose::ServiceRendezvous => Some((*id, circuit)),
            _ => None,
        });
        if of_services.clone().count() < most {
            return true;
        }
        let is_idle = |circuit: &ClientCircuit| circuit.is_open() && circuit.edge.streams().next().is_none();
        let oldest =
            of_services.filter(|(_, circuit)| is_idle(circuit)).map(|(id, circuit)| (circuit.last_used, id)).min();
        let Some((_, oldest)) = oldest else { return false };
        self.drops.count(DropReason::QueueFull);
        self.remove(oldest, CloseReason::Idle, now);
        true
    }

    /// Chooses a path and begins at its first relay.
    pub(super) fn start(&mut self, id: CircuitId, now: Now) {
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        let end = circuit.end.as_ref().map(|end| self.paths.end(&[], end, now)).transpose();
        let path = end.and_then(|end| {
            let hops = circuit.hops - usize::from(end.is_some());
            self.paths.set_suspects(self.suspects.list(now.mono));
            let mut path = if circuit.is_of_service {
                self.paths.service_stem(hops, end.as_ref(), now)?
            } else {
                self.paths.stem(hops, end.as_ref(), now)?
            };
            path.extend(end);
            Ok(path)
        });
        let first = match path {
            Ok(path) => path.first().cloned().map(|first| (path, first)),
            Err(error) => return self.remove(id, CloseReason::NoPath(error), now),
        };
        let Some((path, first)) = first else { return self.remove(id, CloseReason::Unbuilt, now) };
        circuit.path = path;
        circuit.layers.clear();
        circuit.extend = None;
        circuit.stage = Stage::Connecting;
        // The time for a link is not counted as time for building (Tor's arti#2079): guards would be blamed for it.
        let deadline = now.mono + self.config.connect;
        self.set_deadline(id, deadline);
        self.connect(id, first.relay.id, first.addresses, now);
    }

    fn set_deadline(&mut self, id: CircuitId, deadline: Instant) {
        if let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) {
            circuit.deadline = Some(deadline);
        }
        self.set_timer(id, deadline);
    }

    pub(super) fn handle_first_link(&mut self, id: CircuitId, link: LinkId, now: Now) {
        let attachment = self.links.attach(link, id);
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        circuit.link = attachment;
        if attachment.is_none() {
            return self.retry(id, CloseReason::Link, now);
        }
        self.begin_build(id, now);
    }

    /// Goes on from where the circuit stands to the end of its path.
    pub(super) fn begin_build(&mut self, id: CircuitId, now: Now) {
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        let from = circuit.layers.len();
        circuit.started = (now.mono, from);
        let deadline = now.mono + self.timeouts.timeout(steps(from, circuit.path.len()));
        self.set_deadline(id, deadline);
        self.next_hop(id, now);
    }

    /// Starts the handshake with the next relay of the path.
    fn next_hop(&mut self, id: CircuitId, now: Now) {
        let mut seed = zeroize::Zeroizing::new([0; 96]);
        self.rng.fill(seed.as_mut_slice());
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        let Some(hop) = circuit.path.get(circuit.layers.len()) else { return self.handle_open(id, now) };
        let Ok(waiting) = Waiting::new(hop.relay, &[VERSION], &seed) else {
            return self.retry(id, CloseReason::Violation, now);
        };
        match circuit.link {
            Some((link, hop_id)) if circuit.layers.is_empty() => {
                let cell = cells::with_sized(hop_id, Command::Create, waiting.request());
                if !self.links.push_control(link, cell) {
                    self.outputs.push_back(Output::Disconnect(link));
                }
            }
            _ => {
                let request = waiting.request().to_vec();
                let extend = Extend { next: hop.relay.id, hints: hop.addresses.clone(), request };
                let mut payload = Vec::new();
                Frame::Extend(extend).append(&mut payload);
                circuit.extend = Some(payload);
            }
        }
        circuit.stage = Stage::Building(Box::new(waiting));
        self.list_edge(id);
    }

    /// A cell of the last relay while the next one is waited for.
    pub(super) fn handle_building(&mut self, id: CircuitId, payload: &[u8], now: Now) {
        for frame in Frames::new(payload) {
            match frame {
                Ok(Frame::Extended(answer)) => return self.handle_answered(id, answer, now),
                Ok(Frame::Drop) => {}
                _ => return self.violate(id, now),
            }
        }
    }

    pub(super) fn handle_answered(&mut self, id: CircuitId, answer: &[u8], now: Now) {
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        let Stage::Building(waiting) = std::mem::replace(&mut circuit.stage, Stage::Connecting) else {
            return self.violate(id, now);
        };
        match waiting.finish(answer) {
            Ok((keys, _)) => {
                circuit.layers.push(ClientLayer::new(&keys.keys));
                circuit.binding = keys.binding;
                self.next_hop(id, now);
            }
            Err(_) => {
                self.drops.count(DropReason::BadMac);
                self.retry(id, CloseReason::Violation, now);
            }
        }
    }

    /// The last relay of the path has answered.
    fn handle_open(&mut self, id: CircuitId, now: Now) {
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        circuit.stage = Stage::Open;
        circuit.deadline = None;
        let (started, from) = circuit.started;
        let time = now.mono.saturating_duration_since(started);
        self.timeouts.handle_built(steps(from, circuit.path.len()), time);
        let relays: Vec<_> = circuit.path.iter().map(|hop| hop.relay.id).collect();
        self.suspects.handle_built(&relays);
        relays.first().into_iter().for_each(|guard| self.experiences.handle_built(guard));
        self.experiences.add(relays, true, 1.0);
        let Some(Circuit::Client(circuit)) = self.circuits.get(&id) else { return };
        let guard = circuit.guard().filter(|_| from == 0 && circuit.path.len() > 1);
        if let Some(guard) = guard
            && !self.paths.handle_built(guard, now)
        {
            return self.retry(id, CloseReason::Unbuilt, now);
        }
        let Some(Circuit::Client(circuit)) = self.circuits.get(&id) else { return };
        if circuit.purpose != Purpose::Spare {
            let hops = circuit.path.iter().map(|hop| hop.relay.id).collect();
            let (purpose, binding) = (circuit.purpose, circuit.binding);
            self.outputs.push_back(Output::Opened { circuit: id, purpose, hops, binding });
        }
        self.list_edge(id);
    }

    /// It took too long.
    pub(super) fn handle_late(&mut self, id: CircuitId, now: Now) {
        let Some(Circuit::Client(circuit)) = self.circuits.get(&id) else { return };
        match circuit.stage {
            // Cells were held for a hop that was not added.
            Stage::Open if circuit.held.is_some() => return self.violate(id, now),
            Stage::Open => return,
            Stage::Building(_) => {
                // The slowest fifth is late by design.
                let weight = if self.timeouts.is_generous() { experience::ENDED } else { experience::SLOW };
                self.timeouts.handle_timeout();
                self.note_unanswered(id, weight, now);
            }
            Stage::Connecting => {}
        }
        self.retry(id, CloseReason::Unbuilt, now);
    }

    /// The relay that is asked now did not answer, or somebody before it ended the circuit.
    pub(super) fn note_unanswered(&mut self, id: CircuitId, weight: f64, now: Now) {
        if let Some(Circuit::Client(circuit)) = self.circuits.get(&id)
            && matches!(circuit.stage, Stage::Building(_))
        {
            let reached = circuit.reached();
            self.suspects.handle_failed(&reached, now.mono);
            if let [guard, _] = reached.as_slice()
                && self.experiences.is_stuck(*guard)
            {
                self.paths.handle_failed(*guard, now);
            }
            self.experiences.add(reached, false, weight);
        }
    }

    /// Tries another path, as often as may be. What was to be sent waits for it.
    pub(super) fn retry(&mut self, id: CircuitId, reason: CloseReason, now: Now) {
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
        if let Some(guard) = circuit.guard().filter(|_| circuit.layers.is_empty() && circuit.path.len() > 1) {
            self.paths.handle_failed(guard, now);
        }
        if let Some(attachment) = circuit.link.take() {
            self.links.detach(attachment, now.mono);
            if !self.links.destroy(attachment) {
                self.outputs.push_back(Output::Disconnect(attachment.0));
            }
        }
        // The turn that it may have had on the old link finds nothing.
        circuit.is_listed = false;
        // Where the end is given and does not answer, other ways to it help little: whoever wants it may want another one.
        let is_end = circuit.layers.len() + 1 == circuit.path.len() && matches!(circuit.end, Some(End::Relay(_)));
        let cost = if is_end && circuit.path.len() > 1 { END_FAILED } else { 1 };
        let Some(attempts) = circuit.attempts.checked_sub(cost) else {
            let reason = if matches!(reason, CloseReason::NoPath(_)) { reason } else { CloseReason::Unbuilt };
            return self.remove(id, reason, now);
        };
        circuit.attempts = attempts;
        self.start(id, now);
    }

    /// Adds a hop whose other end is not a relay but somebody at the other end of the circuit, with a first stream if both have told each other of
    /// one; false if the circuit is not open, has a virtual hop, or had streams before the first.
    pub fn add_virtual_hop(
        &mut self,
        id: CircuitId,
        role: VirtualRole,
        (seed, transcript): (&[u8; 64], &[u8; 32]),
        first: Option<FirstStream>,
        now: Now,
    ) -> bool {
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return false };
        if !circuit.is_open() || circuit.is_virtual {
            return false;
        }
        let keys = HopKeys::virtual_hop(seed, transcript);
        circuit.is_virtual = true;
        circuit.binding = keys.binding;
        circuit.last_used = now.mono;
        let held = circuit.held.take().unwrap_or_default();
        match role {
            VirtualRole::Client => {
                circuit.layers.push(ClientLayer::new(&keys.keys));
                circuit.edge.handle_new_hop();
                if first.is_some_and(|first| circuit.edge.resume(first.early, first.said).is_none()) {
                    return false;
                }
            }
            VirtualRole::Service => {
                circuit.awaited = Some((RelayLayer::new(&keys.keys), first));
                circuit.begin_service();
            }
        }
        self.tell_begun(id);
        self.handle_held(id, held, now);
        self.list_edge(id);
        true
    }

    /// Cells that came before the hop that they are from was added.
    fn handle_held(&mut self, id: CircuitId, held: Vec<Body>, now: Now) {
        for mut body in held {
            let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return };
            match circuit.open_held(&mut body) {
                Some(tag) => self.handle_own(id, &body, tag, now),
                None => self.violate(id, now),
            }
        }
    }

    /// The relays of a circuit of this node's own.
    pub fn hops(&self, id: CircuitId) -> Vec<NodeId> {
        match self.circuits.get(&id) {
            Some(Circuit::Client(circuit)) => circuit.path.iter().map(|hop| hop.relay.id).collect(),
            _ => Vec::new(),
        }
    }

    /// Takes a spare circuit, which gets this number, to where `open` is to end; false if there is none that can be.
    fn take_spare(&mut self, id: CircuitId, open: &Open, now: Now) -> bool {
        let is_fit = |circuit: &ClientCircuit| {
            let is_kind = circuit.is_of_service == open.purpose.is_of_service();
            circuit.purpose == Purpose::Spare && is_kind && circuit.hops + 1 == open.hops
        };
        let spares = self.circuits.iter().filter_map(|(id, circuit)| match circuit {
            Circuit::Client(circuit) if is_fit(circuit) && circuit.is_open() => Some(*id),
            _ => None,
        });
        let mut spares: Vec<_> = spares.collect();
        spares.sort_unstable();
        let Some(spare) = spares.into_iter().find(|spare| self.extend_spare(*spare, open, now)) else { return false };
        if let Some(Circuit::Client(mut circuit)) = self.circuits.remove(&spare) {
            if let Some(attachment) = circuit.link {
                self.links.rename(attachment, id);
            }
            circuit.is_listed = false;
            self.circuits.insert(id, Circuit::Client(circuit));
            self.begin_build(id, now);
        }
        true
    }

    fn extend_spare(&mut self, id: CircuitId, open: &Open, now: Now) -> bool {
        let stem = self.hops(id);
        let Ok(end) = self.paths.end(&stem, &open.end, now) else { return false };
        let Some(Circuit::Client(circuit)) = self.circuits.get_mut(&id) else { return false };
        circuit.purpose = open.purpose;
        circuit.isolation = open.isolation;
        // Should it fail, the whole circuit is built again, to the same end.
        circuit.end = Some(match &open.end {
            End::Relay(hop) => End::Relay(hop.clone()),
            End::Exit { port } => End::Exit { port: *port },
        });
        circuit.hops = open.hops;
        circuit.attempts = self.config.attempts;
        circuit.used = Some(now.mono);
        circuit.last_used = now.mono;
        circuit.path.push(end);
        circuit.stage = Stage::Connecting;
        true
    }
}
