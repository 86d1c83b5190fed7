//! A full node: the live set, the exchange and the council as the behaviour of fog-directory puts them together, without
//! libp2p.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use ed25519_dalek::SigningKey;
use fog_base::{Epoch, EpochSchedule, Network, NetworkId, NodeId, Now, UnixMillis, record::SignedRecord};
use fog_directory::{
    Acceptance, Descriptor, RelaySet,
    core::{
        certificate::{named_set::NamedSet, timetable::Timetable},
        council::{self, Council, Restored},
        descriptor::Reject,
        exchange::{Exchange, Output as Asked},
        relay_set::{Config, Direct, Output as Kept, Source, Verifier},
    },
    wire::{Request, Response},
};

/// What is gossiped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// Descriptors.
    Directory,
    /// Proposals, ballots and certificates.
    Certificate,
}

/// What a node's cores want done outside.
#[derive(Debug)]
pub(super) enum Action {
    /// Gossip to the mesh.
    Publish(Topic, Vec<u8>),
    /// Ask a peer.
    Ask(NodeId, Request),
}

/// Descriptors that were verified once, by hash. Whoever gets the bytes again only checks the times.
#[derive(Debug, Default)]
pub(super) struct Interned(Mutex<BTreeMap<[u8; 32], Verified>>);

type Verified = Result<Arc<Descriptor>, Reject>;

impl Interned {
    /// Forgets what is over.
    pub(super) fn sweep(&self, now: UnixMillis) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, verified| verified.as_ref().is_ok_and(|descriptor| descriptor.expires() > now));
    }
}

impl Verifier for Interned {
    fn verify(
        &self,
        record: SignedRecord,
        network: (&NetworkId, &EpochSchedule),
        now: UnixMillis,
    ) -> Result<Arc<Descriptor>, Reject> {
        if now >= record.expires() {
            return Err(Reject::Expired);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&record.hash()) {
            Some(verified) => verified.clone(),
            None => {
                let (hash, verified) = (record.hash(), Direct.verify(record, network, now));
                known.insert(hash, verified.clone());
                verified
            }
        }
    }
}

/// Refuses some relays' descriptors in the live set: so they are neither passed on nor in the sets that the node proposes.
/// Sets that others certified still come, whole.
#[derive(Debug)]
pub(super) struct Censor {
    interned: Arc<Interned>,
    victims: Mutex<HashSet<NodeId>>,
}

impl Censor {
    pub(super) fn silence(&self, victims: HashSet<NodeId>) {
        *self.victims.lock().unwrap_or_else(PoisonError::into_inner) = victims;
    }
}

impl Verifier for Censor {
    fn verify(
        &self,
        record: SignedRecord,
        network: (&NetworkId, &EpochSchedule),
        now: UnixMillis,
    ) -> Result<Arc<Descriptor>, Reject> {
        if self.victims.lock().unwrap_or_else(PoisonError::into_inner).contains(&record.signer()) {
            return Err(Reject::Expired);
        }
        self.interned.verify(record, network, now)
    }
}

/// What all nodes of a simulation share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) network: Network,
    pub(super) interned: Arc<Interned>,
}

/// What a node does that it should not.
#[derive(Debug, Clone, Default)]
pub(super) struct Conduct {
    /// It passes no gossip on.
    pub(super) is_mute: bool,
    /// It takes nothing that belongs to an epoch after this one: it shows an old network.
    pub(super) frozen_at: Option<Epoch>,
}

/// A full node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) live: RelaySet,
    pub(super) exchange: Exchange,
    pub(super) council: Council,
    pub(super) conduct: Conduct,
    pub(super) censor: Arc<Censor>,
    pub(super) actions: Vec<Action>,
    /// Proposals that it found unfit.
    pub(super) objections: u64,
    /// How often it found that a peer misbehaved.
    pub(super) accusations: u64,
    shared: Arc<Shared>,
}

impl Node {
    pub(super) fn new(identity: SigningKey, shared: &Arc<Shared>, now: Now) -> Self {
        let id = NodeId(identity.verifying_key().to_bytes());
        let (network, schedule) = (&shared.network, shared.network.schedule());
        // The council itself remembers more links than any simulation has.
        let council = Council::new(network, Arc::new(identity), (Restored::default(), Box::new(|_| None)), now);
        let censor = Arc::new(Censor { interned: shared.interned.clone(), victims: Mutex::default() });
        let config = Config { verifier: censor.clone(), ..Config::new(network.id, schedule) };
        Self {
            live: RelaySet::new(config, now),
            exchange: Exchange::new(network.id, schedule, id.0, now),
            council: council.expect("the network names relays"),
            conduct: Conduct::default(),
            censor,
            actions: Vec::new(),
            objections: 0,
            accusations: 0,
            shared: shared.clone(),
            id,
        }
    }

    /// Whether it shows an old network, and learns nothing.
    fn is_frozen(&self, now: Now) -> bool {
        self.conduct.frozen_at.is_some_and(|last| self.schedule().at(now.unix) > last)
    }

    fn schedule(&self) -> EpochSchedule {
        self.shared.network.schedule()
    }

