//! Sizes and durations as Docker prints them for people.

/// Bytes in decimal units with three significant digits, as docker's `images` does: `1.02kB`, `4.26MB`, `134MB`.
pub fn size(bytes: u64) -> String {
    size_in_digits(bytes, 3)
}

/// The same with four, as docker's progress bars and `system df` do: `1.024kB`, `4.262MB`.
pub fn fine_size(bytes: u64) -> String {
    size_in_digits(bytes, 4)
}

fn size_in_digits(bytes: u64, digits: u32) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut unit, mut scale) = (0, 1_u64);
    while bytes / scale >= 1000 && unit + 1 < UNITS.len() {
        unit += 1;
        scale *= 1000;
    }
    // So many significant digits without trailing zeros, what Go's %.3g gives in this range.
    let decimals = match bytes / scale {
        _ if unit == 0 => 0,
        0..10 => digits - 1,
        10..100 => digits - 2,
        100..1000 => digits - 3,
        _ => 0,
    };
    let text = decimal(bytes, scale, decimals);
    let text = match decimals {
        0 => &text,
        _ => text.trim_end_matches('0').trim_end_matches('.'),
    };
    format!("{text}{}", UNITS[unit])
}

/// `numerator / denominator` rounded half up to so many decimals, in integers: formatting floats would cost 8 KB.
pub fn decimal(numerator: u64, denominator: u64, decimals: u32) -> String {
    let scale = 10_u128.pow(decimals);
    let denominator = u128::from(denominator.max(1));
    let rounded = (u128::from(numerator) * scale * 2 + denominator) / (denominator * 2);
    match decimals {
        0 => rounded.to_string(),
        _ => format!("{}.{:0width$}", rounded / scale, rounded % scale, width = decimals as usize),
    }
}

/// A span of time in one rounded unit, as docker's `ps` does: `About a minute`, `3 hours`.
pub fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        _ if (seconds + HOUR / 2) / HOUR == 1 => "About an hour".into(),
        _ if seconds < 2 * DAY => format!("{} hours", (seconds + HOUR / 2) / HOUR),
        _ if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        _ if seconds < 60 * DAY => format!("{} weeks", seconds / DAY / 7),
        _ if seconds < 730 * DAY => format!("{} months", seconds / DAY / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (1_024, "1.02kB"),
            (4_261_550, "4.26MB"),
            (12_340_000, "12.3MB"),
            (134_000_000, "134MB"),
            (5_000_000_000, "5GB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (bytes, text) in [(1_024, "1.024kB"), (53_100_000, "53.1MB"), (738_450, "738.5kB")] {
            assert_eq!(fine_size(bytes), text);
        }
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (45, "45 seconds"),
            (61, "About a minute"),
            (600, "10 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (400 * 86_400, "13 months"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
