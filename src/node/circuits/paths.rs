//! How circuits choose relays: by the directory's rules, from the snapshot that the node goes by, through guards that are kept.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use fog_base::{Epoch, NodeId, Now, relay::Role};
use fog_circuits::{End, ExitPolicy, Hop, NoPath, PathSource, RelayKey};
use fog_directory::{
    Serving, Snapshot,
    core::{
        circuit_path::{CircuitHop, CircuitPaths, Config, End as PathEnd, NoCircuit},
        guards::{Output, Verdict},
        snapshot::SnapshotRelay,
    },
};
use fog_services::core::{
    period::Period,
    ring::{Ring, lan_beacon},
};

use crate::{
    keys::Keys,
    node::clock,
    store::{Batch, Store, Table},
};

/// Where the entry guards are kept.
const GUARDS_KEY: &[u8] = b"guards";

/// The relays, for the threads of circuits and the node.
#[derive(Debug, Clone)]
pub(in crate::node) struct Book {
    own: NodeId,
    /// None until there is a snapshot.
    paths: Arc<Mutex<Option<CircuitPaths>>>,
    restored: Arc<Option<Vec<u8>>>,
}

impl Book {
    /// With the guards of earlier runs.
    pub(in crate::node) fn new(keys: &Keys, store: &dyn Store) -> anyhow::Result<Self> {
        let restored = store.get(Table::Meta, GUARDS_KEY).context("the entry guards cannot be read")?;
        Ok(Self { own: keys.node_id(), paths: Arc::default(), restored: Arc::new(restored) })
    }

    /// For circuits.
    pub(super) fn source(&self) -> Box<dyn PathSource> {
        Box::new(Source(Arc::clone(&self.paths)))
    }

    /// The snapshot of the running epoch.
    pub(in crate::node) fn set_snapshot(&self, snapshot: &Snapshot, now: Now) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *paths {
            Some(paths) => paths.handle_snapshot(snapshot, now),
            None if snapshot.relays().is_empty() => {}
            None => *paths = self.open(snapshot, now),
        }
    }

    fn open(&self, snapshot: &Snapshot, now: Now) -> Option<CircuitPaths> {
        let config = || Config { own: self.own, guards: fog_directory::core::guards::Config::default(), takes_port };
        let seed = || crate::node::chat::random();
        let restored = CircuitPaths::new(config(), self.restored.as_deref(), snapshot, seed(), now);
        restored
            .inspect_err(|error| tracing::error!(%error, "the entry guards are damaged: new ones are chosen"))
            .or_else(|_| CircuitPaths::new(config(), None, snapshot, seed(), now))
            .ok()
    }

    /// What of the guards is to be kept, since the last time.
    pub(in crate::node) fn unsaved(&self) -> Option<Batch> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let Output::Persist(bytes) = paths.as_mut()?.poll_output()?;
        let mut batch = Batch::new();
        batch.put(Table::Meta, GUARDS_KEY, bytes);
        Some(batch)
    }
}

/// Relays as circuits end at them: those of a snapshot that have a circuit key.
pub(in crate::node) fn hops(snapshot: &Snapshot) -> Vec<Hop> {
    let hop = |relay: &SnapshotRelay| {
        let facts = relay.descriptor.facts();
        let addresses = facts.addresses.iter().map(|address| address.to_bytes()).collect();
        Some(Hop { relay: RelayKey { id: relay.hop.id, key: facts.circuit_key? }, addresses })
    };
    snapshot.relays().iter().filter_map(hop).collect()
}

fn takes_port(policy: &str, port: u16) -> bool {
    ExitPolicy::parse(policy).is_ok_and(|policy| policy.allows_port(port))
}

fn hop(hop: CircuitHop) -> Hop {
    Hop { relay: RelayKey { id: hop.id, key: hop.key }, addresses: hop.addresses }
}

fn no_path(error: &NoCircuit) -> NoPath {
    match error {
        NoCircuit::NoExit(port) => NoPath::NoExit(*port),
        _ => NoPath::TooFewRelays,
    }
}

#[derive(Debug)]
struct Source(Arc<Mutex<Option<CircuitPaths>>>);

