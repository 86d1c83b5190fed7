//! What `fog worker status` shows of the host.

use serde::Serialize;

use super::{
    policy::{Policy, State},
    signals::Power,
};

/// Whether the host works, why not, and what it was told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Whether tasks may run and be taken.
    pub eligible: bool,
    /// `eligible`, `suspended`, `vacating` or `stopped`.
    pub state: &'static str,
    /// Why it is not eligible, in words.
    pub reasons: Vec<String>,
    /// How many tasks may run.
    pub slots: u32,
    /// The processors; `None` where the host does not tell.
    pub cpu: Option<CpuStatus>,
    /// Power; `None` where there is no battery, or the host does not tell.
    pub battery: Option<BatteryStatus>,
    /// Heat; `None` where the host does not tell.
    pub thermal: Option<ThermalStatus>,
    /// Whole seconds since the last input, or since it is watched for; `None` where nobody can be seen.
    pub user_idle_s: Option<u64>,
    /// What is not known, and why.
    pub unknown: Vec<String>,
}

/// The processors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CpuStatus {
    /// What others use, smoothed over ten seconds, in per cent of all processors.
    pub others_pct: f64,
    /// What this node and its tasks use.
    pub own_pct: f64,
    /// The load average of a minute.
    pub load_1min: Option<f64>,
}

/// Power.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatteryStatus {
    /// Whether the host is on it.
    pub on_battery: Option<bool>,
    /// Charge in per cent.
    pub percent: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
}

/// Heat.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThermalStatus {
    /// Degrees Celsius of the hottest place.
    pub celsius: Option<f64>,
    /// How the host calls it.
    pub zone: Option<String>,
    /// Whether a processor was slowed down by its heat.
    pub throttled: Option<bool>,
}

impl Policy {
    /// All of it at once. Without a sample everything is unknown.
    pub fn status(&self) -> Status {
        let mut reasons: Vec<_> = self.reasons().iter().map(ToString::to_string).collect();
        if self.signals().is_none() {
            reasons.push("the host was not looked at yet".into());
        }
        Status {
            eligible: self.is_eligible(),
            state: match self.state() {
                State::Eligible => "eligible",
                State::Suspended => "suspended",
                State::Vacating => "vacating",
                State::Stopped => "stopped",
            },
            reasons,
            slots: self.slots(),
            cpu: self.cpu_status(),
            battery: self.battery_status(),
            thermal: self.thermal_status(),
            user_idle_s: self.signals().and_then(|signals| Some(signals.input.as_ref().ok()?.idle().as_secs())),
            unknown: self.signals().map(super::Signals::unknowns).unwrap_or_default(),
        }
    }

    fn cpu_status(&self) -> Option<CpuStatus> {
        let signals = self.signals()?;
        let host_cpus = signals.cpu.as_ref().ok()?.host_cpus;
        Some(CpuStatus {
            others_pct: self.others()? * 100.0,
            own_pct: self.own().cpus / host_cpus * 100.0,
            load_1min: signals.load_1min.as_ref().ok().copied(),
        })
    }

    fn battery_status(&self) -> Option<BatteryStatus> {
        let signals = self.signals()?;
        let status = BatteryStatus {
            on_battery: signals.power.as_ref().ok().map(|power| *power == Power::Battery),
            percent: signals.battery.as_ref().ok().map(|battery| battery.percent),
            temperature_c: signals.battery_temperature_c.as_ref().ok().copied(),
        };
        let told = status.on_battery.is_some() || status.percent.is_some() || status.temperature_c.is_some();
        told.then_some(status)
    }

    fn thermal_status(&self) -> Option<ThermalStatus> {
        let signals = self.signals()?;
        let hottest = signals.temperature.as_ref().ok();
        let status = ThermalStatus {
            celsius: hottest.map(|hottest| hottest.celsius),
            zone: hottest.map(|hottest| hottest.zone.clone()),
            throttled: signals.throttled.as_ref().ok().copied(),
        };
        (status.celsius.is_some() || status.throttled.is_some()).then_some(status)
    }
}
