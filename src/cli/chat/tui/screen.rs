//! The terminal, borrowed: whatever ends the program gives it back.

use std::{
    io::{self, Stdout},
    panic, thread,
};

use crossterm::{
    cursor::Show,
    event::{DisableBracketedPaste, EnableBracketedPaste},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};

/// The screen while it is ours; dropping it gives it back.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it is told.
    pub(super) fn take() -> io::Result<Self> {
        let told = panic::take_hook();
        let ours = thread::current().id();
        panic::set_hook(Box::new(move |info| {
            // Another thread's panic comes back as the failure of what was asked; its text would only garble the screen.
            if thread::current().id() == ours {
                restore();
                told(info);
            }
        }));
        enable_raw_mode()?;
        let entered = execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match entered {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has given it back already; twice would put the cursor over what was told.
        if !thread::panicking() {
            restore();
            drop(panic::take_hook());
        }
    }
}

/// Every step is tried, whatever became of the others.
fn restore() {
    let _tried = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _tried = disable_raw_mode();
}
