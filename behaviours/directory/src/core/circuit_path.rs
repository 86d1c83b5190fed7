//! Relays for circuits: an entry guard, middles by weight, and an end; no relay twice, no two that one operator may hold.
//!
//! The guard is the client's own (`guards.rs`); all else is drawn from the snapshot, with shares that are the same at every node
//! which has that snapshot, as for the paths of packets (`path.rs`). Layers do not matter here: they are for mixing. Who has no
//! circuit key in its descriptor, or no weight, is not drawn; an end that is asked for by name needs the key alone.
//!
//! Circuits of services, and to them, have a guard of the second layer behind the first (`layer2.rs`).
//!
//! Circuits are not known here. What they ask for is a stem, an end for a stem, and what became of the guard.

use std::collections::HashSet;

use fog_base::{NodeId, Now, relay::Role};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    guards::{self, BadState, Guards, Verdict},
    layer2::SecondLayer,
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

/// With so many unrelated relays, without this node, circuits of services have four; with fewer three. It depends on the network alone, so that
/// nobody can have a circuit shortened by where he has it end.
pub const ENOUGH: usize = 6;

/// What was kept of earlier runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept<'a> {
    /// [`Output::Guards`].
    pub guards: Option<&'a [u8]>,
    /// [`Output::SecondLayer`].
    pub second: Option<&'a [u8]>,
}

/// What is to be kept across restarts, in place of what was kept before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The entry guards.
    Guards(Vec<u8>),
    /// Those of the second layer.
    SecondLayer(Vec<u8>),
}

/// What stands behind the guard.
struct Behind<'a> {
    end: Option<&'a SnapshotRelay>,
    /// How many before the end.
    middles: usize,
    /// The first of them is one of these.
    second: Option<&'a SecondLayer>,
    avoided: &'a HashSet<NodeId>,
}

/// Chooses the relays of this node's circuits.
#[derive(Debug)]
pub struct CircuitPaths {
    config: Config,
    relays: Relays,
    guards: Guards,
    second: SecondLayer,
    /// Relays that are passed over where there are others.
    avoided: HashSet<NodeId>,
    rng: StdRng,
}

