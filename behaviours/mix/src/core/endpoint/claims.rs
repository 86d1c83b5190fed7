//! The mailboxes of a node that is no relay: which ones it uses, and when it claims its slot there.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::NodeId;
use rand::{Rng, RngExt};

/// Mailboxes in use at one time.
const WANTED: usize = 2;
/// A claim without an answer is repeated after this, one that was refused or did not reach its relay after that.
const RETRY: Duration = Duration::from_secs(12);
const SOON: Duration = Duration::from_secs(1);
/// A claim that holds is renewed after this.
const RENEW: Duration = Duration::from_secs(6 * 3600);
/// A mailbox that does not answer for this long is replaced.
const REPLACE_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Chosen {
    holds: bool,
    due: Instant,
    failing_since: Option<Instant>,
}

/// The mailboxes that this node uses.
#[derive(Debug, Default)]
pub struct Claims {
    chosen: BTreeMap<NodeId, Chosen>,
}

impl Claims {
    /// With the mailboxes that an earlier run used: invites that were given out name them.
    pub fn new(earlier: &[NodeId], now: Instant) -> Self {
        let fresh = |_| Chosen { holds: false, due: now, failing_since: Some(now) };
        Self { chosen: earlier.iter().take(WANTED).map(|id| (*id, fresh(id))).collect() }
    }

    /// Chooses among `candidates` and says where to claim now. True if the choice has changed.
    pub fn poll(&mut self, candidates: &[NodeId], now: Instant, rng: &mut dyn Rng) -> (Vec<NodeId>, bool) {
        let before: Vec<NodeId> = self.chosen.keys().copied().collect();
        let free: Vec<NodeId> = candidates.iter().filter(|c| !self.chosen.contains_key(c)).copied().collect();
        if !free.is_empty() {
            let dead =
                |c: &Chosen| c.failing_since.is_some_and(|since| now.saturating_duration_since(since) > REPLACE_AFTER);
            self.chosen.retain(|_, chosen| !dead(chosen));
        }
        let mut free = free;
        while self.chosen.len() < WANTED && !free.is_empty() {
            let relay = free.swap_remove(rng.random_range(0..free.len()));
            self.chosen.insert(relay, Chosen { holds: false, due: now, failing_since: Some(now) });
        }
        let mut due = Vec::new();
        for (relay, chosen) in &mut self.chosen {
            if chosen.due <= now {
                chosen.due = now + RETRY;
                due.push(*relay);
            }
        }
        let changed = !before.iter().eq(self.chosen.keys());
        (due, changed)
    }

    /// The relay holds the claim, or has refused it, or was not reached.
    pub fn answered(&mut self, relay: &NodeId, holds: bool, now: Instant) {
        let Some(chosen) = self.chosen.get_mut(relay) else { return };
        chosen.holds = holds;
        if holds {
            chosen.due = now + RENEW;
            chosen.failing_since = None;
        } else {
            chosen.due = chosen.due.min(now + SOON);
            chosen.failing_since.get_or_insert(now);
        }
    }

    /// The connection to `relay` ended: it pushes nothing until the slot is claimed again.
    pub fn disconnected(&mut self, relay: &NodeId, now: Instant) {
        if let Some(chosen) = self.chosen.get_mut(relay)
            && chosen.holds
        {
            (chosen.holds, chosen.due) = (false, now);
            chosen.failing_since = Some(now);
        }
    }

    /// The mailboxes that hold a claim now.
    pub fn holding(&self) -> impl Iterator<Item = NodeId> {
        self.chosen.iter().filter(|(_, c)| c.holds).map(|(id, _)| *id)
    }

    /// All that are in use: what an invite names and the store keeps.
    pub fn chosen(&self) -> Vec<NodeId> {
        self.chosen.keys().copied().collect()
    }

    /// Whether `relay` is one of them.
    pub fn uses(&self, relay: &NodeId) -> bool {
        self.chosen.contains_key(relay)
    }

    /// When a claim is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.chosen.values().map(|c| c.due).min()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn two_mailboxes_are_chosen_claimed_renewed_and_replaced_when_dead() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let start = Instant::now();
        let mut claims = Claims::default();
        let candidates: Vec<_> = (1..6).map(node).collect();
        let (due, changed) = claims.poll(&candidates, start, &mut rng);
        assert_eq!((due.len(), changed), (2, true));
        let (good, dead) = (due[0], due[1]);
        claims.answered(&good, true, start);
        claims.answered(&dead, false, start);
        assert_eq!(claims.holding().collect::<Vec<_>>(), [good]);
        assert_eq!(claims.poll(&candidates, start + SOON, &mut rng), (vec![dead], false));
        let later = start + REPLACE_AFTER + RETRY;
        let (due, changed) = claims.poll(&candidates, later, &mut rng);
        assert!(changed && due.len() == 1 && due[0] != dead);
        assert!(claims.poll(&candidates, start + RENEW, &mut rng).0.contains(&good));
    }

    #[test]
    fn a_lost_connection_is_claimed_again_at_once() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = Instant::now();
        let mut claims = Claims::new(&[node(1)], now);
        assert_eq!(claims.poll(&[], now, &mut rng).0, [node(1)]);
        claims.answered(&node(1), true, now);
        assert_eq!(claims.poll(&[], now + RETRY, &mut rng).0, []);
        claims.disconnected(&node(1), now + RETRY);
        assert_eq!(claims.poll(&[], now + RETRY, &mut rng).0, [node(1)]);
    }
}
