//! All descriptors that this node holds: which one replaces which, who may bring how many, and when each ends.
//!
//! Memory is bounded by the cap on relays, two descriptors and one piece of evidence each, and by the cap on sources.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{
    BoundedQueue, DropCounters, DropReason, Epoch, EpochSchedule, NetworkId, NodeId, Now, TokenBucket, UnixMillis,
    record::SignedRecord,
};

use super::{
    descriptor::{Descriptor, MAX_LEN, Reject},
    seating::Seating,
    snapshot::Snapshot,
};

const DIGEST_LABEL: &str = "fog directory digest v1";
/// How often a changed set is told of, at most: building a snapshot of 10,000 relays takes milliseconds.
const CHANGE_INTERVAL: Duration = Duration::from_millis(200);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
const MAX_EVIDENCE: usize = 256;
const MAX_SOURCES: usize = 1024;

/// What bounds the set.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network whose descriptors these are.
    pub network: NetworkId,
    /// How its time is cut.
    pub schedule: EpochSchedule,
    /// The most relays.
    pub max_relays: usize,
    /// New descriptors per second that one source may bring.
    pub source_rate: f64,
    /// New descriptors that one source may bring at once.
    pub source_burst: f64,
    /// Descriptors learnt by exchange that are passed on by gossip, per second.
    pub relay_rate: f64,
    /// Relays with stake: in a full set they take the place of others, who may be as many as somebody likes.
    pub staked: BTreeSet<NodeId>,
    /// Who verifies descriptors: [`Direct`], except where many nodes live in one process.
    pub verifier: Arc<dyn Verifier>,
}

/// Verifies descriptors. What [`Descriptor::verify`] refuses, every implementation refuses.
pub trait Verifier: fmt::Debug + Send + Sync {
    /// A verified descriptor out of `record`.
    fn verify(
        &self,
        record: SignedRecord,
        network: (&NetworkId, &EpochSchedule),
        now: UnixMillis,
    ) -> Result<Arc<Descriptor>, Reject>;
}

/// Verifies each descriptor by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Verifier for Direct {
    fn verify(
        &self,
        record: SignedRecord,
        (network, schedule): (&NetworkId, &EpochSchedule),
        now: UnixMillis,
    ) -> Result<Arc<Descriptor>, Reject> {
        Descriptor::verify(record, network, schedule, now).map(Arc::new)
    }
}

impl Config {
    /// The figures of the README.
    pub fn new(network: NetworkId, schedule: EpochSchedule) -> Self {
        Self {
            network,
            schedule,
            max_relays: 10_000,
            source_rate: 100.0,
            source_burst: 4096.0,
            relay_rate: 5.0,
            staked: BTreeSet::new(),
            verifier: Arc::new(Direct),
        }
    }
}

/// How a descriptor came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// By gossip, from this neighbour.
    Gossip(NodeId),
    /// By exchange with this peer.
    Exchange(NodeId),
    /// Signed by this node.
    Own,
    /// Out of the store.
    Store,
}

/// What a descriptor turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is now in the set.
    New,
    /// It was there.
    Known,
}

/// What gossip does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Forward it.
    Accept,
    /// Drop it; the sender may be honest.
    Ignore,
    /// Drop it; no honest peer sends that.
    Reject,
}

/// What the set wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Keep it across restarts.
    Persist {
        /// Whose.
        relay: NodeId,
        /// The descriptor.
        bytes: Vec<u8>,
    },
    /// It is over: forget what was kept.
    Forget {
        /// Whose.
        relay: NodeId,
    },
    /// Send it by gossip.
    Publish(Vec<u8>),
    /// Snapshots made before are outdated.
    Changed,
    /// A relay signed two descriptors with one sequence number.
    Equivocation {
        /// Who did.
        relay: NodeId,
    },
}

#[derive(Debug)]
struct Entry {
    /// Empty when all are over and only the floor is remembered.
    latest: Option<Arc<Descriptor>>,
    /// The one of an epoch before, while it lasts.
    previous: Option<Arc<Descriptor>>,
    /// The highest sequence number seen.
    floor: u64,
    /// When even the floor is forgotten.
    forget_at: UnixMillis,
}

/// The set.
#[derive(Debug)]
pub struct RelaySet {
    config: Config,
    entries: BTreeMap<NodeId, Entry>,
    by_hash: BTreeMap<[u8; 32], NodeId>,
    digest: Option<[u8; 32]>,
    sources: HashMap<NodeId, TokenBucket>,
    passed_on: TokenBucket,
    evidence: BTreeMap<NodeId, [Vec<u8>; 2]>,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
    equivocations: u64,
    changed: bool,
    next_change: Instant,
    next_expiry: Instant,
}