impl CircuitPaths {
    /// From the guards that were kept, or without any, and the snapshot of the running epoch.
    pub fn new(
        config: Config,
        kept: Kept<'_>,
        snapshot: &Snapshot,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, BadState> {
        let mut rng = StdRng::from_seed(seed);
        let guards = Guards::new(config.guards.clone(), kept.guards, rng.random())?;
        let second = SecondLayer::new(kept.second)?;
        let relays = Relays::new(snapshot, config.own);
        let mut paths = Self { config, relays, guards, second, avoided: HashSet::new(), rng };
        paths.handle_snapshot(snapshot, now);
        Ok(paths)
    }

    /// Takes the relays of the running epoch. An empty snapshot, when nothing serves, tells nothing of the guards: they are kept.
    pub fn handle_snapshot(&mut self, snapshot: &Snapshot, now: Now) {
        self.relays = Relays::new(snapshot, self.config.own);
        let guards: Vec<_> = self.relays.guards().map(|guard| (guard.hop.id, guard.weight)).collect();
        if snapshot.relays().is_empty() {
            return;
        }
        self.guards.handle_snapshot(&guards, now);
        let relays = &self.relays;
        let primary: Vec<_> = self.guards.primary().into_iter().filter_map(|guard| relays.guard(guard)).collect();
        let middles: Vec<_> = relays.middles.relays(&relays.snapshot).collect();
        self.second.handle_relays(&middles, &primary, now, &mut self.rng);
    }

    /// These relays are passed over, but for guards and where an end is asked for by name, wherever others are left.
    pub fn set_avoided(&mut self, relays: HashSet<NodeId>) {
        self.avoided = relays;
    }

    /// The first `hops` relays of a circuit, a guard first, none of them related to `end`.
    pub fn stem(&mut self, hops: usize, end: Option<NodeId>, now: Now) -> Result<Vec<CircuitHop>, NoCircuit> {
        self.find_stem(hops, end, false, now)
    }

    /// As [`Self::stem`], but that the second relay is one of the second layer; never a middle in its place.
    pub fn service_stem(&mut self, hops: usize, end: Option<NodeId>, now: Now) -> Result<Vec<CircuitHop>, NoCircuit> {
        self.find_stem(hops, end, true, now)
    }

    fn find_stem(
        &mut self,
        hops: usize,
        end: Option<NodeId>,
        has_second: bool,
        now: Now,
    ) -> Result<Vec<CircuitHop>, NoCircuit> {
        let Self { relays, guards, rng, second, avoided, .. } = self;
        let end = end.map(|end| relays.find(end)).transpose()?;
        let Some(middles) = hops.checked_sub(1) else { return Ok(Vec::new()) };
        let second = (has_second && middles > 0).then_some(&*second);
        let behind = Behind { end, middles, second, avoided };
        let is_usable =
            |guard: &NodeId| relays.guard(*guard).is_some_and(|guard| end.is_none_or(|end| fit(guard, end)));
        let picked = guards.pick(is_usable, now).ok_or(NoCircuit::NoGuard)?;
        let mut most = match relays.stem(picked, &behind, rng) {
            Ok(path) => return Ok(hops_of(&path)),
            Err(known) => known,
        };
        // Too few are unrelated to this guard: another one, if that helps.
        let mut leaves_enough = |guard: &NodeId| {
            let found = if is_usable(guard) { relays.stem(*guard, &behind, rng) } else { Err(0) };
            most = found.as_ref().err().map_or(most, |known| most.max(*known));
            found.is_ok()
        };
        let good: HashSet<_> = guards.listed_relays().filter(|guard| leaves_enough(guard)).collect();
        let picked = guards.pick(|guard| good.contains(guard), now);
        let path = picked.and_then(|guard| relays.stem(guard, &behind, rng).ok());
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
                let good = |relay: &SnapshotRelay| takes(relay) && !self.avoided.contains(&relay.hop.id);
                let found = relays.exit(good, &mut self.rng).or_else(|| relays.exit(takes, &mut self.rng));
                found.ok_or(NoCircuit::NoExit(port))
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
    pub fn poll_output(&mut self) -> Option<Output> {
        match self.guards.poll_output() {
            Some(guards::Output::Persist(bytes)) => Some(Output::Guards(bytes)),
            None => self.second.poll_persist().map(Output::SecondLayer),
        }
    }

    /// How many relays of which no two are related are known beside this node, up to [`ENOUGH`]: with that many, circuits of services have four.
    pub fn unrelated(&self) -> usize {
        let mut apart: Vec<&SnapshotRelay> = Vec::new();
        for relay in self.relays.middles.relays(&self.relays.snapshot) {
            if apart.len() < ENOUGH && apart.iter().all(|other| fit(other, relay)) {
                apart.push(relay);
            }
        }
        apart.len()
    }

    /// The guards of the second layer, to be shown.
    pub fn second_layer(&self) -> &SecondLayer {
        &self.second
    }

    /// The entry guards, to be shown.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }
}

impl Relays {
    fn new(snapshot: &Snapshot, own: NodeId) -> Self {
        let pool = |role| Pool::new(snapshot.relays(), |relay| may(relay, role, own));
        Self { own, middles: pool(Role::Mix), exits: pool(Role::Exit), snapshot: snapshot.clone() }
    }

    fn is_middle(&self, relay: &SnapshotRelay) -> bool {
        relay.weight > 0 && may(relay, Role::Mix, self.own)
    }

    /// A relay by its name. This node may be the end of its own circuit: who asks one of its services to come to a rendezvous must not find out, by
    /// trying each relay, at which one it cannot.
    fn find(&self, relay: NodeId) -> Result<&SnapshotRelay, NoCircuit> {
        let found = self.snapshot.find(relay).filter(|relay| relay.descriptor.facts().circuit_key.is_some());
        found.ok_or(NoCircuit::UnknownRelay(relay))
    }

    fn is_guard(&self, relay: &SnapshotRelay) -> bool {
        relay.weight > 0 && may(relay, Role::Guard, self.own)
    }

    fn guards(&self) -> impl Iterator<Item = &SnapshotRelay> {
        self.snapshot.relays().iter().filter(|relay| self.is_guard(relay))
    }

    fn guard(&self, relay: NodeId) -> Option<&SnapshotRelay> {
        self.snapshot.find(relay).filter(|relay| self.is_guard(relay))
    }

    /// A circuit's relays from this guard on, or how many of those behind the guard there are.
    fn stem<'a>(
        &'a self,
        guard: NodeId,
        behind: &Behind<'a>,
        rng: &mut StdRng,
    ) -> Result<Vec<&'a SnapshotRelay>, usize> {
        let guard = self.guard(guard).ok_or(0usize)?;
        let others: Vec<_> = [guard].into_iter().chain(behind.end).collect();
        let Some(second) = behind.second else {
            let middles = self.middles(&others, behind.middles, behind.avoided, rng)?;
            return Ok([guard].into_iter().chain(middles).collect());
        };
        let found = second.relays().filter_map(|relay| self.snapshot.find(relay)).filter(|relay| self.is_middle(relay));
        let mut seconds: Vec<_> = found.filter(|relay| others.iter().all(|other| fit(other, relay))).collect();
        seconds.shuffle(rng);
        seconds.sort_by_key(|relay| behind.avoided.contains(&relay.hop.id));
        let mut most = 0;
        for second in seconds {
            let others: Vec<_> = others.iter().copied().chain([second]).collect();
            match self.middles(&others, behind.middles - 1, behind.avoided, rng) {
                Ok(middles) => return Ok([guard, second].into_iter().chain(middles).collect()),
                Err(known) => most = most.max(known + 1),
            }
        }
        Err(most)
    }

    /// `count` middles behind a guard; none related to any of `others`, and none that is avoided if there are others. Whole draws come
    /// with exactly their shares; the search after them finds middles if its steps reach some. An error says how many it found.
    fn middles<'a>(
        &'a self,
        others: &[&'a SnapshotRelay],
        count: usize,
        avoided: &HashSet<NodeId>,
        rng: &mut StdRng,
    ) -> Result<Vec<&'a SnapshotRelay>, usize> {
        let fits = |relay: &SnapshotRelay, chosen: &[&SnapshotRelay]| {
            let is_apart = others.iter().chain(chosen).all(|other| fit(other, relay));
            is_apart && !avoided.contains(&relay.hop.id)
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
                return Ok(middles);
            }
        }
        let allowed = self.middles.relays(&self.snapshot).filter(|relay| fits(relay, &[]));
        match search(&[random_order(allowed, rng)], count) {
            Err(_) if !avoided.is_empty() => self.middles(others, count, &HashSet::new(), rng),
            found => found,
        }
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

/// Whether it offers this and can be on a circuit of `own`.
fn may(relay: &SnapshotRelay, role: Role, own: NodeId) -> bool {
    let facts = relay.descriptor.facts();
    facts.roles.has(role) && facts.circuit_key.is_some() && relay.hop.id != own
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
pub(super) mod tests;
