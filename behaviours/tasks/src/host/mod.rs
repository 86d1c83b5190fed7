//! What the host says of itself: load, memory, power, heat, its user, its network. Plain files of Linux below a root that can be
//! chosen, without D-Bus, rights, or a daemon. Each probe is a value or says why not; whatever a file has in it, none panics.
//!
//! On other systems every probe says that it is not known, and the policy is careful then.

mod clock;
mod cpu;
mod files;
mod input;
mod memory;
mod network;
mod own;
mod power;
mod thermal;

use std::path::{Path, PathBuf};

use fog_base::Now;
use jiff::tz::TimeZone;

use crate::core::harvest::{Input, Probe, Signals, Unknown};

pub use self::own::OwnProcesses;
use self::{cpu::Processors, files::Root, input::Hands, memory::Groups, network::Network, thermal::Heat};

const UNSUPPORTED: &str = "known on Linux only";

/// One host. What needs two samples to be known (load, throttling) is not, after the first.
#[derive(Debug)]
pub struct Host {
    root: Root,
    is_real: bool,
    disk: PathBuf,
    processors: Processors,
    groups: Groups,
    heat: Heat,
    hands: Hands,
    network: Network,
    zone: Probe<TimeZone>,
}

impl Host {
    /// The host whose `proc`, `sys`, `dev`, `run` and `etc` are below `root`; `disk` is where the node keeps its data, and is not below it.
    pub fn new(root: &Path, disk: &Path, now: Now) -> Self {
        let is_real = root == Path::new("/");
        let root = Root::new(root);
        Self {
            is_real,
            disk: disk.to_owned(),
            processors: Processors::new(),
            groups: Groups::new(&root),
            heat: Heat::new(&root),
            hands: Hands::new(now),
            network: Network::default(),
            zone: clock::zone(&root),
            root,
        }
    }

    /// A look at everything. Meant for once a second; what is a rate is one since the last call.
    pub fn sample(&mut self, now: Now) -> Signals {
        if !self.is_supported() {
            return Signals { disk_free: disk_free(&self.disk), ..Signals::unseen(UNSUPPORTED) };
        }
        let supplies = power::supplies(&self.root);
        let (link, metered) = self.network.sample(&self.root, now.mono);
        let cpu = self.processors.sample(&self.root);
        Signals {
            cpu,
            load_1min: cpu::load_1min(&self.root),
            usable_cpus: self.usable_cpus(),
            memory: memory::memory(&self.root, &self.groups),
            pressure: cpu::pressure(&self.root),
            power: supplies.power,
            battery: supplies.battery,
            battery_temperature_c: supplies.temperature_c,
            temperature: self.heat.temperature(&self.root),
            throttled: self.heat.throttled(&self.root),
            input: self.hands.search(&self.root, now),
            link,
            metered,
            local_time: clock::local_time(&self.zone, now.unix),
            disk_free: disk_free(&self.disk),
        }
    }

    /// A look at the user's hands alone, at what the last sample has found. Meant for every 25 ms.
    pub fn input(&mut self, now: Now) -> Probe<Input> {
        if !self.is_supported() {
            return Err(Unknown::unseen(UNSUPPORTED));
        }
        self.hands.poll(&self.root, now)
    }

    fn is_supported(&self) -> bool {
        cfg!(target_os = "linux") || !self.is_real
    }

    fn usable_cpus(&self) -> Probe<f64> {
        let host = self.processors.count().map(f64::from);
        // Knows the affinity of this process, too.
        let process = self.is_real.then(std::thread::available_parallelism).and_then(Result::ok);
        let process = process.map(|cpus| cpus.get() as f64);
        let least = [host, process, self.groups.cpu_quota(&self.root)].into_iter().flatten().reduce(f64::min);
        least.ok_or_else(|| Unknown::unseen("the processors cannot be counted"))
    }
}

#[cfg(unix)]
fn disk_free(path: &Path) -> Probe<u64> {
    let found = rustix::fs::statvfs(path).map_err(|error| files::failed("disk", &error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn disk_free(_: &Path) -> Probe<u64> {
    Err(Unknown::unseen(UNSUPPORTED))
}

#[cfg(test)]
mod tests;
