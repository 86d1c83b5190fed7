//! Descriptors as Kademlia records: which key a descriptor stands under, and what is checked of a record before anything is done
//! with it.
//!
//! Kademlia itself checks nothing: whoever is asked answers what it likes, and whoever puts a record names its key. So a record is
//! checked by [`verify`] whatever way it came, and what passes goes through the set ([`RelaySet`](super::relay_set::RelaySet)) as if
//! it had come by exchange: its quota per source, its evidence of equivocation, its bounds.

use fog_base::{
    DropReason, Epoch, EpochSchedule, NetworkId, NodeId, UnixMillis, record::SignedRecord, time::CLOCK_TOLERANCE,
};

use super::descriptor::{self, Descriptor, MAX_LEN};

/// Names the use of the hash.
const KEY_LABEL: &str = "fog kad descriptor v1";

/// The key of a record: 32 bytes, which Kademlia hashes once more (SHA-256) for its place.
pub type Key = [u8; 32];

/// The key of the descriptor that `relay` signs in `epoch`.
pub fn key(network: &NetworkId, relay: NodeId, epoch: Epoch) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_LABEL);
    hasher.update(&network.0).update(&relay.0).update(&epoch.0.to_be_bytes());
    *hasher.finalize().as_bytes()
}

/// The network whose records these are, and how its time is cut.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The network.
    pub network: NetworkId,
    /// Its epochs.
    pub schedule: EpochSchedule,
}

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Longer than any descriptor.
    #[error("the record is longer than a descriptor")]
    TooLarge,
    /// The key is not that of the relay and the epoch of the descriptor inside.
    #[error("the record does not belong under its key")]
    WrongKey,
    /// The descriptor inside is refused.
    #[error(transparent)]
    Descriptor(#[from] descriptor::Reject),
}

impl Reject {
    /// Under which reason it is counted.
    pub fn drop_reason(self) -> DropReason {
        match self {
            Self::TooLarge | Self::WrongKey => DropReason::Malformed,
            Self::Descriptor(reject) => reject.drop_reason(),
        }
    }

    /// Whether no honest peer would have sent it. An honest peer may hold an outdated record, or have a clock that is off; it checks
    /// everything else before it passes a record on.
    pub fn is_misbehaviour(self) -> bool {
        match self {
            Self::TooLarge | Self::WrongKey => true,
            Self::Descriptor(reject) => reject.is_misbehaviour(),
        }
    }
}

/// Checks a record: size, key, strict signature and everything else that a descriptor alone can be checked for, lifetime, and that it
/// is not older than the newest descriptor of its relay, whose sequence number `known` names.
///
/// One relay has at most two live keys: a descriptor of epoch e is valid until the end of e + 1 and is not signed before e.
pub fn verify(
    key: &[u8],
    value: &[u8],
    known: impl FnOnce(NodeId) -> Option<u64>,
    rules: &Rules,
    now: UnixMillis,
) -> Result<Descriptor, Reject> {
    if value.len() > MAX_LEN {
        return Err(Reject::TooLarge);
    }
    let record = SignedRecord::parse(value).map_err(descriptor::Reject::from)?;
    let relay = record.signer();
    // Cheap, and all that a record under a ground or foreign key costs us.
    if !plausible(rules, now).any(|epoch| self::key(&rules.network, relay, epoch) == *key) {
        if now >= record.expires() {
            return Err(descriptor::Reject::Expired.into());
        }
        if record.not_before() > now.plus(CLOCK_TOLERANCE) {
            return Err(descriptor::Reject::TooEarly.into());
        }
        return Err(Reject::WrongKey);
    }
    if known(relay).is_some_and(|newest| record.seq() < newest) {
        return Err(descriptor::Reject::Rollback.into());
    }
    let descriptor = Descriptor::verify(record, &rules.network, &rules.schedule, now)?;
    // Of the plausible epochs it must be the descriptor's own.
    if self::key(&rules.network, relay, descriptor.epoch()) != *key {
        return Err(Reject::WrongKey);
    }
    Ok(descriptor)
}

/// The epochs whose descriptors may be live: the last, the running one, and the next, in which another clock may already be.
fn plausible(rules: &Rules, now: UnixMillis) -> impl Iterator<Item = Epoch> {
    let Epoch(running) = rules.schedule.at(now);
    (running.saturating_sub(1)..=running.saturating_add(1)).map(Epoch)
}

#[cfg(test)]
#[path = "kad_record_tests.rs"]
mod tests;
