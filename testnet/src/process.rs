//! One process of a node: started, watched, ended. What the operating systems do differently about processes is in this file and
//! in sysinfo.

use std::{
    ffi::OsStr,
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, Signal, System, UpdateKind};

use crate::{Error, until};

/// Start times are read in whole seconds from a boot time that some systems round.
const START_TOLERANCE_S: u64 = 2;

/// Until the system shows a process that was started.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// Every process that this one started, for [`kill_started`].
static STARTED: Mutex<Vec<(u32, u64)>> = Mutex::new(Vec::new());

/// Kills whatever this process started and still runs: for the end that leaves no time to drop values.
pub(crate) fn kill_started() {
    for (pid, started) in STARTED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        if look(pid).is_some_and(|seen| seen.alive && seen.started.abs_diff(started) <= START_TOLERANCE_S) {
            with_process(pid, sysinfo::Process::kill);
        }
    }
}

/// What a process used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident memory now.
    pub memory_bytes: u64,
    /// CPU time since its start, over all cores, in milliseconds.
    pub cpu_ms: u64,
}

/// A process that was started here, or that a state file names.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// Unix seconds; with the pid it names one process for ever.
    started: u64,
    child: Option<Child>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With this exit code; `None` if a signal ended it, or if it is not our child.
    Exited(Option<i32>),
    /// It did not end in time and was killed.
    Killed,
}

impl Process {
    /// Starts `program` with `args`; both its outputs go to `log`. It stays when the starter goes, and Ctrl-C in the starter's
    /// terminal does not reach it: whoever started it ends it.
    pub fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], log: &Path) -> Result<Self, Error> {
        let file = File::options().create(true).append(true).open(log).map_err(Error::file("write", log))?;
        let errors = file.try_clone().map_err(Error::file("write", log))?;
        let mut command = without_settings(program);
        command.args(args).stdin(Stdio::null()).stdout(file).stderr(errors);
        own_group(&mut command);
        let child = command.spawn().map_err(|source| Error::Start { program: program.to_owned(), source })?;
        let pid = child.id();
        // It was just started and nobody has waited for it, so the system knows it; a look may still miss it while it begins.
        let seen = until("a process that was started", LOOK_WITHIN, || look(pid).ok_or_else(String::new));
        let started = seen.map_or(0, |seen| seen.started);
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).push((pid, started));
        Ok(Self { pid, started, child: Some(child) })
    }

    /// The process that had `pid` and began at `started`, if it still runs with `data_dir` on its command line. Pids are used again,
    /// so a pid alone never is enough to end something.
    pub fn find(pid: u32, started: u64, data_dir: &Path) -> Option<Self> {
        let seen = look(pid)?;
        let same = seen.alive && seen.started.abs_diff(started) <= START_TOLERANCE_S;
        let wanted = data_dir.as_os_str();
        (same && seen.command.iter().any(|part| part == wanted)).then_some(Self { pid, started, child: None })
    }

    /// The process that has `pid` now, if `data_dir` is on its command line.
    pub(crate) fn find_in(pid: u32, data_dir: &Path) -> Option<Self> {
        let started = look(pid)?.started;
        Self::find(pid, started, data_dir)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it began, in Unix seconds.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Its end, if it has ended.
    fn ended(&mut self) -> Option<End> {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(End::Exited(status.code())),
                Err(_) => Some(End::Exited(None)),
            },
            None => {
                let same = look(self.pid)
                    .is_some_and(|seen| seen.alive && seen.started.abs_diff(self.started) <= START_TOLERANCE_S);
                (!same).then_some(End::Exited(None))
            }
        }
    }

    /// What it used so far; `None` if it has ended.
    pub fn usage(&self) -> Option<Usage> {
        look(self.pid).filter(|seen| seen.alive).map(|seen| seen.usage)
    }

    /// Asks it to end (where a process can be asked; else kills it), without waiting.
    pub(crate) fn ask_to_end(&mut self) {
        if self.is_running() {
            with_process(self.pid, |process| process.kill_with(Signal::Term).unwrap_or_else(|| process.kill()));
        }
    }

    /// Waits for `grace` until it has ended, then kills it. A node must be asked once: a second signal tells it to end at once.
    pub(crate) fn await_end(&mut self, grace: Duration) -> End {
        let ended = until("the end of a process", grace, || self.ended().ok_or_else(String::new));
        ended.unwrap_or_else(|_| {
            self.kill();
            End::Killed
        })
    }

    /// Kills it at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        match &mut self.child {
            Some(child) => {
                // Both fail only if it is gone already.
                let _ = child.kill();
                let _ = child.wait();
            }
            None => {
                if self.is_running() {
                    with_process(self.pid, sysinfo::Process::kill);
                    let _ =
                        until("the end of a process", Duration::from_secs(10), || self.ended().ok_or_else(String::new));
                }
            }
        }
    }

    /// Leaves it running when this value is dropped.
    pub(crate) fn leave(&mut self) {
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).retain(|(pid, _)| *pid != self.pid);
        self.child = None;
    }
}

