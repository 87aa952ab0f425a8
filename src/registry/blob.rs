//! Blobs as streams, from any offset, with their length held to what the manifest says. A stream outlives the connection
//! that it comes over: where one is lost, the rest is asked for over the next.

use std::io::{self, Read};
use std::ops::Range;

use super::client::{Answer, Client, Question};
use super::failure;
use super::retry::Retry;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::oci::manifest::Descriptor;
use crate::reference::Reference;
use crate::stream::Stream;

/// What a server sends again, because it knows no ranges, is read and forgotten in pieces of this size.
const SKIP_BYTES: usize = 16 << 10;

impl Client {
    /// The bytes of `blob` from `offset` on, as they arrive. The stream ends after `blob.size - offset` bytes or fails;
    /// its digest is the reader's to check. It asks for the rest again when a connection is lost: `Kind::Unavailable`
    /// means that this, too, has failed as often as the options say without bytes between. `Kind::Cancelled`: the
    /// options' `stop` was set.
    pub fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Stream + Send>> {
        let digest = blob.digest()?;
        let doing = format!("get blob {digest} of {}", reference.familiar_name());
        if offset > blob.size {
            let message = format!("{doing}: offset {offset} is behind its {} bytes", blob.size);
            return Err(Error::new(Kind::Invalid, message));
        }
        if offset == blob.size {
            return Ok(Box::new(io::empty()));
        }
        self.stream(reference, digest, doing, offset..blob.size, false)
    }

    /// The bytes of `blob` in `part`, which is not empty, in the same way; but that nothing has a digest to be checked
    /// against. `Kind::Unsupported`: the server knows no ranges, and nothing was read.
    pub fn blob_part(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        part: Range<u64>,
    ) -> Result<Box<dyn Stream + Send>> {
        let digest = blob.digest()?;
        let doing = format!("get a part of blob {digest} of {}", reference.familiar_name());
        self.stream(reference, digest, doing, part, true)
    }

    fn stream(
        &self,
        reference: &Reference,
        digest: Digest,
        doing: String,
        range: Range<u64>,
        is_part: bool,
    ) -> Result<Box<dyn Stream + Send>> {
        let mut body = Body {
            client: self.clone(),
            reference: reference.clone(),
            retry: self.retry(),
            doing,
            digest,
            size: range.end,
            is_part,
            position: range.start,
            state: State::Lost,
        };
        while let Err(error) = body.connect() {
            body.wait(error)?;
        }
        Ok(Box::new(body))
    }
}

/// Where the body of `answer` starts: at 0 if the server ignores ranges (RFC 9110, section 14.2).
fn start_of(answer: &Answer, offset: u64, doing: &str) -> Result<u64> {
    if answer.status() != 206 {
        return Ok(0);
    }
    let range = answer.header("content-range").unwrap_or_default();
    if content_range_start(range) == Some(offset) {
        return Ok(offset);
    }
    let message = format!("{doing}: asked from byte {offset}, the answer is for `{range}`");
    Err(Error::new(Kind::Invalid, message))
}

/// The first position in `bytes 5-9/10` (RFC 9110, section 14.4).
pub(super) fn content_range_start(value: &str) -> Option<u64> {
    let (unit, range) = value.trim().split_once(' ')?;
    let (start, _) = range.split_once('-')?;
    unit.eq_ignore_ascii_case("bytes").then(|| start.trim().parse().ok())?
}

struct Body {
    client: Client,
    reference: Reference,
    retry: Retry,
    doing: String,
    digest: Digest,
    /// Where in the blob the stream ends: at its end, or before.
    size: u64,
    /// Whether it may end before, and no more is to be sent.
    is_part: bool,
    /// Where in the blob the next byte belongs.
    position: u64,
    state: State,
}

enum State {
    /// An answer whose next byte is the one at `position`.
    Open(Box<dyn Stream + Send>),
    /// The last answer broke off.
    Lost,
    /// The stream has ended, well or not.
    Ended,
}

