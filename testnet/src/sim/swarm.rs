//! Peers and the lines between them: latency, loss, partitions, and who is there when.

use std::{ops::Range, time::Duration};

use rand::{Rng, RngExt};

use super::chance;

/// The lines between peers. A line has its own latency, the same in both directions, around which packets jitter.
#[derive(Debug)]
pub(super) struct Links {
    /// Names the latencies.
    pub(super) seed: [u8; 32],
    /// The chance that a line loses a packet.
    pub(super) loss: f64,
    /// When peers with even and odd numbers do not reach each other.
    pub(super) partitions: Vec<Range<Duration>>,
}

impl Links {
    /// How long a packet takes that is sent at `at`, if it arrives.
    pub(super) fn carry(&self, from: usize, to: usize, at: Duration, rng: &mut impl Rng) -> Option<Duration> {
        let is_parted = from % 2 != to % 2 && self.partitions.iter().any(|parted| parted.contains(&at));
        // Drawn in any case, so that a partition changes nothing else.
        let (is_lost, jitter) = (rng.random_bool(self.loss), chance::exponential(0.003, rng));
        (!is_parted && !is_lost).then(|| self.latency(from, to) + Duration::from_secs_f64(jitter))
    }

    /// Between 5 and 155 ms, mostly below 80: from the hash of the pair.
    fn latency(&self, a: usize, b: usize) -> Duration {
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&a.min(b).to_be_bytes()).update(&a.max(b).to_be_bytes());
        let [first, second, ..] = *hasher.finalize().as_bytes();
        Duration::from_micros(5_000 + 150_000 * u64::from(first) * u64::from(second) / (255 * 255))
    }
}

/// When a peer is there: sessions and absences of exponential lengths.
#[derive(Debug)]
pub(super) struct Presence(Vec<Range<Duration>>);

impl Presence {
    /// Always there.
    pub(super) fn always() -> Self {
        Self(vec![Duration::ZERO..Duration::MAX])
    }

    /// Until `end`, with sessions and absences of these means; there at the beginning.
    pub(super) fn churning(session: Duration, absence: Duration, end: Duration, rng: &mut impl Rng) -> Self {
        let (mut sessions, mut at) = (Vec::new(), Duration::ZERO);
        while at < end {
            let until = at + Duration::from_secs_f64(chance::exponential(session.as_secs_f64(), rng));
            sessions.push(at..until);
            at = until + Duration::from_secs_f64(chance::exponential(absence.as_secs_f64(), rng));
        }
        Self(sessions)
    }

    pub(super) fn is_there(&self, at: Duration) -> bool {
        self.0.iter().any(|session| session.contains(&at))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_partition_parts_for_its_time_and_changes_nothing_else() {
        let links = |partitions| Links { seed: [1; 32], loss: 0.1, partitions };
        let (whole, parted) = (links(Vec::new()), links(vec![HOUR..2 * HOUR]));
        let (mut a, mut b) = (ChaCha8Rng::seed_from_u64(1), ChaCha8Rng::seed_from_u64(1));
        let mut arrived = 0;
        for n in 0..30_000 {
            let (from, to, at) = (n % 7, n % 5 + 10, HOUR * (n as u32 % 3));
            let (carried, expected) = (parted.carry(from, to, at, &mut a), whole.carry(from, to, at, &mut b));
            let is_parted = at == HOUR && from % 2 != to % 2;
            assert_eq!(carried, expected.filter(|_| !is_parted));
            arrived += u32::from(expected.is_some());
        }
        assert!((26_700..27_300).contains(&arrived), "a tenth is lost: {arrived}");
    }

    #[test]
    fn who_comes_and_goes_is_there_for_its_share_of_the_time() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let presence = Presence::churning(3 * HOUR, HOUR, 10_000 * HOUR, &mut rng);
        let there = (0..10_000u32).filter(|hour| presence.is_there(HOUR * *hour)).count();
        assert!((7_200..7_800).contains(&there), "{there}");
        assert!(Presence::always().is_there(10_000 * HOUR));
    }
}
