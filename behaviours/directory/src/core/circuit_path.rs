//! Relays for circuits: an entry guard, middles by weight, and an end; no relay twice, no two that one operator may hold.
//!
//! The guard is the client's own (`guards.rs`); all else is drawn from the snapshot, with shares that are the same at every node
//! which has that snapshot, as for the paths of packets (`path.rs`). Layers do not matter here: they are for mixing. Who has no
//! circuit key in its descriptor, or no weight, is not drawn; an end that is asked for by name needs the key alone.
//!
//! Circuits are not known here. What they ask for is a stem, an end for a stem, and what became of the guard.

use std::collections::HashSet;

use fog_base::{NodeId, Now, relay::Role};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    guards::{self, BadState, Guards, Verdict},
    path::{DRAWS, Pool, fit, random_order, search},
    snapshot::{Snapshot, SnapshotRelay},
};

/// Whether an exit with this published policy takes connections to a port.
pub type TakesPort = fn(policy: &str, port: u16) -> bool;

/// A relay of a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitHop {
    /// Who it is.
    pub id: NodeId,
    /// Its circuit key: X25519, torsion-free, canonical.
    pub key: [u8; 32],
    /// Where it can be dialled: binary multiaddrs.
    pub addresses: Vec<Vec<u8>>,
}

/// Where a circuit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At this relay.
    Relay(NodeId),
    /// At an exit whose policy takes connections to this port.
    Exit {
        /// Which port.
        port: u16,
    },
}

/// Why there is no circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCircuit {
    /// There are not as many relays, with no two of one family or network, as were asked for.
    #[error("the circuit needs {needed} unrelated relays before its end, and {known} were found")]
    TooFewRelays {
        /// How many were asked for.
        needed: usize,
        /// How many were found.
        known: usize,
    },
    /// No relay with the role `guard` that the circuit may start at.
    #[error("no relay offers to be the first of a circuit")]
    NoGuard,
    /// No exit takes the port, or only those that are related to the other relays.
    #[error("no relay opens connections to port {0}")]
    NoExit(u16),
    /// Not in the snapshot (any more), or without a circuit key.
    #[error("{0} is not a relay that circuits can use")]
    UnknownRelay(NodeId),
    /// This node itself, or on the circuit already, or related to a relay on it.
    #[error("{0} may not stand on this circuit")]
    Unfit(NodeId),
}

/// Whose circuits, and by which rules.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node: on none of its own circuits but as their end.
    pub own: NodeId,
    /// For the entry guards.
    pub guards: guards::Config,
    /// Reads the policies of exits.
    pub takes_port: TakesPort,
}

/// The relays of a snapshot by the place that they may take.
#[derive(Debug)]
struct Relays {
    own: NodeId,
    snapshot: Snapshot,
    middles: Pool,
    exits: Pool,
}

/// Chooses the relays of this node's circuits.
#[derive(Debug)]
pub struct CircuitPaths {
    config: Config,
    relays: Relays,
    guards: Guards,
    rng: StdRng,
}

