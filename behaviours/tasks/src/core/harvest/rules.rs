//! Which reasons hold at one moment. Whether tasks run matters: what stopped them must get better than what would stop them (HTCondor's
//! `HighLoad` 0.5 and `BackgroundLoad` 0.3), so that a value near its limit does not stop and start them again and again.

use super::{
    preferences::Preferences,
    reason::Reason,
    signals::{Input, Link, Power, Probe, Signals, Unknown},
};

/// What others may use when work begins, of what they may use while it goes on.
const CALM: f64 = 0.6;
/// Degrees below the limit at which work begins.
const COOL: f64 = 10.0;
/// Degrees below a host's own trip point at which work ends.
const HEADROOM: f64 = 5.0;
/// Per cent of charge above the least with which work begins, as BOINC's Android client has it.
const CHARGED: f64 = 5.0;

/// One moment.
pub(super) struct Moment<'a> {
    pub(super) preferences: &'a Preferences,
    pub(super) signals: &'a Signals,
    /// The share of the processors that others use, smoothed, from 0 to 1.
    pub(super) others: Option<f64>,
    /// Whether work goes on, or else may begin.
    pub(super) working: bool,
    /// Whether the user said stop.
    pub(super) paused: bool,
    /// Tasks that have room in memory, and the bytes for them.
    pub(super) memory_slots: u32,
    pub(super) memory_free: u64,
}

impl Moment<'_> {
    /// All that hold, the most telling first.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.paused {
            reasons.push(Reason::UserRequest);
        }
        reasons.extend(self.power());
        reasons.extend(self.heat());
        reasons.extend(self.user());
        reasons.extend(self.schedule());
        reasons.extend(self.processors());
        reasons.extend(self.pressure());
        reasons.extend(self.room());
        reasons.extend(self.network());
        reasons
    }

    fn power(&self) -> Vec<Reason> {
        let (wanted, signals) = (self.preferences, self.signals);
        let mut reasons = Vec::new();
        if !wanted.run_on_batteries {
            match &signals.power {
                Ok(Power::Battery) => reasons.push(Reason::Batteries),
                Err(Unknown::Unseen(why)) => reasons.push(Reason::PowerUnseen(why.clone())),
                Ok(Power::Mains) | Err(Unknown::Absent(_)) => {}
            }
        }
        let least = wanted.battery_charge_min_pct + if self.working { 0.0 } else { CHARGED };
        if let Ok(battery) = signals.battery
            && battery.discharging
            && battery.percent < least.min(100.0)
        {
            reasons.push(Reason::BatteryCharge { percent: battery.percent, least: wanted.battery_charge_min_pct });
        }
        if let Ok(celsius) = signals.battery_temperature_c
            && celsius > wanted.battery_max_temperature_c
        {
            reasons.push(Reason::BatteryOverheated { celsius });
        }
        reasons
    }

    fn heat(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let (limit, headroom) = if self.working {
            (self.preferences.max_temperature_c, HEADROOM)
        } else {
            (self.preferences.max_temperature_c - COOL, HEADROOM + COOL)
        };
        if let Ok(hottest) = &self.signals.temperature
            && (hottest.celsius >= limit || hottest.headroom.is_some_and(|left| left <= headroom))
        {
            reasons.push(Reason::TooHot { celsius: hottest.celsius, zone: hottest.zone.clone() });
        }
        if self.signals.throttled == Ok(true) {
            reasons.push(Reason::Throttled);
        }
        reasons
    }

    fn user(&self) -> Option<Reason> {
        let wanted = self.preferences;
        match &self.signals.input {
            Err(Unknown::Absent(_)) => None,
            Err(Unknown::Unseen(why)) => (!wanted.run_if_user_active).then(|| Reason::UserUnseen(why.clone())),
            Ok(input) => {
                let (idle, needs) = (input.idle(), wanted.idle_time_to_run());
                let away = wanted.suspend_if_no_recent_input().is_some_and(|most| idle > most);
                if !wanted.run_if_user_active && user_is_active(&self.signals.input, wanted) {
                    Some(Reason::UserActive { idle, needs })
                } else {
                    away.then_some(Reason::NoRecentInput { idle })
                }
            }
        }
    }

    fn schedule(&self) -> Option<Reason> {
        match &self.signals.local_time {
            Ok(time) => (!self.preferences.works_at(*time)).then_some(Reason::TimeOfDay),
            Err(why) => self.preferences.has_schedule().then(|| Reason::ClockUnseen(why.to_string())),
        }
    }

    fn processors(&self) -> Option<Reason> {
        let most = self.preferences.suspend_cpu_usage_pct;
        let others_pct = self.others? * 100.0;
        let limit = if self.working { most } else { most * CALM };
        (most > 0.0 && others_pct > limit).then_some(Reason::CpuUsage { others_pct })
    }

    /// Pressure does not tell who waits: our own tasks do too, so that waiting for processors and disks counts only while none runs.
    /// Waiting for memory counts always, as it hurts the user whoever is its cause.
    fn pressure(&self) -> Vec<Reason> {
        let (wanted, pressure) = (self.preferences, &self.signals.pressure);
        let over = |most: f64, probe: &Probe<f64>| probe.as_ref().ok().copied().filter(|pct| most > 0.0 && *pct > most);
        let mut reasons = Vec::new();
        let calm = if self.working { 1.0 } else { CALM };
        if let Some(pct) = over(wanted.suspend_memory_pressure_pct * calm, &pressure.memory) {
            reasons.push(Reason::MemoryPressure { pct });
        }
        if self.working {
            return reasons;
        }
        if let Some(pct) = over(wanted.start_cpu_pressure_pct, &pressure.cpu) {
            reasons.push(Reason::CpuPressure { pct });
        }
        if let Some(pct) = over(wanted.start_io_pressure_pct, &pressure.io) {
            reasons.push(Reason::IoPressure { pct });
        }
        reasons
    }

    fn room(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.memory_slots == 0 {
            reasons.push(Reason::Memory { free: self.memory_free });
        }
        if let Ok(free) = self.signals.disk_free
            && free < self.preferences.disk_min_free()
        {
            reasons.push(Reason::DiskSize { free });
        }
        reasons
    }

    fn network(&self) -> Option<Reason> {
        if self.preferences.network_wifi_only && self.signals.link == Ok(Link::Mobile) {
            return Some(Reason::MobileNetwork);
        }
        (!self.preferences.run_if_metered && self.signals.metered == Ok(true)).then_some(Reason::Metered)
    }
}

/// Whether the last input was less than the idle time ago. Where no input was seen since the watch began, nobody is there.
pub(super) fn user_is_active(input: &Probe<Input>, preferences: &Preferences) -> bool {
    matches!(input, Ok(Input::Seen(ago)) if *ago < preferences.idle_time_to_run())
}
