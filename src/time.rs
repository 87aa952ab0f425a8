//! Points in time as the engine's records and Docker's API write them: RFC 3339 in UTC with nanoseconds.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, like `2026-01-02T03:04:05.000000006Z`.
pub fn now() -> String {
    format(unix_now())
}

/// Seconds and nanoseconds since the epoch; zero on a device whose clock is before it.
pub fn unix_now() -> (u64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// Seconds and nanoseconds since the epoch as RFC 3339, trailing zeros of the fraction left out as Go does.
pub fn format((seconds, nanoseconds): (u64, u32)) -> String {
    let (year, month, day) = date_of_day(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = match nanoseconds {
        0 => String::new(),
        n => format!(".{n:09}").trim_end_matches('0').to_string(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Seconds since the epoch of an RFC 3339 time; `None` if it is not one, or before the epoch.
pub fn parse(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset_seconds = parse_zone(zone)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let seconds = day_of_date(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    seconds.checked_add_signed(-offset_seconds)
}

/// `Z`, `+hh:mm` or `-hh:mm` as seconds.
fn parse_zone(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
    Some(sign * i64::from(hours.min(24) * 3_600 + minutes.min(60) * 60))
}

/// Day 0 is 1970-01-01. Years are counted from March, so that the leap day is the last of its year; 146,097 days make
/// 400 years, and day 719,468 before the epoch is 0000-03-01.
fn day_of_date(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

fn date_of_day(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let era = day / 146_097;
    let day_of_era = day % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year_of_era + year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_parses() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_709_251_199, 5_000_000, "2024-02-29T23:59:59.005Z"),
            (4_102_444_800, 1, "2100-01-01T00:00:00.000000001Z"),
        ] {
            assert_eq!(format((seconds, nanoseconds)), text);
            assert_eq!(parse(text), Some(seconds));
        }
        assert_eq!(parse("2024-01-01T01:00:00.5+01:00"), Some(1_704_067_200));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "0001-01-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
