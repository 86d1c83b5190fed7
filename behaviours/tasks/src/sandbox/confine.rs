//! What a task process may not do, set by itself before it reads a module. Only Linux has all of it; elsewhere a run is confined by the
//! virtual WASI, the fuel and the deadline alone, and memory by the work's own limit.

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setpriority_process, setrlimit};

    /// Descriptors: three streams, and a file in memory for each compiled module.
    const DESCRIPTORS: u64 = 128;
    /// The longest file that it can make: the image of a module's memory.
    const FILE_BYTES: u64 = 512 << 20;

    fn limit(resource: Resource, value: u64) {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).ok();
    }

    pub(crate) fn begin() {
        // Each is one wall of several, and a system that refuses one still has the others.
        set_parent_process_death_signal(Some(Signal::KILL)).ok();
        rustix::thread::set_no_new_privs(true).ok();
        fs::write("/proc/self/oom_score_adj", "1000").ok();
        limit(Resource::Core, 0);
        limit(Resource::Nofile, DESCRIPTORS);
        limit(Resource::Fsize, FILE_BYTES);
    }

    pub(crate) fn resources(bytes: u64, nice: u8) {
        limit(Resource::Data, bytes);
        setpriority_process(None, nice.into()).ok();
    }

    pub(crate) fn no_more_threads() {
        limit(Resource::Nproc, 0);
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    pub(crate) fn begin() {}
    pub(crate) fn resources(_bytes: u64, _nice: u8) {}
    pub(crate) fn no_more_threads() {}
}

/// First of all: it dies with its parent, gets no privileges, dumps no core, opens few files, and is the first that the system stops
/// when memory is short.
pub(super) fn begin() {
    linux::begin();
}

/// At most `bytes` of private writable memory: what exceeds it is refused to the process, which then ends. Everyone else comes first
/// by `nice`. To be called before other threads are started, as it is of a thread and of those that it starts.
pub(super) fn resources(bytes: u64, nice: u8) {
    linux::resources(bytes, nice);
}

/// No process and no thread beyond those that run, and no call of the system but [`filter`](super::filter)'s: false if this system cannot
/// hold it to those.
pub(super) fn seal() -> bool {
    linux::no_more_threads();
    filtered()
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn filtered() -> bool {
    super::filter::apply().is_ok()
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn filtered() -> bool {
    false
}
