//! How much effort the service suggests: up by what was paid while work was left over, down by a third when none was (proposal 362).

use std::time::{Duration, Instant};

use super::MAX_EFFORT;

/// How often the suggestion is looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// A suggestion that differs by less than this part from the published one is not published.
const SIGNIFICANT_PERCENT: u64 = 15;

/// The loop.
#[derive(Debug)]
pub struct EffortLoop {
    suggested: u32,
    published: u32,
    handled: u64,
    paid: u64,
    /// The highest effort that was dropped.
    dropped: Option<u32>,
    /// Whether work was left over at any time.
    left_over: bool,
    next: Instant,
}

impl EffortLoop {
    /// Suggests nothing.
    pub fn new(now: Instant) -> Self {
        Self { suggested: 0, published: 0, handled: 0, paid: 0, dropped: None, left_over: false, next: now + PERIOD }
    }

    /// The suggestion.
    pub fn suggested(&self) -> u32 {
        self.suggested
    }

    /// When [`Self::update`] is due.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// One introduction was answered.
    pub fn handled(&mut self, effort: u32) {
        self.handled += 1;
        self.paid += u64::from(effort);
    }

    /// One was dropped for lack of room.
    pub fn dropped(&mut self, effort: u32) {
        self.dropped = self.dropped.max(Some(effort));
    }

    /// Work was left over.
    pub fn left_over(&mut self) {
        self.left_over = true;
    }

    /// Looks at what happened since the last time; `top` is the highest effort that waits. True if the descriptor should be
    /// published with the new suggestion.
    pub fn update(&mut self, top: Option<u32>, now: Instant) -> bool {
        let mean = self.paid.checked_div(self.handled).unwrap_or(0);
        let raise = match self.dropped {
            Some(effort) if effort >= self.suggested => true,
            _ => self.left_over && top.is_none_or(|top| top >= self.suggested),
        };
        if raise {
            let mean = u32::try_from(mean).unwrap_or(MAX_EFFORT);
            self.suggested = self.suggested.saturating_add(1).max(mean).min(MAX_EFFORT);
        } else if !self.left_over {
            self.suggested = self.suggested * 2 / 3;
        }
        (self.handled, self.paid, self.dropped, self.left_over) = (0, 0, None, false);
        self.next = now + PERIOD;
        let difference = u64::from(self.suggested.abs_diff(self.published));
        let significant = difference * 100 > u64::from(self.published) * SIGNIFICANT_PERCENT;
        if significant {
            self.published = self.suggested;
        }
        significant
    }
}
