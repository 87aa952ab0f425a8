//! Inflating a gzip stream of one or more members as it arrives.

use std::io::{self, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{
    BlockBoundaryState, DecompressorOxide, decompress, inflate_flags,
};
use serde::{Deserialize, Serialize};

use crate::crc::Crc;
use crate::layer::input::Input;

/// A stream that inflates to more than this many times its size, past the free bytes, is refused as a bomb. Layers of
/// real images stay under 20; deflate can reach 1032.
pub const MAX_INFLATE_RATIO: u64 = 256;
/// Output that no ratio is asked of: a sparse disk image in a layer may well be 100 MiB of zeros.
pub const FREE_INFLATED_BYTES: u64 = 256 << 20;
/// The longest member header accepted; its fields are skipped, not kept.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// What inflate may refer back to (RFC 1951, section 2).
const HISTORY_BYTES: usize = 32 << 10;
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
    /// Inside, and the next bits begin a deflate block.
    BlockBoundary,
    End,
}

/// Where a stream can be taken up again: before a deflate block. With it go the offset in the compressed stream and the
/// last `history_bytes` of what was inflated.
#[derive(Clone, Serialize, Deserialize)]
pub struct GzipState {
    block: BlockBoundaryState,
    crc: u32,
    member_bytes: u64,
    total_bytes: u64,
}

impl GzipState {
    /// Bytes inflated before it, of all members.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many of the last inflated bytes are needed to go on.
    pub fn history_bytes(&self) -> u64 {
        self.member_bytes.min(HISTORY_BYTES as u64)
    }
}

impl<'a> GzipReader<'a> {
    /// Reads the gzip stream `input` from its first header.
    pub fn new(input: Input<'a>) -> Self {
        GzipReader {
            input,
            inflate: Box::default(),
            window: vec![0; WINDOW_BYTES].into(),
            ready: 0..0,
            crc: Crc::new(),
            member_bytes: 0,
            total_bytes: 0,
            state: State::Between(true),
        }
    }

    /// Goes on where another reader gave `state`: `input` stands at the offset of then, and `history` is what was inflated
    /// last. A state that no reader gave leads to wrong bytes or an error, which the digests show.
    pub fn resume(input: Input<'a>, state: &GzipState, history: &[u8]) -> Self {
        let mut reader = GzipReader::new(input);
        // The checks that miniz_oxide makes with a panic.
        let bits = state.block.num_bits.min(7);
        let block = BlockBoundaryState { num_bits: bits, ..state.block.clone() };
        *reader.inflate = DecompressorOxide::from_block_boundary_state(&block);
        let history = &history[history.len().saturating_sub(HISTORY_BYTES)..];
        reader.window[..history.len()].copy_from_slice(history);
        reader.ready = history.len()..history.len();
        reader.crc = Crc::resumed(state.crc);
        reader.member_bytes = state.member_bytes;
        reader.total_bytes = state.total_bytes;
        reader.state = State::BlockBoundary;
        reader
    }

    /// The state, if everything inflated has been handed out and a block begins. The input stands where it belongs.
    pub fn state(&self) -> Option<GzipState> {
        if self.state != State::BlockBoundary || !self.ready.is_empty() {
            return None;
        }
        let block = self.inflate.block_boundary_state()?;
        let (member_bytes, total_bytes) = (self.member_bytes, self.total_bytes);
        Some(GzipState { block, crc: self.crc.value(), member_bytes, total_bytes })
    }

    /// The compressed side.
    pub fn input(&mut self) -> &mut Input<'a> {
        &mut self.input
    }

    /// Makes `ready` non-empty, or reaches the end.
    fn advance(&mut self) -> io::Result<()> {
        while self.ready.is_empty() && self.state != State::End {
            match self.state {
                State::Between(first) => self.begin_member(first)?,
                State::Inside | State::BlockBoundary => self.inflate_some()?,
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
        let start = self.input.offset();
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
        if self.input.offset() - start > MAX_HEADER_BYTES {
            return Err(self.input.error("gzip header is too long at"));
        }
        let byte = self.input.byte()?;
        self.crc.update(&[byte]);
        Ok(byte)
    }

    fn inflate_some(&mut self) -> io::Result<()> {
        let more = if self.input.fill()? { inflate_flags::TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
        let flags = more | inflate_flags::TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        let start = self.ready.end % WINDOW_BYTES;
        let (status, used, made) =
            decompress(&mut self.inflate, self.input.unread(), &mut self.window, start, flags);
        self.input.consume(used);
        self.ready = start..start + made;
        self.crc.update(&self.window[self.ready.clone()]);
        self.member_bytes += made as u64;
        self.total_bytes += made as u64;
        self.state = State::Inside;
        match status {
            TINFLStatus::Done => self.end_member()?,
            TINFLStatus::BlockBoundary => self.state = State::BlockBoundary,
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
        let allowed =
            self.input.offset().saturating_mul(MAX_INFLATE_RATIO).max(FREE_INFLATED_BYTES);
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
