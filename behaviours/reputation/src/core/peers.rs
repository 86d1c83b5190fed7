//! What this node itself knows of each peer: a bounded table that gives up what is worth least.

use std::collections::BTreeMap;

use fog_base::{NodeId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{
    config::Config,
    evidence::{Evidence, Kind, PerKind},
    score::Score,
};

/// What remembering a ban is worth, in evidence.
const BAN_WORTH: f64 = 32.0;
/// Below this a peer is as good as unknown.
const NEGLIGIBLE: f64 = 0.01;

/// One peer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What this node saw.
    pub own: PerKind<Evidence>,
    /// What two signatures prove.
    pub proven: PerKind<Evidence>,
    /// Proofs of what happened until then (Unix milliseconds) are counted.
    pub proof_floor: u64,
    /// Its penalty and bans.
    pub score: Score,
}

impl Peer {
    /// Own and proved evidence at `now`.
    pub fn evidence(&self, kind: Kind, config: &Config, now: UnixMillis) -> Evidence {
        let own = self.own.get(kind).faded(config.fading(kind), now);
        let proven = self.proven.get(kind).faded(&config.proofs, now);
        Evidence::new(own.good() + proven.good(), own.bad() + proven.bad(), now)
    }

    /// Whether this node has experience of its own with it, and not only proofs.
    pub fn is_met(&self) -> bool {
        Kind::ALL.iter().any(|kind| self.own.get(*kind).mass() > 0.0)
    }

    /// What forgetting it would lose. What is bad counts more, so that a record cannot be washed away by crowding the
    /// table.
    pub fn worth(&self, config: &Config, now: UnixMillis) -> f64 {
        let evidence = |kind| {
            let evidence = self.evidence(kind, config, now);
            evidence.good() + 2.0 * evidence.bad()
        };
        let banned = if self.score.banned_until(now).is_some() { BAN_WORTH } else { 0.0 };
        Kind::ALL.map(evidence).iter().sum::<f64>() + self.score.penalty(&config.score, now) + banned
    }

    fn is_sound(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.own.get(*kind).is_sound() && self.proven.get(*kind).is_sound())
            && self.score.is_sound()
    }
}

/// All peers.
#[derive(Debug)]
pub struct Peers {
    table: BTreeMap<NodeId, Peer>,
    max: usize,
}

impl Peers {
    /// None yet; at most `max`.
    pub fn new(max: usize) -> Self {
        Self { table: BTreeMap::new(), max: max.max(1) }
    }

    /// What is known of `node`.
    pub fn get(&self, node: NodeId) -> Option<&Peer> {
        self.table.get(&node)
    }

    /// Whether there is room for the proof against `node` without giving up any of whom this node has experience of its own: proofs
    /// against oneself cost nothing.
    pub fn has_room_for_proof(&self, node: NodeId) -> bool {
        let is_full = self.table.len() >= self.max && !self.table.contains_key(&node);
        !is_full || self.table.values().filter(|peer| !peer.is_met()).count() >= self.max.div_ceil(16)
    }

    /// The entry of `node`, new if there was none. In a full table a sixteenth is given up first: those of whom there are only proofs, and
    /// then those worth least.
    pub fn entry(&mut self, node: NodeId, config: &Config, now: UnixMillis, gone: &mut Vec<NodeId>) -> &mut Peer {
        if self.table.len() >= self.max && !self.table.contains_key(&node) {
            let worth = |peer: &Peer| (peer.is_met(), peer.worth(config, now));
            let mut by_worth: Vec<_> = self.table.iter().map(|(node, peer)| (worth(peer), *node)).collect();
            by_worth.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            for (_, node) in by_worth.into_iter().take(self.max.div_ceil(16)) {
                self.table.remove(&node);
                gone.push(node);
            }
        }
        self.table.entry(node).or_default()
    }

    /// Puts back what was saved, unless it cannot be what was saved or there is no room.
    pub fn restore(&mut self, node: NodeId, mut peer: Peer, config: &Config, now: UnixMillis) -> bool {
        let fits = peer.is_sound() && self.table.len() < self.max;
        if fits {
            peer.score.shorten(&config.score, now);
            self.table.insert(node, peer);
        }
        fits
    }

    /// Gives up those of whom nothing is left but the prior.
    pub fn sweep(&mut self, config: &Config, now: UnixMillis, gone: &mut Vec<NodeId>) {
        self.table.retain(|node, peer| {
            let keep = peer.worth(config, now) >= NEGLIGIBLE;
            if !keep {
                gone.push(*node);
            }
            keep
        });
    }

    /// All, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.table.iter().map(|(node, peer)| (*node, peer))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
