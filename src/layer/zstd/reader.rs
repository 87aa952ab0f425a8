//! Decoding a stream of one or more frames as it arrives.

use std::io::{self, Read};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::bits::Damage;
use super::frame::{Frame, MAGIC, SKIPPABLE_MAGIC};
use super::literals::Literals;
use super::sequences::{History, Sequences};
use super::window::Window;
use super::xxhash::Xxh64;
use crate::error::{Error, Kind, Result};
use crate::layer::gzip::{FREE_INFLATED_BYTES, MAX_INFLATE_RATIO};
use crate::layer::input::Input;
use crate::layer::room::Room;

/// The kinds of blocks (RFC 8878, section 3.1.1.2).
const BLOCK_RAW: u32 = 0;
const BLOCK_RUN: u32 = 1;
const BLOCK_PACKED: u32 = 2;

/// The decoded bytes of a Zstandard stream: frames one after the other, those to be skipped passed over, checksums and
/// content sizes verified.
///
/// The end of the stream is reported only after the inner reader's end, so whoever hashes the compressed bytes has
/// seen all of them. A read ends at the end of a block at the latest; there, `state` tells how to go on from that place.
/// Errors name the offset in the compressed stream, and are final.
pub struct ZstdReader<'a> {
    input: Input<'a>,
    literals: Literals,
    sequences: Sequences,
    window: Window,
    /// What the window may take; as much as it wants, if there is none.
    room: Option<Room<'a>>,
    /// Decoded and not yet handed out: a range of the window's buffer.
    ready: Range<usize>,
    /// The block at hand, if it is compressed.
    block: Vec<u8>,
    /// Whether no frame has been begun, not even one to be skipped.
    is_first: bool,
    frame: Option<Progress>,
    total_bytes: u64,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Reading,
    End,
    Failed,
}

/// Where a frame stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    facts: Frame,
    done_bytes: u64,
    hash: Option<Xxh64>,
}

/// All that a reader between two blocks must know to go on, but for the bytes that it handed out last. Its encoded form
/// takes at most about a kilobyte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZstdState {
    is_first: bool,
    total_bytes: u64,
    frame: Option<Progress>,
    weights: Option<Vec<u8>>,
    history: History,
}

impl ZstdState {
    /// The window of the frame that is under way.
    pub fn window_bytes(&self) -> u64 {
        let kept_bytes = self.frame.as_ref().map_or(0, |frame| frame.facts.kept_bytes());
        // No more than any reader keeps, whatever a damaged state says.
        kept_bytes.min(super::MAX_WINDOW_BYTES)
    }

    /// How many of the bytes handed out last are needed to go on.
    pub fn history_bytes(&self) -> u64 {
        self.window_bytes().min(self.frame.as_ref().map_or(0, |frame| frame.done_bytes))
    }
}

impl<'a> ZstdReader<'a> {
    /// Reads the stream `input` from its first frame.
    pub fn new(input: Input<'a>) -> Self {
        ZstdReader {
            input,
            literals: Literals::new(),
            sequences: Sequences::new(),
            window: Window::new(),
            room: None,
            ready: 0..0,
            block: Vec::new(),
            is_first: true,
            frame: None,
            total_bytes: 0,
            phase: Phase::Reading,
        }
    }

    /// Goes on where another reader gave `state`: `input` stands at the offset of then, and `past` ends with the last
    /// bytes that had been handed out, at least `state.history_bytes()` of them; it becomes the window. A state that cannot
    /// be, or too little of the past, is `Kind::Corrupt`.
    pub fn resume(input: Input<'a>, state: &ZstdState, past: Vec<u8>) -> Result<Self> {
        let mut reader = ZstdReader::new(input);
        match reader.restore(state, past) {
            Ok(()) => Ok(reader),
            Err(what) => Err(Error::new(Kind::Corrupt, format!("resume zstd stream: {what}"))),
        }
    }

