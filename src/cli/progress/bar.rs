//! One transfer as a line: docker's bar and numbers, and the speed behind them.

use crate::units;

/// The bar's length where there is room, as docker's.
const LONGEST_BAR: usize = 50;
/// A shorter bar tells nothing.
const SHORTEST_BAR: usize = 8;
/// Room for ` 123.4MB/123.4MB 123.4MB/s` behind the bar.
const NUMBERS_WIDTH: usize = 28;
/// The speed is that of the last one to two of these.
const WINDOW_MS: u64 = 2_000;
/// What is measured over less is noise.
const SHORTEST_MEASURE_MS: u64 = 400;

/// How fast the bytes of one layer come.
#[derive(Debug)]
pub struct Speed {
    /// Time in milliseconds and bytes at that time: one window back, and at the window's start.
    before: (u64, u64),
    start: (u64, u64),
}

impl Speed {
    /// Begins with what is here already.
    pub fn new(now_ms: u64, bytes: u64) -> Speed {
        Speed { before: (now_ms, bytes), start: (now_ms, bytes) }
    }

    /// Takes note of the bytes that are here now, and gives bytes per second, if enough time has passed to tell.
    pub fn update(&mut self, now_ms: u64, bytes: u64) -> Option<u64> {
        let (then_ms, bytes_then) = self.before;
        if bytes < bytes_then {
            // The layer began again.
            *self = Speed::new(now_ms, bytes);
            return None;
        }
        if now_ms.saturating_sub(self.start.0) >= WINDOW_MS {
            (self.before, self.start) = (self.start, (now_ms, bytes));
        }
        let passed_ms = now_ms.saturating_sub(then_ms);
        let enough = passed_ms >= SHORTEST_MEASURE_MS;
        enough.then(|| (bytes - bytes_then).saturating_mul(1000) / passed_ms)
    }
}

/// `Downloading [====>      ]  12.34MB/53.1MB 4.2MB/s` in at most `columns`, as far as that goes: the bar gives way first.
pub fn render(
    verb: &str,
    done_bytes: u64,
    total_bytes: u64,
    speed: Option<u64>,
    columns: usize,
) -> String {
    let mut text = String::from(verb);
    text.push(' ');
    // "[", ">", "] " are beside the bar.
    let room = columns.saturating_sub(text.len() + 4 + NUMBERS_WIDTH);
    if total_bytes > 0 && room >= SHORTEST_BAR {
        let length = room.min(LONGEST_BAR);
        let done = u128::from(done_bytes.min(total_bytes)) * length as u128;
        let full = (done / u128::from(total_bytes)) as usize;
        text.push('[');
        text.extend(std::iter::repeat_n('=', full));
        text.push('>');
        text.extend(std::iter::repeat_n(' ', length - full));
        text.push_str("] ");
    }
    text.push_str(&format!("{:>8}", units::fine_size(done_bytes)));
    if total_bytes >= done_bytes && total_bytes > 0 {
        text.push('/');
        text.push_str(&units::fine_size(total_bytes));
    }
    if let Some(speed) = speed {
        text.push_str(&format!(" {}/s", units::size(speed)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_and_numbers() {
        let half = format!("D [{}>{}]  26.55MB/53.1MB", "=".repeat(25), " ".repeat(25));
        assert_eq!(render("D", 26_550_000, 53_100_000, None, 120), half);
        for (done, total, speed, columns, text) in [
            (0, 10, None, 42, "D [>        ]       0B/10B"),
            (5, 10, Some(4_200_000), 42, "D [====>    ]       5B/10B 4.2MB/s"),
            (10, 10, None, 42, "D [========>]      10B/10B"),
            (5, 10, None, 41, "D       5B/10B"),
            (11, 10, None, 41, "D      11B"),
            (11, 0, None, 99, "D      11B"),
            (u64::MAX, u64::MAX, None, 42, "D [========>]  18447PB/18447PB"),
        ] {
            assert_eq!(render("D", done, total, speed, columns), text);
        }
    }

    #[test]
    fn speed_is_that_of_the_last_seconds() {
        let mut speed = Speed::new(1_000, 500);
        assert_eq!(speed.update(1_100, 600), None);
        assert_eq!(speed.update(2_000, 1_500), Some(1_000));
        assert_eq!(speed.update(3_000, 2_500), Some(1_000));
        assert_eq!(speed.update(5_000, 12_500), Some(3_000));
        // By now the first window is forgotten.
        assert_eq!(speed.update(6_000, 22_500), Some(20_000 / 3));
        assert_eq!(speed.update(6_100, 100), None, "it began again");
        assert_eq!(speed.update(7_100, 300), Some(200));
    }
}
