//! Inflating a gzip stream of one or more members as it arrives.

use std::io::{self, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use crate::error::{Error, Kind};
use crate::layer::crc::Crc;

/// A stream that inflates to more than this many times its size, past the free bytes, is refused as a bomb. Layers of
/// real images stay under 20; deflate can reach 1032.
pub const MAX_INFLATE_RATIO: u64 = 256;
/// Output that no ratio is asked of: a sparse disk image in a layer may well be 100 MiB of zeros.
pub const FREE_INFLATED_BYTES: u64 = 256 << 20;
/// The longest member header accepted; its fields are skipped, not kept.
const MAX_HEADER_BYTES: u64 = 64 << 10;

const INPUT_BYTES: usize = 32 << 10;
/// A power of two, as miniz_oxide wants for a wrapping buffer, and at least deflate's 32 KiB; twice that is faster.
const WINDOW_BYTES: usize = 64 << 10;

const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// The uncompressed bytes of a gzip stream, with checksum and length of each member verified.
///
/// The end of the stream is reported only after the inner reader's end, so whoever hashes the compressed bytes has
/// seen all of them. Zero bytes after the last member are padding; anything else there is an error. Errors name the
/// offset in the compressed stream.
pub struct GzipReader<'a> {
    input: Input<'a>,
    inflate: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// Inflated and not yet handed out: a range of `window`.
    ready: std::ops::Range<usize>,
    crc: Crc,
    member_bytes: u64,
    total_bytes: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before a member; true when it is the first.
    Between(bool),
    Inside,
    End,
}

impl<'a> GzipReader<'a> {
    /// Reads the gzip stream `inner` from its first header.
    pub fn new(inner: Box<dyn Read + 'a>) -> Self {
        GzipReader {
            input: Input { inner, buffer: vec![0; INPUT_BYTES].into(), unread: 0..0, offset: 0 },
            inflate: Box::default(),
            window: vec![0; WINDOW_BYTES].into(),
            ready: 0..0,
            crc: Crc::new(),
            member_bytes: 0,
            total_bytes: 0,
            state: State::Between(true),
        }
    }

    /// Makes `ready` non-empty, or reaches the end.
    fn advance(&mut self) -> io::Result<()> {
        while self.ready.is_empty() && self.state != State::End {
            match self.state {
                State::Between(first) => self.begin_member(first)?,
                State::Inside => self.inflate_some()?,
                State::End => {}
            }
        }
        Ok(())
    }

    fn begin_member(&mut self, first: bool) -> io::Result<()> {
        if !first && !self.input.skip_zeros()? {
            self.state = State::End;
            return Ok(());
        }
        self.crc.restart();
        self.skip_header()?;
        self.inflate.init();
        self.crc.restart();
        self.member_bytes = 0;
        self.ready = 0..0;
        self.state = State::Inside;
        Ok(())
    }

    /// RFC 1952, section 2.3.
    fn skip_header(&mut self) -> io::Result<()> {
        let start = self.input.offset;
        for magic in [0x1f, 0x8b] {
            if self.header_byte(start)? != magic {
                return Err(self.input.error("no gzip header at"));
            }
        }
        let method = self.header_byte(start)?;
        if method != 8 {
            return Err(self.input.error(&format!("unknown gzip compression method {method} at")));
        }
        let flags = self.header_byte(start)?;
        if flags & FLAGS_RESERVED != 0 {
            return Err(self.input.error("reserved gzip header flags at"));
        }
        self.skip_header_bytes(6, start)?;
        if flags & FLAG_EXTRA != 0 {
            let count = [self.header_byte(start)?, self.header_byte(start)?];
            self.skip_header_bytes(u16::from_le_bytes(count).into(), start)?;
        }
        for flag in [FLAG_NAME, FLAG_COMMENT] {
            while flags & flag != 0 && self.header_byte(start)? != 0 {}
        }
        if flags & FLAG_HEADER_CRC != 0 {
            let expected = self.crc.value() as u16;
            if u16::from_le_bytes([self.input.byte()?, self.input.byte()?]) != expected {
                return Err(self.input.error("gzip header checksum is wrong at"));
            }
        }
        Ok(())
    }

