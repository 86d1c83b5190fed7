//! Revisions that grow with the clock and do not tell it: order-preserving encryption (rend-spec-v3, appendix F).
//!
//! A counter on disk would do as well until a disk is restored from a backup; the clock itself would tell directories how wrong the
//! service's clock is, by which it can be recognised.

use chacha20::{ChaCha20, KeyIvInit, cipher::StreamCipher};

use crate::core::{
    blinding::BlindedSecret,
    kdf,
    period::Period,
    period::{Calendar, EPOCHS, LEAD},
};
use fog_base::UnixMillis;

/// Into how many steps the time in which a period's descriptors are made is cut.
const STEPS: u64 = 1 << 17;
const LABEL: &[u8] = b"fog services revision v1";

/// The revisions of one blinded key.
#[derive(Debug, Clone, Copy)]
pub struct Revisions {
    start: UnixMillis,
    span_ms: u64,
}

impl Revisions {
    /// Of a period: from its lead to its end.
    pub fn new(calendar: &Calendar, period: Period) -> Self {
        let epoch_ms = u64::try_from(calendar.schedule.length().as_millis()).unwrap_or(u64::MAX);
        let start = calendar.schedule.start(period.beacon_epoch());
        Self { start, span_ms: epoch_ms.saturating_mul(u64::from(EPOCHS + LEAD)).max(1) }
    }

    /// The step at `time`, and in any case one after `last`.
    pub fn step(&self, time: UnixMillis, last: Option<u64>) -> u64 {
        let elapsed = u128::from(time.0.saturating_sub(self.start.0)) * u128::from(STEPS) / u128::from(self.span_ms);
        let now = u64::try_from(elapsed).unwrap_or(STEPS).min(STEPS);
        last.map_or(now, |last| now.max(last.saturating_add(1)))
    }

    /// The revision of a step: the sum of its and all lower steps' gaps, each 1 to 65,536.
    pub fn encrypt(key: &BlindedSecret, step: u64) -> u64 {
        let stream_key = kdf::hkdf::<32>(b"", &[key.prefix()], &[LABEL]);
        let mut stream = ChaCha20::new(&(*stream_key).into(), &[0; 12].into());
        // What a service that publishes without pause adds to the clock's steps is bounded by the 2²⁴ of the stream.
        let mut left = step.saturating_add(1).min(1 << 24);
        let mut sum = 0u64;
        let mut buffer = [0; 4096];
        while left > 0 {
            buffer.fill(0);
            stream.apply_keystream(&mut buffer);
            let take = left.min(buffer.len() as u64 / 2);
            let gaps = buffer.chunks_exact(2).take(take as usize);
            sum += gaps.map(|gap| 1 + u64::from(u16::from_be_bytes(gap.try_into().unwrap_or_default()))).sum::<u64>();
            left -= take;
        }
        sum
    }
}
