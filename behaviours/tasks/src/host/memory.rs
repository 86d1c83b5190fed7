//! Memory and processors that this node may count on: `/proc/meminfo`, and the limits of its control group where it is in one
//! (`Documentation/admin-guide/cgroup-v2.rst`; version 1 as well, which container hosts still have).

use crate::core::harvest::{Memory, Probe};

use super::files::{Root, misunderstood};

const MEMINFO: &str = "/proc/meminfo";

/// The host's memory, or what its control groups leave of it.
pub(super) fn memory(root: &Root, groups: &Groups) -> Probe<Memory> {
    let text = root.text(MEMINFO)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let of_host = field("MemTotal").zip(field("MemAvailable")).filter(|(total, available)| available <= total);
    let (mut total, mut available) = of_host.ok_or_else(|| misunderstood(MEMINFO))?;
    for limit in groups.memory_limits(root) {
        total = total.min(limit.total);
        available = available.min(limit.available);
    }
    Ok(Memory { total, available: available.min(total) })
}

/// The control groups of this process, from its own up to the root, as directories below `/sys/fs/cgroup`.
#[derive(Debug, Default)]
pub(super) struct Groups {
    unified: Vec<String>,
    cpu: Vec<String>,
    memory: Vec<String>,
}

impl Groups {
    /// From `/proc/self/cgroup`, once: a process is hardly ever moved.
    pub(super) fn new(root: &Root) -> Self {
        let mut groups = Self::default();
        let text = root.text("/proc/self/cgroup").unwrap_or_default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if path.split('/').any(|part| part == "..") {
                continue; // outside of this namespace
            }
            if controllers.is_empty() {
                groups.unified = ancestors("/sys/fs/cgroup", path);
            }
            for controller in controllers.split(',') {
                match controller {
                    "cpu" => groups.cpu = ancestors("/sys/fs/cgroup/cpu", path),
                    "memory" => groups.memory = ancestors("/sys/fs/cgroup/memory", path),
                    _ => {}
                }
            }
        }
        groups
    }

    fn memory_limits(&self, root: &Root) -> Vec<Memory> {
        let files = |dirs: &[String], most: &str, now: &str| -> Vec<Memory> {
            let limit = |dir: &String| {
                // `max` is no number, and so no limit.
                let total = root.number::<u64>(&format!("{dir}/{most}")).ok()?;
                let used = root.number::<u64>(&format!("{dir}/{now}")).ok()?;
                Some(Memory { total, available: total.saturating_sub(used) })
            };
            dirs.iter().filter_map(limit).collect()
        };
        let mut limits = files(&self.unified, "memory.max", "memory.current");
        limits.extend(files(&self.memory, "memory.limit_in_bytes", "memory.usage_in_bytes"));
        limits
    }

    /// Processors' worth of time that the groups leave, if they limit it.
    pub(super) fn cpu_quota(&self, root: &Root) -> Option<f64> {
        let new = self.unified.iter().filter_map(|dir| {
            let text = root.text(&format!("{dir}/cpu.max")).ok()?;
            let (quota, period) = text.split_once(' ')?;
            ratio(quota.parse().ok()?, period.parse().ok()?)
        });
        let old = self.cpu.iter().filter_map(|dir| {
            // -1 is no limit.
            let quota = root.number(&format!("{dir}/cpu.cfs_quota_us")).ok()?;
            ratio(quota, root.number(&format!("{dir}/cpu.cfs_period_us")).ok()?)
        });
        new.chain(old).reduce(f64::min)
    }
}

fn ratio(quota: i64, period: i64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// `path` and all above it, below `top`.
fn ancestors(top: &str, path: &str) -> Vec<String> {
    const DEEPEST: usize = 16;
    let mut rest = path.trim_matches('/');
    let mut dirs = Vec::new();
    while !rest.is_empty() && dirs.len() < DEEPEST {
        dirs.push(format!("{top}/{rest}"));
        rest = rest.rsplit_once('/').map_or("", |(above, _)| above);
    }
    // A container sees its own group as the root.
    dirs.push(top.to_owned());
    dirs
}
