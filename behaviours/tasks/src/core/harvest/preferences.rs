//! When and how much a host works for others, as its owner wants it: the section `[worker]` of `fog.toml`.
//!
//! Names and defaults are BOINC's (`lib/prefs.h`), with the unit in the name, and HTCondor's for the ladder. Three differ, and say so.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::signals::{LocalTime, Weekday};

/// What the owner wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preferences {
    /// Works on battery too.
    pub run_on_batteries: bool,
    /// While it works with the battery discharging: the charge below which it stops. BOINC asks for this charge before it starts, on Android.
    pub battery_charge_min_pct: f64,
    /// Stops above this temperature of a battery.
    pub battery_max_temperature_c: f64,
    /// Stops at this temperature of the hottest place of the host.
    pub max_temperature_c: f64,
    /// Works while the user does, too. BOINC's default is true; Fog harvests idle hosts.
    pub run_if_user_active: bool,
    /// Minutes without input after which the user counts as away.
    pub idle_time_to_run_min: f64,
    /// Stops when there was no input for so many minutes, so that the host can go to sleep; 0 for never.
    pub suspend_if_no_recent_input_min: f64,
    /// Stops while other programs use more than this share of the processors; 0 for never.
    pub suspend_cpu_usage_pct: f64,
    /// Stops while programs wait for memory more than this share of the time; 0 for never.
    pub suspend_memory_pressure_pct: f64,
    /// Does not begin while programs wait for processors more than this share of the time; 0 for always.
    pub start_cpu_pressure_pct: f64,
    /// Does not begin while programs wait for disks more than this share of the time; 0 for always.
    pub start_io_pressure_pct: f64,
    /// The share of the processors that tasks may use, at least one of them.
    pub max_ncpus_pct: f64,
    /// The share of memory that tasks may use while the user is active, …
    pub ram_max_used_busy_frac: f64,
    /// … and while not.
    pub ram_max_used_idle_frac: f64,
    /// Memory that one running task is reckoned with.
    pub slot_memory_mib: u64,
    /// Stops when the disk with the node's data has less free than this.
    pub disk_min_free_gb: f64,
    /// Does not work over a mobile network. BOINC counts a cable as no Wi-Fi, Fog as better.
    pub network_wifi_only: bool,
    /// Works where traffic is known to cost.
    pub run_if_metered: bool,
    /// Works from this hour, …
    pub start_hour: f64,
    /// … to this one; always, if they are equal; over midnight, if the first is later.
    pub end_hour: f64,
    /// Other hours on this day, as in `"22:00-06:30"`, `"always"` or `"never"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monday: Option<Hours>,
    #[allow(missing_docs, reason = "as Monday")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuesday: Option<Hours>,
    #[allow(missing_docs, reason = "as Monday")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wednesday: Option<Hours>,
    #[allow(missing_docs, reason = "as Monday")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thursday: Option<Hours>,
    #[allow(missing_docs, reason = "as Monday")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub friday: Option<Hours>,
    #[allow(missing_docs, reason = "as Monday")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturday: Option<Hours>,
    #[allow(missing_docs, reason = "as Monday")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sunday: Option<Hours>,
    /// How long everything must have been well before work begins again.
    pub continue_after_s: u64,
    /// How long tasks stay frozen before they are given back: HTCondor's `MaxSuspendTime`.
    pub max_suspend_time_s: u64,
    /// How long a task that is given back has until its process is killed: HTCondor's `MachineMaxVacateTime`, which is 10 minutes there
    /// so that a job can write a checkpoint. Tasks have none.
    pub max_vacate_time_s: u64,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            run_on_batteries: false,
            battery_charge_min_pct: 90.0,
            battery_max_temperature_c: 40.0,
            max_temperature_c: 90.0,
            run_if_user_active: false,
            idle_time_to_run_min: 3.0,
            suspend_if_no_recent_input_min: 0.0,
            suspend_cpu_usage_pct: 25.0,
            suspend_memory_pressure_pct: 10.0,
            start_cpu_pressure_pct: 40.0,
            start_io_pressure_pct: 40.0,
            max_ncpus_pct: 100.0,
            ram_max_used_busy_frac: 0.5,
            ram_max_used_idle_frac: 0.9,
            slot_memory_mib: 256,
            disk_min_free_gb: 0.1,
            network_wifi_only: true,
            run_if_metered: false,
            start_hour: 0.0,
            end_hour: 0.0,
            monday: None,
            tuesday: None,
            wednesday: None,
            thursday: None,
            friday: None,
            saturday: None,
            sunday: None,
            continue_after_s: 60,
            max_suspend_time_s: 600,
            max_vacate_time_s: 10,
        }
    }
}

/// A value that no host can follow.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("`worker.{key}` takes {takes}, not {value}")]
pub struct BadPreference {
    /// The key, without its section.
    pub key: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What it was given.
    pub value: f64,
}

