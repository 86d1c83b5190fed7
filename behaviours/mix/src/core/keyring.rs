//! A relay's mix keys: one for each epoch, with the replay filter that lives exactly as long.
//!
//! A key is made one epoch before it is used, so that it can be published ahead, and destroyed when its epoch and grace end.
//! After that no packet of the epoch can be opened, whoever seizes the relay.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fog_base::{Epoch, EpochSchedule, UnixMillis};
use fog_sphinx::MixSecretKey;

use super::replay::{Fingerprint, ReplayFilter};

/// The key of one epoch and what belongs to it.
#[derive(Debug)]
pub struct EpochKey {
    /// Which epoch.
    pub epoch: Epoch,
    /// The private mix key.
    pub secret: MixSecretKey,
    /// This relay's VRF output for the epoch: delays are drawn from it.
    pub delay_salt: [u8; 32],
    filter: Mutex<ReplayFilter>,
}

impl EpochKey {
    /// A key whose filter has seen `seen`, in memory for at most `capacity` packets.
    pub fn new(
        epoch: Epoch,
        secret: MixSecretKey,
        delay_salt: [u8; 32],
        capacity: usize,
        filter_secret: u64,
        seen: impl IntoIterator<Item = Fingerprint>,
    ) -> Self {
        let mut filter = ReplayFilter::new(capacity, filter_secret);
        for fingerprint in seen {
            filter.insert(fingerprint);
        }
        Self { epoch, secret, delay_salt, filter: Mutex::new(filter) }
    }

    /// Tests and sets a batch of fingerprints under one lock: true for those that were not seen before.
    pub fn first_time(&self, fingerprints: &[Fingerprint]) -> Vec<bool> {
        // A filter is whole after any panic of another thread: each insertion stands alone.
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        fingerprints.iter().map(|fingerprint| filter.insert(*fingerprint)).collect()
    }

    /// How many packets the filter has seen.
    pub fn seen(&self) -> usize {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The keys that are accepted or will be soon.
#[derive(Debug, Clone, Default)]
pub struct Keyring(BTreeMap<Epoch, Arc<EpochKey>>);

/// What must happen to a keyring at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Epochs that need a key.
    pub make: Vec<Epoch>,
    /// Epochs whose key is destroyed.
    pub destroy: Vec<Epoch>,
}

impl Keyring {
    /// The key that opens packets of `epoch` at `now`.
    pub fn accepting(&self, epoch: Epoch, schedule: &EpochSchedule, now: UnixMillis) -> Option<&Arc<EpochKey>> {
        if schedule.accepts(epoch, now) { self.0.get(&epoch) } else { None }
    }

    /// Adds a key.
    pub fn insert(&mut self, key: EpochKey) {
        self.0.insert(key.epoch, Arc::new(key));
    }

    /// Removes a key; it is erased when the last batch that uses it is done.
    pub fn remove(&mut self, epoch: Epoch) {
        self.0.remove(&epoch);
    }

    /// The public keys of all epochs, as they are published.
    pub fn public(&self) -> Vec<(Epoch, [u8; 32])> {
        self.0.values().map(|key| (key.epoch, key.secret.public().to_bytes())).collect()
    }

    /// What must happen at `now`: there is always a key for this epoch and the next, and none whose grace is over.
    pub fn rotation(&self, schedule: &EpochSchedule, now: UnixMillis) -> Rotation {
        let current = schedule.at(now);
        let make = [current, current.next()].into_iter().filter(|epoch| !self.0.contains_key(epoch)).collect();
        // A key of the far future came from a clock that was wrong.
        let useless = |epoch: &Epoch| schedule.is_over(*epoch, now) || *epoch > current.next();
        let destroy = self.0.keys().copied().filter(useless).collect();
        Rotation { make, destroy }
    }

    /// When the keyring changes next.
    pub fn next_rotation(schedule: &EpochSchedule, now: UnixMillis) -> UnixMillis {
        let current = schedule.at(now);
        let previous_over = schedule.start(current).plus(schedule.grace());
        if previous_over > now { previous_over } else { schedule.end(current) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(epoch: Epoch) -> EpochKey {
        EpochKey::new(epoch, MixSecretKey::from_bytes([epoch.0 as u8; 32]), [0; 32], 100, 1, [])
    }

    #[test]
    fn there_is_always_a_key_for_this_epoch_and_the_next_and_none_past_its_grace() {
        let schedule = EpochSchedule::new(Duration::from_secs(60));
        let mut ring = Keyring::default();
        let mut now = UnixMillis(6_000_000);
        for _ in 0..500 {
            let rotation = ring.rotation(&schedule, now);
            rotation.make.iter().for_each(|epoch| ring.insert(key(*epoch)));
            rotation.destroy.iter().for_each(|epoch| ring.remove(*epoch));
            assert_eq!(ring.rotation(&schedule, now), Rotation::default());
            let current = schedule.at(now);
            assert!(ring.accepting(current, &schedule, now).is_some());
            assert!(ring.0.keys().all(|e| !schedule.is_over(*e, now)) && ring.0.len() <= 3);
            let next = Keyring::next_rotation(&schedule, now);
            assert!(next > now && next <= schedule.end(current));
            now = now.plus(Duration::from_secs(7));
        }
    }

    #[test]
    fn a_key_opens_packets_in_its_epoch_and_grace_only() {
        let schedule = EpochSchedule::new(Duration::from_secs(60));
        let mut ring = Keyring::default();
        ring.insert(key(Epoch(10)));
        let accepts = |secs: u64| ring.accepting(Epoch(10), &schedule, UnixMillis(secs * 1000)).is_some();
        assert_eq!([579, 580, 600, 659, 679, 680].map(accepts), [false, true, true, true, true, false]);
    }

    #[test]
    fn of_concurrent_duplicates_exactly_one_passes() {
        let key = key(Epoch(1));
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..100u8).filter(|n| key.first_time(&[[*n; 8]]) == [true]).count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(passed, 100);
    }
}
