//! Blobs as streams, from any offset, with their length held to what the manifest says.

use std::io::{self, Read};

use super::client::{Answer, Client, Question};
use super::failure;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::oci::manifest::Descriptor;
use crate::reference::Reference;

impl Client {
    /// The bytes of `blob` from `offset` on, as they arrive. The stream ends after `blob.size - offset` bytes or fails;
    /// its digest is the reader's to check. After a failure of `Kind::Unavailable` the caller may ask again from where
    /// it stands.
    pub fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn Read + Send>> {
        let digest = blob.digest()?;
        let doing = format!("get blob {digest} of {}", reference.familiar_name());
        if offset > blob.size {
            let message = format!("{doing}: offset {offset} is behind its {} bytes", blob.size);
            return Err(Error::new(Kind::Invalid, message));
        }
        if offset == blob.size {
            return Ok(Box::new(io::empty()));
        }
        let headers = match offset {
            0 => Vec::new(),
            _ => vec![("range", format!("bytes={offset}-"))],
        };
        let path = format!("blobs/{digest}");
        let answer = self.ask(&Question::get(reference, path, headers, doing.clone()))?;
        let start = start_of(&answer, offset, &doing)?;
        let mut body = Body { doing, digest, size: blob.size, position: start, answer: None };
        let length = answer.response.body().content_length();
        if let Some(length) = length.filter(|length| *length != blob.size - start) {
            return Err(match length < blob.size - start {
                true => body.ends_early(start.saturating_add(length)),
                false => body.runs_past(start.saturating_add(length)),
            });
        }
        body.answer = Some(Box::new(answer.response.into_body().into_reader()));
        body.skip_to(offset)?;
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
fn content_range_start(value: &str) -> Option<u64> {
    let (unit, range) = value.trim().split_once(' ')?;
    let (start, _) = range.split_once('-')?;
    unit.eq_ignore_ascii_case("bytes").then(|| start.trim().parse().ok())?
}

struct Body {
    doing: String,
    digest: Digest,
    /// The whole blob's size in bytes.
    size: u64,
    /// Where in the blob the next byte belongs.
    position: u64,
    /// `None` once the stream has ended, well or not.
    answer: Option<Box<dyn Read + Send>>,
}

impl Body {
    fn ends_early(&self, at: u64) -> Error {
        let message = format!("{}: ended early, after {at} of {} bytes", self.doing, self.size);
        Error::new(Kind::Unavailable, message)
    }

    fn runs_past(&self, at: u64) -> Error {
        let message = format!("{}: {at} bytes or more, its size is {}", self.doing, self.size);
        Error::new(Kind::Corrupt, message)
    }

    /// Reads and forgets what the caller has already, where a server ignores ranges.
    fn skip_to(&mut self, offset: u64) -> Result<()> {
        let count = offset - self.position;
        io::copy(&mut self.by_ref().take(count), &mut io::sink())
            .map(drop)
            .map_err(|e| Error::io(format!("skip {count} bytes of {}", self.digest), e))
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(answer) = &mut self.answer else { return Ok(0) };
        let count = loop {
            match answer.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.ends_early(self.position));
                }
                Err(e) => {
                    let at =
                        format!("{}: after {} of {} bytes", self.doing, self.position, self.size);
                    return Err(failure::of_io(e, &at));
                }
                Ok(count) => break count,
            }
        };
        self.position += count as u64;
        match count {
            _ if self.position > self.size => Err(self.runs_past(self.position)),
            0 if self.position < self.size => Err(self.ends_early(self.position)),
            0 => Ok(0),
            _ => Ok(count),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let result = self.next(buffer);
        if !matches!(result, Ok(1..)) {
            self.answer = None;
        }
        result.map_err(io::Error::from)
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

    fn body(content: &'static [u8], size: u64) -> Body {
        let answer: Box<dyn Read + Send> = Box::new(content);
        let (doing, digest) = ("get x".to_string(), Digest::of(b""));
        Body { doing, digest, size, position: 0, answer: Some(answer) }
    }

    #[test]
    fn holds_the_length() {
        let read = |content, size| {
            let mut bytes = Vec::new();
            body(content, size).read_to_end(&mut bytes).map(|_| bytes).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"abc", 3), Ok(b"abc".to_vec()));
        assert_eq!(read(b"abc", 4), Err("get x: ended early, after 3 of 4 bytes".into()));
        assert_eq!(read(b"abc", 2), Err("get x: 3 bytes or more, its size is 2".into()));
    }
}
