//! When a question is asked again, and how long to wait before: a policy that is pure, and the waiting beside it.
//!
//! Only what may get better by itself is asked again: `Kind::Unavailable`. A refusal, a wrong digest and a full disk are
//! what they are. A failure that follows on bytes is a new beginning: a bad link that moves a little each time carries
//! any layer in the end, while a server that never gives anything is left after a few attempts. Nobody waits for a host
//! that could not be connected to even once: most often its name is mistyped, or there is no network at all.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::{Client, check_stop};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::sys::host;
use crate::time;

/// The longest wait that is chosen here; each failure doubles it up to this.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// The longest wait that a server may ask for. One that asks for more is left at once: whoever started the pull knows
/// better what to do with that time.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// The bytes after which a failure counts as the first: what each connection of a bad link has to move at least.
pub(super) const PROGRESS_BYTES: u64 = 4 << 10;
/// How often a wait looks whether it shall end.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// What a client waits for before it asks again.
pub struct Waiting<'a> {
    /// The blob, if it is one.
    pub blob: Option<Digest>,
    /// Whole seconds until then; said again each time that it is one less, as Docker does.
    pub seconds: u64,
    /// Why.
    pub error: &'a Error,
}

/// The failures of one question, or of one blob, so far.
pub(super) struct Retry {
    max_attempts: u32,
    first_wait: Duration,
    failures: u32,
    bytes: u64,
    asked: Option<Duration>,
    /// A mirror gave the last answer.
    is_mirrored: bool,
    /// Mirrors are not asked any more.
    asks_origin: bool,
}

impl Retry {
    pub(super) fn new(max_attempts: u32, first_wait: Duration) -> Retry {
        Retry {
            max_attempts,
            first_wait,
            failures: 0,
            bytes: 0,
            asked: None,
            is_mirrored: false,
            asks_origin: false,
        }
    }

    /// New bytes have come.
    pub(super) fn progress(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= PROGRESS_BYTES {
            self.failures = 0;
            self.asks_origin = false;
        }
    }

    /// The server says how long to wait: the value of `Retry-After`, at `now` (seconds since the epoch).
    pub(super) fn told(&mut self, retry_after: &str, now: u64) {
        self.asked = parse_retry_after(retry_after, now);
    }

    /// The answer that is read now is a mirror's.
    pub(super) fn answered_by_mirror(&mut self) {
        self.is_mirrored = true;
    }

    /// Whether the registry itself is to be asked, whatever its mirrors.
    pub(super) fn asks_origin(&self) -> bool {
        self.asks_origin
    }

    /// Whether what failed was a mirror's answer: then the origin's may be better, and is asked for at once.
    fn leaves_mirror(&mut self) -> bool {
        self.asks_origin |= self.is_mirrored;
        std::mem::take(&mut self.is_mirrored)
    }

    /// How long to wait after a failure of this kind; `None`: it is final. `random` spreads the clients of a fleet that
    /// all lost the same server over the second half of the wait.
    pub(super) fn after(&mut self, kind: Kind, random: u32) -> Option<Duration> {
        let asked = self.asked.take().unwrap_or_default();
        self.failures += 1;
        self.bytes = 0;
        if kind != Kind::Unavailable || self.failures >= self.max_attempts {
            return None;
        }
        let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let longest = self.first_wait.saturating_mul(doubled).min(MAX_BACK_OFF);
        let half = longest / 2;
        let jitter = half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        (asked <= MAX_RETRY_AFTER).then(|| asked.max(half + jitter))
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3). A date that has passed is no wait; what cannot be read says nothing.
pub(super) fn parse_retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = parse_http_date(value)?;
    Some(Duration::from_secs(at.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7) as seconds since the epoch.
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_ascii_whitespace();
    let (_, day, month) = (words.next()?, words.next()?, words.next()?);
    let (year, time_of_day, zone) = (words.next()?, words.next()?, words.next()?);
    let month = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)? / 3 + 1;
    let is_utc = zone == "GMT" && words.next().is_none();
    is_utc.then(|| time::parse(&format!("{year}-{month:02}-{day}T{time_of_day}Z")))?
}

impl Client {
    /// The failures of one question, of which there are none yet.
    pub(super) fn retry(&self) -> Retry {
        Retry::new(self.options.max_attempts, self.options.first_wait)
    }

    /// Runs `attempt` until it succeeds, fails for good, or has failed too often.
    pub(super) fn persist<T>(
        &self,
        blob: Option<Digest>,
        attempt: &mut dyn FnMut(&mut Retry) -> Result<T>,
    ) -> Result<T> {
        let mut retry = self.retry();
        loop {
            match attempt(&mut retry) {
                Ok(value) => return Ok(value),
                Err(error) => self.wait(&mut retry, error, blob)?,
            }
        }
    }

