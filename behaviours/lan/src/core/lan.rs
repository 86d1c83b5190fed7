//! The beacon: what leaves and when, and what of others is believed.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, NodeId, Now, record::RecordError};

use super::{
    limits::Limits,
    local::{Endpoint, Heard, Local, Source},
    neighbours::{Change, Neighbours},
    random::Random,
    reject::Reject,
    replay::{Boot, Replay},
    schedule::Schedule,
};
use crate::wire::{self, Beacon, KIND};

/// Addresses that are told, one packet each.
pub const MAX_LOCALS: usize = 16;

/// What a node's beacon needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Only its members are found, and only they can read the beacon.
    pub network: NetworkId,
    /// The UDP port of the beacon.
    pub port: u16,
}

impl Config {
    /// For the usual port.
    pub fn new(network: NetworkId) -> Self {
        Self { network, port: wire::PORT }
    }
}

/// What follows from what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a packet to the multicast group from this address.
    Send {
        /// An address of this host.
        from: Source,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A neighbour is new, was restarted, or is somewhere else: all its addresses.
    Found {
        /// Who. Its key signed; that it is really there shows when it is dialled.
        node: NodeId,
        /// Where; each on a network of this host.
        endpoints: Vec<Endpoint>,
    },
    /// Nothing was heard of a neighbour for long.
    Lost(NodeId),
}

/// What was counted since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Packets that were to be sent.
    pub sent: u64,
    /// Beacons that were believed.
    pub believed: u64,
    refused: [u64; Reject::ALL.len()],
}

impl Counts {
    /// How many packets were refused for `reason`.
    pub fn refused(&self, reason: Reject) -> u64 {
        self.refused.get(reason as usize).copied().unwrap_or_default()
    }
}

