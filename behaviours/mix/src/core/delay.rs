//! The delay of one packet at one mix: exponential, drawn from what only the sender and this relay know.
//!
//! The generator is keyed by the packet's delay seed (from the shared secret) and the relay's VRF output for the epoch: the relay
//! cannot choose a delay, nobody else can predict it, and the sender, who knows both, can predict when its packet leaves. A delay
//! beyond the network's maximum is drawn again and never clamped: clamping leaves a spike at the maximum that an observer sees
//! (vacp2p/nim-libp2p #2198). The logarithm is libm's, in software, so that every platform computes the same bits.

use std::time::Duration;

const LABEL: &[u8] = b"fog mix delay v1";

/// The delay distribution of a network: exponential with `mean`, conditioned on not exceeding `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// The mean before conditioning.
    pub mean: Duration,
    /// No delay exceeds this.
    pub max: Duration,
}

impl Delays {
    /// The delay for a packet with `seed` at the relay whose VRF output is `salt`, in whole microseconds.
    pub fn draw(&self, seed: &[u8; 32], salt: &[u8; 32]) -> Duration {
        let mut stream = blake3::Hasher::new_keyed(seed).update(LABEL).update(salt).finalize_xof();
        loop {
            let mut word = [0; 8];
            stream.fill(&mut word);
            let delay = exponential(self.mean, uniform(u64::from_le_bytes(word)));
            if delay <= self.max {
                return delay;
            }
        }
    }
}

/// A uniform number in (0, 1] from the high 53 bits of `word`.
pub fn uniform(word: u64) -> f64 {
    ((word >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// The exponential variate with `mean` for a uniform `u` in (0, 1], by inverse transform, in whole microseconds.
pub fn exponential(mean: Duration, u: f64) -> Duration {
    let micros = -(mean.as_micros() as f64) * libm::log(u);
    // The cast saturates; u > 0 keeps the logarithm finite (at most 36.8 means).
    Duration::from_micros(libm::round(micros) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYS: Delays = Delays { mean: Duration::from_millis(50), max: Duration::from_millis(500) };

    fn seed(n: u32) -> [u8; 32] {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    /// The greatest distance between the empirical distribution of `samples` and the truncated exponential.
    fn kolmogorov_smirnov(mut samples: Vec<f64>) -> f64 {
        samples.sort_by(f64::total_cmp);
        let n = samples.len() as f64;
        let whole = 1.0 - (-10.0f64).exp();
        let distances = samples.iter().enumerate().map(|(i, x)| {
            let expected = (1.0 - (-x / 0.050).exp()) / whole;
            (expected - i as f64 / n).abs().max((expected - (i + 1) as f64 / n).abs())
        });
        distances.fold(0.0, f64::max)
    }

    #[test]
    fn a_hundred_thousand_delays_follow_the_truncated_exponential() {
        let samples: Vec<f64> = (0..100_000).map(|n| DELAYS.draw(&seed(n), &[1; 32]).as_secs_f64()).collect();
        // Critical value for alpha = 0.001: 1.95 / sqrt(n).
        let distance = kolmogorov_smirnov(samples);
        assert!(distance < 1.95 / 100_000f64.sqrt(), "{distance}");
    }

    #[test]
    fn no_value_carries_more_than_a_thousandth_and_none_exceeds_the_maximum() {
        // A mean of 1 ms has the largest atoms: whole microseconds.
        let delays = Delays { mean: Duration::from_millis(1), max: Duration::from_millis(10) };
        let mut counts = std::collections::BTreeMap::<Duration, u32>::new();
        for n in 0..100_000 {
            *counts.entry(delays.draw(&seed(n), &[2; 32])).or_default() += 1;
        }
        let heaviest = counts.values().max().unwrap();
        // The atom at zero has probability 0.0005, the others at most 0.001: five standard deviations of room.
        assert!(*heaviest <= 150, "{heaviest}");
        assert!(counts.keys().all(|d| *d <= delays.max));
    }

    #[test]
    fn seed_and_salt_both_matter_and_nothing_else_does() {
        let delay = DELAYS.draw(&seed(1), &[1; 32]);
        assert_eq!(delay, DELAYS.draw(&seed(1), &[1; 32]));
        assert_ne!(delay, DELAYS.draw(&seed(2), &[1; 32]));
        assert_ne!(delay, DELAYS.draw(&seed(1), &[2; 32]));
    }

    #[test]
    fn the_inverse_transform_is_right_at_its_ends() {
        assert_eq!(exponential(DELAYS.mean, uniform(u64::MAX)), Duration::ZERO);
        assert!(exponential(DELAYS.mean, uniform(0)) > DELAYS.max);
        assert_eq!(exponential(Duration::from_secs(1), (-1.0f64).exp()), Duration::from_secs(1));
    }
}
