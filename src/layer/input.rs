//! The compressed side of a layer: buffered, counted, and hashed as it is consumed.
//!
//! The hash goes no further than what a decoder has taken, so that offset and hash at the end of a compressed block are
//! a place from which another decoder can go on.

use std::io::{self, Read};

use crate::digest::Hasher;
use crate::error::{Error, Kind};
use crate::stream::Stream;

const BUFFER_BYTES: usize = 32 << 10;

/// A compressed stream under a decoder.
pub struct Input<'a> {
    inner: Box<dyn Stream + 'a>,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
    /// The offset of the first unread byte in the stream.
    offset: u64,
    /// What `hasher` has not yet seen starts here in `buffer`.
    unhashed: usize,
    hasher: Option<Hasher>,
}

impl<'a> Input<'a> {
    /// The stream `inner` from its start; nobody asks for its digest.
    pub fn new(inner: Box<dyn Stream + 'a>) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into();
        Input { inner, buffer, unread: 0..0, offset: 0, unhashed: 0, hasher: None }
    }

    /// The same with the digest of what has gone by: `hasher` saw the `offset` bytes before those of `inner`.
    pub fn hashed(inner: Box<dyn Stream + 'a>, offset: u64, hasher: Hasher) -> Self {
        Input { offset, hasher: Some(hasher), ..Input::new(inner) }
    }

    /// The offset of the first unread byte in the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The hash of everything consumed, if it is kept.
    pub fn hasher(&mut self) -> Option<&Hasher> {
        let consumed = &self.buffer[self.unhashed..self.unread.start];
        self.unhashed = self.unread.start;
        let hasher = self.hasher.as_mut()?;
        hasher.update(consumed);
        Some(hasher)
    }

    /// Reads on when nothing is left; false at the end of the stream.
    pub fn fill(&mut self) -> io::Result<bool> {
        while self.unread.is_empty() {
            self.hasher();
            match self.inner.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.unread = 0..count;
                    self.unhashed = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What is buffered.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.unread.clone()]
    }

    /// Takes `count` of the buffered bytes.
    pub fn consume(&mut self, count: usize) {
        self.unread.start += count;
        self.offset += count as u64;
    }

    /// The next byte.
    pub fn byte(&mut self) -> io::Result<u8> {
        if !self.fill()? {
            return Err(self.error("compressed stream ends too early at"));
        }
        let byte = self.buffer[self.unread.start];
        self.consume(1);
        Ok(byte)
    }

    /// A little-endian word.
    pub fn word(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]))
    }

    /// Passes over padding; false when nothing else follows.
    pub fn skip_zeros(&mut self) -> io::Result<bool> {
        while self.fill()? {
            if self.buffer[self.unread.start] != 0 {
                return Ok(true);
            }
            self.consume(1);
        }
        Ok(false)
    }

    /// An error of damaged input: `what` and the offset.
    pub fn error(&self, what: &str) -> io::Error {
        Error::new(Kind::Corrupt, format!("{what} compressed byte {}", self.offset)).into()
    }
}
