//! Circuits that are built ahead of need, and circuits that are needed no more.

use std::time::Duration;

use fog_base::Now;

use super::{Circuit, Core, LINK_IDLE};
use crate::core::{
    client::ClientCircuit,
    types::{CircuitId, CloseReason, Isolation, Output, Purpose},
};

/// After a spare circuit could not be built, so long none is tried.
const PAUSE: Duration = Duration::from_secs(10);
/// A rendezvous without streams is closed after so long.
const RENDEZVOUS_IDLE: Duration = Duration::from_secs(120);

/// Spare circuits of one kind stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    is_of_service: bool,
    relays: usize,
}

impl Kind {
    fn of(circuit: &ClientCircuit) -> Self {
        Self { is_of_service: circuit.is_of_service, relays: circuit.hops }
    }
}

impl Core {
    pub(super) fn tick(&mut self, now: Now) {
        self.make_room(now);
        self.close_idle(now);
        self.build_spares(now);
        self.outputs.extend(self.experiences.due(now.mono, &mut self.rng).map(Output::Experience));
        for link in now.mono.checked_sub(LINK_IDLE).map(|before| self.links.empty_since(before)).unwrap_or_default() {
            self.outputs.push_back(Output::Disconnect(link));
        }
    }

    /// A spare circuit has one relay less than others: whoever needs it says where it ends. Those for services are apart from others.
    fn build_spares(&mut self, now: Now) {
        let usual = (Kind { is_of_service: false, relays: self.config.hops.saturating_sub(1) }, self.config.spares);
        let of_services = |(relays, count): &(usize, usize)| (Kind { is_of_service: true, relays: *relays }, *count);
        let kinds: Vec<_> = [usual].into_iter().chain(self.config.service_spares.iter().map(of_services)).collect();
        for (kind, count) in kinds.into_iter().filter(|(kind, _)| kind.relays > 0) {
            if self.no_spares_until.get(&kind).is_none_or(|until| *until <= now.mono) {
                self.build_spares_of(kind, count, now);
            }
        }
    }

    fn build_spares_of(&mut self, kind: Kind, count: usize, now: Now) {
        let is_one = |circuit: &&Circuit| match circuit {
            Circuit::Client(circuit) => circuit.purpose == Purpose::Spare && Kind::of(circuit) == kind,
            Circuit::Relay(_) => false,
        };
        for _ in self.circuits.values().filter(is_one).count()..count {
            if self.counts().own >= self.config.max_own {
                return;
            }
            let mut circuit = ClientCircuit::new(Purpose::Spare, None, Isolation::default(), kind.relays, now.mono);
            circuit.is_of_service = kind.is_of_service;
            let id = self.insert(Circuit::Client(Box::new(circuit)));
            self.start(id, now);
            if !self.circuits.contains_key(&id) {
                self.no_spares_until.insert(kind, now.mono + PAUSE);
                return;
            }
        }
    }

    fn close_idle(&mut self, now: Now) {
        let since = |at| now.mono.saturating_duration_since(at);
        let (idle, dirty) = (self.config.idle, self.config.max_dirtiness);
        let is_idle = |circuit: &Circuit| match circuit {
            Circuit::Client(circuit) => {
                let is_over =
                    circuit.purpose == Purpose::General && circuit.used.is_some_and(|used| since(used) > dirty);
                let has_streams = circuit.edge.streams().next().is_some();
                // Whoever is at the other end of a rendezvous may be a stranger, who could have as many of them as there is room for.
                let is_rendezvous = matches!(circuit.purpose, Purpose::Rendezvous | Purpose::ServiceRendezvous);
                let idle = if is_rendezvous { idle.min(RENDEZVOUS_IDLE) } else { idle };
                circuit.is_open() && !has_streams && (is_over || since(circuit.last_used) > idle)
            }
            Circuit::Relay(circuit) => since(circuit.last_used) > idle * 2,
        };
        let over: Vec<CircuitId> =
            self.circuits.iter().filter(|(_, circuit)| is_idle(circuit)).map(|(id, _)| *id).collect();
        for id in over {
            self.remove(id, CloseReason::Idle, now);
        }
    }
}