impl Preferences {
    /// Whether each number is in its range.
    pub fn check(&self) -> Result<(), BadPreference> {
        const PERCENT: (f64, f64, &str) = (0.0, 100.0, "a number from 0 to 100");
        const DEGREES: (f64, f64, &str) = (1.0, 150.0, "degrees Celsius, from 1 to 150");
        const MINUTES: (f64, f64, &str) = (0.0, 10_080.0, "minutes, from 0 to 10080");
        const FRACTION: (f64, f64, &str) = (0.0, 1.0, "a number from 0 to 1");
        const HOUR: (f64, f64, &str) = (0.0, 24.0, "hours, from 0 to 24");
        const SECONDS: (f64, f64, &str) = (0.0, 86_400.0, "whole seconds, from 0 to 86400");
        let all = [
            ("battery_charge_min_pct", self.battery_charge_min_pct, PERCENT),
            ("battery_max_temperature_c", self.battery_max_temperature_c, DEGREES),
            ("max_temperature_c", self.max_temperature_c, DEGREES),
            ("idle_time_to_run_min", self.idle_time_to_run_min, MINUTES),
            ("suspend_if_no_recent_input_min", self.suspend_if_no_recent_input_min, MINUTES),
            ("suspend_cpu_usage_pct", self.suspend_cpu_usage_pct, PERCENT),
            ("suspend_memory_pressure_pct", self.suspend_memory_pressure_pct, PERCENT),
            ("start_cpu_pressure_pct", self.start_cpu_pressure_pct, PERCENT),
            ("start_io_pressure_pct", self.start_io_pressure_pct, PERCENT),
            ("max_ncpus_pct", self.max_ncpus_pct, (1.0, 100.0, "a number from 1 to 100")),
            ("ram_max_used_busy_frac", self.ram_max_used_busy_frac, FRACTION),
            ("ram_max_used_idle_frac", self.ram_max_used_idle_frac, FRACTION),
            ("slot_memory_mib", self.slot_memory_mib as f64, (1.0, 1_048_576.0, "a number from 1 to 1048576")),
            ("disk_min_free_gb", self.disk_min_free_gb, (0.0, 1e6, "a number from 0 to 1000000")),
            ("start_hour", self.start_hour, HOUR),
            ("end_hour", self.end_hour, HOUR),
            ("continue_after_s", self.continue_after_s as f64, SECONDS),
            ("max_suspend_time_s", self.max_suspend_time_s as f64, SECONDS),
            ("max_vacate_time_s", self.max_vacate_time_s as f64, SECONDS),
        ];
        for (key, value, (least, most, takes)) in all {
            // A NaN is in no range.
            if !(least..=most).contains(&value) {
                return Err(BadPreference { key, takes, value });
            }
        }
        Ok(())
    }

    /// Whether these are hours of work.
    pub fn works_at(&self, time: LocalTime) -> bool {
        self.hours(time.weekday).contain(time.minute)
    }

    /// Whether there are hours without work.
    pub(super) fn has_schedule(&self) -> bool {
        Weekday::ALL.into_iter().any(|day| self.hours(day) != Hours::Always)
    }

    fn hours(&self, day: Weekday) -> Hours {
        let own = match day {
            Weekday::Monday => self.monday,
            Weekday::Tuesday => self.tuesday,
            Weekday::Wednesday => self.wednesday,
            Weekday::Thursday => self.thursday,
            Weekday::Friday => self.friday,
            Weekday::Saturday => self.saturday,
            Weekday::Sunday => self.sunday,
        };
        own.unwrap_or_else(|| Hours::between(minutes(self.start_hour), minutes(self.end_hour)))
    }

    pub(super) fn idle_time_to_run(&self) -> Duration {
        from_minutes(self.idle_time_to_run_min)
    }

    pub(super) fn suspend_if_no_recent_input(&self) -> Option<Duration> {
        (self.suspend_if_no_recent_input_min > 0.0).then(|| from_minutes(self.suspend_if_no_recent_input_min))
    }

    pub(super) fn continue_after(&self) -> Duration {
        Duration::from_secs(self.continue_after_s)
    }

    pub(super) fn max_suspend_time(&self) -> Duration {
        Duration::from_secs(self.max_suspend_time_s)
    }

    pub(super) fn max_vacate_time(&self) -> Duration {
        Duration::from_secs(self.max_vacate_time_s)
    }

    pub(super) fn disk_min_free(&self) -> u64 {
        (self.disk_min_free_gb * 1e9) as u64
    }
}

fn from_minutes(minutes: f64) -> Duration {
    Duration::try_from_secs_f64(minutes * 60.0).unwrap_or_default()
}

fn minutes(hours: f64) -> u16 {
    (hours * 60.0) as u16
}

const DAY: u16 = 24 * 60;

/// Hours of work on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hours {
    /// All of them.
    Always,
    /// None.
    Never,
    /// From a minute of the day to another, which is no longer in it; over midnight if the first is later.
    Between(u16, u16),
}

impl Hours {
    /// BOINC's rule (`TIME_SPAN`): equal ends, or 0 to 24, are the whole day; 24 to 0 is never.
    fn between(start: u16, end: u16) -> Self {
        match (start, end) {
            (DAY, 0) => Self::Never,
            (0, DAY) => Self::Always,
            _ if start == end => Self::Always,
            _ => Self::Between(start, end),
        }
    }

