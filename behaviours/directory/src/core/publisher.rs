//! When our own descriptor is signed anew: at once when what it says is no longer true, and otherwise once per epoch, at a random
//! moment of its first half, so that ten thousand relays do not all speak at the boundary.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{Epoch, EpochSchedule, NetworkId, NodeId, Now};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::descriptor::{Candidacy, Descriptor, Facts, SignError};

/// Changes within this time become one descriptor.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// The keys that sign our descriptors.
#[derive(Clone)]
pub struct Signer {
    /// Signs as this node.
    pub identity: Arc<SigningKey>,
    /// Proves the delays.
    pub vrf: Arc<schnorrkel::Keypair>,
}

impl Signer {
    /// Who signs.
    pub fn node(&self) -> NodeId {
        NodeId(self.identity.verifying_key().to_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("node", &self.node()).finish_non_exhaustive()
    }
}

/// Signs our descriptor when it is due.
#[derive(Debug)]
pub struct Publisher {
    signer: Signer,
    network: NetworkId,
    schedule: EpochSchedule,
    rng: StdRng,
    /// What is true now, and the epoch of the first mix key; nothing while this node is no relay.
    wanted: Option<(Epoch, Facts)>,
    published: Option<(Epoch, Facts)>,
    due: Option<Instant>,
    not_before: Instant,
}

impl Publisher {
    /// Publishes nothing yet.
    pub fn new(signer: Signer, network: NetworkId, schedule: EpochSchedule, seed: [u8; 32], now: Now) -> Self {
        let rng = StdRng::from_seed(seed);
        Self { signer, network, schedule, rng, wanted: None, published: None, due: None, not_before: now.mono }
    }

    /// Whose descriptors these are.
    pub fn node(&self) -> NodeId {
        self.signer.node()
    }

    /// What is true from now on: the facts with the mix keys of `epoch` and the next; `None` when this node is no relay (what
    /// was published then runs out).
    pub fn set_facts(&mut self, wanted: Option<(Epoch, Facts)>, now: Now) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        self.due = match (&self.wanted, &self.published) {
            (None, _) => None,
            (wanted, published) if wanted == published => None,
            (Some(wanted), Some(published)) if continues(wanted, published) => {
                let half = self.schedule.end(wanted.0).since(self.schedule.start(wanted.0)) / 2;
                let passed = now.unix.since(self.schedule.start(wanted.0));
                let offset = half.mul_f64(self.rng.random_range(0.0..1.0));
                Some(self.not_before.max(now.mono + offset.saturating_sub(passed)))
            }
            (Some(_), _) => Some(self.not_before.max(now.mono)),
        };
    }

    /// Whether the published descriptor says what is true.
    pub fn is_published(&self) -> bool {
        self.published.is_some() && self.published == self.wanted
    }

    /// Signs the descriptor if it is due; its sequence number is at least `next_seq`.
    pub fn handle_timeout(&mut self, next_seq: u64, now: Now) -> Option<Result<Descriptor, SignError>> {
        if self.due.is_none_or(|due| now.mono < due) {
            return None;
        }
        self.due = None;
        self.not_before = now.mono + MIN_INTERVAL;
        let (epoch, facts) = self.wanted.as_ref()?;
        let keys = (&*self.signer.identity, &*self.signer.vrf);
        let seq = now.unix.0.max(next_seq);
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let signed = Descriptor::sign(
            keys,
            (&self.network, &self.schedule),
            (facts, &Candidacy::default()),
            (*epoch, seq),
            now.unix,
            &seed,
        );
        self.published = signed.is_ok().then(|| (*epoch, facts.clone()));
        Some(signed)
    }

    /// When [`Publisher::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// Whether `published` already says everything about `wanted`'s epoch: only the keys of the epoch after it are news, and they
/// are not needed before its end.
fn continues(wanted: &(Epoch, Facts), published: &(Epoch, Facts)) -> bool {
    let ((epoch, facts), (before, old)) = (wanted, published);
    let ([key, _], [_, promised]) = (facts.mix_keys, old.mix_keys);
    *epoch == before.next() && key == promised && Facts { mix_keys: old.mix_keys, ..facts.clone() } == *old
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