    fn restore(&mut self, state: &ZstdState, mut past: Vec<u8>) -> Result<(), Damage> {
        self.is_first = state.is_first;
        self.total_bytes = state.total_bytes;
        let Some(frame) = &state.frame else { return Ok(()) };
        let facts = &frame.facts;
        let is_possible = facts.kept_bytes() <= super::MAX_WINDOW_BYTES
            && frame.done_bytes <= facts.content_bytes.unwrap_or(u64::MAX)
            && frame.hash.is_some() == facts.has_checksum;
        if !is_possible {
            return Err("the state of the frame cannot be");
        }
        // At most MAX_WINDOW_BYTES.
        let Some(start) = past.len().checked_sub(state.history_bytes() as usize) else {
            return Err("the output before it is missing");
        };
        past.drain(..start);
        self.begin_window(facts, past);
        if let Some(weights) = &state.weights {
            self.literals.set_weights(weights)?;
        }
        self.sequences.set_history(&state.history)?;
        self.frame = Some(frame.clone());
        Ok(())
    }

    /// What `resume` needs, where there is such a place: everything decoded has been handed out, and the reader stands
    /// between two blocks or two frames. The input stands where it belongs.
    pub fn state(&self) -> Option<ZstdState> {
        if !self.ready.is_empty() || self.phase == Phase::Failed {
            return None;
        }
        let inside = self.frame.is_some();
        Some(ZstdState {
            is_first: self.is_first,
            total_bytes: self.total_bytes,
            frame: self.frame.clone(),
            weights: self.literals.weights().filter(|_| inside).map(<[u8]>::to_vec),
            history: if inside { self.sequences.history().clone() } else { History::new() },
        })
    }

    /// Makes each frame that is begun from now on take its window from `room`.
    pub fn set_room(&mut self, room: Room<'a>) {
        self.room = Some(room);
    }

