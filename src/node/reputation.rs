//! What happens to this node, as evidence about its peers: the one place where experience becomes what fog-reputation
//! weighs, and where its verdicts become actions. Its README says what each piece of evidence is worth.

use std::collections::HashSet;

use fog_base::{NodeId, Now};
use fog_reputation::{Kind, Observation, Outcome, Summary};
use libp2p::PeerId;

use super::{
    behaviour::{node_id, peer_id},
    command::Failure,
    event_loop::EventLoop,
    gossip::Topic,
    metrics::Metrics,
    report,
    wiring::{Action, Wiring},
};
use crate::{
    node::clock,
    store::{Batch, Table},
};

/// What a link to a relay weighs, or a dial that it did not answer.
const LINK: f64 = 1.0;
/// What two signatures in one round weigh: the most that one observation may, which disconnects.
const SIGNED_TWICE: f64 = 8.0;

/// Evidence of availability without which a relay's circuits are not judged.
const ENOUGH: f64 = 4.0;

/// Lines in the list of all peers: more is no list for a person, and takes the event loop's time.
const MAX_LINES: usize = 1_000;

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Evidence {
    /// How a peer behaved.
    Observation(Observation),
    /// What became of something that went over these relays.
    Path { hops: Vec<NodeId>, outcome: Outcome, weight: f64 },
    /// It signed two descriptors with one sequence number, which the directory has kept.
    Equivocation(NodeId),
}

/// What a peer did that no honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    /// An invalid record, an answer to another question.
    Invalid,
    /// So many packets that its connection was ended for it.
    Flood,
    /// One request more than it may send.
    Excess,
}

impl Offence {
    /// The weights of fog-reputation's own exchange: 16 invalid messages within an hour ban.
    fn weight(self) -> f64 {
        match self {
            Self::Invalid | Self::Flood => 1.0,
            Self::Excess => 1.0 / 16.0,
        }
    }
}

fn learn(evidence: Evidence) -> Action {
    Action::Learn(evidence)
}

fn link(peer: NodeId, outcome: Outcome, now: Now) -> Action {
    let kind = Kind::Availability;
    learn(Evidence::Observation(Observation { peer, kind, outcome, weight: LINK, at: now.unix }))
}

/// A mix loop ended: it returned, or it was lost. Its path goes nowhere but into this node's own evidence.
pub(super) fn handle_loop(hops: &[NodeId], returned: bool) -> Action {
    let outcome = if returned { Outcome::Good } else { Outcome::Bad };
    learn(Evidence::Path { hops: hops.to_vec(), outcome, weight: 1.0 })
}

/// What became of circuits. No path is told to anybody: all of this stays in this node's own evidence.
pub(super) fn of_circuit(experience: fog_circuits::Experience) -> Evidence {
    let outcome = if experience.is_good { Outcome::Good } else { Outcome::Bad };
    Evidence::Path { hops: experience.relays, outcome, weight: experience.weight }
}

/// A seat signed two sets in one round of certifying: what is worst, and proved.
pub(super) fn signed_twice(relay: NodeId, now: Now) -> Action {
    let (kind, outcome) = (Kind::Correctness, Outcome::Bad);
    learn(Evidence::Observation(Observation { peer: relay, kind, outcome, weight: SIGNED_TWICE, at: now.unix }))
}

impl Wiring {
    /// A peer did what no honest one does.
    pub(super) fn handle_offence(&mut self, peer: NodeId, offence: Offence, now: Now) -> Vec<Action> {
        tracing::debug!(%peer, ?offence, "a peer misbehaved");
        self.counts.offences += 1;
        let (kind, outcome, weight) = (Kind::Correctness, Outcome::Bad, offence.weight());
        vec![learn(Evidence::Observation(Observation { peer, kind, outcome, weight, at: now.unix }))]
    }

    /// Links to relays that are new since the last look. Once for each link: a relay that comes and goes gains nothing.
    pub(super) fn note_links(&mut self, now: Now) -> Vec<Action> {
        let is_new = |peer: &&PeerId| self.seated.contains(peer) && !self.linked.contains(peer);
        let new: Vec<_> = self.peers.identified().filter(is_new).copied().collect();
        self.linked.extend(new.iter().copied());
        self.counts.links += new.len() as u64;
        new.iter().filter_map(node_id).map(|node| link(node, Outcome::Good, now)).collect()
    }