impl CircuitPaths {
    /// From the guards that were kept ([`guards::Output::Persist`]), or without any, and the snapshot of the running epoch.
    pub fn new(
        config: Config,
        restored: Option<&[u8]>,
        snapshot: &Snapshot,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, BadState> {
        let mut rng = StdRng::from_seed(seed);
        let guards = Guards::new(config.guards.clone(), restored, rng.random())?;
        let relays = Relays::new(snapshot, config.own);
        let mut paths = Self { config, relays, guards, rng };
        paths.handle_snapshot(snapshot, now);
        Ok(paths)
    }

    /// Takes the relays of the running epoch. An empty snapshot, when nothing serves, tells nothing of the guards: they are kept.
    pub fn handle_snapshot(&mut self, snapshot: &Snapshot, now: Now) {
        self.relays = Relays::new(snapshot, self.config.own);
        let guards: Vec<_> = self.relays.guards().map(|guard| (guard.hop.id, guard.weight)).collect();
        if !snapshot.relays().is_empty() {
            self.guards.handle_snapshot(&guards, now);
        }
    }

    /// The first `hops` relays of a circuit, a guard first, none of them related to `end`.
    pub fn stem(&mut self, hops: usize, end: Option<NodeId>, now: Now) -> Result<Vec<CircuitHop>, NoCircuit> {
        let Self { relays, guards, rng, .. } = self;
        let end = end.map(|end| relays.find(end)).transpose()?;
        let Some(middles) = hops.checked_sub(1) else { return Ok(Vec::new()) };
        let others = |guard: &NodeId| -> Option<Vec<&SnapshotRelay>> {
            let guard = relays.guard(*guard).filter(|guard| end.is_none_or(|end| fit(guard, end)))?;
            Some([guard].into_iter().chain(end).collect())
        };
        let picked = guards.pick(|guard| others(guard).is_some(), now).and_then(|guard| others(&guard));
        let mut most = match relays.middles(&picked.ok_or(NoCircuit::NoGuard)?, middles, rng) {
            Ok(path) => return Ok(hops_of(&path)),
            Err(known) => known,
        };
        // Too few are unrelated to this guard: another one, if that helps.
        let mut leaves_enough = |guard: &NodeId| {
            let found = others(guard).map_or(Err(0), |others| relays.middles(&others, middles, rng));
            most = found.as_ref().err().map_or(most, |known| most.max(*known));
            found.is_ok()
        };
        let good: HashSet<_> = guards.listed_relays().filter(|guard| leaves_enough(guard)).collect();
        let picked = guards.pick(|guard| good.contains(guard), now).and_then(|guard| others(&guard));
        let path = picked.and_then(|others| relays.middles(&others, middles, rng).ok());
        path.map(|path| hops_of(&path)).ok_or(NoCircuit::TooFewRelays { needed: hops, known: most + 1 })
    }

    /// The relay after `stem` at which a circuit to `end` ends. [`NoCircuit::UnknownRelay`] with an id of the stem: that relay is in
    /// the snapshot no more.
    pub fn end(&mut self, stem: &[NodeId], end: End) -> Result<CircuitHop, NoCircuit> {
        let relays = &self.relays;
        let stem = stem.iter().map(|relay| relays.find(*relay)).collect::<Result<Vec<_>, _>>()?;
        let fits = |relay: &SnapshotRelay| stem.iter().all(|hop| fit(hop, relay));
        let found = match end {
            End::Relay(relay) => Some(relays.find(relay)?).filter(|relay| fits(relay)).ok_or(NoCircuit::Unfit(relay)),
            End::Exit { port } => {
                let takes = |relay: &SnapshotRelay| takes(relay, self.config.takes_port, port) && fits(relay);
                relays.exit(takes, &mut self.rng).ok_or(NoCircuit::NoExit(port))
            }
        };
        found.and_then(|relay| hop(relay).ok_or(NoCircuit::UnknownRelay(relay.hop.id)))
    }

    /// Whether this relay is an exit whose policy takes connections to the port.
    pub fn is_open(&self, exit: &NodeId, port: u16) -> bool {
        self.relays.find(*exit).is_ok_and(|relay| {
            relay.descriptor.facts().roles.has(Role::Exit) && takes(relay, self.config.takes_port, port)
        })
    }

    /// A circuit was built through `guard`: whether it is to be used, or another guard first.
    pub fn handle_built(&mut self, guard: NodeId, now: Now) -> Verdict {
        self.guards.handle_success(guard, now)
    }

    /// No circuit could be built through `guard`.
    pub fn handle_failed(&mut self, guard: NodeId, now: Now) {
        self.guards.handle_failure(guard, now);
    }

    /// What is to be kept.
    pub fn poll_output(&mut self) -> Option<guards::Output> {
        self.guards.poll_output()
    }

    /// The entry guards, to be shown.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }
}

impl Relays {
    fn new(snapshot: &Snapshot, own: NodeId) -> Self {
        let pool = |role| {
            Pool::new(snapshot.relays(), |relay| {
                let facts = relay.descriptor.facts();
                facts.roles.has(role) && facts.circuit_key.is_some() && relay.hop.id != own
            })
        };
        Self { own, middles: pool(Role::Mix), exits: pool(Role::Exit), snapshot: snapshot.clone() }
    }

