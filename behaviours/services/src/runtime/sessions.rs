//! Connections to services: those that are being made and who waits for them, and those that are open.

use std::collections::BTreeMap;

use fog_circuits::{CircuitId, Isolation, Stream};
use tokio::sync::{oneshot, watch};

use super::{Found, Stage, Wanted};
use crate::core::{
    address::Address,
    client::{ConnectionId, Failure},
    descriptor::ClientKey,
    introduction::MAX_EARLY,
};

/// Those that wait for one connection.
const MAX_WAITERS: usize = 1024;

/// Streams may share a session if all of this is equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    address: [u8; 32],
    isolation: Isolation,
    client: Option<[u8; 32]>,
}

impl Key {
    pub(super) fn new(address: &Address, isolation: Isolation, client: Option<&ClientKey>) -> Self {
        Self { address: *address.key().as_bytes(), isolation, client: client.map(|key| key.0) }
    }
}

/// Who waits for a stream.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) port: u16,
    pub(super) early: Vec<u8>,
    stage: watch::Sender<Option<Stage>>,
    pub(super) reply: oneshot::Sender<Result<Stream, Failure>>,
}

impl Waiter {
    pub(super) fn new(wanted: Wanted, reply: oneshot::Sender<Result<Stream, Failure>>) -> Self {
        Self { port: wanted.port, early: wanted.early, stage: wanted.stage, reply }
    }

    /// How many of its first bytes an introduction takes.
    pub(super) fn said(&self) -> usize {
        self.early.len().min(MAX_EARLY)
    }
}

/// What a connection is made for.
#[derive(Debug)]
pub(super) enum Making {
    /// Streams.
    Session(Key, Vec<Waiter>),
    /// Its descriptor alone.
    Lookup(oneshot::Sender<Result<Found, Failure>>),
    /// The service of this number tests itself.
    Probe(u64),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    making: BTreeMap<ConnectionId, Making>,
    by_key: BTreeMap<Key, ConnectionId>,
    open: BTreeMap<Key, CircuitId>,
    circuits: BTreeMap<CircuitId, Key>,
}

impl Sessions {
    /// The circuit of an open session.
    pub(super) fn open(&self, key: &Key) -> Option<CircuitId> {
        self.open.get(key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Waits for a connection that is being made already; gives the waiter back if there is none.
    pub(super) fn join(&mut self, key: &Key, waiter: Waiter) -> Option<Waiter> {
        let making = self.by_key.get(key).and_then(|id| self.making.get_mut(id));
        match making {
            Some(Making::Session(_, waiters)) if waiters.len() < MAX_WAITERS => {
                waiters.push(waiter);
                None
            }
            Some(_) => {
                // Whoever left needs no answer.
                let _left = waiter.reply.send(Err(Failure::TooMany));
                None
            }
            None => Some(waiter),
        }
    }

    pub(super) fn begin(&mut self, id: ConnectionId, making: Making) {
        if let Making::Session(key, _) = &making {
            self.by_key.insert(key.clone(), id);
        }
        self.making.insert(id, making);
    }

    pub(super) fn isolation(&self, id: ConnectionId) -> Isolation {
        match self.making.get(&id) {
            Some(Making::Session(key, _)) => key.isolation,
            // Shares nothing with anybody, and no two of these with each other.
            _ => Isolation(*blake3::keyed_hash(&[0; 32], &id.0.to_be_bytes()).as_bytes()),
        }
    }

    pub(super) fn set_stage(&self, id: ConnectionId, stage: Stage) {
        if let Some(Making::Session(_, waiters)) = self.making.get(&id) {
            for waiter in waiters {
                waiter.stage.send_replace(Some(stage));
            }
        }
    }

    /// It is made, or failed.
    pub(super) fn end(&mut self, id: ConnectionId) -> Option<Making> {
        let making = self.making.remove(&id)?;
        if let Making::Session(key, _) = &making {
            self.by_key.remove(key);
        }
        Some(making)
    }

    pub(super) fn opened(&mut self, key: Key, circuit: CircuitId) {
        self.circuits.insert(circuit, key.clone());
        self.open.insert(key, circuit);
    }

    /// The next stream gets a session of its own; those of this one go on.
    pub(super) fn renew(&mut self, key: &Key) {
        self.open.remove(key);
    }

    pub(super) fn closed(&mut self, circuit: CircuitId) {
        if let Some(key) = self.circuits.remove(&circuit)
            && self.open.get(&key) == Some(&circuit)
        {
            self.open.remove(&key);
        }
    }

    /// Connections that nobody waits for any more.
    pub(super) fn abandoned(&self) -> Vec<ConnectionId> {
        let is_abandoned = |making: &Making| match making {
            Making::Session(_, waiters) => waiters.iter().all(|waiter| waiter.reply.is_closed()),
            Making::Lookup(reply) => reply.is_closed(),
            Making::Probe(_) => false,
        };
        self.making.iter().filter(|(_, making)| is_abandoned(making)).map(|(id, _)| *id).collect()
    }
}
