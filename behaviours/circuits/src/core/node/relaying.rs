//! Circuits of others: how they come here, go on from here, and are joined here.

use std::time::Duration;

use fog_base::{DropReason, NodeId, Now};
use rand::RngExt;

use super::{Circuit, Core, cells};
use crate::{
    core::{
        cell::{Cell, Command},
        client::Stage,
        crypto::layer::RelayLayer,
        links::{Attachment, Way},
        relay::{Next, RelayCircuit},
        types::{Answer, CircuitId, CloseReason, Job, LinkId, Output},
    },
    wire::Extend,
};

/// A link that has not come about for so long is asked for again.
const RECONNECT: Duration = Duration::from_secs(30);

impl Core {
    pub(super) fn handle_create(&mut self, at: Attachment, cell: &Cell, now: Now) {
        let Some(request) = cells::sized(cell.body()) else { return self.handle_garbage(at.0) };
        if self.config.drops_circuits > 0.0 && self.rng.random_bool(self.config.drops_circuits.min(1.0)) {
            return;
        }
        if let Err(reason) = self.may_create(at.0, now) {
            return self.refuse(at, reason);
        }
        let circuit = self.insert(Circuit::Relay(Box::new(RelayCircuit::new(at, now.mono))));
        if !self.links.attach_back(at, circuit) {
            // A number that is in use, or not the peer's to choose.
            self.circuits.remove(&circuit);
            self.counts.relayed -= 1;
            return self.handle_garbage(at.0);
        }
        self.counts.half_open += 1;
        let mut seed = [0; 64];
        self.rng.fill(&mut seed);
        let secret = std::sync::Arc::clone(&self.secret);
        self.outputs.push_back(Output::Run(Job { circuit, secret, request: request.to_vec(), seed }));
    }

    fn may_create(&mut self, link: LinkId, now: Now) -> Result<(), DropReason> {
        if !self.config.is_relay {
            return Err(DropReason::NoRoute);
        }
        let Some(link) = self.links.get_mut(link) else { return Err(DropReason::NoRoute) };
        if !link.creates.try_take(now.mono) {
            return Err(DropReason::RateLimited);
        }
        let peer = link.peer;
        if self.counts.half_open >= self.config.max_half_open || self.counts.relayed >= self.config.max_circuits {
            return Err(DropReason::QueueFull);
        }
        if self.links.circuits_of(&peer) >= self.config.max_circuits_per_peer {
            return Err(DropReason::RateLimited);
        }
        Ok(())
    }

    fn refuse(&mut self, at: Attachment, reason: DropReason) {
        self.drops.count(reason);
        if !self.links.destroy(at) {
            self.outputs.push_back(Output::Disconnect(at.0));
        }
    }

    /// A [`Job`] is done.
    pub fn handle_answer(&mut self, answer: Answer, now: Now) {
        let id = answer.circuit;
        let Some(Circuit::Relay(circuit)) = self.circuits.get_mut(&id) else { return };
        let Some((keys, answer)) = answer.result else {
            self.drops.count(DropReason::BadMac);
            self.remove(id, CloseReason::Violation, now);
            return;
        };
        circuit.layer = Some(RelayLayer::new(&keys.keys));
        self.counts.half_open -= 1;
        circuit.binding = keys.binding;
        let (link, hop) = circuit.prev;
        if !self.links.push_control(link, cells::with_sized(hop, Command::Created, &answer)) {
            self.outputs.push_back(Output::Disconnect(link));
        }
    }

    pub(super) fn handle_extend(&mut self, id: CircuitId, extend: Extend, now: Now) {
        let Some(Circuit::Relay(circuit)) = self.circuits.get_mut(&id) else { return self.violate(id, now) };
        let is_back = self.links.peer(circuit.prev.0) == Some(extend.next);
        if !matches!(circuit.next, Next::None) || circuit.held.is_some() || is_back || extend.next == self.id {
            return self.violate(id, now);
        }
        circuit.next = Next::Connecting { node: extend.next, request: extend.request };
        self.counts.half_open += 1;
        let deadline = now.mono + self.config.connect;
        circuit.deadline = Some(deadline);
        self.set_timer(id, deadline);
        self.connect(id, extend.next, extend.hints, now);
    }

    /// Waits for a link to `node`, or goes on at once.
    pub(super) fn connect(&mut self, id: CircuitId, node: NodeId, addresses: Vec<Vec<u8>>, now: Now) {
        if let Some(link) = self.links.with(&node) {
            return self.handle_connected(id, link, now);
        }
        let (since, waiting) = self.connecting.entry(node).or_insert((now.mono, Vec::new()));
        let is_due = waiting.is_empty() || now.mono.saturating_duration_since(*since) > RECONNECT;
        waiting.push(id);
        if is_due {
            *since = now.mono;
            let is_hint = matches!(self.circuits.get(&id), Some(Circuit::Relay(_)));
            self.outputs.push_back(Output::Connect { node, addresses, is_hint });
        }
    }

    /// Whether a circuit still waits for a link to `node`: it may have another path by now.
    pub(super) fn waits_for(&self, id: CircuitId, node: NodeId) -> bool {
        match self.circuits.get(&id) {
            Some(Circuit::Client(circuit)) => {
                let is_next = circuit.guard() == Some(node);
                is_next && circuit.link.is_none() && matches!(circuit.stage, Stage::Connecting)
            }
            Some(Circuit::Relay(circuit)) => {
                matches!(&circuit.next, Next::Connecting { node: next, .. } if *next == node)
            }
            None => false,
        }
    }

    /// The link that a circuit waited for is there.
    pub(super) fn handle_connected(&mut self, id: CircuitId, link: LinkId, now: Now) {
        if let Some(Circuit::Client(_)) = self.circuits.get(&id) {
            return self.handle_first_link(id, link, now);
        }
        let Some(Circuit::Relay(circuit)) = self.circuits.get_mut(&id) else { return };
        let Next::Connecting { request, .. } = &circuit.next else { return };
        let Some(next) = self.links.attach(link, id) else { return self.remove(id, CloseReason::Link, now) };
        let cell = cells::with_sized(next.1, Command::Create, request);
        circuit.next = Next::Creating(next);
        if !self.links.push_control(link, cell) {
            self.outputs.push_back(Output::Disconnect(link));
        }
    }

    /// Joins two circuits that end here; false if one of them does not, or is joined.
    pub fn join(&mut self, a: CircuitId, b: CircuitId, now: Now) -> bool {
        let is_free = |id: &CircuitId| matches!(self.circuits.get(id), Some(Circuit::Relay(circuit)) if matches!(circuit.next, Next::None) && circuit.layer.is_some());
        if a == b || !is_free(&a) || !is_free(&b) {
            return false;
        }
        let mut held = Vec::new();
        for (one, other) in [(a, b), (b, a)] {
            if let Some(Circuit::Relay(circuit)) = self.circuits.get_mut(&one) {
                circuit.next = Next::Joined(other);
                circuit.deadline = None;
                held.extend(circuit.held.take().unwrap_or_default().into_iter().map(|(cell, _)| (other, cell)));
            }
            self.list(one, Way::Back);
        }
        self.counts.queued_cells -= held.len();
        for (other, cell) in held {
            self.pass(other, Way::Back, cell, now);
        }
        true
    }
}
