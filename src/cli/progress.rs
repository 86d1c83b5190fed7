//! Progress of what takes longer than a second, on standard error: one line that is rewritten on a terminal, else a line now and then.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// Nothing is shown before.
const SILENT: Duration = Duration::from_secs(1);
const ON_TERMINAL: Duration = Duration::from_millis(200);
const IN_FILE: Duration = Duration::from_secs(5);

/// Shows how far something is.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    #[expect(clippy::disallowed_methods, reason = "the command line is where a clock is read")]
    fn now() -> Instant {
        Instant::now()
    }

    /// Starts now.
    pub(super) fn start() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), next: Self::now() + SILENT, shown: false }
    }

    /// Shows `text` if it is time to.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Self::now();
        if now < self.next {
            return;
        }
        self.next = now + if self.terminal { ON_TERMINAL } else { IN_FILE };
        self.shown = true;
        let mut err = std::io::stderr().lock();
        // Progress that cannot be shown is no failure.
        let _unseen = if self.terminal { write!(err, "\r\x1b[K{}", text()) } else { writeln!(err, "{}", text()) };
        let _unflushed = err.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.terminal {
            let _unseen = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
