//! All evidence together: what comes in, what a peer is worth, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{
    BoundedQueue, DropCounters, DropReason, EpochSchedule, NodeId, Now, TokenBucket, UnixMillis,
    record::Kind as RecordKind, time::CLOCK_TOLERANCE,
};

use super::{
    beta::Beta,
    blame,
    config::Config,
    evidence::{BASE_RATE, Evidence, Kind, Observation, Outcome, PerKind},
    hearsay::{self, Heard, Hearsay, Voice},
    opinion::Opinion,
    peers::{Peer, Peers},
    proof::{self, Proof},
    receipt::{self, Receipt},
    reject::Reject,
    report::{self, Report},
    reporter::Reporter,
    saved::{self, Key},
    score::Sanction,
    shelf::MAX_PROOFS,
    sources::Sources,
};
use crate::wire::{MAX_PROOF, MAX_REPORT};

/// How often what changed is saved. A crash forgets at most this much; bans and proofs are saved at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// How often what has faded away is given up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
const MAX_OUTPUTS: usize = 1024;
/// What the reports on one peer can add to their reporter's rating, for and against. A belief of 0.5 takes 3: so no fewer
/// than four peers that this node knows itself can make a trusted rater, however many clients they invent.
const SUBJECT_CAP: f64 = 0.95;

/// What reputation wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this report to others.
    Publish(Vec<u8>),
    /// Keep it across restarts.
    Persist {
        /// Under this key.
        key: Vec<u8>,
        /// In the form that [`Reputation::restore`] reads.
        value: Vec<u8>,
    },
    /// Forget what was kept.
    Forget {
        /// Under this key.
        key: Vec<u8>,
    },
    /// End the connection.
    Disconnect(NodeId),
    /// Keep it out for a while.
    Ban {
        /// Whom.
        peer: NodeId,
        /// Until then.
        until: UnixMillis,
        /// Whether this node has had to do with it: then it is not only for what others prove.
        met: bool,
    },
}

/// What is known of a peer in one respect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Own experience, proofs and hearsay together.
    pub posterior: Beta,
    /// The weight of the evidence that made it: 0 for a peer of whom nothing is known.
    pub evidence: f64,
    /// How many peers reported on it, believed or not.
    pub reports: usize,
}

/// What this node knows and hears of all peers.
#[derive(Debug)]
pub struct Reputation {
    config: Config,
    peers: Peers,
    hearsay: Hearsay,
    reporter: Reporter,
    /// The last proof against a peer, and when it happened.
    proofs: BTreeMap<NodeId, (u64, Vec<u8>)>,
    /// Who is a relay: proofs against these count even if this node has nothing to do with them.
    relays: BTreeSet<NodeId>,
    sources: Sources,
    strangers: TokenBucket,
    /// What changed since it was last saved; `saving` while it is handed out.
    changed: BTreeSet<Key>,
    saving: bool,
    next_save: Instant,
    next_sweep: Instant,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
}

impl Reputation {
    /// Knows nobody. `seed` is random and secret.
    pub fn new(config: Config, identity: Arc<SigningKey>, seed: [u8; 32], now: Now) -> Self {
        let (rate, burst) = config.strangers_rate;
        Self {
            peers: Peers::new(config.max_peers),
            hearsay: Hearsay::new(config.max_heard),
            reporter: Reporter::new(identity, config.network, config.schedule, seed),
            proofs: BTreeMap::new(),
            relays: BTreeSet::new(),
            sources: Sources::new(config.source_rate, config.flood_rate),
            strangers: TokenBucket::new(rate, burst, now.mono),
            changed: BTreeSet::new(),
            saving: false,
            next_save: now.mono + SAVE_INTERVAL,
            next_sweep: now.mono + SWEEP_INTERVAL,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
            config,
        }
    }

    /// From now on these are the relays.
    pub fn set_relays(&mut self, relays: BTreeSet<NodeId>) {
        self.relays = relays;
    }

    /// Takes a piece of this node's own experience.
    pub fn handle_observation(&mut self, observation: Observation, now: Now) -> Result<(), Reject> {
        let Observation { peer, weight, at, .. } = observation;
        let outcome = if !(weight.is_finite() && weight > 0.0) {
            Err(Reject::Malformed)
        } else if peer == self.reporter.node() {
            Err(Reject::SelfPraise)
        } else if at > now.unix.plus(CLOCK_TOLERANCE) {
            Err(Reject::TooEarly)
        } else {
            self.observe(observation, now.unix);
            Ok(())
        };
        self.counted(outcome)
    }

