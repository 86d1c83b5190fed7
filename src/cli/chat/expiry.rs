//! For how long a message is tried, as a person writes it.

use std::time::Duration;

/// The shortest and the longest.
const LIMITS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(7 * 86_400));

/// `90s`, `10m`, `2h` or `3d`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and `s`, `m`, `h` or `d`, from 10s to 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| is_number).and_then(|number| number.checked_mul(unit));
    let time = seconds.map(Duration::from_secs).ok_or_else(wrong)?;
    if (LIMITS.0..=LIMITS.1).contains(&time) { Ok(time) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood_and_the_rest_is_not() {
        let seconds = |text| parse(text).map(|time| time.as_secs()).ok();
        assert_eq!(["10s", "10m", "2h", "7d"].map(seconds), [Some(10), Some(600), Some(7_200), Some(604_800)]);
        for bad in ["", "h", "10", "9s", "8d", "-1h", "+1h", "1.5h", "10 m", "99999999999999999999d", "1ü"] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }
}