    /// The compressed side.
    pub fn input(&mut self) -> &mut Input<'a> {
        &mut self.input
    }

    /// Makes `ready` non-empty, or reaches the end.
    fn advance(&mut self) -> io::Result<()> {
        while self.ready.is_empty() && self.phase == Phase::Reading {
            if let Some(mut frame) = self.frame.take() {
                let is_last = self.read_block(&mut frame)?;
                self.check_ratio()?;
                if is_last { self.end_frame(&frame)? } else { self.frame = Some(frame) }
            } else if self.is_first || self.input.fill()? {
                self.begin_frame()?;
                self.is_first = false;
            } else {
                self.phase = Phase::End;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> io::Result<()> {
        let magic = self.input.word()?;
        if magic & !0xf == SKIPPABLE_MAGIC {
            return self.skip_frame();
        }
        if magic != MAGIC {
            return Err(self.input.error("no zstd frame before"));
        }
        let facts = Frame::read(&mut self.input)?;
        self.literals.restart();
        self.sequences.restart();
        self.begin_window(&facts, Vec::new());
        if let Some(room) = &mut self.room {
            // The old window is gone: who waits here holds nothing.
            room.take(facts.kept_bytes())?;
        }
        let hash = facts.has_checksum.then(Xxh64::new);
        self.frame = Some(Progress { facts, done_bytes: 0, hash });
        Ok(())
    }

    fn begin_window(&mut self, facts: &Frame, past: Vec<u8>) {
        // At most MAX_WINDOW_BYTES.
        let kept_bytes = facts.kept_bytes() as usize;
        self.window.begin(kept_bytes, facts.block_bytes().min(kept_bytes), past);
    }

    fn skip_frame(&mut self) -> io::Result<()> {
        let mut left = self.input.word()? as usize;
        while left > 0 {
            if !self.input.fill()? {
                return Err(self.input.error("zstd stream ends too early at"));
            }
            let count = self.input.unread().len().min(left);
            self.input.consume(count);
            left -= count;
        }
        Ok(())
    }

    /// Decodes the next block; true if it is the last of the frame.
    fn read_block(&mut self, frame: &mut Progress) -> io::Result<bool> {
        let header =
            u32::from_le_bytes([self.input.byte()?, self.input.byte()?, self.input.byte()?, 0]);
        let size = (header >> 3) as usize;
        let limit = frame.facts.block_bytes();
        let left = frame.facts.content_bytes.unwrap_or(u64::MAX).saturating_sub(frame.done_bytes);
        let room = left.min(limit as u64) as usize;
        let kind = header >> 1 & 3;
        if size > if kind == BLOCK_PACKED { limit } else { room } {
            return Err(self.input.error("zstd block is larger than its frame allows near"));
        }
        let start = self.window.begin_block();
        match kind {
            BLOCK_RAW => fill_from(&mut self.input, self.window.extend(size))?,
            BLOCK_RUN => {
                let byte = self.input.byte()?;
                self.window.extend(size).fill(byte);
            }
            BLOCK_PACKED => {
                if self.block.len() < size {
                    self.block.resize(size, 0);
                }
                fill_from(&mut self.input, &mut self.block[..size])?;
                self.unpack(size, room).map_err(|what| self.input.error(what))?;
            }
            _ => return Err(self.input.error("unknown kind of zstd block at")),
        }
        self.ready = start..self.window.end();
        let made = self.window.slice(self.ready.clone());
        if let Some(hash) = &mut frame.hash {
            hash.update(made);
        }
        frame.done_bytes = frame.done_bytes.saturating_add(made.len() as u64);
        self.total_bytes = self.total_bytes.saturating_add(made.len() as u64);
        Ok(header & 1 == 1)
    }

    fn unpack(&mut self, size: usize, room: usize) -> Result<(), Damage> {
        let block = &self.block[..size];
        let (source, literals, used) = self.literals.decode(block, room)?;
        let section = block.get(used..).unwrap_or_default();
        self.sequences.decode(section, (source, literals), &mut self.window, room)
    }

    fn end_frame(&mut self, frame: &Progress) -> io::Result<()> {
        if frame.facts.content_bytes.is_some_and(|expected| expected != frame.done_bytes) {
            return Err(self.input.error("zstd frame has the wrong length at"));
        }
        if let Some(hash) = &frame.hash
            && self.input.word()? != hash.value() as u32
        {
            return Err(self.input.error("zstd frame has the wrong checksum at"));
        }
        Ok(())
    }

    /// A run of 128 KiB can be a block of four bytes, so a bomb is found as early as with gzip only because each block
    /// is counted.
    fn check_ratio(&self) -> io::Result<()> {
        let allowed =
            self.input.offset().saturating_mul(MAX_INFLATE_RATIO).max(FREE_INFLATED_BYTES);
        if self.total_bytes <= allowed {
            return Ok(());
        }
        let what =
            format!("zstd stream inflates to more than {MAX_INFLATE_RATIO} times its size by");
        Err(self.input.error(&what))
    }
}

fn fill_from(input: &mut Input, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        if !input.fill()? {
            return Err(input.error("zstd stream ends too early at"));
        }
        let unread = input.unread();
        let count = unread.len().min(out.len());
        let (now, later) = out.split_at_mut(count);
        now.copy_from_slice(&unread[..count]);
        out = later;
        input.consume(count);
    }
    Ok(())
}

impl Read for ZstdReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.phase == Phase::Failed {
            return Err(self.input.error("zstd stream has failed before"));
        }
        if let Err(error) = self.advance() {
            // What was consumed of a block is lost: there is no going on, and no state.
            self.phase = Phase::Failed;
            self.ready = 0..0;
            return Err(error);
        }
        let count = self.ready.len().min(buffer.len());
        let start = self.ready.start;
        buffer[..count].copy_from_slice(self.window.slice(start..start + count));
        self.ready.start += count;
        Ok(count)
    }
}