impl RelaySet {
    /// An empty set.
    pub fn new(config: Config, now: Now) -> Self {
        Self {
            passed_on: TokenBucket::new(config.relay_rate, config.relay_rate * 10.0, now.mono),
            // One descriptor makes at most three outputs, and expiry at most one for each relay.
            outputs: BoundedQueue::new(config.max_relays.saturating_mul(2).saturating_add(64)),
            config,
            entries: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            digest: None,
            sources: HashMap::new(),
            evidence: BTreeMap::new(),
            drops: DropCounters::default(),
            equivocations: 0,
            changed: false,
            next_change: now.mono,
            next_expiry: now.mono + EXPIRY_INTERVAL,
        }
    }

    /// Takes a descriptor, from wherever it came.
    pub fn handle_descriptor(&mut self, bytes: &[u8], source: Source, now: Now) -> Result<Verdict, Reject> {
        let outcome = self.try_descriptor(bytes, source, now);
        if let Err(reject) = outcome {
            self.drops.count(reject.drop_reason());
        }
        outcome
    }

    /// Takes a gossip message and says what gossip does with it.
    pub fn handle_gossip(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Acceptance {
        match self.handle_descriptor(bytes, Source::Gossip(from), now) {
            Ok(Verdict::New) => Acceptance::Accept,
            Err(reject) if reject.is_misbehaviour() => Acceptance::Reject,
            Ok(Verdict::Known) | Err(_) => Acceptance::Ignore,
        }
    }

    fn try_descriptor(&mut self, bytes: &[u8], source: Source, now: Now) -> Result<Verdict, Reject> {
        if bytes.len() > MAX_LEN {
            return Err(Reject::Malformed);
        }
        let record = SignedRecord::parse(bytes)?;
        if self.by_hash.contains_key(&record.hash()) {
            return Ok(Verdict::Known);
        }
        if let Source::Gossip(peer) | Source::Exchange(peer) = source
            && !self.bucket(peer, now.mono).try_take(now.mono)
        {
            return Err(Reject::RateLimited);
        }
        let relay = record.signer();
        match self.entries.get(&relay) {
            Some(entry) if record.seq() < entry.floor => return Err(Reject::Rollback),
            None if self.entries.len() >= self.config.max_relays && !self.can_make_room(&relay) => {
                return Err(Reject::Full);
            }
            _ => {}
        }
        let Config { network, schedule, verifier, .. } = &self.config;
        let descriptor = verifier.verify(record, (network, schedule), now.unix)?;
        self.insert(descriptor, source, now)
    }

    fn can_make_room(&self, relay: &NodeId) -> bool {
        self.config.staked.contains(relay) && self.unstaked().is_some()
    }

    fn unstaked(&self) -> Option<NodeId> {
        self.entries.keys().rev().find(|relay| !self.config.staked.contains(relay)).copied()
    }

    /// A relay without stake gives its place up.
    fn make_room(&mut self) {
        let Some((relay, entry)) = self.unstaked().and_then(|relay| self.entries.remove_entry(&relay)) else { return };
        for descriptor in [entry.latest, entry.previous].into_iter().flatten() {
            self.by_hash.remove(&descriptor.hash());
        }
        self.evidence.remove(&relay);
        self.drops.count(DropReason::QueueFull);
        push(&mut self.outputs, &self.drops, Output::Forget { relay });
    }

    fn bucket(&mut self, peer: NodeId, now: Instant) -> &mut TokenBucket {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&peer) {
            // Connections are limited far below this, so these are peers of the past. A new bucket is full, hence so many
            // sources must have come and gone before one gains by it.
            self.sources.clear();
        }
        let (rate, burst) = (self.config.source_rate, self.config.source_burst);
        self.sources.entry(peer).or_insert_with(|| TokenBucket::new(rate, burst, now))
    }

    fn insert(&mut self, descriptor: Arc<Descriptor>, source: Source, now: Now) -> Result<Verdict, Reject> {
        let (relay, seq) = (descriptor.relay(), descriptor.seq());
        let schedule = self.config.schedule;
        if self.entries.len() >= self.config.max_relays && !self.entries.contains_key(&relay) {
            self.make_room();
        }
        let entry = self.entries.entry(relay).or_insert(Entry {
            latest: None,
            previous: None,
            floor: 0,
            forget_at: UnixMillis(0),
        });
        if let Some(latest) = entry.latest.take() {
            if latest.seq() == seq {
                self.equivocations += 1;
                if self.evidence.len() < MAX_EVIDENCE || self.evidence.contains_key(&relay) {
                    let pair = [latest.as_bytes().to_vec(), descriptor.as_bytes().to_vec()];
                    self.evidence.insert(relay, pair);
                }
                push(&mut self.outputs, &self.drops, Output::Equivocation { relay });
                if latest.hash() < descriptor.hash() {
                    entry.latest = Some(latest);
                    return Err(Reject::Rollback);
                }
            } else if latest.epoch() < descriptor.epoch() {
                entry.previous = Some(latest.clone());
            }
            self.by_hash.remove(&latest.hash());
        }
        entry.floor = seq;
        entry.forget_at = schedule.end(schedule.at(descriptor.expires()).next());
        entry.latest = Some(descriptor.clone());
        self.by_hash.insert(descriptor.hash(), relay);
        self.digest = None;
        self.changed = true;
        let bytes = descriptor.as_bytes();
        if source != Source::Store {
            push(&mut self.outputs, &self.drops, Output::Persist { relay, bytes: bytes.to_vec() });
        }
        let pass_on = match source {
            Source::Own => true,
            Source::Exchange(_) => self.passed_on.try_take(now.mono),
            Source::Gossip(_) | Source::Store => false,
        };
        if pass_on {
            push(&mut self.outputs, &self.drops, Output::Publish(bytes.to_vec()));
        }
        Ok(Verdict::New)
    }

