//! When our own descriptor is signed anew: at once when what it says is no longer true, and otherwise once per epoch, at a random
//! moment of its first half, so that ten thousand relays do not all speak at the boundary. A ticket over another beacon than the one
//! that counts is also no longer true: it is made anew within a part of the epoch.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{Epoch, EpochSchedule, NetworkId, NodeId, Now};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    descriptor::{Candidacy, Descriptor, Facts, SignError},
    loops::SignedLoops,
    lottery::{self, Lottery},
};

/// Changes within this time become one descriptor.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// A ticket is made anew at a random moment of such a part of an epoch.
const JITTER_PARTS: u32 = 48;
/// A seat signs in the last sixth of the epoch's first half: it reports the loops through seats that serve since a sixth of an epoch
/// before, and has by then measured them for more than half an epoch.
const SEATS_SIGN_FROM: f64 = 5.0 / 6.0;

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
    /// The epoch whose set the next ticket is for, and its beacon.
    lottery: Option<(Epoch, [u8; 32])>,
    /// What the ticket in the published descriptor was made over.
    entered: Option<(Epoch, [u8; 32])>,
    /// Whether this node has a seat, and so loops to report: it signs late.
    is_seat: bool,
    due: Option<Instant>,
    not_before: Instant,
}

impl Publisher {
    /// Publishes nothing yet.
    pub fn new(signer: Signer, network: NetworkId, schedule: EpochSchedule, seed: [u8; 32], now: Now) -> Self {
        let rng = StdRng::from_seed(seed);
        let (wanted, published, lottery, entered) = (None, None, None, None);
        Self {
            signer,
            network,
            schedule,
            rng,
            wanted,
            published,
            lottery,
            entered,
            is_seat: false,
            due: None,
            not_before: now.mono,
        }
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
                let earliest = if self.is_seat { SEATS_SIGN_FROM } else { 0.0 };
                let offset = half.mul_f64(self.rng.random_range(earliest..1.0));
                Some(self.not_before.max(now.mono + offset.saturating_sub(passed)))
            }
            (Some(_), _) => Some(self.not_before.max(now.mono)),
        };
    }

    /// Whether this node has a seat in the epoch that begins, or runs.
    pub fn set_seat(&mut self, is_seat: bool) {
        self.is_seat = is_seat;
    }

    /// The epoch whose set is agreed on next, and its beacon.
    pub fn set_lottery(&mut self, lottery: Option<(Epoch, [u8; 32])>, now: Now) {
        if lottery.is_none() || self.lottery == lottery {
            return;
        }
        self.lottery = lottery;
        // A descriptor that is still to be signed takes it in; one of this epoch with another ticket, or none, is outdated.
        let entered = self.published.as_ref().and_then(|(epoch, _)| self.lottery_of(*epoch));
        if self.due.is_none() && self.is_published() && entered.is_some() && entered != self.entered {
            let part = self.schedule.length() / JITTER_PARTS;
            self.due = Some(self.not_before.max(now.mono + part.mul_f64(self.rng.random_range(0.0..1.0))));
        }
    }

    /// What the ticket in a descriptor of `epoch` is made over.
    fn lottery_of(&self, epoch: Epoch) -> Option<(Epoch, [u8; 32])> {
        self.lottery.filter(|(of, _)| *of == epoch.next())
    }

    /// Whether the published descriptor says what is true.
    pub fn is_published(&self) -> bool {
        self.published.is_some() && self.published == self.wanted
    }

    /// Whether what was published serves now: it says what is true, or all of it but the keys of the next epoch, which have half of this one.
    pub fn is_in_force(&self) -> bool {
        let served = self.wanted.as_ref().zip(self.published.as_ref());
        served.is_some_and(|(wanted, published)| wanted == published || continues(wanted, published))
    }

    /// Signs the descriptor if it is due; its sequence number is at least `next_seq`. `loops` yields what this node saw of the seats
    /// that serve in an epoch.
    pub fn handle_timeout(
        &mut self,
        next_seq: u64,
        loops: impl FnOnce(Epoch) -> Option<SignedLoops>,
        now: Now,
    ) -> Option<Result<Descriptor, SignError>> {
        if self.due.is_none_or(|due| now.mono < due) {
            return None;
        }
        self.due = None;
        self.not_before = now.mono + MIN_INTERVAL;
        let (epoch, facts) = self.wanted.clone()?;
        let (mut seed, mut ticket_seed) = ([0; 32], [0; 32]);
        self.rng.fill(&mut seed);
        self.rng.fill(&mut ticket_seed);
        let entered = self.lottery_of(epoch);
        let ticket = entered.map(|(of, beacon)| {
            let lottery = Lottery { network: &self.network, epoch: of, beacon: &beacon };
            lottery::prove(&self.signer.vrf, &self.node(), &lottery, &ticket_seed)
        });
        let candidacy = Candidacy { ticket, loops: loops(epoch) };
        let keys = (&*self.signer.identity, &*self.signer.vrf);
        let seq = now.unix.0.max(next_seq);
        let contents = (&facts, &candidacy);
        let signed = Descriptor::sign(keys, (&self.network, &self.schedule), contents, (epoch, seq), now.unix, &seed);
        self.entered = entered;
        self.published = signed.is_ok().then_some((epoch, facts));
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