    /// Takes the fate of something that went over several relays, with the most that it says of each: blame for a failure is shared out (see
    /// [`blame`]).
    pub fn handle_path(&mut self, hops: &[NodeId], outcome: Outcome, weight: f64, now: Now) {
        let me = self.reporter.node();
        let hops: Vec<_> = hops.iter().copied().filter(|hop| *hop != me).collect();
        let works = |hop: &NodeId| self.own(*hop, Kind::Availability, now.unix).posterior().mean();
        let works: Vec<_> = hops.iter().map(works).collect();
        for (peer, share) in hops.into_iter().zip(blame::shares(&works, outcome)) {
            for (outcome, share) in [(Outcome::Good, share.good), (Outcome::Bad, share.bad)] {
                let weight = share * weight;
                if weight > 0.0 {
                    let kind = Kind::Availability;
                    self.observe(Observation { peer, kind, outcome, weight, at: now.unix }, now.unix);
                }
            }
        }
    }

    /// Takes a receipt that this node signed as client: its own experience, and what its report will show.
    pub fn handle_receipt(&mut self, bytes: &[u8], now: Now) -> Result<(), Reject> {
        let outcome = self.try_receipt(bytes, now.unix);
        self.counted(outcome)
    }

    /// Takes somebody's report, from whoever sent it.
    pub fn handle_report(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Result<(), Reject> {
        let outcome = self.try_report(from, bytes, now);
        self.blame_sender(from, outcome, now.unix);
        self.counted(outcome)
    }

    /// Takes a proof of misbehaviour, from a peer or out of this node's own protocols.
    pub fn handle_proof(&mut self, from: Option<NodeId>, bytes: &[u8], now: Now) -> Result<(), Reject> {
        let outcome = self.try_proof(from, bytes, now);
        if let Some(from) = from {
            self.blame_sender(from, outcome, now.unix);
        }
        self.counted(outcome)
    }

    /// Takes note of what `from` did in the exchange that no honest peer does, or of how often it did something.
    pub fn handle_misuse(&mut self, from: NodeId, reject: Reject, now: UnixMillis) {
        self.drops.count(reject.drop_reason());
        self.blame_sender(from, Err(reject), now);
    }

    fn counted(&self, outcome: Result<(), Reject>) -> Result<(), Reject> {
        if let Err(reject) = outcome {
            self.drops.count(reject.drop_reason());
        }
        outcome
    }

    fn blame_sender(&mut self, peer: NodeId, outcome: Result<(), Reject>, now: UnixMillis) {
        let weight = outcome.err().map_or(0.0, Reject::weight);
        if weight > 0.0 {
            let (kind, outcome) = (Kind::Correctness, Outcome::Bad);
            self.observe(Observation { peer, kind, outcome, weight, at: now }, now);
        }
    }

    fn observe(&mut self, observation: Observation, now: UnixMillis) {
        let Observation { peer, kind, outcome, weight, at } = observation;
        let weight = weight.min(self.config.weight_cap);
        let fading = *self.config.fading(kind);
        let entry = self.entry(peer, now);
        entry.own.get_mut(kind).add(outcome, weight, at, &fading, now);
        // Being away is no misconduct, and to be of another opinion is none either.
        if (kind, outcome) == (Kind::Correctness, Outcome::Bad) {
            self.punish(peer, weight, now);
        }
    }

    fn entry(&mut self, peer: NodeId, now: UnixMillis) -> &mut Peer {
        let mut gone = Vec::new();
        let entry = self.peers.entry(peer, &self.config, now, &mut gone);
        self.changed.extend(gone.into_iter().chain([peer]).map(Key::Peer));
        // Memory for what was given up is bounded as well: a table's worth of changes is handed out at once.
        self.saving |= self.changed.len() > self.config.max_peers + self.config.max_heard;
        entry
    }

    fn punish(&mut self, peer: NodeId, weight: f64, now: UnixMillis) {
        let config = self.config.score;
        let entry = self.entry(peer, now);
        let output = match entry.score.punish(weight, &config, now) {
            None => return,
            Some(Sanction::Disconnect) => Output::Disconnect(peer),
            Some(Sanction::Ban(until)) => {
                let met = entry.is_met();
                self.saving = true;
                Output::Ban { peer, until, met }
            }
        };
        self.push(output);
    }

    fn push(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }

    fn try_receipt(&mut self, bytes: &[u8], now: UnixMillis) -> Result<(), Reject> {
        let claim = receipt::Claim::parse(bytes, &self.config.schedule, now)?;
        let facts = *claim.facts();
        if facts.terms.client != self.reporter.node() {
            return Err(Reject::NotOurs);
        }
        self.reporter.may_use(self.config.schedule.at(facts.made), facts.deal)?;
        let receipt: Receipt = claim.verify(&self.config.network, now)?;
        let weight = facts.weight(self.config.value_unit, self.config.weight_cap);
        self.reporter.take(&receipt, weight);
        for (kind, outcome) in facts.verdict.evidence() {
            let (peer, kind, outcome) = (facts.server, *kind, *outcome);
            self.observe(Observation { peer, kind, outcome, weight, at: facts.made }, now);
        }
        Ok(())
    }

    /// Cheapest checks first; up to nine pairs of signatures last.
    fn try_report(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Result<(), Reject> {
        self.admit(from, bytes.len() <= MAX_REPORT, now)?;
        let claim = report::Claim::parse(bytes, &self.config.schedule, now.unix)?;
        let (subject, reporter) = (claim.subject(), claim.reporter());
        if reporter == self.reporter.node() {
            return Err(Reject::Replayed);
        }
        if self.banned_until(reporter, now.unix).is_some() {
            return Err(Reject::Banned);
        }
        if self.hearsay.get(subject, reporter).is_some_and(|heard| claim.epoch() <= heard.last) {
            return Err(Reject::Replayed);
        }
        if !self.hearsay.admits(subject, reporter, |rater| self.trust(rater, now.unix).belief()) {
            return Err(Reject::Full);
        }
        self.spend_on_stranger(from, now)?;
        let report = claim.verify(&self.config.network, now.unix)?;
        self.take_report(&report, now.unix);
        Ok(())
    }

    fn admit(&mut self, from: NodeId, fits: bool, now: Now) -> Result<(), Reject> {
        if self.banned_until(from, now.unix).is_some() {
            return Err(Reject::Banned);
        }
        if !fits {
            return Err(Reject::Malformed);
        }
        self.sources.admit(from, now.mono)
    }

    /// Signature checks for strangers have a budget of their own, so that a flood of new identities cannot keep out
    /// those who have proved to be good raters. Running out of it is no fault of this sender.
    fn spend_on_stranger(&mut self, from: NodeId, now: Now) -> Result<(), Reject> {
        let trusted = self.trust(from, now.unix).belief() >= hearsay::TRUSTED;
        if trusted || self.strangers.try_take(now.mono) { Ok(()) } else { Err(Reject::Full) }
    }

    fn take_report(&mut self, report: &Report, now: UnixMillis) {
        let pair = (report.subject(), report.reporter());
        let known = self.hearsay.get(pair.0, pair.1);
        let mut evidence = known.map_or_else(PerKind::default, |heard| heard.evidence);
        let judged = known.map_or_else(Evidence::default, |heard| heard.judged);
        for facts in report.facts() {
            let weight = facts.weight(self.config.value_unit, self.config.weight_cap);
            for (kind, outcome) in facts.verdict.evidence() {
                evidence.get_mut(*kind).add(*outcome, weight, facts.made, self.config.fading(*kind), now);
            }
        }
        let mut heard = Heard { evidence, judged, last: report.epoch() };
        self.judge_rater(pair, &mut heard, now);
        let trust = |rater| self.peers.get(rater).map_or(0.0, |peer| rater_opinion(peer, &self.config, now).belief());
        let gone = self.hearsay.insert(pair, heard, trust, (&self.config, now));
        let changed = gone.into_iter().chain([pair]);
        self.changed.extend(changed.map(|(subject, reporter)| Key::Heard(subject, reporter)));
    }

    /// What a reporter says about a peer that this node knows itself shows what its word is worth.
    fn judge_rater(&mut self, (subject, peer): (NodeId, NodeId), heard: &mut Heard, now: UnixMillis) {
        let (mut agrees, mut certainty) = (true, 0.0f64);
        for kind in [Kind::Correctness, Kind::Availability] {
            let own = self.own(subject, kind, now);
            let theirs = heard.evidence.get(kind).faded(self.config.fading(kind), now);
            if own.mass() >= self.config.own_minimum && theirs.mass() > 0.0 {
                agrees &= hearsay::agree(&own, &theirs);
                certainty = certainty.max(1.0 - Opinion::from_evidence(&theirs).uncertainty());
            }
        }
        let fading = self.config.conduct;
        let judged = heard.judged.faded(&fading, now);
        let (outcome, before) = if agrees { (Outcome::Good, judged.good()) } else { (Outcome::Bad, judged.bad()) };
        let weight = certainty.min(SUBJECT_CAP - before);
        if weight > 0.0 {
            heard.judged.add(outcome, weight, now, &fading, now);
            self.observe(Observation { peer, kind: Kind::Rating, outcome, weight, at: now }, now);
        }
    }

    fn try_proof(&mut self, from: Option<NodeId>, bytes: &[u8], now: Now) -> Result<(), Reject> {
        if let Some(from) = from {
            self.admit(from, bytes.len() <= MAX_PROOF, now)?;
        }
        let claim = proof::Claim::parse(bytes, &self.config.provable, now.unix)?;
        let offender = claim.offender();
        if offender == self.reporter.node() {
            return Err(Reject::NotOurs);
        }
        if self.peers.get(offender).is_some_and(|peer| claim.seq() <= peer.proof_floor) {
            return Err(Reject::Replayed);
        }
        // Anybody can make keys that contradict themselves: they must not fill the table, nor the bans.
        let is_known = |node| self.relays.contains(&node) || self.peers.get(node).is_some_and(Peer::is_met);
        if from.is_some() && !is_known(offender) {
            return Err(Reject::Stranger);
        }
        if !self.peers.has_room_for_proof(offender) {
            return Err(Reject::Full);
        }
        if let Some(from) = from {
            self.spend_on_stranger(from, now)?;
        }
        let Proof { offender, kind, seq } = claim.verify(&self.config.network)?;
        let (weight, fading, at) = (self.config.proof_weight, self.config.proofs, UnixMillis(seq));
        let entry = self.entry(offender, now.unix);
        entry.proof_floor = seq;
        entry.proven.get_mut(kind).add(Outcome::Bad, weight, at, &fading, now.unix);
        if self.proofs.len() >= MAX_PROOFS && !self.proofs.contains_key(&offender) {
            let oldest = self.proofs.iter().min_by_key(|(_, (seq, _))| *seq).map(|(node, _)| *node);
            self.forget_proofs(oldest);
        }
        self.proofs.insert(offender, (seq, bytes.to_vec()));
        self.changed.insert(Key::Proof(offender));
        self.saving = true;
        self.punish(offender, self.config.score.ban, now.unix);
        Ok(())
    }

    fn forget_proofs(&mut self, of: impl IntoIterator<Item = NodeId>) {
        for node in of {
            self.proofs.remove(&node);
            self.changed.insert(Key::Proof(node));
        }
    }

    /// Own and proved evidence on `peer`.
    fn own(&self, peer: NodeId, kind: Kind, now: UnixMillis) -> Evidence {
        self.peers.get(peer).map_or_else(Evidence::default, |known| known.evidence(kind, &self.config, now))
    }

    /// What others report on `peer`, discounted and filtered.
    pub fn heard(&self, peer: NodeId, kind: Kind, now: UnixMillis) -> Evidence {
        let fading = self.config.fading(kind);
        let voice = |(reporter, heard): (NodeId, &Heard)| Voice {
            trust: self.trust(reporter, now),
            evidence: heard.evidence.get(kind).faded(fading, now),
        };
        hearsay::fuse(&self.own(peer, kind, now), self.hearsay.about(peer).map(voice).collect(), &self.config)
    }

    /// The opinion on `peer` as a rater.
    pub fn trust(&self, peer: NodeId, now: UnixMillis) -> Opinion {
        self.peers.get(peer).map_or(Opinion::VACUOUS, |known| rater_opinion(known, &self.config, now))
    }

    /// What is known of `peer`, by own experience, proof and hearsay. Rank by [`Beta::lower`].
    pub fn posterior(&self, peer: NodeId, kind: Kind, now: UnixMillis) -> Beta {
        let (own, heard) = (self.own(peer, kind, now), self.heard(peer, kind, now));
        Evidence::new(own.good() + heard.good(), own.bad() + heard.bad(), now).posterior()
    }

    /// The most that `peer` may be entrusted with at once, in units of value: what it has delivered to this node,
    /// discounted by its lower bound, less what it has spoilt; and for a newcomer a third of what its identity cost.
    /// Hearsay buys no credit.
    pub fn credit(&self, peer: NodeId, now: UnixMillis) -> u64 {
        if self.banned_until(peer, now).is_some() {
            return 0;
        }
        let own = self.own(peer, Kind::Correctness, now);
        let unit = self.config.value_unit.max(1) as f64;
        let allowance = self.config.identity_price as f64 / unit * BASE_RATE;
        let units = allowance + own.posterior().lower() * own.good() - own.bad();
        // The cast saturates, and the units are between 0 and the cap.
        (units.clamp(0.0, self.config.weight_cap) * unit) as u64
    }

    /// Whether `peer` is surely (95 %) less available than the floor.
    pub fn is_unreliable(&self, peer: NodeId, now: UnixMillis) -> bool {
        self.posterior(peer, Kind::Availability, now).upper() < self.config.availability_floor
    }

    /// Until when `peer` is banned, if it is.
    pub fn banned_until(&self, peer: NodeId, now: UnixMillis) -> Option<UnixMillis> {
        self.peers.get(peer)?.score.banned_until(now)
    }

    /// The penalty of `peer`.
    pub fn penalty(&self, peer: NodeId, now: UnixMillis) -> f64 {
        self.peers.get(peer).map_or(0.0, |known| known.score.penalty(&self.config.score, now))
    }

    /// The peers that this node knows itself or has heard of, sorted by id.
    pub fn peers(&self) -> BTreeSet<NodeId> {
        self.peers.iter().map(|(node, _)| node).chain(self.hearsay.subjects()).collect()
    }

    /// What is known of `peer`, and on how much that rests.
    pub fn summary(&self, peer: NodeId, kind: Kind, now: UnixMillis) -> Summary {
        let (own, heard) = (self.own(peer, kind, now), self.heard(peer, kind, now));
        let all = Evidence::new(own.good() + heard.good(), own.bad() + heard.bad(), now);
        let fading = self.config.fading(kind);
        let says = |heard: &Heard| heard.evidence.get(kind).faded(fading, now).mass() > 0.0;
        let reports = self.hearsay.about(peer).filter(|(_, heard)| says(heard)).count();
        Summary { posterior: all.posterior(), evidence: all.mass(), reports }
    }

    /// Who is banned, until when, and whether this node has had to do with it.
    pub fn banned(&self, now: UnixMillis) -> impl Iterator<Item = (NodeId, UnixMillis, bool)> {
        self.peers.iter().filter_map(move |(node, peer)| Some((node, peer.score.banned_until(now)?, peer.is_met())))
    }

    /// How many messages of `from` would be read now.
    pub fn quota(&self, from: NodeId, now: Instant) -> usize {
        self.sources.quota(from, now)
    }

    /// How time is cut.
    pub fn schedule(&self) -> EpochSchedule {
        self.config.schedule
    }

    /// The records of which two with one sequence number prove misbehaviour.
    pub fn provable(&self) -> &[RecordKind] {
        &self.config.provable
    }

    /// The last proof against `peer`: bytes that anybody can check.
    pub fn proof(&self, peer: NodeId) -> Option<&[u8]> {
        self.proofs.get(&peer).map(|(_, bytes)| bytes.as_slice())
    }

    /// How many peers are known, how many pairs of subject and reporter, and how many proofs.
    pub fn sizes(&self) -> [usize; 3] {
        [self.peers.len(), self.hearsay.len(), self.proofs.len()]
    }

    /// What was refused, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Hands out at once what changed since it was last saved: for a node that stops.
    pub fn save(&mut self) {
        self.saving = true;
    }

    /// What was handed out under `key` could not be stored: it is handed out again when changes are saved next.
    pub fn handle_not_saved(&mut self, key: &[u8]) {
        self.changed.extend(Key::from_bytes(key));
    }

    /// Publishes, saves and gives up what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        for report in self.reporter.reports(now.unix) {
            match report {
                Ok(bytes) => self.push(Output::Publish(bytes)),
                Err(reject) => self.drops.count(reject.drop_reason()),
            }
        }
        if now.mono >= self.next_save {
            self.next_save = now.mono + SAVE_INTERVAL;
            self.saving = true;
        }
        if now.mono >= self.next_sweep {
            self.next_sweep = now.mono + SWEEP_INTERVAL;
            self.sweep(now.unix);
        }
    }

