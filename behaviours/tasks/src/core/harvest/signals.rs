//! What a host tells of itself, and what it does not.

use std::{fmt, time::Duration};

/// Why a probe has no value. The two are not the same to the policy: a host without a battery is on mains, a host whose battery cannot
/// be read may be on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The host does not have what was looked for.
    Absent(String),
    /// It may have it, but cannot be read, or says something that is not understood.
    Unseen(String),
}

impl Unknown {
    /// The host does not have it.
    pub fn absent(why: impl Into<String>) -> Self {
        Self::Absent(why.into())
    }

    /// It cannot be told.
    pub fn unseen(why: impl Into<String>) -> Self {
        Self::Unseen(why.into())
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) | Self::Unseen(why) => f.write_str(why),
        }
    }
}

/// A value, or why there is none.
pub type Probe<T> = Result<T, Unknown>;

/// How busy the processors were since the sample before, this node included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuUse {
    /// Processors' worth of work: 1.5 is one and a half.
    pub busy_cpus: f64,
    /// Processors of the host.
    pub host_cpus: f64,
}

/// Memory that this node may count on, in bytes: the host's, or its control group's where that is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All.
    pub total: u64,
    /// What programs can still take without swapping.
    pub available: u64,
}

/// Shares of the last ten seconds in which something waited, in per cent: `some avg10` of Linux' pressure stall information.
#[derive(Debug, Clone, PartialEq)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Probe<f64>,
    /// For memory.
    pub memory: Probe<f64>,
    /// For disks.
    pub io: Probe<f64>,
}

/// Where the host's power comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// The grid, or whatever else does not run out.
    Mains,
    /// A battery.
    Battery,
}

/// The batteries of the host, together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Battery {
    /// Their mean charge, in per cent.
    pub percent: f64,
    /// Whether any of them loses charge.
    pub discharging: bool,
}

/// The hottest place of the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Temperature {
    /// Degrees Celsius.
    pub celsius: f64,
    /// How the host calls that place.
    pub zone: String,
    /// Degrees that are left, in the zone where it is least, until the host acts (a `hot` or `critical` trip point), if it has any.
    pub headroom: Option<f64>,
}

/// What is known of the user's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The last input was so long ago.
    Seen(Duration),
    /// There was none in the time that was watched, which is so long.
    NoneFor(Duration),
}

impl Input {
    /// How long the user has been idle, or at least how long.
    pub fn idle(self) -> Duration {
        match self {
            Self::Seen(idle) | Self::NoneFor(idle) => idle,
        }
    }
}

/// What the host reaches others by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A cable, or what looks like one.
    Cable,
    /// A wireless LAN.
    Wifi,
    /// A mobile network.
    Mobile,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the days")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Monday, Self::Tuesday, Self::Wednesday, Self::Thursday, Self::Friday, Self::Saturday, Self::Sunday];
}

/// The time on the user's wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// The day.
    pub weekday: Weekday,
    /// Minutes since its midnight, from 0 to 1439.
    pub minute: u16,
}

/// One sample of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Signals {
    /// How busy the processors are.
    pub cpu: Probe<CpuUse>,
    /// Processes that run or wait to, averaged over a minute; for people, as the usage decides.
    pub load_1min: Probe<f64>,
    /// Processors that this node may use: the host's, or its control group's share of them.
    pub usable_cpus: Probe<f64>,
    /// Memory.
    pub memory: Probe<Memory>,
    /// What is waited for.
    pub pressure: Pressure,
    /// Mains or battery.
    pub power: Probe<Power>,
    /// Charge.
    pub battery: Probe<Battery>,
    /// The hottest battery, in degrees Celsius.
    pub battery_temperature_c: Probe<f64>,
    /// The hottest place.
    pub temperature: Probe<Temperature>,
    /// Whether a processor was slowed down by its heat since the sample before.
    pub throttled: Probe<bool>,
    /// The user's hands.
    pub input: Probe<Input>,
    /// What others are reached by.
    pub link: Probe<Link>,
    /// Whether traffic costs.
    pub metered: Probe<bool>,
    /// The time here.
    pub local_time: Probe<LocalTime>,
    /// Free bytes where this node keeps its data.
    pub disk_free: Probe<u64>,
}

impl Signals {
    /// Nothing is known, and why.
    pub fn unseen(why: &str) -> Self {
        fn none<T>(why: &str) -> Probe<T> {
            Err(Unknown::unseen(why))
        }
        Self {
            cpu: none(why),
            load_1min: none(why),
            usable_cpus: none(why),
            memory: none(why),
            pressure: Pressure { cpu: none(why), memory: none(why), io: none(why) },
            power: none(why),
            battery: none(why),
            battery_temperature_c: none(why),
            temperature: none(why),
            throttled: none(why),
            input: none(why),
            link: none(why),
            metered: none(why),
            local_time: none(why),
            disk_free: none(why),
        }
    }

    /// What is not known, each as `name: why`.
    pub fn unknowns(&self) -> Vec<String> {
        fn note<T>(notes: &mut Vec<String>, name: &str, probe: &Probe<T>) {
            if let Err(why) = probe {
                notes.push(format!("{name}: {why}"));
            }
        }
        let mut notes = Vec::new();
        note(&mut notes, "cpu", &self.cpu);
        note(&mut notes, "load", &self.load_1min);
        note(&mut notes, "usable cpus", &self.usable_cpus);
        note(&mut notes, "memory", &self.memory);
        note(&mut notes, "cpu pressure", &self.pressure.cpu);
        note(&mut notes, "memory pressure", &self.pressure.memory);
        note(&mut notes, "io pressure", &self.pressure.io);
        note(&mut notes, "power", &self.power);
        note(&mut notes, "battery", &self.battery);
        note(&mut notes, "battery temperature", &self.battery_temperature_c);
        note(&mut notes, "temperature", &self.temperature);
        note(&mut notes, "throttled", &self.throttled);
        note(&mut notes, "user", &self.input);
        note(&mut notes, "link", &self.link);
        note(&mut notes, "metered", &self.metered);
        note(&mut notes, "local time", &self.local_time);
        note(&mut notes, "disk", &self.disk_free);
        notes
    }
}

/// What this node's own tasks use, so that it is not taken for somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OwnLoad {
    /// Processors' worth of work of the node and its tasks, over the same time as [`CpuUse`].
    pub cpus: f64,
    /// Bytes that its tasks have in memory.
    pub resident: u64,
}