    fn skip_header_bytes(&mut self, count: u32, start: u64) -> io::Result<()> {
        for _ in 0..count {
            self.header_byte(start)?;
        }
        Ok(())
    }

    fn header_byte(&mut self, start: u64) -> io::Result<u8> {
        if self.input.offset - start > MAX_HEADER_BYTES {
            return Err(self.input.error("gzip header is too long at"));
        }
        let byte = self.input.byte()?;
        self.crc.update(&[byte]);
        Ok(byte)
    }

    fn inflate_some(&mut self) -> io::Result<()> {
        let more = if self.input.fill()? { inflate_flags::TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
        let start = self.ready.end % WINDOW_BYTES;
        let (status, used, made) =
            decompress(&mut self.inflate, self.input.unread(), &mut self.window, start, more);
        self.input.consume(used);
        self.ready = start..start + made;
        self.crc.update(&self.window[self.ready.clone()]);
        self.member_bytes += made as u64;
        self.total_bytes += made as u64;
        match status {
            TINFLStatus::Done => {
                self.end_member()?;
            }
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
            TINFLStatus::FailedCannotMakeProgress => {
                return Err(self.input.error("gzip stream ends too early at"));
            }
            _ => return Err(self.input.error("gzip data is damaged near")),
        }
        self.check_ratio()
    }

    fn end_member(&mut self) -> io::Result<()> {
        if self.input.word()? != self.crc.value() {
            return Err(self.input.error("gzip member has the wrong checksum at"));
        }
        // The length is stored modulo 2^32.
        if self.input.word()? != self.member_bytes as u32 {
            return Err(self.input.error("gzip member has the wrong length at"));
        }
        self.state = State::Between(false);
        Ok(())
    }

    fn check_ratio(&self) -> io::Result<()> {
        let allowed = self.input.offset.saturating_mul(MAX_INFLATE_RATIO).max(FREE_INFLATED_BYTES);
        if self.total_bytes <= allowed {
            return Ok(());
        }
        let what =
            format!("gzip stream inflates to more than {MAX_INFLATE_RATIO} times its size by");
        Err(self.input.error(&what))
    }
}

impl Read for GzipReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        let count = self.ready.len().min(buffer.len());
        let start = self.ready.start;
        buffer[..count].copy_from_slice(&self.window[start..start + count]);
        self.ready.start += count;
        Ok(count)
    }
}

/// The compressed side: a buffer, and the offset of its first unread byte in the stream.
struct Input<'a> {
    inner: Box<dyn Read + 'a>,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
    offset: u64,
}

impl Input<'_> {
    /// Reads on when nothing is left; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        while self.unread.is_empty() {
            match self.inner.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.unread = 0..count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.unread.clone()]
    }

    fn consume(&mut self, count: usize) {
        self.unread.start += count;
        self.offset += count as u64;
    }

    fn byte(&mut self) -> io::Result<u8> {
        if !self.fill()? {
            return Err(self.error("gzip stream ends too early at"));
        }
        let byte = self.buffer[self.unread.start];
        self.consume(1);
        Ok(byte)
    }

    /// A little-endian word.
    fn word(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, self.byte()?]))
    }

    /// Passes over padding; false when nothing else follows.
    fn skip_zeros(&mut self) -> io::Result<bool> {
        while self.fill()? {
            if self.buffer[self.unread.start] != 0 {
                return Ok(true);
            }
            self.consume(1);
        }
        Ok(false)
    }

    fn error(&self, what: &str) -> io::Error {
        Error::new(Kind::Corrupt, format!("{what} compressed byte {}", self.offset)).into()
    }
}
