//! Descriptors that a relay keeps.
//!
//! Who publishes is unknown, and blinded keys cost nothing, so there is no quota per publisher that holds: a key has one descriptor,
//! only keys that the ring gives to this relay are kept, and a full store refuses new keys while it renews those that it has. What
//! is cheap is checked before signatures are.
//!
//! Nothing has to be remembered of an expired descriptor: an older revision of it expired no later.

use std::{collections::BTreeMap, time::Instant};

use fog_base::{Epoch, NetworkId, NodeId, TokenBucket};

use crate::{
    core::blinding::BlindedKey,
    core::{
        descriptor::{Claimed, Descriptor, DescriptorError},
        reject::Reject,
        ring::Ring,
    },
    wire::{StoreAnswer, StoreReject},
};

/// Descriptors kept.
pub const MAX_DESCRIPTORS: usize = 8192;
/// Bytes of all of them.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Descriptors whose signatures are checked, a second and at once.
const CHECKS: (f64, f64) = (50.0, 200.0);
/// Rings of open periods.
const MAX_RINGS: usize = 3;

#[derive(Debug)]
pub(super) struct Directory {
    rings: Vec<Ring>,
    kept: BTreeMap<[u8; 32], Descriptor>,
    bytes: usize,
    checks: TokenBucket,
}

impl Directory {
    pub(super) fn new(now: Instant) -> Self {
        let checks = TokenBucket::new(CHECKS.0, CHECKS.1, now);
        Self { rings: Vec::new(), kept: BTreeMap::new(), bytes: 0, checks }
    }

    pub(super) fn set_rings(&mut self, mut rings: Vec<Ring>) {
        rings.truncate(MAX_RINGS);
        self.rings = rings;
    }

    /// Keeps a descriptor or says why not.
    pub(super) fn store(
        &mut self,
        bytes: &[u8],
        network: &NetworkId,
        us: NodeId,
        epoch: Epoch,
        now: Instant,
    ) -> (StoreAnswer, Option<Reject>) {
        match self.judge(bytes, network, us, epoch, now) {
            Ok(descriptor) => {
                let revision = descriptor.header().revision;
                self.keep(descriptor);
                (StoreAnswer::Stored(revision), None)
            }
            Err(refusal) => refusal,
        }
    }

    fn judge(
        &mut self,
        bytes: &[u8],
        network: &NetworkId,
        us: NodeId,
        epoch: Epoch,
        now: Instant,
    ) -> Result<Descriptor, (StoreAnswer, Option<Reject>)> {
        let rejected = |why, reason| (StoreAnswer::Rejected(why), Some(reason));
        let claimed = Claimed::read(bytes).map_err(|_| rejected(StoreReject::Malformed, Reject::Malformed))?;
        claimed.check(epoch).map_err(|e| match e {
            DescriptorError::Period => rejected(StoreReject::Period, Reject::WrongTime),
            _ => rejected(StoreReject::Expired, Reject::WrongTime),
        })?;
        let known = self.kept.get(&claimed.key).filter(|kept| kept.check(epoch).is_ok());
        if let Some(kept) = known.filter(|kept| kept.header().revision >= claimed.revision) {
            // The same again is no rollback: an answer was lost.
            let revision = kept.header().revision;
            let same = kept.bytes() == bytes;
            let stale = (StoreAnswer::Stale(revision), Some(Reject::RolledBack));
            return Err(if same { (StoreAnswer::Stored(revision), None) } else { stale });
        }
        let room = self.bytes + bytes.len() <= MAX_BYTES && self.kept.len() < MAX_DESCRIPTORS;
        if known.is_none() && !room {
            return Err(rejected(StoreReject::Full, Reject::Full));
        }
        if !self.checks.try_take(now) {
            return Err(rejected(StoreReject::TooMany, Reject::RateLimited));
        }
        let key = BlindedKey::from_bytes(claimed.key);
        let key = key.map_err(|_| rejected(StoreReject::Malformed, Reject::Malformed))?;
        let ring = self.rings.iter().find(|ring| ring.period() == claimed.period);
        if !ring.is_some_and(|ring| ring.directories(&key).contains(&us)) {
            return Err(rejected(StoreReject::NotResponsible, Reject::NotResponsible));
        }
        claimed.verify(network).map_err(|_| rejected(StoreReject::Signature, Reject::BadSignature))
    }

    fn keep(&mut self, descriptor: Descriptor) {
        self.bytes += descriptor.bytes().len();
        if let Some(before) = self.kept.insert(*descriptor.header().key.as_bytes(), descriptor) {
            self.bytes -= before.bytes().len();
        }
    }

    pub(super) fn fetch(&self, key: &[u8; 32], epoch: Epoch) -> Option<Vec<u8>> {
        let kept = self.kept.get(key).filter(|kept| kept.check(epoch).is_ok());
        kept.map(|kept| kept.bytes().to_vec())
    }

    pub(super) fn expire(&mut self, epoch: Epoch) {
        self.kept.retain(|_, kept| kept.check(epoch).is_ok());
        self.bytes = self.kept.values().map(|kept| kept.bytes().len()).sum();
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
