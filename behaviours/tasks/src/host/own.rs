//! What this node and its tasks use, so that the policy can take it off: `/proc/<pid>/stat` (proc(5)).

use std::time::Instant;

use fog_base::Now;

use crate::core::harvest::OwnLoad;

use super::files::Root;

/// Turns processor time since the start of processes into what happened between two samples.
#[derive(Debug)]
pub struct OwnProcesses {
    root: Root,
    last: Option<(u64, Instant)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    /// Ticks of itself and of its children that have ended.
    ticks: u64,
    pages: u64,
}

impl OwnProcesses {
    /// Below `root`, which is `/` but for tests: synthetic hosts have real tasks.
    pub fn new(root: &std::path::Path) -> Self {
        Self { root: Root::new(root), last: None }
    }

    /// What the process `node`, its ended children, and the processes `tasks` used since the last call. A task that ends between two
    /// samples moves from the second to the first, so that nothing is lost. Zero where the system does not tell.
    pub fn sample(&mut self, node: u32, tasks: &[u32], now: Now) -> OwnLoad {
        let read = |pid: u32| parse(&self.root.text(&format!("/proc/{pid}/stat")).ok()?);
        let Some(of_node) = read(node) else {
            self.last = None;
            return OwnLoad::default();
        };
        let (mut ticks, mut pages) = (of_node.ticks, 0u64);
        for task in tasks.iter().filter_map(|pid| read(*pid)) {
            ticks = ticks.saturating_add(task.ticks);
            pages = pages.saturating_add(task.pages);
        }
        let cpus = self.last.replace((ticks, now.mono)).map_or(0.0, |(before, at)| {
            let seconds = now.mono.saturating_duration_since(at).as_secs_f64();
            let used = ticks.saturating_sub(before) as f64 / ticks_per_second();
            if seconds > 0.0 { used / seconds } else { 0.0 }
        });
        OwnLoad { cpus, resident: pages.saturating_mul(page_size()) }
    }
}

/// utime, stime, cutime and cstime are fields 14 to 17, rss is 24. The name, field 2, may have spaces and parentheses in it.
fn parse(text: &str) -> Option<Process> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
    let ticks = (14..=17).try_fold(0u64, |sum, number| sum.checked_add(field(number)?))?;
    Some(Process { ticks, pages: field(24)? })
}

#[cfg(target_os = "linux")]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(target_os = "linux")]
fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(not(target_os = "linux"))]
fn ticks_per_second() -> f64 {
    100.0
}

#[cfg(not(target_os = "linux"))]
fn page_size() -> u64 {
    4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 1 0 999 1000000 77 18446744073709551615 0";
        let expected = Process { ticks: 127, pages: 77 };
        assert_eq!(parse(&format!("42 (a) b (c) {rest}")), Some(expected));
        for torn in ["", "42 (a", "42 (a) S 1 2", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x 20 3 4 20 0 1 0 9 1 77"] {
            assert_eq!(parse(torn), None, "{torn}");
        }
    }
}