    /// The last connection to a peer is gone, and not by this node's wish. With nobody left it is this node that is cut off.
    pub(super) fn note_loss(&mut self, peer: &PeerId, now: Now) -> Option<Action> {
        if !self.linked.remove(peer) || !self.seated.contains(peer) || self.peers.count() == 0 {
            return None;
        }
        self.counts.links_lost += 1;
        Some(link(node_id(peer)?, Outcome::Bad, now))
    }

    /// A relay did not answer at its addresses, while others do.
    pub(super) fn note_silence(&mut self, peer: &PeerId, now: Now) -> Option<Action> {
        if !self.seated.contains(peer) || self.peers.is_connected(peer) || self.peers.count() == 0 {
            return None;
        }
        self.counts.links_failed += 1;
        Some(link(node_id(peer)?, Outcome::Bad, now))
    }

    /// Ends the connections to a peer of which this node has had enough; that they end is no evidence.
    pub(super) fn let_go(&mut self, peer: PeerId) -> Action {
        self.linked.remove(&peer);
        Action::Disconnect(peer)
    }

    /// What fog-reputation wants done.
    pub(super) fn handle_reputation(&mut self, event: fog_reputation::Event) -> Vec<Action> {
        use fog_reputation::Event as Reputation;
        match event {
            Reputation::Save(changes) if changes.is_empty() => Vec::new(),
            Reputation::Save(changes) => {
                self.counts.saved += changes.len() as u64;
                vec![Action::Store(batch(changes))]
            }
            Reputation::Publish(bytes) => vec![Action::Publish { topic: Topic::Reputation, bytes }],
            Reputation::Disconnect(node) => peer_id(node).map(|peer| self.let_go(peer)).into_iter().collect(),
            Reputation::Ban { peer, until, met } => {
                let Some(peer) = peer_id(peer) else { return Vec::new() };
                tracing::debug!(%peer, "a peer is banned");
                self.counts.bans += 1;
                let pardoned = self.peers.ban(peer, until, met).map(Action::Unblock);
                [Action::Block(peer), self.let_go(peer)].into_iter().chain(pardoned).collect()
            }
        }
    }
}

/// Rows to keep or to forget.
pub(super) fn batch(changes: Vec<fog_reputation::Change>) -> Batch {
    let mut batch = Batch::new();
    for fog_reputation::Change { key, value } in changes {
        match value {
            Some(value) => batch.put(Table::Reputation, key, value),
            None => batch.delete(Table::Reputation, key),
        };
    }
    batch
}