    /// A descriptor by gossip; whether it is passed on.
    pub(super) fn handle_descriptor(&mut self, from: NodeId, bytes: &[u8], now: Now) -> bool {
        !self.is_frozen(now) && self.live.handle_gossip(from, bytes, now) == Acceptance::Accept && !self.conduct.is_mute
    }

    /// Its own descriptor.
    pub(super) fn handle_own(&mut self, bytes: &[u8], now: Now) {
        // What is refused is missing in the set, which is a figure.
        let _ = self.live.handle_descriptor(bytes, Source::Own, now);
        self.settle(now);
    }

    /// A message of the certifying seats; whether it is passed on.
    pub(super) fn handle_ballot(&mut self, bytes: &[u8], now: Now) -> bool {
        if self.is_frozen(now) {
            return false;
        }
        let accepted = self.council.handle_gossip(bytes, now) == Acceptance::Accept;
        self.settle(now);
        accepted && !self.conduct.is_mute
    }

    pub(super) fn handle_connected(&mut self, peer: NodeId, now: Now) {
        self.exchange.handle_connected(peer, &mut self.live, now);
        if self.council.last_certified() < self.schedule().at(now.unix) {
            self.exchange.want_links(self.council.last_certified(), now);
        }
        self.settle(now);
    }

    pub(super) fn handle_request(&mut self, from: NodeId, request: Request, now: Now) -> Response {
        let response = self.exchange.handle_request(from, request, &mut self.live, &self.council, now);
        self.settle(now);
        response
    }

    pub(super) fn handle_response(&mut self, from: NodeId, response: Response, now: Now) {
        if self.is_frozen(now) {
            self.exchange.handle_failure(from, now);
        } else {
            self.exchange.handle_response(from, response, &mut self.live, now);
        }
        self.settle(now);
    }

    pub(super) fn handle_failure(&mut self, peer: NodeId, now: Now) {
        self.exchange.handle_failure(peer, now);
        self.settle(now);
    }

    /// What is due of the exchange, which is often; and of a council that lacks the running epoch's set.
    pub(super) fn handle_exchange(&mut self, now: Now) {
        self.exchange.handle_timeout(&mut self.live, now);
        let is_behind = self.council.last_certified() < self.schedule().at(now.unix);
        if is_behind && !self.is_frozen(now) && self.council.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.council.handle_timeout(&self.live, now);
        }
        self.settle(now);
    }

    /// What is due of live set and council.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.live.handle_timeout(now);
        if !self.is_frozen(now) {
            self.council.handle_timeout(&self.live, now);
        }
        self.settle(now);
    }

    /// Does what the cores want done, as far as it is inside.
    fn settle(&mut self, now: Now) {
        loop {
            let mut is_quiet = true;
            while let Some(output) = self.live.poll_output() {
                if let Kept::Publish(bytes) = output {
                    self.actions.push(Action::Publish(Topic::Directory, bytes));
                }
            }
            while let Some(output) = self.exchange.poll_output() {
                is_quiet = false;
                self.handle_asked(output, now);
            }
            while let Some(output) = self.council.poll_output() {
                is_quiet = false;
                self.handle_council(output, now);
            }
            if is_quiet {
                return;
            }
        }
    }

    fn handle_asked(&mut self, output: Asked, now: Now) {
        match output {
            Asked::Send { to, request } => self.actions.push(Action::Ask(to, request)),
            Asked::Set { set, .. } => self.council.handle_set(set, now),
            Asked::State { bytes, .. } => self.council.handle_state(&bytes, now),
            Asked::Links { peer, links, more } => self.council.handle_links(peer, links, more, now),
            Asked::Misbehaved { .. } | Asked::Flooding { .. } => self.accusations += 1,
            Asked::Clock { .. } => {}
        }
    }

    fn handle_council(&mut self, output: council::Output, now: Now) {
        match output {
            council::Output::Record { .. } => self.council.handle_recorded(true),
            council::Output::Broadcast(bytes) => self.actions.push(Action::Publish(Topic::Certificate, bytes)),
            council::Output::Reconcile => self.exchange.meet(3, &mut self.live, now),
            council::Output::Wants => self.order(now),
            council::Output::WantLinks { after } => self.exchange.want_links(after, now),
            council::Output::Objected { .. } => self.objections += 1,
            council::Output::Misbehaved(_) | council::Output::SignedTwice(_) => self.accusations += 1,
            council::Output::KeepLink { .. } | council::Output::KeepSet { .. } | council::Output::Changed => {}
        }
    }

    /// Orders what the council wants of peers.
    fn order(&mut self, now: Now) {
        let wants = self.council.wants().clone();
        match wants.set {
            Some((root, relays, epoch)) => {
                let cut_off = Timetable::new(self.schedule()).cut_off(epoch);
                let candidates = Arc::new(NamedSet::new(self.live.covering(epoch, cut_off.0).cloned().collect()));
                self.exchange.want_set((root, relays, cut_off), None, candidates, now);
            }
            None => self.exchange.cancel_set(),
        }
        match wants.state {
            Some(hash) => self.exchange.want_state(hash, now),
            None => self.exchange.cancel_state(),
        }
    }
}
