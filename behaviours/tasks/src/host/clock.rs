//! The time on the user's wall, by `/etc/localtime`.

use fog_base::UnixMillis;
use jiff::{Timestamp, civil, tz::TimeZone};

use crate::core::harvest::{LocalTime, Probe, Unknown, Weekday};

use super::files::{Root, misunderstood};

const LOCALTIME: &str = "/etc/localtime";

/// The zone of this host; UTC where there is none, as the C library has it.
pub(super) fn zone(root: &Root) -> Probe<TimeZone> {
    match root.bytes(LOCALTIME) {
        Ok(bytes) => TimeZone::tzif("local", &bytes).map_err(|_| misunderstood(LOCALTIME)),
        Err(Unknown::Absent(_)) => Ok(TimeZone::UTC),
        Err(why) => Err(why),
    }
}

/// What the wall says.
pub(super) fn local_time(zone: &Probe<TimeZone>, now: UnixMillis) -> Probe<LocalTime> {
    let zone = zone.as_ref().map_err(Clone::clone)?;
    let millis = i64::try_from(now.0).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let here = zone.to_datetime(millis.ok_or_else(|| Unknown::unseen("the clock is far off"))?);
    let weekday = match here.weekday() {
        civil::Weekday::Monday => Weekday::Monday,
        civil::Weekday::Tuesday => Weekday::Tuesday,
        civil::Weekday::Wednesday => Weekday::Wednesday,
        civil::Weekday::Thursday => Weekday::Thursday,
        civil::Weekday::Friday => Weekday::Friday,
        civil::Weekday::Saturday => Weekday::Saturday,
        civil::Weekday::Sunday => Weekday::Sunday,
    };
    let minute = u16::try_from(i16::from(here.hour()) * 60 + i16::from(here.minute())).unwrap_or_default();
    Ok(LocalTime { weekday, minute })
}
