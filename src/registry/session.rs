//! One upload session on its way: chunks appended, what arrived of a broken one, the end.

use ureq::http::Method;

use super::client::{Answer, Content, Place};
use super::location;
use super::retry::Retry;
use super::upload::{Push, Stop, Uploaded};
use crate::digest::Hasher;
use crate::error::{Error, Kind, Result};

/// A session: where it goes on, and whose it is.
pub(super) struct Session {
    pub(super) home: String,
    pub(super) url: String,
}

impl Session {
    /// The session as the place of a question.
    pub(super) fn place(&self) -> Place {
        Place::Url { url: self.url.clone(), home: self.home.clone() }
    }
}

/// A blob on its way.
pub(super) struct Upload<'a> {
    pub(super) push: &'a Push<'a>,
    pub(super) name: &'a str,
    pub(super) session: Session,
    pub(super) hasher: Hasher,
    /// What the registry said it has.
    pub(super) confirmed_bytes: u64,
}

impl<'a> Upload<'a> {
    /// Appends a chunk; on success the registry has confirmed the whole of it.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), Stop> {
        let start = self.confirmed_bytes;
        let end = start + chunk.len() as u64;
        let (mut retry, mut furthest) = (self.push.client.retry(), start);
        while self.confirmed_bytes < end {
            let before = self.confirmed_bytes;
            let rest = chunk.get((before - start) as usize..).unwrap_or_default();
            let (held, is_cut) = match self.patch(rest, &mut retry) {
                Ok(Some(held)) => (held, false),
                Ok(None) => (self.held_bytes()?, false),
                Err(e) if e.kind() == Kind::Unavailable => {
                    self.push.client.wait(&mut retry, e, None).map_err(Stop::Failed)?;
                    (self.held_bytes()?, true)
                }
                Err(e) if e.kind() == Kind::NotFound => return Err(Stop::Vanished(e)),
                Err(e) if matches!(e.kind(), Kind::Unauthorized | Kind::Cancelled) => {
                    return Err(Stop::Failed(e));
                }
                Err(e) => return Err(Stop::ChunksRefused(e)),
            };
            if !(start..=end).contains(&held) || held <= before && !is_cut {
                return Err(self.vanished(&format!("the session has {held} bytes, not {before}")));
            }
            // A session that goes back and forth makes none.
            retry.progress(held.saturating_sub(furthest));
            furthest = furthest.max(held);
            self.confirmed_bytes = held;
        }
        Ok(())
    }

    /// One PATCH; how many bytes the session has then, or `None` if it stands elsewhere than we thought (416).
    fn patch(&mut self, bytes: &[u8], retry: &mut Retry) -> Result<Option<u64>> {
        let start = self.confirmed_bytes;
        let end = start + bytes.len() as u64;
        let mut question =
            self.push.question(Method::PATCH, self.session.place(), "upload", &self.name);
        question.content = Content::Bytes(bytes);
        question.headers = vec![
            ("content-type", "application/octet-stream".to_string()),
            ("content-range", format!("{start}-{}", end.saturating_sub(1))),
        ];
        question.accepts = &[201, 202, 204, 416];
        let answer = self.push.client.ask_once(&question, retry)?;
        if answer.status() == 416 {
            answer.drain();
            return Ok(None);
        }
        let held = answer.header("range").map(|range| held_of(range, end));
        self.move_on(answer)?;
        Ok(Some(held.unwrap_or(end)))
    }

    /// Asks the session how much it has.
    fn held_bytes(&mut self) -> Result<u64, Stop> {
        let mut question =
            self.push.question(Method::GET, self.session.place(), "resume upload of", &self.name);
        question.accepts = &[200, 202, 204];
        let answer = self.push.client.ask(&question).map_err(|e| match e.kind() {
            Kind::Unavailable | Kind::Unauthorized | Kind::Cancelled => Stop::Failed(e),
            _ => Stop::Vanished(e),
        })?;
        let held = answer.header("range").map(|range| held_of(range, self.confirmed_bytes));
        self.move_on(answer).map_err(Stop::Failed)?;
        held.ok_or_else(|| self.vanished("the session does not say what it has"))
    }

    /// A session may have another URL after each answer.
    fn move_on(&mut self, answer: Answer) -> Result<()> {
        let moved = answer.header("location").map(|to| location::follow(&answer.url, to));
        answer.drain();
        if let Some(url) = moved {
            let home = self.session.home.clone();
            self.session = self.push.check(Session { home, url })?;
        }
        Ok(())
    }

    /// Closes the session with its last bytes, of which `content` has `count`.
    pub(super) fn close<'c>(self, content: Content<'c>, count: u64) -> Result<Uploaded, Stop>
    where
        'a: 'c,
    {
        let digest = self.hasher.clone().finish();
        let uploaded = Uploaded { digest, size_bytes: self.confirmed_bytes + count };
        let separator = if self.session.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}digest={digest}", self.session.url);
        let place = Place::Url { url, home: self.session.home.clone() };
        let mut question = self.push.question(Method::PUT, place, "upload", &self.name);
        question.content = content;
        question.headers = vec![("content-type", "application/octet-stream".to_string())];
        question.accepts = &[200, 201, 204];
        let error = match self.push.client.ask(&question) {
            Ok(answer) => {
                answer.drain();
                return Ok(uploaded);
            }
            Err(error) => error,
        };
        match error.kind() {
            // The answer may have been lost, not the request.
            Kind::Unavailable if self.push.has_blob(&digest).map_err(Stop::Failed)? => Ok(uploaded),
            Kind::Unavailable | Kind::NotFound => Err(Stop::Vanished(error)),
            // Chunks that arrived in another order than they were sent in, as it were.
            Kind::Invalid if self.confirmed_bytes > 0 => Err(Stop::ChunksRefused(error)),
            _ => Err(Stop::Failed(error)),
        }
    }

    fn vanished(&self, why: &str) -> Stop {
        let message = format!("upload {}: {why}", self.name);
        Stop::Vanished(Error::new(Kind::Unavailable, message))
    }
}

/// How many bytes a session has that says `0-N`, N the last of them. An empty one says `0-0` like one with a single
/// byte, so that counts as nothing unless one byte is what is `expected`.
fn held_of(range: &str, expected_bytes: u64) -> u64 {
    let range = range.trim().trim_start_matches("bytes=").trim_start_matches("bytes ");
    let last = range.split_once('-').and_then(|(_, last)| last.trim().parse::<u64>().ok());
    match last {
        None => 0,
        Some(0) if expected_bytes != 1 => 0,
        Some(last) => last.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_session_has() {
        for (range, expected, held) in [
            ("0-0", 5, 0),
            ("0-0", 1, 1),
            ("0-4", 9, 5),
            (" bytes=0-4", 9, 5),
            ("bytes 0-4", 9, 5),
            ("0-18446744073709551615", 9, u64::MAX),
            ("", 9, 0),
            ("x", 9, 0),
        ] {
            assert_eq!(held_of(range, expected), held, "{range}");
        }
    }
}