impl Body {
    /// Asks for what is left.
    fn connect(&mut self) -> Result<()> {
        let headers = match (self.position, self.is_part) {
            (0, false) => Vec::new(),
            (position, false) => vec![("range", format!("bytes={position}-"))],
            (position, true) => vec![("range", format!("bytes={position}-{}", self.size - 1))],
        };
        let path = format!("blobs/{}", self.digest);
        let question = Question::get(&self.reference, path, headers, self.doing.clone());
        let answer = self.client.ask_once(&question, &mut self.retry)?;
        if self.is_part && answer.status() != 206 {
            let message = format!("{}: the registry knows no ranges", self.doing);
            return Err(Error::new(Kind::Unsupported, message));
        }
        let start = start_of(&answer, self.position, &self.doing)?;
        let end =
            answer.response.body().content_length().map(|length| start.saturating_add(length));
        let is_part = answer.status() == 206;
        // A part that holds less than was asked for brings us on; a whole that is no whole is something else.
        match end {
            Some(end) if end > self.size => return Err(self.runs_past(end)),
            Some(end) if end < self.size && !is_part => return Err(self.ends_early(end)),
            Some(end) if end <= self.position => return Err(self.ends_early(end)),
            _ => {}
        }
        let mut answer: Box<dyn Stream + Send> =
            Box::new(answer.response.into_body().into_reader());
        self.skip(&mut *answer, start)?;
        self.state = State::Open(answer);
        Ok(())
    }

    /// Reads and forgets what was had before, where a server ignores ranges and starts anew.
    fn skip(&self, answer: &mut dyn Stream, start: u64) -> Result<()> {
        let (mut buffer, mut at) = ([0; SKIP_BYTES], start);
        while at < self.position {
            let most = (self.position - at).min(SKIP_BYTES as u64) as usize;
            match self.read_some(answer, buffer.get_mut(..most).unwrap_or_default(), at)? {
                0 => return Err(self.ends_early(at)),
                count => at += count as u64,
            }
        }
        Ok(())
    }

    /// One read; an error says that it failed after `at` bytes.
    fn read_some(&self, answer: &mut dyn Stream, buffer: &mut [u8], at: u64) -> Result<usize> {
        loop {
            return match answer.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.ends_early(at)),
                Err(e) => {
                    let at = format!("{}: after {at} of {} bytes", self.doing, self.size);
                    Err(failure::of_io(e, &at))
                }
                Ok(count) => Ok(count),
            };
        }
    }

    fn ends_early(&self, at: u64) -> Error {
        let message = format!("{}: ended early, after {at} of {} bytes", self.doing, self.size);
        Error::new(Kind::Unavailable, message)
    }

    fn runs_past(&self, at: u64) -> Error {
        let message = format!("{}: {at} bytes or more, its size is {}", self.doing, self.size);
        Error::new(Kind::Corrupt, message)
    }

    fn wait(&mut self, error: Error) -> Result<()> {
        self.client.wait(&mut self.retry, error, Some(self.digest))
    }

    /// The next bytes, over as many connections as it takes; 0 at the end.
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let result = match std::mem::replace(&mut self.state, State::Lost) {
                State::Ended => {
                    self.state = State::Ended;
                    return Ok(0);
                }
                State::Lost => self.connect().map(|()| None),
                State::Open(answer) => self.read_open(answer, buffer).map(Some),
            };
            match result {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => {}
                Err(error) => self.wait(error)?,
            }
        }
    }

    /// Reads from an answer, and keeps it if it has more.
    fn read_open(
        &mut self,
        mut answer: Box<dyn Stream + Send>,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let is_whole = self.position == self.size;
        let count = match self.read_some(&mut *answer, buffer, self.position) {
            // Nothing more was expected: how the connection ends does not matter.
            Err(_) if is_whole => 0,
            result => result?,
        };
        if count == 0 && !is_whole {
            return Err(self.ends_early(self.position));
        }
        let position = self.position.saturating_add(count as u64);
        if position > self.size {
            return Err(self.runs_past(position));
        }
        self.position = position;
        self.retry.progress(count as u64);
        self.state = if count == 0 { State::Ended } else { State::Open(answer) };
        Ok(count)
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|error| {
            self.state = State::Ended;
            error.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_ranges() {
        for (value, start) in [
            ("bytes 5-9/10", Some(5)),
            ("BYTES 18446744073709551615-/*", Some(u64::MAX)),
            ("bytes 18446744073709551616-/*", None),
            ("bytes */10", None),
            ("items 1-2/3", None),
            ("", None),
        ] {
            assert_eq!(content_range_start(value), start, "{value}");
        }
    }
}