    /// A relay by its name. This node may be the end of its own circuit: who asks one of its services to come to a rendezvous must not find out, by
    /// trying each relay, at which one it cannot.
    fn find(&self, relay: NodeId) -> Result<&SnapshotRelay, NoCircuit> {
        let found = self.snapshot.find(relay).filter(|relay| relay.descriptor.facts().circuit_key.is_some());
        found.ok_or(NoCircuit::UnknownRelay(relay))
    }

    fn is_guard(&self, relay: &SnapshotRelay) -> bool {
        let facts = relay.descriptor.facts();
        relay.weight > 0 && facts.roles.has(Role::Guard) && facts.circuit_key.is_some() && relay.hop.id != self.own
    }

    fn guards(&self) -> impl Iterator<Item = &SnapshotRelay> {
        self.snapshot.relays().iter().filter(|relay| self.is_guard(relay))
    }

    fn guard(&self, relay: NodeId) -> Option<&SnapshotRelay> {
        self.snapshot.find(relay).filter(|relay| self.is_guard(relay))
    }

    /// The guard, which is the first of `others`, and `count` middles after it; none related to any of `others`. Whole draws come
    /// with exactly their shares; the search after them finds middles if its steps reach some. An error says how many it found.
    fn middles<'a>(
        &'a self,
        others: &[&'a SnapshotRelay],
        count: usize,
        rng: &mut StdRng,
    ) -> Result<Vec<&'a SnapshotRelay>, usize> {
        let fits = |relay: &SnapshotRelay, chosen: &[&SnapshotRelay]| {
            others.iter().chain(chosen).all(|other| fit(other, relay))
        };
        let mut middles = Vec::with_capacity(count);
        for _ in 0..DRAWS {
            middles.clear();
            while middles.len() < count
                && let Some(relay) = self.middles.draw(&self.snapshot, rng).filter(|relay| fits(relay, &middles))
            {
                middles.push(relay);
            }
            if middles.len() == count {
                break;
            }
        }
        if middles.len() < count {
            let allowed = self.middles.relays(&self.snapshot).filter(|relay| fits(relay, &[]));
            middles = search(&[random_order(allowed, rng)], count)?;
        }
        Ok(others.first().copied().into_iter().chain(middles).collect())
    }

    /// An exit, by weight, among those that fit.
    fn exit(&self, fits: impl Fn(&SnapshotRelay) -> bool, rng: &mut StdRng) -> Option<&SnapshotRelay> {
        let drawn = (0..DRAWS).find_map(|_| self.exits.draw(&self.snapshot, rng).filter(|exit| fits(exit)));
        drawn.or_else(|| {
            let allowed = self.exits.relays(&self.snapshot).filter(|exit| fits(exit));
            random_order(allowed, rng).first().copied()
        })
    }
}

fn takes(relay: &SnapshotRelay, takes_port: TakesPort, port: u16) -> bool {
    relay.descriptor.facts().exit_policy.as_ref().is_some_and(|policy| takes_port(policy, port))
}

fn hop(relay: &SnapshotRelay) -> Option<CircuitHop> {
    let facts = relay.descriptor.facts();
    let addresses = facts.addresses.iter().map(|address| address.to_bytes()).collect();
    Some(CircuitHop { id: relay.hop.id, key: facts.circuit_key?, addresses })
}

fn hops_of(relays: &[&SnapshotRelay]) -> Vec<CircuitHop> {
    relays.iter().filter_map(|relay| hop(relay)).collect()
}

#[cfg(test)]
#[path = "circuit_path_tests.rs"]
mod tests;