impl Drop for Process {
    /// A child that nobody ended is ended: a failed test or demo leaves nothing behind.
    fn drop(&mut self) {
        if self.child.is_some() && self.is_running() {
            self.kill();
        }
    }
}

/// A command without the settings of the person who runs the testnet: they are not the nodes'.
pub(crate) fn without_settings(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOG_") {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(windows)]
fn own_group(command: &mut Command) {
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
    std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
}

#[cfg(not(any(unix, windows)))]
fn own_group(_: &mut Command) {}

struct Seen {
    started: u64,
    alive: bool,
    command: Vec<std::ffi::OsString>,
    usage: Usage,
}

fn look(pid: u32) -> Option<Seen> {
    with_process(pid, |process| Seen {
        started: process.start_time(),
        alive: !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead),
        command: process.cmd().to_vec(),
        usage: Usage { memory_bytes: process.memory(), cpu_ms: process.accumulated_cpu_time() },
    })
}

fn with_process<T>(pid: u32, read: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
    let mut system = System::new().ok()?;
    let pid = Pid::from_u32(pid);
    let wanted = ProcessRefreshKind::nothing().with_memory().with_cpu().with_cmd(UpdateKind::Always).without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, wanted);
    system.process(pid).map(read)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Process {
        // The directory is an argument that `sh` ignores, as a node's data directory is one of its arguments.
        let script = "while :; do sleep 1; done".into();
        Process::start(
            Path::new("/bin/sh"),
            &["-c".into(), script, "sh".into(), dir.as_os_str().to_owned()],
            &dir.join("log"),
        )
        .unwrap()
    }

    #[test]
    fn a_process_is_found_again_only_by_its_pid_start_and_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(dir.path());
        let (pid, started) = (process.pid(), process.started());
        // Until the new process has begun its program, it has the command line of this one.
        let found = || Process::find(pid, started, dir.path()).is_some();
        assert!((0..500).any(|_| found() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
        assert!(Process::find(pid, started + 100, dir.path()).is_none(), "a later process with the same pid");
        assert!(Process::find(pid, started, Path::new("/elsewhere")).is_none(), "a process of somebody else");
        process.kill();
        assert!(Process::find(pid, started, dir.path()).is_none());
    }

    #[test]
    fn a_process_that_is_asked_to_end_does_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(dir.path());
        assert!(process.is_running());
        process.ask_to_end();
        assert_eq!(process.await_end(Duration::from_secs(10)), End::Exited(None), "SIGTERM, not kill");
        assert!(!process.is_running());
    }

    #[test]
    fn a_dropped_child_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(dir.path());
        let (pid, started) = (process.pid(), process.started());
        drop(process);
        assert!(Process::find(pid, started, dir.path()).is_none());
    }
}
