//! Small files below a root that tests choose.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::core::harvest::{Probe, Unknown};

/// More than any file here has; what is longer is cut.
const LONGEST: u64 = 256 * 1024;
/// More names than any directory here has; the rest is not looked at.
const MOST_NAMES: usize = 4096;

/// The directory that has `proc`, `sys`, `dev`, `run` and `etc`.
#[derive(Debug, Clone)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside.trim_start_matches('/'))
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, inside: &str) -> Probe<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = fs::File::open(self.path(inside)).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
        read.map_err(|error| failed(inside, &error))?;
        Ok(bytes)
    }

    /// The text of a file, without white space at its ends.
    pub(super) fn text(&self, inside: &str) -> Probe<String> {
        let text = String::from_utf8(self.bytes(inside)?).map_err(|_| misunderstood(inside))?;
        Ok(text.trim().to_owned())
    }

    /// The number that is all of a file.
    pub(super) fn number<T: FromStr>(&self, inside: &str) -> Probe<T> {
        self.text(inside)?.parse().map_err(|_| misunderstood(inside))
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, inside: &str) -> Probe<Vec<String>> {
        let entries = fs::read_dir(self.path(inside)).map_err(|error| failed(inside, &error))?;
        let names = entries.flatten().take(MOST_NAMES).filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }
}

/// A file that says what is not understood.
pub(super) fn misunderstood(inside: &str) -> Unknown {
    Unknown::unseen(format!("{inside}: not understood"))
}

pub(super) fn failed(inside: &str, error: &io::Error) -> Unknown {
    match error.kind() {
        io::ErrorKind::NotFound => Unknown::absent(format!("no {inside}")),
        kind => Unknown::unseen(format!("{inside}: {kind}")),
    }
}
