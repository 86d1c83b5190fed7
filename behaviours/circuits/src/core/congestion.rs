//! How many cells of a circuit may be under way in one direction: TCP Vegas over authenticated acknowledgements (Brakmo and
//! Peterson, 1995; Tor's proposal 324, whose names are used).
//!
//! The far end acknowledges every 32nd counted cell by its tag, which nobody can know who did not receive the cell. From the time
//! until that and the shortest such time follows how many cells wait in queues; their number is held between two bounds, so a path
//! is full, queues stay short, and circuits that share a relay get like parts.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use subtle::ConstantTimeEq;

use super::crypto::layer::CellTag;

/// Counted cells for each acknowledgement.
pub const SENDME_EVERY: u32 = 32;
/// Cells that may be under way at first.
const INITIAL: u32 = 4 * SENDME_EVERY;
/// Never fewer.
const MIN: u32 = 4 * SENDME_EVERY;
/// Never more: 16 MiB.
pub const MAX: u32 = 8192;
/// With fewer waiting in queues there may be more under way.
const ALPHA: u32 = 6 * SENDME_EVERY;
/// With more waiting in queues there must be fewer under way.
const BETA: u32 = 9 * SENDME_EVERY;
/// With more waiting, the first phase of fast growth ends.
const GAMMA: u32 = 8 * SENDME_EVERY;
/// With more waiting, the number is set at once.
const DELTA: u32 = 14 * SENDME_EVERY;

/// An acknowledgement of what was not sent, or not with this tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an acknowledgement of what was not sent")]
pub struct BadSendme;

/// The sender's side of one direction.
#[derive(Debug)]
pub struct Congestion {
    window: u32,
    in_flight: u32,
    sent: u32,
    /// The tag of every 32nd cell that is under way, and when it left.
    unacknowledged: VecDeque<(CellTag, Instant)>,
    is_growing: bool,
    was_full: bool,
    shortest: Option<Duration>,
    smoothed: Option<Duration>,
    /// Acknowledgements until the window changes again.
    until_change: u32,
}

impl Default for Congestion {
    fn default() -> Self {
        Self {
            window: INITIAL,
            in_flight: 0,
            sent: 0,
            unacknowledged: VecDeque::new(),
            is_growing: true,
            was_full: false,
            shortest: None,
            smoothed: None,
            until_change: 0,
        }
    }
}

impl Congestion {
    /// Whether another counted cell may leave.
    pub fn may_send(&self) -> bool {
        self.in_flight < self.window
    }

    /// A counted cell leaves with this tag.
    pub fn handle_sent(&mut self, tag: CellTag, now: Instant) {
        self.in_flight += 1;
        self.was_full |= !self.may_send();
        self.sent += 1;
        if self.sent == SENDME_EVERY {
            self.sent = 0;
            self.unacknowledged.push_back((tag, now));
        }
    }

    /// The far end has the cell with this tag and all before it.
    pub fn handle_sendme(&mut self, tag: &CellTag, now: Instant) -> Result<(), BadSendme> {
        let (expected, sent) = self.unacknowledged.pop_front().ok_or(BadSendme)?;
        if !bool::from(expected.ct_eq(tag)) {
            return Err(BadSendme);
        }
        self.in_flight = self.in_flight.saturating_sub(SENDME_EVERY);
        let took = now.saturating_duration_since(sent).max(Duration::from_micros(1));
        let shortest = self.shortest.map_or(took, |shortest| shortest.min(took));
        self.shortest = Some(shortest);
        let smoothed = self.smoothed.map_or(took, |smoothed| smoothed / 2 + took / 2);
        self.smoothed = Some(smoothed.max(shortest));
        let path = f64::from(self.window) * shortest.as_secs_f64() / smoothed.max(shortest).as_secs_f64();
        self.adjust(path as u32);
        Ok(())
    }

    /// `path` cells would be under way if none waited in queues.
    fn adjust(&mut self, path: u32) {
        let waiting = self.window.saturating_sub(path);
        if self.is_growing {
            if waiting >= GAMMA {
                self.is_growing = false;
                self.set(path + GAMMA);
            } else if self.was_full {
                self.set(self.window + SENDME_EVERY);
            }
        } else if self.until_change > 0 {
            self.until_change -= 1;
            return;
        } else if waiting > DELTA {
            self.set(path + DELTA - SENDME_EVERY);
        } else if waiting > BETA {
            self.set(self.window - SENDME_EVERY);
        } else if waiting < ALPHA && self.was_full {
            self.set(self.window + SENDME_EVERY);
        }
        if !self.is_growing {
            self.until_change = self.window / SENDME_EVERY;
            self.was_full = !self.may_send();
        }
    }

    fn set(&mut self, window: u32) {
        self.window = window.clamp(MIN, MAX);
    }

    /// How long a cell and its acknowledgement take now, if any came.
    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Cells that may be under way.
    pub fn window(&self) -> u32 {
        self.window
    }
}

#[cfg(test)]
#[path = "congestion_tests.rs"]
mod tests;