/// Everything that a node knows of its neighbours.
pub struct Lan {
    config: Config,
    identity: Arc<SigningKey>,
    me: NodeId,
    boot: Boot,
    number: u32,
    random: Random,
    locals: Vec<Local>,
    schedule: Schedule,
    neighbours: Neighbours,
    replay: Replay,
    limits: Limits,
    counts: Counts,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for Lan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("Lan");
        fields.field("config", &self.config).field("me", &self.me).field("locals", &self.locals);
        fields.field("neighbours", &self.neighbours.len()).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Lan {
    /// Knows nobody. `seed` is random and secret.
    pub fn new(config: Config, identity: Arc<SigningKey>, seed: [u8; 32], now: Now) -> Self {
        let mut random = Random::new(seed);
        Self {
            me: NodeId(identity.verifying_key().to_bytes()),
            config,
            identity,
            boot: u32::from_be_bytes(random.bytes()),
            number: 0,
            random,
            locals: Vec::new(),
            schedule: Schedule::new(now.mono),
            neighbours: Neighbours::default(),
            replay: Replay::default(),
            limits: Limits::new(now.mono),
            counts: Counts::default(),
            outputs: VecDeque::new(),
        }
    }

    /// From now on these are the node's addresses; beyond the first [`MAX_LOCALS`] none is told. A new one is told at once.
    pub fn set_locals(&mut self, mut locals: Vec<Local>, now: Now) {
        locals.retain(|local| !local.ports.is_empty());
        locals.truncate(MAX_LOCALS);
        if locals.iter().any(|local| !self.locals.contains(local)) {
            self.schedule.handle_moved(now.mono);
        }
        self.locals = locals;
    }

    /// The node's addresses.
    pub fn locals(&self) -> &[Local] {
        &self.locals
    }

    /// A peer is connected, on whatever path: it has proved its key.
    pub fn handle_connected(&mut self, node: NodeId, now: Now) {
        self.neighbours.handle_connected(node);
        self.schedule.set_alone(self.neighbours.is_alone(), now.mono);
    }

    /// The last connection of a peer ended.
    pub fn handle_disconnected(&mut self, node: NodeId, now: Now) {
        self.neighbours.handle_disconnected(node);
        self.schedule.set_alone(self.neighbours.is_alone(), now.mono);
    }

    /// Takes a packet. What costs most is done last.
    pub fn handle_packet(&mut self, packet: &[u8], source: Source, now: Now) -> Result<(), Reject> {
        let believed = self.believe(packet, source, now).and_then(|heard| self.hear(&heard, now));
        match believed {
            Ok(()) => self.counts.believed += 1,
            Err(reject) => {
                if let Some(count) = self.counts.refused.get_mut(reject as usize) {
                    *count += 1;
                }
            }
        }
        believed
    }

    fn believe(&mut self, packet: &[u8], source: Source, now: Now) -> Result<Heard, Reject> {
        if !(wire::MIN_PACKET..=wire::MAX_PACKET).contains(&packet.len()) {
            return Err(Reject::Size);
        }
        if !self.locals.iter().any(|local| local.reaches(source)) {
            return Err(Reject::OffLink);
        }
        if !self.limits.may_open(now.mono) {
            return Err(Reject::RateLimited);
        }
        let record = wire::open(packet, &self.config.network, now.unix)?;
        let node = record.signer();
        if node == self.me {
            return Err(Reject::Own);
        }
        let (boot, number) = wire::split_seq(record.seq());
        if !self.replay.is_fresh(node, boot, number) {
            return Err(Reject::Replayed);
        }
        if !self.limits.may_check(source.ip(), now.mono) {
            return Err(Reject::RateLimited);
        }
        let verified = record.verify::<Beacon>(&KIND, &self.config.network, now.unix).map_err(refusal)?;
        let beacon = verified.body();
        let ip = beacon.ip().ok_or(Reject::Malformed)?;
        if beacon.ports().is_empty() || number == 0 {
            return Err(Reject::Malformed);
        }
        if ip != source.ip() {
            return Err(Reject::WrongSource);
        }
        let is_restarted = self.replay.note(node, boot, number, now.mono);
        Ok(Heard { node, endpoint: Endpoint { at: source, ports: beacon.ports() }, is_restarted })
    }

    fn hear(&mut self, heard: &Heard, now: Now) -> Result<(), Reject> {
        let Change::Found(evicted) = self.neighbours.hear(heard, now.mono)? else { return Ok(()) };
        self.outputs.extend(evicted.map(Output::Lost));
        let endpoints = self.neighbours.endpoints(heard.node).collect();
        self.outputs.push_back(Output::Found { node: heard.node, endpoints });
        self.schedule.set_alone(self.neighbours.is_alone(), now.mono);
        self.schedule.handle_newcomer(now.mono, &mut self.random);
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let lost = self.neighbours.expire(now.mono);
        self.outputs.extend(lost.into_iter().map(Output::Lost));
        self.schedule.set_alone(self.neighbours.is_alone(), now.mono);
        if now.mono < self.schedule.next() {
            return;
        }
        if self.locals.is_empty() {
            self.schedule.handle_nowhere(now.mono);
        } else {
            self.beat(now);
            self.schedule.handle_sent(now.mono, &mut self.random);
        }
    }

    fn beat(&mut self, now: Now) {
        for local in &self.locals {
            self.number = self.number.saturating_add(1);
            let beacon = Beacon::new(local.at.ip(), local.ports);
            let network = &self.config.network;
            // A beacon is never too large for its kind.
            let Ok(record) = beacon.sign(network, &self.identity, wire::seq(self.boot, self.number), now.unix) else {
                continue;
            };
            let Ok(bytes) = wire::seal(&record, network, self.random.bytes(), now.unix) else { continue };
            self.counts.sent += 1;
            self.outputs.push_back(Output::Send { from: local.at, bytes });
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        let next = self.schedule.next();
        self.neighbours.next_expiry().map_or(next, |expiry| expiry.min(next))
    }

    /// What follows; to be asked until it says `None` after each input, so that nothing piles up.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Where a neighbour can be dialled.
    pub fn endpoints(&self, node: NodeId) -> Vec<Endpoint> {
        self.neighbours.endpoints(node).collect()
    }

    /// How many neighbours there are.
    pub fn neighbours(&self) -> usize {
        self.neighbours.len()
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn refusal(error: RecordError) -> Reject {
    match error {
        RecordError::TooEarly | RecordError::Expired => Reject::Expired,
        RecordError::BadSignature => Reject::BadSignature,
        RecordError::Malformed | RecordError::WrongKind(..) | RecordError::TooLarge | RecordError::BadBody => {
            Reject::Malformed
        }
    }
}