    fn sweep(&mut self, now: UnixMillis) {
        let mut gone = Vec::new();
        self.peers.sweep(&self.config, now, &mut gone);
        self.changed.extend(gone.into_iter().map(Key::Peer));
        let schedule = self.config.schedule;
        let open = schedule.at(now.minus(schedule.length() * 2));
        let gone = self.hearsay.sweep(open, &self.config, now);
        self.changed.extend(gone.into_iter().map(|(subject, reporter)| Key::Heard(subject, reporter)));
        let over = |seq: u64| now.since(UnixMillis(seq)) > proof::MAX_AGE;
        let gone: Vec<_> = self.proofs.iter().filter(|(_, (seq, _))| over(*seq)).map(|(node, _)| *node).collect();
        self.forget_proofs(gone);
    }

    /// When [`Reputation::handle_timeout`] is due.
    pub fn poll_timeout(&self, now: Now) -> Option<Instant> {
        let report = self.reporter.next_due().map(|due| now.mono + due.since(now.unix));
        [Some(self.next_save), Some(self.next_sweep), report].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop() {
            return Some(output);
        }
        while self.saving {
            let Some(key) = self.changed.pop_first() else {
                self.saving = false;
                break;
            };
            let value = match key {
                Key::Peer(node) => self.peers.get(node).map(saved::encode),
                Key::Heard(subject, reporter) => self.hearsay.get(subject, reporter).map(saved::encode),
                Key::Proof(node) => self.proofs.get(&node).map(|(_, bytes)| Ok(bytes.clone())),
            };
            let key = key.to_bytes();
            match value {
                Some(Ok(value)) => return Some(Output::Persist { key, value }),
                None => return Some(Output::Forget { key }),
                Some(Err(_)) => self.drops.count(DropReason::Malformed),
            }
        }
        None
    }

