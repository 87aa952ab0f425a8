//! The tar stream under its members: every byte is hashed, and what is not payload goes into the record.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::MAX_HEADER_BYTES;
use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Kind, Result};
use crate::layer::record::RecordWriter;
use crate::stream::Stream;

const BLOCK_BYTES: u64 = 512;
const BUFFER_BYTES: usize = 64 << 10;

/// A tar stream, read forward only.
pub struct Source<'a> {
    inner: &'a mut dyn Stream,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
    /// What `hasher` has not seen starts here in `buffer`.
    unhashed: usize,
    hasher: Hasher,
    /// The offset of the first unread byte in the tar.
    offset: u64,
    record: RecordWriter,
    /// What the member under way may still cost in header bytes.
    header_left: u64,
    payload_left: u64,
    /// Bytes between the payload and the next header.
    padding: u64,
}

/// Where a source stands between two members or in the middle of a payload.
#[derive(Clone, Serialize, Deserialize)]
pub struct SourceState {
    /// The offset in the tar.
    pub offset: u64,
    hasher: Vec<u8>,
    payload_left: u64,
    padding: u64,
}

impl<'a> Source<'a> {
    /// Reads the tar `inner` from its start; what is not file content goes to `record`.
    pub fn new(inner: &'a mut dyn Stream, record: RecordWriter) -> Self {
        Source {
            inner,
            buffer: vec![0; BUFFER_BYTES].into(),
            unread: 0..0,
            unhashed: 0,
            hasher: Hasher::new(),
            offset: 0,
            record,
            header_left: 0,
            payload_left: 0,
            padding: 0,
        }
    }

    /// Goes on where a source gave `state`; `inner` stands at the offset `start` of the tar, at or before that place.
    pub fn resume(
        inner: &'a mut dyn Stream,
        start: u64,
        state: &SourceState,
        record: RecordWriter,
    ) -> Result<Self> {
        let broken = || Error::new(Kind::Corrupt, "the state of a hash is damaged");
        let skipped = state.offset.checked_sub(start).ok_or_else(broken)?;
        let copied = io::copy(&mut inner.take(skipped), &mut io::sink());
        if copied.context(|| "read the tar stream".into())? != skipped {
            return Err(Error::new(Kind::Corrupt, "the tar ends before the checkpoint"));
        }
        Ok(Source {
            hasher: Hasher::from_state(&state.hasher).ok_or_else(broken)?,
            offset: state.offset,
            payload_left: state.payload_left,
            padding: state.padding,
            ..Source::new(inner, record)
        })
    }

    /// Where it stands; not to be asked for inside a header.
    pub fn state(&mut self) -> SourceState {
        self.hash();
        SourceState {
            offset: self.offset,
            hasher: self.hasher.state(),
            payload_left: self.payload_left,
            padding: self.padding,
        }
    }

    /// Hashes what has been taken.
    fn hash(&mut self) {
        self.hasher.update(&self.buffer[self.unhashed..self.unread.start]);
        self.unhashed = self.unread.start;
    }

    /// The offset in the tar.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The record, to say where content goes.
    pub fn record(&mut self) -> &mut RecordWriter {
        &mut self.record
    }

    /// The digest and length of the whole tar, once it has been read, and the record.
    pub fn finish(mut self) -> (Digest, u64, RecordWriter) {
        self.hash();
        (self.hasher.finish(), self.offset, self.record)
    }

    /// Opens a new account of header bytes.
    pub fn begin_header(&mut self) {
        self.header_left = MAX_HEADER_BYTES;
    }

    /// The next header block; at the end of the archive, after everything behind it was taken in, `None`.
    ///
    /// The end is a block of zeros and another one, or the end of the stream.
    pub fn header(&mut self) -> Result<Option<[u8; BLOCK_BYTES as usize]>> {
        self.skip_payload()?;
        let mut block = [0; BLOCK_BYTES as usize];
        if !self.fill()? {
            return Ok(None);
        }
        self.block(&mut block)?;
        if block.iter().any(|&byte| byte != 0) {
            return Ok(Some(block));
        }
        if self.fill()? {
            self.block(&mut block)?;
            if block.iter().any(|&byte| byte != 0) {
                return Err(invalid(format!(
                    "a lone block of zeros before byte {}",
                    self.offset - 512
                )));
            }
        }
        while self.fill()? {
            let rest = self.unread.len();
            self.literal(rest)?;
        }
        Ok(None)
    }