impl Source {
    fn with<T>(&self, none: T, ask: impl FnOnce(&mut CircuitPaths) -> T) -> T {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.as_mut().map_or(none, ask)
    }
}

impl PathSource for Source {
    fn stem(&mut self, hops: usize, end: Option<&Hop>, now: Now) -> Result<Vec<Hop>, NoPath> {
        let found = self.with(Err(NoPath::TooFewRelays), |paths| {
            let end = end.map(|end| end.relay.id);
            paths.stem(hops, end, now).map_err(|error| {
                tracing::debug!(%error, "no path for a circuit");
                no_path(&error)
            })
        });
        Ok(found?.into_iter().map(hop).collect())
    }

    fn end(&mut self, stem: &[NodeId], end: &End, _: Now) -> Result<Hop, NoPath> {
        let wanted = match end {
            End::Relay(hop) => PathEnd::Relay(hop.relay.id),
            End::Exit { port } => PathEnd::Exit { port: *port },
        };
        let found =
            self.with(Err(NoPath::TooFewRelays), |paths| paths.end(stem, wanted).map_err(|error| no_path(&error)));
        found.map(hop)
    }

    fn is_open(&self, exit: &NodeId, port: u16) -> bool {
        self.with(false, |paths| paths.is_open(exit, port))
    }

    fn handle_built(&mut self, guard: NodeId, now: Now) -> bool {
        self.with(true, |paths| paths.handle_built(guard, now) == Verdict::Use)
    }

    fn handle_failed(&mut self, guard: NodeId, now: Now) {
        self.with((), |paths| paths.handle_failed(guard, now));
    }
}

impl super::EventLoop {
    /// Tells circuits and services what is known of the network now.
    pub(in crate::node) fn tell_circuits(&mut self, now: Now) {
        let epoch = self.network.schedule().at(now.unix);
        let Some(snapshot) = self.snapshots.get(&epoch) else { return };
        self.circuits.book.set_snapshot(snapshot, now);
        let network = fog_services::runtime::Network {
            relays: hops(snapshot),
            rings: self.rings(snapshot, epoch),
            is_relay: !self.config.roles.is_empty(),
        };
        if network != self.circuits.told {
            self.circuits.told = network.clone();
            self.circuits.desk.services.set_network(network);
        }
    }

    /// The rings of the periods that services are published for: as the chain of certified sets has them; where nothing is certified, all
    /// directories that are known, at places that anybody can compute ahead.
    fn rings(&self, snapshot: &Snapshot, epoch: Epoch) -> Vec<Ring> {
        let directory = &self.swarm.behaviour().directory;
        let running = Period::at(epoch);
        let periods = [running.previous(), running, running.next()].into_iter().filter(|period| period.is_open(epoch));
        let id = self.network.id;
        let serves = |relay: &&SnapshotRelay| relay.descriptor.facts().roles.has(Role::Directory);
        let directories: BTreeSet<_> = snapshot.relays().iter().filter(serves).map(|relay| relay.hop.id).collect();
        let ring = |period: Period| match directory.council() {
            Some(council) => match council.ring(u32::try_from(period.0).ok()?) {
                Some(ring) => {
                    let present = ring.relays.iter().filter(|relay| directories.contains(relay)).copied();
                    Some(Ring::new(id, period, &ring.beacon, present))
                }
                // Before anything is certified the relays of the network file serve; nobody can add one next to a service.
                None if council.serving(epoch) == Serving::Genesis => {
                    let named = self.network.genesis.iter().map(|(relay, _)| *relay);
                    let present = named.filter(|relay| directories.contains(relay));
                    Some(Ring::new(id, period, &lan_beacon(&id), present))
                }
                None => None,
            },
            None => Some(Ring::new(id, period, &lan_beacon(&id), directories.iter().copied())),
        };
        periods.filter_map(ring).collect()
    }

    /// Regularly: guards are kept.
    pub(in crate::node) fn circuits_tick(&mut self) {
        if let Some(batch) = self.circuits.book.unsaved() {
            // A guard that is not kept is chosen again after a restart.
            let _queued = self.store.submit(batch, crate::store::Durability::Synced);
        }
        self.tell_circuits(clock::now());
    }
}
