//! The clock as the command line reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use fog_base::UnixMillis;

/// UTC, now.
#[expect(clippy::disallowed_methods, reason = "the edge of the program, where the clock is read")]
pub(crate) fn unix() -> UnixMillis {
    UnixMillis(0).plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A moment to measure from.
#[expect(clippy::disallowed_methods, reason = "the edge of the program, where the clock is read")]
pub(crate) fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}
