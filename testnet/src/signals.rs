//! Until the user says stop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::signal;

use crate::{Error, process};

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// While this value lives, an interruption ends every process that was started, and then this one. Nodes are in process groups of their
/// own, so Ctrl-C does not reach them by itself.
#[derive(Debug)]
pub struct Interruption {
    armed: Arc<AtomicBool>,
}

impl Interruption {
    /// Begins to listen for Ctrl-C (and SIGTERM and SIGHUP, where they exist).
    pub fn ends_everything() -> Self {
        let armed = Arc::new(AtomicBool::new(true));
        let seen = armed.clone();
        thread::spawn(move || {
            if listen().join().is_ok_and(|outcome| outcome.is_ok()) && seen.load(Ordering::SeqCst) {
                process::kill_started();
                std::process::exit(INTERRUPTED);
            }
        });
        Self { armed }
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        self.armed.store(false, Ordering::SeqCst);
    }
}

/// Returns at Ctrl-C, and where there are such signals at SIGTERM and SIGHUP. Works inside and outside a runtime.
pub fn wait_for_interrupt() -> Result<(), Error> {
    let outcome = listen().join().unwrap_or_else(|_| Err(io::Error::other("the waiting thread panicked")));
    outcome.map_err(Error::file("wait for signals in", std::env::temp_dir()))
}

fn listen() -> JoinHandle<io::Result<()>> {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(interrupted())
    })
}

#[cfg(unix)]
async fn interrupted() -> io::Result<()> {
    use signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
        outcome = signal::ctrl_c() => outcome,
    }
}

#[cfg(not(unix))]
async fn interrupted() -> io::Result<()> {
    signal::ctrl_c().await
}
