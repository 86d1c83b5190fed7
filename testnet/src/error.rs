//! What can go wrong with a local network, each with what to do about it.

use std::{io, path::PathBuf, time::Duration};

/// Why a step of the testnet failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a directory could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A command of the program ended badly.
    #[error("`fog {command}` failed: {detail}")]
    Command {
        /// Its arguments.
        command: String,
        /// Its last line.
        detail: String,
    },
    /// A node's process ended by itself.
    #[error("node {index} ended while it was needed: {detail}")]
    Ended {
        /// Which node.
        index: usize,
        /// The last line of its log.
        detail: String,
    },
    /// A node did not answer, or answered with a refusal.
    #[error("node {index} did not answer `{request}`: {detail}")]
    Api {
        /// Which node.
        index: usize,
        /// The request.
        request: String,
        /// What came instead.
        detail: String,
    },
    /// Something did not come about in time.
    #[error("{what} did not come about within {} s: {detail}", waited.as_secs())]
    TimedOut {
        /// The condition.
        what: String,
        /// For how long it was waited.
        waited: Duration,
        /// What was there instead.
        detail: String,
    },
    /// A network runs in this directory already.
    #[error("a testnet runs in {} already ({running} of its processes)", dir.display())]
    Running {
        /// The directory.
        dir: PathBuf,
        /// How many of its processes run.
        running: usize,
    },
    /// The directory holds something else.
    #[error("{} is not empty and holds no testnet", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no network in this directory.
    #[error("no testnet in {}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A plan or a scenario that makes no sense.
    #[error("{0}")]
    Plan(String),
}

impl Error {
    /// What to do about it, in one line; empty if nothing helps.
    pub fn hint(&self) -> String {
        match self {
            Self::File { .. } => "check the path, its permissions and the space on the disk".into(),
            Self::Start { .. } => "the testnet runs this same program: is the file still there?".into(),
            Self::Command { .. } | Self::Ended { .. } => "read fog.log in the node's data directory".into(),
            Self::Api { .. } | Self::TimedOut { .. } => {
                "the logs are fog.log in each data directory; a loaded machine needs more time (--timeout)".into()
            }
            Self::Running { dir, .. } => format!("fog testnet down --dir {}", dir.display()),
            Self::NotEmpty { .. } => "choose an empty directory or a new one with --dir".into(),
            Self::Missing { .. } => "name the directory of `fog testnet up` with --dir".into(),
            Self::Plan(_) => "fog testnet --help".into(),
        }
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