    /// Puts back what [`Output::Persist`] kept, if it can be. Says against whom, if it was a proof.
    pub fn restore(&mut self, key: &[u8], value: &[u8], now: Now) -> Result<Option<NodeId>, Reject> {
        let malformed = |_| Reject::Malformed;
        let mut accused = None;
        let fits = match Key::from_bytes(key).ok_or(Reject::Malformed)? {
            Key::Peer(node) => {
                let peer = saved::decode(value).map_err(malformed)?;
                self.peers.restore(node, peer, &self.config, now.unix)
            }
            Key::Heard(subject, reporter) => {
                let heard = saved::decode(value).map_err(malformed)?;
                self.hearsay.restore(subject, reporter, heard)
            }
            Key::Proof(node) => {
                let claim = proof::Claim::parse(value, &self.config.provable, now.unix)?;
                let fits = claim.offender() == node && self.proofs.len() < MAX_PROOFS;
                if fits {
                    self.proofs.insert(node, (claim.seq(), value.to_vec()));
                    accused = Some(node);
                }
                fits
            }
        };
        if fits { Ok(accused) } else { Err(Reject::Full) }
    }
}

/// Who is banned is not listened to, nor are the reports that came before.
fn rater_opinion(peer: &Peer, config: &Config, now: UnixMillis) -> Opinion {
    if peer.score.banned_until(now).is_some() {
        return Opinion::VACUOUS;
    }
    Opinion::from_evidence(&peer.evidence(Kind::Rating, config, now))
}

#[cfg(test)]
#[path = "reputation_tests.rs"]
mod tests;
