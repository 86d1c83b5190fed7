//! Why a host does not work now: BOINC's suspend reasons (`lib/common_defs.h`), and those that follow from Linux' signals.

use std::{fmt, time::Duration};

/// Why there is no work now. What people read is its `Display`; a program reads [`Self::code`].
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// On battery.
    Batteries,
    /// It may be on battery: why that is not known.
    PowerUnseen(String),
    /// The battery empties, and has less than the owner wants to keep.
    BatteryCharge {
        /// Per cent.
        percent: f64,
        /// Per cent that it needs.
        least: f64,
    },
    /// The battery is too warm.
    BatteryOverheated {
        /// Degrees Celsius.
        celsius: f64,
    },
    /// The host is too hot.
    TooHot {
        /// Degrees Celsius.
        celsius: f64,
        /// Where.
        zone: String,
    },
    /// A processor was slowed down by its heat.
    Throttled,
    /// The user works.
    UserActive {
        /// How long ago the last input was.
        idle: Duration,
        /// How long ago it must be.
        needs: Duration,
    },
    /// The user may work: why that is not known.
    UserUnseen(String),
    /// Nobody was there for so long that the host may go to sleep.
    NoRecentInput {
        /// How long.
        idle: Duration,
    },
    /// The user said so.
    UserRequest,
    /// These are no hours of work.
    TimeOfDay,
    /// There are hours of work, and the time is not known: why.
    ClockUnseen(String),
    /// Other programs need the processors.
    CpuUsage {
        /// What they use, in per cent of all.
        others_pct: f64,
    },
    /// Programs wait for processors, …
    CpuPressure {
        /// Per cent of the time.
        pct: f64,
    },
    /// … for memory, …
    MemoryPressure {
        /// Per cent of the time.
        pct: f64,
    },
    /// … for disks.
    IoPressure {
        /// Per cent of the time.
        pct: f64,
    },
    /// Not even one task has room in memory.
    Memory {
        /// Bytes that tasks may have.
        free: u64,
    },
    /// The disk is full.
    DiskSize {
        /// Free bytes.
        free: u64,
    },
    /// Others are reached over a mobile network: BOINC's `WIFI_STATE`.
    MobileNetwork,
    /// Traffic costs.
    Metered,
    /// Nothing is wrong now, but was until a moment ago.
    Settling {
        /// How long it still waits.
        left: Duration,
    },
}

impl Reason {
    /// The name that does not change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Batteries => "batteries",
            Self::PowerUnseen(_) => "power_unseen",
            Self::BatteryCharge { .. } => "battery_charge",
            Self::BatteryOverheated { .. } => "battery_overheated",
            Self::TooHot { .. } => "too_hot",
            Self::Throttled => "throttled",
            Self::UserActive { .. } => "user_active",
            Self::UserUnseen(_) => "user_unseen",
            Self::NoRecentInput { .. } => "no_recent_input",
            Self::UserRequest => "user_request",
            Self::TimeOfDay => "time_of_day",
            Self::ClockUnseen(_) => "clock_unseen",
            Self::CpuUsage { .. } => "cpu_usage",
            Self::CpuPressure { .. } => "cpu_pressure",
            Self::MemoryPressure { .. } => "memory_pressure",
            Self::IoPressure { .. } => "io_pressure",
            Self::Memory { .. } => "memory",
            Self::DiskSize { .. } => "disk_size",
            Self::MobileNetwork => "mobile_network",
            Self::Metered => "metered",
            Self::Settling { .. } => "settling",
        }
    }

    /// Whether it will last, or is harmful: tasks are given back without waiting for its end.
    pub fn vacates_at_once(&self) -> bool {
        matches!(self, Self::Batteries | Self::BatteryOverheated { .. } | Self::TooHot { .. } | Self::TimeOfDay)
    }

    /// Whether its end is sharp, so that work begins again at once. The user's is: it waits for idle time already.
    pub(super) fn ends_sharply(&self) -> bool {
        let waits_already = matches!(self, Self::UserActive { .. } | Self::NoRecentInput { .. });
        waits_already || matches!(self, Self::UserRequest | Self::TimeOfDay | Self::Settling { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batteries => f.write_str("on battery"),
            Self::PowerUnseen(why) => write!(f, "perhaps on battery ({why}); run_on_batteries allows that"),
            Self::BatteryCharge { percent, least } => {
                write!(f, "the battery empties, and has {percent:.0} % of the {least:.0} % that it shall keep")
            }
            Self::BatteryOverheated { celsius } => write!(f, "the battery is too warm: {celsius:.0} °C"),
            Self::TooHot { celsius, zone } => write!(f, "too hot: {celsius:.0} °C at {zone}"),
            Self::Throttled => f.write_str("a processor was slowed down by its heat"),
            Self::UserActive { idle, needs } => {
                write!(f, "the user was active {} s ago, which must be {} s", idle.as_secs(), needs.as_secs())
            }
            Self::UserUnseen(why) => write!(f, "the user may be active ({why}); run_if_user_active allows that"),
            Self::NoRecentInput { idle } => write!(f, "no input for {} s: the host may go to sleep", idle.as_secs()),
            Self::UserRequest => f.write_str("paused by the user"),
            Self::TimeOfDay => f.write_str("these are not its hours of work"),
            Self::ClockUnseen(why) => write!(f, "it has hours of work, and the local time is not known ({why})"),
            Self::CpuUsage { others_pct } => write!(f, "other programs use {others_pct:.0} % of the processors"),
            Self::CpuPressure { pct } => write!(f, "programs wait for processors {pct:.0} % of the time"),
            Self::MemoryPressure { pct } => write!(f, "programs wait for memory {pct:.0} % of the time"),
            Self::IoPressure { pct } => write!(f, "programs wait for disks {pct:.0} % of the time"),
            Self::Memory { free } => write!(f, "no memory for a task: {} MiB are left for them", free >> 20),
            Self::DiskSize { free } => write!(f, "the disk is full: {} MB are free", free / 1_000_000),
            Self::MobileNetwork => f.write_str("on a mobile network"),
            Self::Metered => f.write_str("on a metered network"),
            Self::Settling { left } => write!(f, "quiet again; waits {} s more", left.as_secs_f64().ceil()),
        }
    }
}