    /// Waits until it is time to ask again. Gives `error` back if that is no use, and one of `Kind::Cancelled` as soon as
    /// the caller wants to stop.
    pub(super) fn wait(&self, retry: &mut Retry, error: Error, blob: Option<Digest>) -> Result<()> {
        check_stop(&self.options.stop)?;
        if retry.leaves_mirror() {
            log::debug!("{error}: asking the registry itself");
            return Ok(());
        }
        if !self.has_connected.load(Ordering::Relaxed) {
            return Err(error);
        }
        let mut random = [0; 4];
        // Without random bytes the wait is the shortest of its kind, which is as good.
        let _ = host::fill_random(&mut random);
        let Some(wait) = retry.after(error.kind(), u32::from_le_bytes(random)) else {
            return Err(error);
        };
        log::debug!("{error}: trying again in {} ms", wait.as_millis());
        let (start, mut said) = (Instant::now(), None);
        loop {
            let left = wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            if let Some(report) = self.options.on_wait.as_ref().filter(|_| said != Some(seconds)) {
                report(&Waiting { blob, seconds, error: &error });
                said = Some(seconds);
            }
            sleep(left.min(STOP_CHECK));
            check_stop(&self.options.stop)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(2);

    fn seconds(wait: Option<Duration>) -> Option<f64> {
        wait.map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn waits_twice_as_long_each_time_and_gives_up() {
        for (random, expected) in [(u32::MAX, [2.0, 4.0, 8.0, 16.0]), (0, [1.0, 2.0, 4.0, 8.0])] {
            let mut retry = Retry::new(5, FIRST);
            for wait in expected {
                assert_eq!(seconds(retry.after(Kind::Unavailable, random)), Some(wait));
            }
            assert_eq!(retry.after(Kind::Unavailable, random), None);
        }
        let mut retry = Retry::new(u32::MAX, FIRST);
        let longest = (0..100).map(|_| retry.after(Kind::Unavailable, u32::MAX).unwrap()).max();
        assert_eq!(longest, Some(MAX_BACK_OFF));
        assert_eq!(Retry::new(0, FIRST).after(Kind::Unavailable, 0), None);
        assert_eq!(Retry::new(1, FIRST).after(Kind::Unavailable, 0), None);
    }

    #[test]
    fn never_tries_again_what_cannot_get_better() {
        for kind in [
            Kind::NotFound,
            Kind::Conflict,
            Kind::Invalid,
            Kind::Unauthorized,
            Kind::Corrupt,
            Kind::NoSpace,
            Kind::Unsupported,
            Kind::Cancelled,
            Kind::Internal,
        ] {
            assert_eq!(Retry::new(5, FIRST).after(kind, 0), None, "{kind:?}");
        }
    }

    #[test]
    fn begins_anew_when_bytes_flowed() {
        let mut retry = Retry::new(2, FIRST);
        for _ in 0..100 {
            assert!(retry.after(Kind::Unavailable, 0).is_some());
            retry.progress(PROGRESS_BYTES - 1);
            retry.progress(1);
        }
        assert!(retry.after(Kind::Unavailable, 0).is_some());
        retry.progress(PROGRESS_BYTES - 1);
        assert_eq!(retry.after(Kind::Unavailable, 0), None, "a few bytes are none");
    }

    #[test]
    fn waits_as_it_is_told_within_reason() {
        const NOW: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, expected) in [
            ("7", Some(7.0)),
            (" 300 ", Some(300.0)),
            ("301", None),
            ("99999999999999999999999", None),
            ("0", Some(1.0)),
            ("Sun, 06 Nov 1994 08:49:57 GMT", Some(20.0)),
            ("Sun, 06 Nov 1994 08:49:17 GMT", Some(1.0)),
            ("Sun, 06 Nov 1994 09:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:57 CET", Some(1.0)),
            ("Sun, 06 ovD 1994 08:49:57 GMT", Some(1.0)),
            ("-5", Some(1.0)),
            ("soon", Some(1.0)),
            ("", Some(1.0)),
        ] {
            let mut retry = Retry::new(5, FIRST);
            retry.told(value, NOW);
            assert_eq!(seconds(retry.after(Kind::Unavailable, 0)), expected, "{value}");
        }
        let mut retry = Retry::new(5, FIRST);
        retry.told("7", NOW);
        retry.after(Kind::Unavailable, 0);
        assert_eq!(seconds(retry.after(Kind::Unavailable, 0)), Some(2.0), "told once, meant once");
    }
}
