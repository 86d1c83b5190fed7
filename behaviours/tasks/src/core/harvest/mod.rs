//! When a host is idle enough to work for others, and what happens to tasks when it is not.
//!
//! [`Preferences`] is what the owner wants, [`Signals`] what the host says, [`Policy`] decides. The preferences follow BOINC, the ladder
//! from frozen to killed HTCondor. Nothing here reads a file or a clock: `host/` does.

mod policy;
mod preferences;
mod reason;
mod rules;
mod signals;
mod slots;
mod status;

pub use self::{
    policy::{Action, Policy, State},
    preferences::{BadHours, BadPreference, Hours, Preferences},
    reason::Reason,
    signals::{
        Battery, CpuUse, Input, Link, LocalTime, Memory, OwnLoad, Power, Pressure, Probe, Signals, Temperature,
        Unknown, Weekday,
    },
    status::{BatteryStatus, CpuStatus, Status, ThermalStatus},
};

#[cfg(test)]
mod properties_tests;
#[cfg(test)]
mod transcript_tests;
