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

impl Core {
    pub(super) fn tick(&mut self, now: Now) {
        self.make_room(now);
        self.close_idle(now);
        self.build_spares(now);
        for link in now.mono.checked_sub(LINK_IDLE).map(|before| self.links.empty_since(before)).unwrap_or_default() {
            self.outputs.push_back(Output::Disconnect(link));
        }
    }

    /// A spare circuit has one relay less than others: whoever needs it says where it ends.
    fn build_spares(&mut self, now: Now) {
        let hops = self.config.hops.saturating_sub(1);
        if self.no_spares_until.is_some_and(|until| until > now.mono) || hops == 0 {
            return;
        }
        let is_spare =
            |circuit: &&Circuit| matches!(circuit, Circuit::Client(circuit) if circuit.purpose == Purpose::Spare);
        for _ in self.circuits.values().filter(is_spare).count()..self.config.spares {
            if self.counts().own >= self.config.max_own {
                return;
            }
            let circuit = ClientCircuit::new(Purpose::Spare, None, Isolation::default(), hops, now.mono);
            let id = self.insert(Circuit::Client(Box::new(circuit)));
            self.start(id, now);
            if !self.circuits.contains_key(&id) {
                self.no_spares_until = Some(now.mono + PAUSE);
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
