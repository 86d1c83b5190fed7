//! Files that only their owner reads, and that are written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::permissions;

/// Creates `path` and its parents, closed to others (0700). Does nothing if it exists.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    permissions::create_dir(path)
}

/// Creates a file that must not exist yet, closed to others (0600).
pub fn create_private_file(path: &Path) -> io::Result<File> {
    permissions::create_file(path)
}

/// Makes the entries of a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    permissions::sync_dir(dir)
}

/// Creates a file of its own for `bytes` and makes them durable.
pub fn create_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_private_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces `path` with `bytes`, closed to others: written beside it, synced, renamed over it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = beside(path);
    let outcome = remove_if_there(&beside)
        .and_then(|()| create_synced(&beside, bytes))
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| sync_dir(parent));
    if outcome.is_err() {
        // The first error is the one that matters; what is left over is replaced next time.
        let _left_over = fs::remove_file(&beside);
    }
    outcome
}

/// Whether `bytes` more can be written in `dir`: tried with a file that is removed again, so that quotas count too.
pub fn has_room(dir: &Path, bytes: usize) -> bool {
    let probe = dir.join(format!("probe-{}", std::process::id()));
    let written = remove_if_there(&probe).and_then(|()| {
        let mut file = create_private_file(&probe)?;
        let block = [0; 4096];
        (0..bytes.div_ceil(block.len())).try_for_each(|_| file.write_all(&block))?;
        file.sync_all()
    });
    remove_if_there(&probe).is_ok() && written.is_ok()
}

/// Removes a file; that it is not there is fine.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_holds_the_new_bytes_and_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"old, and open to all").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(super::super::exposure(&path).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();
        assert!(replace(&path, b"new").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
