//! How circuits choose relays: by the directory's rules, from the snapshot that the node goes by, through guards that are kept.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use fog_base::{Epoch, NodeId, Now, relay::Role};
use fog_circuits::{End, ExitPolicy, Hop, NoPath, PathSource, RelayKey};
use fog_directory::{
    Serving, Snapshot,
    core::{
        circuit_path::{CircuitHop, CircuitPaths, Config, ENOUGH, End as PathEnd, Kept, NoCircuit, Output},
        guards::Verdict,
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

/// Where the entry guards are kept, and those of the second layer.
const GUARDS_KEY: &[u8] = b"guards";
const SECOND_LAYER_KEY: &[u8] = b"second-layer guards";
/// How often it is asked which relays fail.
const JUDGED: Duration = Duration::from_secs(10);

/// The relays, for the threads of circuits and the node.
#[derive(Debug, Clone)]
pub(in crate::node) struct Book {
    own: NodeId,
    inner: Arc<Mutex<Inner>>,
    /// The entry guards, and those of the second layer.
    restored: Arc<[Option<Vec<u8>>; 2]>,
}

#[derive(Debug, Default)]
struct Inner {
    /// None until there is a snapshot.
    paths: Option<CircuitPaths>,
    /// Relays that did not answer a moment ago.
    suspects: Vec<NodeId>,
    /// Relays that failed so often that it is known.
    failing: HashSet<NodeId>,
}

impl Inner {
    fn tell_avoided(&mut self) {
        if let Some(paths) = &mut self.paths {
            paths.set_avoided(self.failing.iter().chain(&self.suspects).copied().collect());
        }
    }
}

impl Book {
    /// With the guards of earlier runs.
    pub(in crate::node) fn new(keys: &Keys, store: &dyn Store) -> anyhow::Result<Self> {
        let read = |key| store.get(Table::Meta, key).context("the guards of circuits cannot be read");
        let restored = [read(GUARDS_KEY)?, read(SECOND_LAYER_KEY)?];
        Ok(Self { own: keys.node_id(), inner: Arc::default(), restored: Arc::new(restored) })
    }

    /// For circuits.
    pub(super) fn source(&self) -> Box<dyn PathSource> {
        Box::new(Source(Arc::clone(&self.inner)))
    }

    /// The snapshot of the running epoch.
    pub(in crate::node) fn set_snapshot(&self, snapshot: &Snapshot, now: Now) {
        let mut inner = self.lock();
        match &mut inner.paths {
            Some(paths) => paths.handle_snapshot(snapshot, now),
            None if snapshot.relays().is_empty() => {}
            None => {
                inner.paths = self.open(snapshot, now);
                inner.tell_avoided();
            }
        }
    }

    /// Relays that are passed over where there are others, until this is said again.
    fn set_failing(&self, failing: HashSet<NodeId>) {
        let mut inner = self.lock();
        if inner.failing != failing {
            inner.failing = failing;
            inner.tell_avoided();
        }
    }

    /// How many unrelated relays are known beside this node, up to as many as circuits of services need for one relay more; none before the first
    /// snapshot.
    pub(in crate::node) fn unrelated(&self) -> Option<usize> {
        self.lock().paths.as_ref().map(CircuitPaths::unrelated)
    }

    /// How many relays are passed over because they failed often, and because they did not answer a moment ago.
    pub(in crate::node) fn passed_over(&self) -> [usize; 2] {
        let inner = self.lock();
        [inner.failing.len(), inner.suspects.len()]
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, snapshot: &Snapshot, now: Now) -> Option<CircuitPaths> {
        let config = || Config { own: self.own, guards: fog_directory::core::guards::Config::default(), takes_port };
        let seed = || crate::node::chat::random();
        let [guards, second] = self.restored.each_ref().map(Option::as_deref);
        let open = |kept| CircuitPaths::new(config(), kept, snapshot, seed(), now);
        // What of it is not damaged stays.
        open(Kept { guards, second })
            .inspect_err(|error| tracing::error!(%error, "guards are damaged: new ones are chosen"))
            .or_else(|_| open(Kept { guards, second: None }))
            .or_else(|_| open(Kept { guards: None, second }))
            .or_else(|_| open(Kept::default()))
            .ok()
    }

    /// What of the guards is to be kept, since the last time.
    pub(in crate::node) fn unsaved(&self) -> Option<Batch> {
        let mut inner = self.lock();
        let paths = inner.paths.as_mut()?;
        let (mut batch, mut is_any) = (Batch::new(), false);
        while let Some(output) = paths.poll_output() {
            is_any = true;
            match output {
                Output::Guards(bytes) => batch.put(Table::Meta, GUARDS_KEY, bytes),
                Output::SecondLayer(bytes) => batch.put(Table::Meta, SECOND_LAYER_KEY, bytes),
            };
        }
        is_any.then_some(batch)
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
struct Source(Arc<Mutex<Inner>>);

impl Source {
    fn with<T>(&self, none: T, ask: impl FnOnce(&mut CircuitPaths) -> T) -> T {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.paths.as_mut().map_or(none, ask)
    }

    fn find(
        &self,
        end: Option<&Hop>,
        find: impl FnOnce(&mut CircuitPaths, Option<NodeId>) -> Result<Vec<CircuitHop>, NoCircuit>,
    ) -> Result<Vec<Hop>, NoPath> {
        let found = self.with(Err(NoPath::TooFewRelays), |paths| {
            find(paths, end.map(|end| end.relay.id)).map_err(|error| {
                tracing::debug!(%error, "no path for a circuit");
                no_path(&error)
            })
        });
        Ok(found?.into_iter().map(hop).collect())
    }
}

impl PathSource for Source {
    fn stem(&mut self, hops: usize, end: Option<&Hop>, now: Now) -> Result<Vec<Hop>, NoPath> {
        self.find(end, |paths, end| paths.stem(hops, end, now))
    }

    fn service_stem(&mut self, hops: usize, end: Option<&Hop>, now: Now) -> Result<Vec<Hop>, NoPath> {
        self.find(end, |paths, end| paths.service_stem(hops, end, now))
    }

    fn set_suspects(&mut self, relays: Vec<NodeId>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.suspects != relays {
            inner.suspects = relays;
            inner.tell_avoided();
        }
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
            has_long_paths: self.circuits.book.unrelated().is_none_or(|unrelated| unrelated >= ENOUGH),
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

    /// What people who use services should know.
    pub(in crate::node) fn short_paths_warning(&self) -> Option<String> {
        let unrelated = self.circuits.book.unrelated().filter(|unrelated| *unrelated < ENOUGH)?;
        Some(format!(
            "circuits of services and to them have three relays, not four: {ENOUGH} unrelated relays beside this node are needed, and {unrelated} are known"
        ))
    }

    /// Regularly: guards are kept.
    pub(in crate::node) fn circuits_tick(&mut self) {
        if let Some(batch) = self.circuits.book.unsaved() {
            // A guard that is not kept is chosen again after a restart.
            let _queued = self.store.submit(batch, crate::store::Durability::Synced);
        }
        let now = clock::now();
        self.tell_circuits(now);
        if self.circuits.judged.is_none_or(|judged| now.mono.saturating_duration_since(judged) >= JUDGED) {
            self.circuits.judged = Some(now.mono);
            let snapshot = self.snapshots.get(&self.network.schedule().at(now.unix));
            let relays: Vec<_> = snapshot.into_iter().flat_map(Snapshot::relays).map(|relay| relay.hop.id).collect();
            self.circuits.book.set_failing(self.failing_relays(&relays));
        }
    }
}
