//! How a command fails: one line, a hint, an exit code.

use std::{io, process::ExitCode};

use crate::{
    config::ConfigError,
    invite::InviteError,
    keys::{KeysError, PassphraseError},
    node::command::{Failure, FailureKind},
    store::{LockError, StoreError},
};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_NODE: u8 = 3;
const TIMED_OUT: u8 = 4;

/// A command's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    message: String,
    hint: String,
    exit: u8,
}

impl CliError {
    /// It was tried and failed.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), exit: FAILED }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), exit: USAGE }
    }

    /// No node runs for the data directory.
    pub(super) fn no_node(data_dir: &std::path::Path) -> Self {
        let message = format!("no node is running for `{}`", data_dir.display());
        let hint = "start one with `fog run`, or name another --data-dir".into();
        Self { message, hint, exit: NO_NODE }
    }

    /// Time ran out.
    pub fn timed_out(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), exit: TIMED_OUT }
    }

    /// Whoever read our output has gone: nothing is left to do, and nothing is wrong.
    pub(super) fn reader_gone() -> Self {
        Self { message: String::new(), hint: String::new(), exit: 0 }
    }

    /// The same with another word on what to do.
    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.hint);
        self
    }

    /// Whether no node runs for the data directory.
    pub(super) fn is_no_node(&self) -> bool {
        self.exit == NO_NODE
    }

    /// Whether time ran out.
    pub(super) fn is_timed_out(&self) -> bool {
        self.exit == TIMED_OUT
    }

    /// What is wrong, and what to do.
    pub(super) fn parts(&self) -> (&str, &str) {
        (&self.message, &self.hint)
    }

    /// Writing to standard output failed.
    pub(super) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::reader_gone();
        }
        Self::failed(format!("the output cannot be written: {error}"), "see that its disk has room")
    }

    /// Says what is wrong on standard error; the exit code.
    pub(super) fn report(&self) -> ExitCode {
        if self.exit != 0 {
            let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            eprintln!("error: {}", one_line(&self.message));
            if !self.hint.is_empty() {
                eprintln!("hint: {}", one_line(&self.hint));
            }
        }
        ExitCode::from(self.exit)
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let exit = match failure.kind {
            FailureKind::Usage => USAGE,
            FailureKind::Missing | FailureKind::Taken | FailureKind::Failed => FAILED,
            FailureKind::TimedOut => TIMED_OUT,
        };
        Self { message: failure.message, hint: failure.hint, exit }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::UnknownKey { .. } | ConfigError::BadValue { .. } => USAGE,
            ConfigError::File { .. } | ConfigError::Conflict { .. } => FAILED,
        };
        Self { message: error.to_string(), hint: error.hint(), exit }
    }
}

impl From<KeysError> for CliError {
    fn from(error: KeysError) -> Self {
        Self::failed(error.to_string(), error.hint())
    }
}

impl From<PassphraseError> for CliError {
    fn from(error: PassphraseError) -> Self {
        KeysError::from(error).into()
    }
}

impl From<LockError> for CliError {
    fn from(error: LockError) -> Self {
        Self::failed(error.to_string(), error.hint())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        Self::failed(error.to_string(), error.hint())
    }
}

impl From<InviteError> for CliError {
    fn from(error: InviteError) -> Self {
        Self::failed(error.to_string(), "ask for a new invite")
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"), "`fog doctor` checks this host")
    }
}
