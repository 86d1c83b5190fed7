//! How busy the processors are: `/proc/stat`, `/proc/loadavg` and `/proc/pressure/` (proc(5); `Documentation/accounting/psi.rst`).

use crate::core::harvest::{CpuUse, Pressure, Probe, Unknown};

use super::files::{Root, misunderstood};

const STAT: &str = "/proc/stat";

/// Ticks since the start of the host, of all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
    cpus: u32,
}

/// Turns ticks since the start of the host into what happened between two samples.
#[derive(Debug)]
pub(super) struct Processors {
    last: Option<Ticks>,
    answer: Probe<CpuUse>,
}

impl Processors {
    pub(super) fn new() -> Self {
        Self { last: None, answer: Err(Unknown::unseen("needs a second sample")) }
    }

    /// What happened since the last call; the answer before, if no tick has passed.
    pub(super) fn sample(&mut self, root: &Root) -> Probe<CpuUse> {
        let now = match root.text(STAT).and_then(|text| parse(&text).ok_or_else(|| misunderstood(STAT))) {
            Ok(now) => now,
            Err(why) => {
                self.last = None;
                self.answer = Err(why);
                return self.answer.clone();
            }
        };
        if let Some(last) = self.last.replace(now) {
            self.answer = match (now.busy.checked_sub(last.busy), now.all.checked_sub(last.all)) {
                (Some(_), Some(0)) => return self.answer.clone(),
                (Some(busy), Some(all)) if busy <= all => {
                    let host_cpus = f64::from(now.cpus);
                    Ok(CpuUse { busy_cpus: busy as f64 / all as f64 * host_cpus, host_cpus })
                }
                // A processor went away, or `iowait` was corrected.
                _ => Err(Unknown::unseen(format!("{STAT}: went backwards"))),
            };
        } else {
            self.answer = Err(Unknown::unseen("needs a second sample"));
        }
        self.answer.clone()
    }

    /// Processors of the host, as of the last sample.
    pub(super) fn count(&self) -> Option<u32> {
        self.last.map(|ticks| ticks.cpus)
    }
}

/// user, nice, system, irq and softirq are work; idle and iowait are not; steal is the work of other hosts. Guests are in user and nice.
fn parse(text: &str) -> Option<Ticks> {
    let cpus = text.lines().take_while(|line| line.starts_with("cpu")).count().checked_sub(1)?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Option<Vec<u64>> = line.split_whitespace().map(|field| field.parse().ok()).collect();
    let fields = fields?;
    let &[user, nice, system, idle, ref rest @ ..] = fields.as_slice() else {
        return None;
    };
    let rest = |at: usize| rest.get(at).copied().unwrap_or(0);
    let (iowait, irq, softirq, steal) = (rest(0), rest(1), rest(2), rest(3));
    let sum = |ticks: &[u64]| ticks.iter().try_fold(0u64, |sum, ticks| sum.checked_add(*ticks));
    let busy = sum(&[user, nice, system, irq, softirq])?;
    let all = sum(&[busy, idle, iowait, steal])?;
    Some(Ticks { busy, all, cpus: u32::try_from(cpus).ok().filter(|cpus| *cpus > 0)? })
}

/// The load average of a minute.
pub(super) fn load_1min(root: &Root) -> Probe<f64> {
    const PATH: &str = "/proc/loadavg";
    let text = root.text(PATH)?;
    let load = text.split_whitespace().next().and_then(|load| load.parse::<f64>().ok());
    load.filter(|load| (0.0..1e6).contains(load)).ok_or_else(|| misunderstood(PATH))
}

/// `some avg10` of each.
pub(super) fn pressure(root: &Root) -> Pressure {
    let one = |path: &str| {
        let text = root.text(path)?;
        let some = text.lines().find_map(|line| line.strip_prefix("some "));
        let value = some.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")));
        let pct = value.and_then(|value| value.parse::<f64>().ok()).filter(|pct| (0.0..=100.0).contains(pct));
        pct.ok_or_else(|| misunderstood(path))
    };
    Pressure { cpu: one("/proc/pressure/cpu"), memory: one("/proc/pressure/memory"), io: one("/proc/pressure/io") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_from_waiting_and_from_other_hosts_work() {
        let text =
            "cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 5 10 15 200 25 3 3 4 0 0\ncpu1 5 10 15 200 25 3 4 4 0 0\nintr 5\n";
        assert_eq!(parse(text), Some(Ticks { busy: 73, all: 531, cpus: 2 }));
        assert_eq!(parse("cpu  1 2 3 4\ncpu0 1 2 3 4\n"), Some(Ticks { busy: 6, all: 10, cpus: 1 }));
    }

    #[test]
    fn torn_and_foolish_counts_are_not_understood() {
        let huge = format!("cpu  {} {} 1 1\ncpu0 1 1 1 1\n", u64::MAX, u64::MAX);
        for text in ["", "cpu", "cpu  1 2 3 4", "cpu  1 2 3\ncpu0 1 2 3", "cpu  a b c d\ncpu0 1 1 1 1", "intr 1", &huge]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
