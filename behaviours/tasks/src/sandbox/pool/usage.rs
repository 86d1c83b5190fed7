//! What a process uses, from `/proc`. Elsewhere nothing is known, and the load of the host is not corrected.

use std::{ops::Add, time::Duration};

/// What task processes use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// How many there are.
    pub processes: usize,
    /// Time on a core since the pool began, those that ended included. It never falls.
    pub cpu: Duration,
    /// Memory that they have now.
    pub resident_bytes: u64,
}

impl Add for PoolUse {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            processes: self.processes + other.processes,
            cpu: self.cpu + other.cpu,
            resident_bytes: self.resident_bytes + other.resident_bytes,
        }
    }
}

/// A tick of the times in `/proc/<pid>/stat`: 1/100 s, whatever the kernel's own.
const TICK: Duration = Duration::from_millis(10);
const PAGE: u64 = 4096;

/// Of one process; nothing where it is not known. A process that ended is known until it is waited for.
pub(super) fn of(pid: u32) -> PoolUse {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse(&stat).unwrap_or_default()
}

/// See proc_pid_stat(5): fields are counted from behind the name, which may hold anything.
fn parse(stat: &str) -> Option<PoolUse> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    Some(PoolUse { processes: 1, cpu: TICK * u32::try_from(ticks).ok()?, resident_bytes: field(24)? * PAGE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_anything_in_it_is_no_field() {
        let stat =
            "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 7 5 0 0 20 0 3 0 100 1000000 300 18446744073709551615 1";
        let expected = PoolUse { processes: 1, cpu: Duration::from_millis(120), resident_bytes: 300 * 4096 };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse(""), None);
    }
}
