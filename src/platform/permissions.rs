//! Who else can read a file: Unix permissions, and what stands for them elsewhere.
//!
//! On Windows a user's data folder is readable by that user and administrators alone by inheritance; there is no mode to check,
//! so [`exposure`] reports nothing there.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

/// Permissions that let others in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    /// The permission bits found.
    pub mode: u32,
    /// The ones that are right.
    pub wanted: u32,
}

/// From here on, what this process creates is its owner's alone, whoever makes it (a database, a library).
pub fn keep_private() {
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Creates a directory that only its owner can enter.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates a file that did not exist and that only its owner can read.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a rename inside `dir` durable. Windows has no such call for directories and needs none: NTFS logs the rename.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _unused = dir;
    Ok(())
}

/// Whether others than the owner have any access to the file or directory at `path`.
#[cfg(unix)]
pub fn exposure(path: &Path) -> io::Result<Option<Exposure>> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = path.metadata()?;
    let mode = metadata.permissions().mode() & 0o7777;
    let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
    Ok((mode & 0o077 != 0).then_some(Exposure { mode, wanted }))
}

/// Whether others than the owner have any access: decided by inheritance on this system, not by the file.
#[cfg(not(unix))]
pub fn exposure(path: &Path) -> io::Result<Option<Exposure>> {
    path.metadata().map(|_| None)
}
