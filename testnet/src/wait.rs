//! Waiting for conditions, never for times.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::Error;

const PAUSE: Duration = Duration::from_millis(50);

/// A moment until which something must have come about.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    began: Instant,
    allowed: Duration,
}

impl Deadline {
    /// `allowed` from now.
    pub fn after(allowed: Duration) -> Self {
        Self { began: Instant::now(), allowed }
    }

    /// What is left; zero when it has passed.
    pub fn left(&self) -> Duration {
        self.allowed.saturating_sub(self.began.elapsed())
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// Since when it runs.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Asks `condition` until it yields something. While it does not, it says what is there instead, and when `allowed` is over the last
/// such word is in the error.
pub fn until<T>(what: &str, allowed: Duration, mut condition: impl FnMut() -> Result<T, String>) -> Result<T, Error> {
    let deadline = Deadline::after(allowed);
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(detail) if deadline.passed() => {
                return Err(Error::TimedOut { what: what.to_owned(), waited: allowed, detail });
            }
            Err(_) => thread::sleep(PAUSE.min(deadline.left())),
        }
    }
}
