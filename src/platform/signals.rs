//! Being asked to stop: SIGINT, SIGTERM and SIGHUP on Unix; Ctrl-C, Ctrl-Break and a closing console on Windows.

use std::io;

/// Receives requests to stop.
#[derive(Debug)]
pub struct StopSignals(imp::Signals);

impl StopSignals {
    /// Listens from now on; the system's own reaction, ending the process, no longer happens. Needs a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        imp::Signals::listen().map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        self.0.next().await;
    }
}

#[cfg(unix)]
mod imp {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    #[derive(Debug)]
    pub(super) struct Signals([Signal; 3]);

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = kinds.map(signal);
            Ok(Self([interrupt?, terminate?, hangup?]))
        }

        pub(super) async fn next(&mut self) {
            let [interrupt, terminate, hangup] = &mut self.0;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        }
    }
}

#[cfg(windows)]
mod imp {
    use std::io;

    use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};

    #[derive(Debug)]
    pub(super) struct Signals(CtrlC, CtrlBreak, CtrlClose);

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self(ctrl_c()?, ctrl_break()?, ctrl_close()?))
        }

        pub(super) async fn next(&mut self) {
            tokio::select! {
                _ = self.0.recv() => {}
                _ = self.1.recv() => {}
                _ = self.2.recv() => {}
            }
        }
    }
}
