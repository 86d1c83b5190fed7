//! Links that lose, delay and reorder, for tests only. Off unless the configuration turns it on, and then `status` says so.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// What a faulty link does to each packet that leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// The fraction that is lost.
    pub loss: f64,
    /// Every packet is late by this.
    pub delay: Duration,
    /// The fraction that is late by up to four times `delay` (at least 50 ms) more, and so overtaken.
    pub reorder: f64,
}

impl Faults {
    /// How late the next packet is; `None` if it is lost.
    pub fn draw(&self, rng: &mut StdRng) -> Option<Duration> {
        if rng.random_bool(self.loss.clamp(0.0, 1.0)) {
            return None;
        }
        let extra = if rng.random_bool(self.reorder.clamp(0.0, 1.0)) {
            (self.delay * 4).max(Duration::from_millis(50)).mul_f64(rng.random())
        } else {
            Duration::ZERO
        };
        Some(self.delay + extra)
    }
}