impl EventLoop {
    /// Hands a piece of evidence to fog-reputation.
    pub(super) fn learn(&mut self, evidence: Evidence) {
        let behaviour = self.swarm.behaviour_mut();
        let outcome = match evidence {
            Evidence::Observation(observation) => behaviour.reputation.handle_observation(observation),
            Evidence::Path { hops, outcome, weight } => {
                behaviour.reputation.handle_path(&hops, outcome, weight);
                Ok(())
            }
            Evidence::Equivocation(relay) => match behaviour.directory.relays().evidence(relay) {
                Some([first, second]) => behaviour.reputation.handle_contradiction(first, second),
                None => Ok(()),
            },
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "evidence was not taken");
        }
    }

    /// What is known of one peer, or of those of whom the most is.
    pub(super) fn reputation(&self, peer: Option<&str>) -> Result<Vec<report::Reputation>, Failure> {
        let (now, reputation) = (clock::now().unix, self.swarm.behaviour().reputation.reputation());
        let line = |(peer, kind, summary): (NodeId, Kind, Summary)| {
            let beta = summary.posterior;
            report::Reputation {
                peer_id: peer.to_string(),
                kind: kind.name().into(),
                mean: beta.mean(),
                lower: beta.lower(),
                upper: beta.upper(),
                evidence: summary.evidence,
                reports: summary.reports,
            }
        };
        if let Some(text) = peer {
            let peer = self.other(text)?;
            let lines = Kind::ALL.map(|kind| line((peer, kind, reputation.summary(peer, kind, now))));
            return Ok(lines.into());
        }
        let of = |peer| Kind::ALL.map(|kind| (peer, kind, reputation.summary(peer, kind, now)));
        let known = reputation.peers().into_iter().flat_map(of);
        let known = known.filter(|(.., summary)| summary.evidence > 0.0 || summary.reports > 0);
        Ok(with_most_evidence(known, MAX_LINES).into_iter().map(line).collect())
    }

    /// The other peer that a text names.
    fn other(&self, text: &str) -> Result<NodeId, Failure> {
        let peer = self.named(text)?;
        if peer == self.keys.node_id() {
            return Err(Failure::usage("that is this node itself", "name another node"));
        }
        Ok(peer)
    }

    /// The relays that circuits pass over where there are others: those that surely are less available than the floor, on enough evidence. At most a
    /// quarter of all, the worst of them: whoever makes others fail must not decide which relays are left.
    pub(super) fn failing_relays(&self, relays: &[NodeId]) -> HashSet<NodeId> {
        let (reputation, now) = (self.swarm.behaviour().reputation.reputation(), clock::now().unix);
        let summaries = relays.iter().map(|relay| (*relay, reputation.summary(*relay, Kind::Availability, now)));
        let is_bad =
            |(relay, summary): &(NodeId, Summary)| summary.evidence >= ENOUGH && reputation.is_unreliable(*relay, now);
        let mut bad: Vec<_> = summaries.filter(is_bad).collect();
        bad.sort_by(|(_, a), (_, b)| a.posterior.upper().total_cmp(&b.posterior.upper()));
        bad.into_iter().take(relays.len() / 4).map(|(relay, _)| relay).collect()
    }

    /// What ranks a relay: the lower bound of its availability. `None` if nothing is known of it.
    pub(super) fn rank(&self, relay: NodeId) -> Option<f64> {
        let reputation = self.swarm.behaviour().reputation.reputation();
        let summary = reputation.summary(relay, Kind::Availability, clock::now().unix);
        (summary.evidence > 0.0).then(|| summary.posterior.lower())
    }

    pub(super) fn reputation_metrics(&self, metrics: &mut Metrics) {
        let behaviour = &self.swarm.behaviour().reputation;
        let [peers, pairs, proofs] = behaviour.reputation().sizes();
        let banned = behaviour.reputation().banned(clock::now().unix).count();
        metrics.gauge("reputation_peers", "Peers that this node knows by its own experience or by proof", peers as f64);
        metrics.gauge("reputation_heard", "Pairs of a peer and of one that reports on it", pairs as f64);
        metrics.gauge("reputation_proofs", "Peers of whose misbehaviour a proof is kept", proofs as f64);
        metrics.gauge("reputation_banned", "Peers that are banned now", banned as f64);
        let exchange = behaviour.exchange();
        metrics.gauge("reputation_open", "Reports and proofs that are kept for others", exchange.kept() as f64);
        let (ours, counts) = (exchange.counts(), self.wiring.counts);
        metrics.counter("reputation_reported", "Reports that this node published", ours.reported);
        metrics.counter("reputation_reports", "Reports of others that were taken", ours.reports);
        metrics.counter("reputation_proofs_taken", "Proofs of misbehaviour that were taken", ours.proofs);
        metrics.counter("reputation_served", "Reports and proofs that peers were given", ours.served);
        metrics.counter("reputation_saved", "Rows that were given to the store", counts.saved);
        let links = [("made", counts.links), ("lost", counts.links_lost), ("failed", counts.links_failed)]
            .map(|(k, n)| (k.into(), n));
        metrics.counters("reputation_links", "Links to relays, as evidence", "outcome", links.to_vec());
    }
}

/// The `max` of them with the most evidence, in their order.
fn with_most_evidence(
    known: impl Iterator<Item = (NodeId, Kind, Summary)>,
    max: usize,
) -> Vec<(NodeId, Kind, Summary)> {
    let mut known: Vec<_> = known.enumerate().collect();
    known.sort_by(|(_, a), (_, b)| b.2.evidence.total_cmp(&a.2.evidence));
    known.truncate(max);
    known.sort_by_key(|(at, _)| *at);
    known.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
#[path = "reputation_tests.rs"]
mod tests;