    fn contain(self, minute: u16) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Between(start, end) if start < end => (start..end).contains(&minute),
            Self::Between(start, end) => minute >= start || minute < end,
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Never => f.write_str("never"),
            Self::Between(start, end) => {
                write!(f, "{:02}:{:02}-{:02}:{:02}", start / 60, start % 60, end / 60, end % 60)
            }
        }
    }
}

/// A text that names no hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("hours are written as in `22:00-06:30`, or as `always` or `never`")]
pub struct BadHours;

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let time = |text: &str| {
            let (hour, minute) = text.split_once(':').unwrap_or((text, "0"));
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour <= 24 && minute < 60).then(|| hour * 60 + minute).filter(|time| *time <= DAY)
        };
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => {
                let (start, end) = text.split_once('-').ok_or(BadHours)?;
                let (start, end) = (time(start.trim()).ok_or(BadHours)?, time(end.trim()).ok_or(BadHours)?);
                Ok(Self::between(start, end))
            }
        }
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn works(preferences: &Preferences, weekday: Weekday, hour: u16, minute: u16) -> bool {
        preferences.works_at(LocalTime { weekday, minute: hour * 60 + minute })
    }

    #[test]
    fn a_section_of_the_file_changes_what_it_names_and_nothing_else() {
        let text =
            "run_on_batteries = true\nidle_time_to_run_min = 5\nstart_hour = 22\nend_hour = 6.5\nsunday = \"always\"\n";
        let read: Preferences = toml::from_str(text).expect("a section");
        let expected = Preferences {
            run_on_batteries: true,
            idle_time_to_run_min: 5.0,
            start_hour: 22.0,
            end_hour: 6.5,
            sunday: Some(Hours::Always),
            ..Preferences::default()
        };
        assert_eq!(read, expected);
        let written = toml::to_string(&read).expect("written");
        assert_eq!(toml::from_str::<Preferences>(&written).expect("read back"), read);
    }

    #[test]
    fn the_readme_has_every_key() {
        let readme = include_str!("../../../README.md");
        let all = Preferences { monday: Some(Hours::Always), sunday: Some(Hours::Always), ..Default::default() };
        let written: toml::Table = toml::to_string(&all).expect("written").parse().expect("a table");
        let missing: Vec<_> = written.keys().filter(|key| !readme.contains(&format!("`{key}`"))).collect();
        assert_eq!((written.len(), missing), (25, vec![]));
    }

    #[test]
    fn misspelt_keys_and_values_out_of_range_are_refused() {
        assert!(toml::from_str::<Preferences>("run_on_battery = true").is_err());
        assert!(toml::from_str::<Preferences>("monday = \"25-3\"").is_err());
        assert_eq!(Preferences::default().check(), Ok(()));
        for (key, wrong) in [
            ("max_ncpus_pct", Preferences { max_ncpus_pct: 0.0, ..Default::default() }),
            ("ram_max_used_idle_frac", Preferences { ram_max_used_idle_frac: 1.5, ..Default::default() }),
            ("suspend_cpu_usage_pct", Preferences { suspend_cpu_usage_pct: f64::NAN, ..Default::default() }),
            ("end_hour", Preferences { end_hour: -1.0, ..Default::default() }),
            ("slot_memory_mib", Preferences { slot_memory_mib: 0, ..Default::default() }),
        ] {
            assert_eq!(wrong.check().expect_err(key).key, key);
        }
    }

    #[test]
    fn hours_go_over_midnight_and_a_day_can_have_its_own() {
        let nights = Preferences {
            start_hour: 22.0,
            end_hour: 6.5,
            saturday: Some(Hours::Always),
            sunday: Some(Hours::Never),
            ..Default::default()
        };
        assert!(works(&nights, Weekday::Monday, 22, 0) && works(&nights, Weekday::Monday, 6, 29));
        assert!(!works(&nights, Weekday::Monday, 21, 59) && !works(&nights, Weekday::Monday, 6, 30));
        assert!(works(&nights, Weekday::Saturday, 12, 0) && !works(&nights, Weekday::Sunday, 23, 0));
        assert!(nights.has_schedule() && !Preferences::default().has_schedule());
    }

    #[test]
    fn hours_are_written_as_they_are_read() {
        for text in ["always", "never", "22:00-06:30", "00:01-24:00"] {
            assert_eq!(text.parse::<Hours>().expect(text).to_string(), text);
        }
        assert_eq!("9-17".parse(), Ok(Hours::Between(540, 1020)));
        assert_eq!("24-0".parse(), Ok(Hours::Never));
        assert_eq!("7:30-7:30".parse(), Ok(Hours::Always));
        for wrong in ["", "9", "9-", "24:01-3", "9:60-10", "a-b", "-1-3"] {
            assert_eq!(wrong.parse::<Hours>(), Err(BadHours), "{wrong}");
        }
    }
}
