//! Whose circuits are which: the cores name circuits by numbers of their own.

use std::collections::BTreeMap;

use fog_circuits::{CircuitId, Purpose};

use crate::core::circuit::{self, Circuit};

/// Who asked for a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The client.
    Client,
    /// The service of this number.
    Service(u64),
}

/// Circuits that this node built for its client and its services.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_id: BTreeMap<CircuitId, (Owner, Circuit)>,
    by_owner: BTreeMap<(Owner, Circuit), CircuitId>,
}

impl Table {
    pub(super) fn insert(&mut self, owner: Owner, circuit: Circuit, id: CircuitId) {
        self.by_id.insert(id, (owner, circuit));
        self.by_owner.insert((owner, circuit), id);
    }

    /// What its owner calls it.
    pub(super) fn owner(&self, id: CircuitId) -> Option<(Owner, Circuit)> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn id(&self, owner: Owner, circuit: Circuit) -> Option<CircuitId> {
        self.by_owner.get(&(owner, circuit)).copied()
    }

    /// It is its owner's no more.
    pub(super) fn remove(&mut self, id: CircuitId) -> Option<(Owner, Circuit)> {
        let (owner, circuit) = self.by_id.remove(&id)?;
        self.by_owner.remove(&(owner, circuit));
        Some((owner, circuit))
    }

    /// All of an owner.
    pub(super) fn remove_all(&mut self, owner: Owner) -> Vec<CircuitId> {
        let all: Vec<_> = self.by_id.iter().filter(|(_, (of, _))| *of == owner).map(|(id, _)| *id).collect();
        for id in &all {
            self.remove(*id);
        }
        all
    }
}

pub(super) fn purpose(purpose: circuit::Purpose) -> Purpose {
    match purpose {
        circuit::Purpose::Directory => Purpose::Directory,
        circuit::Purpose::Introduce => Purpose::Introduce,
        circuit::Purpose::Rendezvous => Purpose::Rendezvous,
        circuit::Purpose::ServiceIntroduction => Purpose::ServiceIntroduction,
        circuit::Purpose::ServiceRendezvous => Purpose::ServiceRendezvous,
        circuit::Purpose::Probe => Purpose::Probe,
    }
}
