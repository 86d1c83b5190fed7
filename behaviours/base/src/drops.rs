//! Why something was dropped. Every drop in Fog has one of these reasons and is counted under it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The reasons, named as INTERFACE names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Not parseable: a wrong length, an unknown command, a field out of range.
    Malformed,
    /// A version that this node does not speak.
    UnknownVersion,
    /// No key for the packet's epoch: too early, too late, or destroyed.
    WrongEpoch,
    /// The header's authenticator does not match.
    BadMac,
    /// Seen before.
    Replayed,
    /// The sender exceeded its rate.
    RateLimited,
    /// A bounded queue was full.
    QueueFull,
    /// Nowhere to send it: the next hop or the slot is unknown or unreachable.
    NoRoute,
    /// Too old.
    Expired,
    /// The payload failed its check at the last hop.
    BadPayload,
}

impl DropReason {
    /// All reasons, in a fixed order.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::UnknownVersion,
        Self::WrongEpoch,
        Self::BadMac,
        Self::Replayed,
        Self::RateLimited,
        Self::QueueFull,
        Self::NoRoute,
        Self::Expired,
        Self::BadPayload,
    ];

    /// The name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVersion => "unknown_version",
            Self::WrongEpoch => "wrong_epoch",
            Self::BadMac => "bad_mac",
            Self::Replayed => "replayed",
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::NoRoute => "no_route",
            Self::Expired => "expired",
            Self::BadPayload => "bad_payload",
        }
    }
}

/// A counter for each reason; shared between threads without a lock.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts one drop.
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `n` drops.
    pub fn add(&self, reason: DropReason, n: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// How often `reason` was counted.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All reasons with their counts.
    pub fn snapshot(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.snapshot().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_and_a_name_of_its_own() {
        let counters = DropCounters::default();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            counters.add(reason, i as u64 + 1);
        }
        assert!(counters.snapshot().map(|(_, n)| n).eq(1..=10));
        assert_eq!(counters.total(), 55);
        let names: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::name).into();
        assert_eq!(names.len(), 10);
    }
}