    /// What a member that was not asked for its payload still has of it, and the padding.
    fn skip_payload(&mut self) -> Result<()> {
        let mut left = self.payload_left + self.padding;
        // Writers that leave out the last padding exist; the payload has to be whole.
        while left > 0 && (self.fill()? || left > self.padding) {
            left -= self.header_part(left)? as u64;
        }
        (self.payload_left, self.padding) = (0, 0);
        Ok(())
    }

    /// Fills `block` with header bytes.
    pub fn block(&mut self, block: &mut [u8; BLOCK_BYTES as usize]) -> Result<()> {
        let mut filled = 0;
        while filled < block.len() {
            let start = self.unread_start()?;
            let count = self.unread.len().min(block.len() - filled);
            block[filled..filled + count].copy_from_slice(&self.buffer[start..start + count]);
            self.header_part(count as u64)?;
            filled += count;
        }
        Ok(())
    }

    /// A payload that is part of the header: a long name, PAX records.
    pub fn small_payload(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > self.header_left {
            return Err(too_long());
        }
        let mut payload = Vec::with_capacity(size as usize);
        while (payload.len() as u64) < size {
            let start = self.unread_start()?;
            let count = self.header_part(size - payload.len() as u64)?;
            payload.extend_from_slice(&self.buffer[start..start + count]);
        }
        self.padding = size.next_multiple_of(BLOCK_BYTES) - size;
        Ok(payload)
    }

    /// From here on `size` bytes are payload.
    pub fn begin_payload(&mut self, size: u64) -> Result<()> {
        let padded = size.checked_next_multiple_of(BLOCK_BYTES);
        let end = padded.and_then(|padded| padded.checked_add(self.offset));
        let (Some(padded), Some(_)) = (padded, end) else {
            return Err(invalid(format!("a size of {size} bytes is impossible")));
        };
        self.payload_left = size;
        self.padding = padded - size;
        Ok(())
    }

    /// How much of the payload is unread.
    pub fn payload_left(&self) -> u64 {
        self.payload_left
    }

    /// A block of payload that is not content of a file, but about it.
    pub fn payload_block(&mut self, block: &mut [u8; BLOCK_BYTES as usize]) -> Result<()> {
        self.payload_left = self.payload_left.checked_sub(BLOCK_BYTES).ok_or_else(too_long)?;
        self.block(block)
    }

    /// The next bytes of payload, at most `limit` and at least one of them, which the caller has told the record about.
    pub fn payload(&mut self, limit: u64) -> Result<&[u8]> {
        let start = self.unread_start()?;
        let count = (self.unread.len() as u64).min(limit).min(self.payload_left) as usize;
        self.unread.start += count;
        self.offset += count as u64;
        self.payload_left -= count as u64;
        Ok(&self.buffer[start..start + count])
    }

    /// Takes at most `limit` buffered bytes as header bytes.
    fn header_part(&mut self, limit: u64) -> Result<usize> {
        self.unread_start()?;
        let count = (self.unread.len() as u64).min(limit);
        self.header_left = self.header_left.checked_sub(count).ok_or_else(too_long)?;
        self.literal(count as usize)?;
        Ok(count as usize)
    }

    fn literal(&mut self, count: usize) -> Result<()> {
        let start = self.unread.start;
        let written = self.record.literal(&self.buffer[start..start + count]);
        written.context(|| "write the header record".into())?;
        self.unread.start += count;
        self.offset += count as u64;
        Ok(())
    }

    /// Where the unread bytes start, of which there is at least one.
    fn unread_start(&mut self) -> Result<usize> {
        if !self.fill()? {
            let message = format!("the tar ends too early, at byte {}", self.offset);
            return Err(Error::new(Kind::Corrupt, message));
        }
        Ok(self.unread.start)
    }

    /// Reads on when nothing is buffered; false at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        while self.unread.is_empty() {
            self.hash();
            match self.inner.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => (self.unread, self.unhashed) = (0..count, 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read the tar stream", error)),
            }
        }
        Ok(true)
    }
}

fn invalid(message: String) -> Error {
    Error::new(Kind::Invalid, message)
}

fn too_long() -> Error {
    invalid(format!("its header has more than {MAX_HEADER_BYTES} bytes"))
}
