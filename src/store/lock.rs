//! One process per data directory.
//!
//! An operating system's lock on the file `lock` ends with its process, however that ends. The holder's process id stands in a file
//! beside it, as a locked file cannot be read by others on Windows.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::platform::files;

const LOCK: &str = "lock";
const PID: &str = "pid";

/// Why the data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the data directory `{dir}` is in use by process {}", pid.map_or("(unknown)".to_owned(), |pid| pid.to_string()))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, if it left its id.
        pid: Option<u32>,
    },
    /// The disk said no.
    #[error("`{path}`: {source}")]
    Io {
        /// What was tried.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

impl LockError {
    /// What to do about it, in one line.
    pub fn hint(&self) -> String {
        match self {
            Self::Held { pid: Some(pid), .. } => format!("stop it (kill {pid}), or use another --data-dir"),
            Self::Held { pid: None, .. } => "stop it, or use another --data-dir".into(),
            Self::Io { .. } => "see that the data directory exists, belongs to you, and that its disk has room".into(),
        }
    }
}

/// The data directory is this process's until the value is dropped.
#[derive(Debug)]
pub struct DataDirLock {
    // Closing the file ends the lock.
    _file: File,
    pid: PathBuf,
}

impl DataDirLock {
    /// Takes the lock, creating the directory if need be.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { path, source }
        };
        if !dir.exists() {
            files::create_private_dir(dir).map_err(io(dir))?;
        }
        let path = dir.join(LOCK);
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { dir: dir.to_owned(), pid: holder(dir) });
            }
            Err(TryLockError::Error(source)) => return Err(io(&path)(source)),
        }
        let pid = dir.join(PID);
        fs::write(&pid, format!("{}\n", std::process::id())).map_err(io(&pid))?;
        Ok(Self { _file: file, pid })
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // The lock decides; a stale id only shows in an error that nobody will see.
        let _left_over = fs::remove_file(&self.pid);
    }
}

/// The id that the last holder left.
pub(crate) fn holder(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join(PID)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataDirLock::acquire(dir.path()).unwrap();
        let error = DataDirLock::acquire(dir.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        assert!(error.to_string().ends_with(&format!("is in use by process {}", std::process::id())));
        drop(lock);
        DataDirLock::acquire(dir.path()).unwrap();
    }
}
