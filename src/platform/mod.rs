//! What differs between operating systems, each with a fallback that says so instead of guessing.
//!
//! Nothing else in the program asks which system it runs on.

use std::{path::Path, time::Duration};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

mod boot;
pub mod files;
mod permissions;
pub mod signals;

pub use boot::boot_id;
pub use permissions::{Exposure, exposure, keep_private};

/// What this process uses of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Processor time since it started.
    pub cpu: Duration,
}

/// This process's usage; `None` where the system does not tell.
pub fn usage() -> Option<Usage> {
    let pid = Pid::from_u32(std::process::id());
    let mut system = System::new().ok()?;
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    let process = system.process(pid)?;
    Some(Usage { resident_bytes: process.memory(), cpu: Duration::from_millis(process.accumulated_cpu_time()) })
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
pub fn resident_memory() -> u64 {
    usage().map_or(0, |usage| usage.resident_bytes)
}

/// Whether a process with this id runs; `None` where the system does not tell.
pub fn process_runs(pid: u32) -> Option<bool> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
    Some(system.process(pid).is_some())
}

/// Free bytes for this user on the file system that holds `path`, also one in memory; `None` where the system does not tell.
#[cfg(unix)]
pub fn free_disk(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(existing_ancestor(path)?).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Free bytes for this user on the disk that holds `path`; `None` where no disk is found for it.
#[cfg(not(unix))]
pub fn free_disk(path: &Path) -> Option<u64> {
    let path = existing_ancestor(path)?;
    let disks = sysinfo::Disks::new_with_refreshed_list().ok()?;
    let holding = disks.iter().filter(|disk| path.starts_with(disk.mount_point()));
    let nearest = holding.max_by_key(|disk| disk.mount_point().components().count())?;
    Some(nearest.available_space())
}

fn existing_ancestor(path: &Path) -> Option<std::path::PathBuf> {
    path.ancestors().find_map(|ancestor| {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        ancestor.canonicalize().ok()
    })
}

/// How many files this process may have open; `None` where there is no such limit or no way to ask.
///
/// Asked of a shell, which inherits the limit: `getrlimit` itself would need `unsafe`.
#[cfg(unix)]
pub fn open_files_limit() -> Option<u64> {
    let output = std::process::Command::new("/bin/sh").args(["-c", "ulimit -n"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// How many files this process may have open: other systems have no limit that matters here.
#[cfg(not(unix))]
pub fn open_files_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_runs() {
        assert!(resident_memory() > 100_000);
        assert_eq!(process_runs(std::process::id()), Some(true));
    }

    #[test]
    fn a_path_that_does_not_exist_yet_has_the_space_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_disk(&dir.path().join("a/b/c")).unwrap();
        assert!(free > 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_that_is_no_disk_is_asked_itself() {
        assert_eq!(free_disk(Path::new("/proc/self")), Some(0));
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_of_open_files_is_a_number() {
        assert!(open_files_limit().is_some_and(|limit| limit >= 64));
    }
}