    /// Expires what is over and tells of changes.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.mono >= self.next_expiry {
            self.next_expiry = now.mono + EXPIRY_INTERVAL;
            self.expire(now.unix);
        }
        if self.changed && now.mono >= self.next_change {
            self.changed = false;
            self.next_change = now.mono + CHANGE_INTERVAL;
            push(&mut self.outputs, &self.drops, Output::Changed);
        }
    }

    /// When [`RelaySet::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(if self.changed { self.next_change.min(self.next_expiry) } else { self.next_expiry })
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    fn expire(&mut self, now: UnixMillis) {
        let is_over = |descriptor: &Arc<Descriptor>| now >= descriptor.expires();
        for (relay, entry) in &mut self.entries {
            if entry.previous.as_ref().is_some_and(is_over) {
                entry.previous = None;
            }
            if let Some(over) = entry.latest.take_if(|latest| is_over(latest)) {
                self.by_hash.remove(&over.hash());
                self.evidence.remove(relay);
                self.digest = None;
                self.changed = true;
                push(&mut self.outputs, &self.drops, Output::Forget { relay: *relay });
            }
        }
        self.entries.retain(|_, entry| entry.latest.is_some() || now < entry.forget_at);
    }

    /// The relays with keys for `epoch`.
    pub fn snapshot(&self, epoch: Epoch, seating: &dyn Seating) -> Snapshot {
        Snapshot::new(epoch, self.covering(epoch, u64::MAX).cloned().collect(), seating)
    }

    /// Of each relay the newest descriptor with keys for `epoch` and a sequence number below `before`, sorted by relay.
    pub fn covering(&self, epoch: Epoch, before: u64) -> impl Iterator<Item = &Arc<Descriptor>> {
        let fits = move |descriptor: &&Arc<Descriptor>| descriptor.covers(epoch) && descriptor.seq() < before;
        self.entries.values().filter_map(move |entry| {
            let newest_first = [&entry.latest, &entry.previous];
            newest_first.into_iter().flatten().find(fits)
        })
    }

    /// The newest descriptor of `relay`.
    pub fn get(&self, relay: NodeId) -> Option<&Arc<Descriptor>> {
        self.entries.get(&relay)?.latest.as_ref()
    }

    /// The newest descriptor of each relay, sorted by relay.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.entries.values().filter_map(|entry| entry.latest.as_ref())
    }

    /// The descriptor with this hash.
    pub fn by_hash(&self, hash: &[u8; 32]) -> Option<&Arc<Descriptor>> {
        self.get(*self.by_hash.get(hash)?)
    }

    /// The hashes of the newest descriptors, sorted, from the first one above `after`.
    pub fn hashes(&self, after: Option<[u8; 32]>) -> impl Iterator<Item = &[u8; 32]> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_hash.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(hash, _)| hash)
    }

    /// Names the set of newest descriptors.
    pub fn digest(&mut self) -> [u8; 32] {
        *self.digest.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_derive_key(DIGEST_LABEL);
            for hash in self.by_hash.keys() {
                hasher.update(hash);
            }
            *hasher.finalize().as_bytes()
        })
    }

    /// The lowest sequence number that a new descriptor of `relay` may have.
    pub fn next_seq(&self, relay: NodeId) -> u64 {
        self.entries.get(&relay).map_or(0, |entry| entry.floor.saturating_add(1))
    }

    /// How many new descriptors `peer` may bring now.
    pub fn quota(&mut self, peer: NodeId, now: Instant) -> u32 {
        let burst = self.config.source_burst as u32;
        // Looks at a copy: nothing is taken yet.
        let mut bucket = self.bucket(peer, now).clone();
        bucket.take(burst, now)
    }

    /// How many relays have a valid descriptor.
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// The most relays.
    pub fn capacity(&self) -> usize {
        self.config.max_relays
    }

    /// What was refused, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// How many equivocations were seen.
    pub fn equivocations(&self) -> u64 {
        self.equivocations
    }

    /// Two descriptors that `relay` signed under one sequence number.
    pub fn evidence(&self, relay: NodeId) -> Option<&[Vec<u8>; 2]> {
        self.evidence.get(&relay)
    }
}

fn push(outputs: &mut BoundedQueue<Output>, drops: &DropCounters, output: Output) {
    if outputs.push(output).is_err() {
        drops.count(DropReason::QueueFull);
    }
}

#[cfg(test)]
#[path = "relay_set_tests.rs"]
mod tests;
