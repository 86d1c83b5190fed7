//! The figures of the README.

use std::time::Duration;

/// What bounds a download, and its timers.
#[derive(Debug, Clone)]
pub struct Config {
    /// The sources of one download.
    pub max_sources: usize,
    /// Requests under way with one source.
    pub max_requests: usize,
    /// Groups that were requested and did not come, or came and are not written yet: 32 MiB.
    pub max_ahead: u64,
    /// Groups under way with a source whose speed is not known: 512 KiB.
    pub first_window: u64,
    /// The fewest and the most groups under way with a source.
    pub window: (u64, u64),
    /// A source may have as much under way as it sends in this time and a round trip.
    pub horizon: Duration,
    /// A source that sends nothing for so long while something is requested has stalled.
    pub stall: Duration,
    /// A source that does not say what it has is asked again after this time.
    pub want: Duration,
    /// A source that stalled, or has too much to do, rests for this time, and twice as long each time after, up to the second.
    pub rest: (Duration, Duration),
    /// With so many groups left, the last ones are requested from two sources.
    pub endgame: u64,
    /// What is taken from a slower source must come earlier by this time at least.
    pub steal_gain: Duration,
    /// How often slower sources are looked at.
    pub tick: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_sources: 64,
            max_requests: 8,
            max_ahead: 2_048,
            first_window: 32,
            window: (8, 512),
            horizon: Duration::from_secs(1),
            stall: Duration::from_secs(10),
            want: Duration::from_secs(15),
            rest: (Duration::from_secs(2), Duration::from_secs(60)),
            endgame: 64,
            steal_gain: Duration::from_millis(250),
            tick: Duration::from_millis(250),
        }
    }
}
