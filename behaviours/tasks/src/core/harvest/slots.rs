//! How many tasks may run at once: by processors (BOINC's `max_ncpus_pct`) and by memory (`ram_max_used_*_frac`).

use std::time::{Duration, Instant};

use super::{
    preferences::Preferences,
    rules::user_is_active,
    signals::{OwnLoad, Signals},
};

/// Tasks that have room in memory, and the bytes for all of them.
///
/// What tasks may have is their share of all memory, but no more than what is available together with what they have already. `running`
/// is how many may run now: they stay while a quarter of one task's memory is missing. One, where the memory is not known.
pub(super) fn by_memory(preferences: &Preferences, signals: &Signals, own: OwnLoad, running: u32) -> (u32, u64) {
    let Ok(memory) = signals.memory else {
        return (1, 0);
    };
    let active = user_is_active(&signals.input, preferences);
    let share = if active { preferences.ram_max_used_busy_frac } else { preferences.ram_max_used_idle_frac };
    let allowed = (memory.total as f64 * share) as u64;
    let free = allowed.min(memory.available.saturating_add(own.resident));
    let slot = preferences.slot_memory_mib.saturating_mul(1 << 20).max(1);
    let fit = |bytes: u64| u32::try_from(bytes / slot).unwrap_or(u32::MAX);
    let stay = fit(free.saturating_add(slot / 4)).min(running);
    (fit(free).max(stay), free)
}

/// Tasks that have a processor each; at least one.
pub(super) fn by_processors(preferences: &Preferences, signals: &Signals) -> u32 {
    let cpus = signals.usable_cpus.as_ref().map_or(1.0, |cpus| *cpus);
    // A float that is no number becomes 0.
    ((cpus * preferences.max_ncpus_pct / 100.0) as u32).max(1)
}

/// How many are offered: fewer at once, more only after a while.
#[derive(Debug, Default)]
pub(super) struct Offered {
    slots: u32,
    more_since: Option<Instant>,
}

impl Offered {
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// The new number, where it changed.
    pub(super) fn change(&mut self, fitting: u32, after: Duration, now: Instant) -> Option<u32> {
        if fitting > self.slots && self.slots > 0 {
            let since = *self.more_since.get_or_insert(now);
            if now.saturating_duration_since(since) < after {
                return None;
            }
        }
        self.more_since = None;
        (fitting != self.slots).then(|| {
            self.slots = fitting;
            fitting
        })
    }
}
