//! References inside executables: where they are, and what they become when what they point at has moved.
//!
//! When a program is built again with a change, most of its code is the same but for addresses: calls, loads relative to the
//! program counter, tables of pointers. Both sides of a delta know the old file and the steps that make the new one, so they know
//! where each old byte goes. A reference in copied bytes is told by its look, followed to the old byte that it points at, from there
//! to the new place of that byte, and written as it must be there. Only what this gets wrong is left as a difference. A guess that is
//! no reference costs a few bytes, never correctness.
//!
//! What is known: 64- and 32-bit little-endian ELF files of x86-64, i386, AArch64 and ARM; their program headers say what is loaded
//! where. By kind, each can be switched on in a patch:
//! - `CODE`: in executable segments, relative calls, jumps and operands (x86: E8, E9, 0F 80 to 8F with 4 bytes, on x86-64 also
//!   operands relative to RIP; AArch64: B, BL, ADRP, and the low 12 bits added to or loaded relative to the same register; ARM: B, BL of
//!   A32, BL, BLX of T32); in a file with a fixed address, also 4 bytes that are the address of something loaded (x86: anywhere,
//!   ARM: aligned).
//! - `WORDS`: in segments that are only read, aligned words of the file's word size that are such an address (relocations, symbols).
//! - `POINTERS`: the same in segments that are written.
//! - `TABLES`: the .eh_frame_hdr, whose words are relative to its own start; and in the .eh_frame, to which that one points, frame
//!   descriptions, whose references are relative to themselves.
//! - `JUMPS`: in segments that are only read, three or more words of 4 bytes that point into code relative to the first of them.
//!
//! # Format
//!
//! ```text
//! layout  = Counts: kinds, start, segments:number, then for each segment of the new file that is loaded, Seeks: its offset less the end
//!           of the one before, its length, and its address less its offset (signed, each)
//! ```
//!
//! `start` is the offset in the new file at which the patch starts. The old file's are read from its own headers. Copied bytes are looked
//! at in chunks of 64 KiB from the start of each copy, each by itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::column::{Column, Columns, Frame, corrupt};
use crate::error::Result;

/// What kinds of references are predicted.
pub const CODE: u64 = 1;
pub const WORDS: u64 = 2;
pub const TABLES: u64 = 4;
pub const POINTERS: u64 = 8;
pub const JUMPS: u64 = 16;
/// All kinds, for the search.
pub const ALL: u64 = CODE | WORDS | TABLES | POINTERS | JUMPS;

/// Copied bytes that are looked at together.
pub const CHUNK_BYTES: usize = 64 << 10;
/// As much of a file has its ELF and program headers.
pub const HEAD_BYTES: usize = 4096;
/// What is pointed at is known again by its first bytes.
const NAMED_BYTES: usize = 16;
/// More program headers that are loaded are not looked at.
const MAX_SEGMENTS: usize = 16;
/// Words below this are taken for numbers.
const MIN_ADDRESS: u64 = 0x1000;
/// A file that can be loaded anywhere says that it is loaded below.
const MIN_FIXED_ADDRESS: u64 = 0x1_0000;

/// Instruction sets, by ELF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    I386 = 3,
    Arm = 40,
    X86_64 = 62,
    Aarch64 = 183,
}

/// A part of a file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    /// In memory: at least as many as in the file.
    bytes: u64,
    address: u64,
    /// ELF's flags: 1 executed, 2 written.
    flags: u32,
}

/// Where the parts of a file are when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    machine: Machine,
    word_bytes: usize,
    segments: Vec<Segment>,
    /// Offset and length of the .eh_frame_hdr.
    unwinding: Option<(u64, u64)>,
    /// Offset of the .eh_frame.
    frames: Option<u64>,
}

impl Layout {
    /// Reads it from a file, by `read`, which fills the buffer from an offset and says whether it could; `None` if the file is not an
    /// executable that is known.
    pub fn parse(read: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Option<Layout> {
        let mut head = [0; HEAD_BYTES];
        if !read(0, &mut head) {
            return None;
        }
        let mut layout = Layout::of_head(&head)?;
        // The second word of the .eh_frame_hdr points at the .eh_frame, relative to itself.
        if let Some((offset, _)) = layout.unwinding {
            let mut header = [0; 8];
            if !read(offset, &mut header) {
                return None;
            }
            if let [_, 0x1b, _, _, relative @ ..] = header {
                let place = layout.address(offset.wrapping_add(4));
                let target = place.wrapping_add(i64::from(i32::from_le_bytes(relative)) as u64);
                layout.frames = layout.offset(target);
            }
        }
        Some(layout)
    }

    fn of_head(head: &[u8]) -> Option<Layout> {
        let number = |at: usize, bytes: usize| {
            let field = head.get(at..at.checked_add(bytes)?)?;
            Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
        };
        if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&1) {
            return None;
        }
        let word_bytes = match head.get(4)? {
            1 => 4,
            2 => 8,
            _ => return None,
        };
        let machine = match number(18, 2)? {
            3 => Machine::I386,
            40 => Machine::Arm,
            62 => Machine::X86_64,
            183 => Machine::Aarch64,
            _ => return None,
        };
        let is_wide = word_bytes == 8;
        let (table, entry, count) = match is_wide {
            true => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
            false => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
        };
        let mut layout =
            Layout { machine, word_bytes, segments: Vec::new(), unwinding: None, frames: None };
        for index in 0..count.min(64) {
            let at = usize::try_from(table.checked_add(index * entry)?).ok()?;
            let field = |wide: usize, narrow: usize| {
                number(at.checked_add(if is_wide { wide } else { narrow })?, word_bytes)
            };
            let kind = number(at, 4)?;
            let flags = number(at.checked_add(if is_wide { 4 } else { 24 })?, 4)? as u32;
            let (offset, address, bytes) = (field(8, 4)?, field(16, 8)?, field(40, 20)?);
            match kind {
                1 if layout.segments.len() < MAX_SEGMENTS => {
                    layout.segments.push(Segment { offset, bytes, address, flags });
                }
                0x6474_e550 => layout.unwinding = Some((offset, bytes)),
                _ => {}
            }
        }
        layout.segments.sort_by_key(|segment| segment.offset);
        (!layout.segments.is_empty()).then_some(layout)
    }

    /// Whether a reference in the one file can be one in the other.
    pub fn is_like(&self, other: &Layout) -> bool {
        self.machine == other.machine && self.word_bytes == other.word_bytes
    }

    /// Writes what `read` needs besides the old file's layout.
    pub fn write(&self, columns: &mut Columns) {
        columns.number(Column::Counts, self.segments.len() as u64);
        let mut end = 0;
        for segment in &self.segments {
            columns.signed(Column::Seeks, segment.offset.wrapping_sub(end) as i64);
            columns.signed(Column::Seeks, segment.bytes as i64);
            columns.signed(Column::Seeks, segment.address.wrapping_sub(segment.offset) as i64);
            end = segment.offset.wrapping_add(segment.bytes);
        }
    }

    /// Reads the layout of a new file.
    pub fn read(frame: &mut Frame, old: &Layout) -> Result<Layout> {
        let count = frame.number(Column::Counts)?;
        if count > MAX_SEGMENTS as u64 {
            return Err(corrupt(format!("delta has an executable of {count} segments")));
        }
        let (mut segments, mut end) = (Vec::new(), 0_u64);
        for _ in 0..count {
            let offset = end.wrapping_add(frame.signed(Column::Seeks)? as u64);
            let bytes = frame.signed(Column::Seeks)? as u64;
            let address = offset.wrapping_add(frame.signed(Column::Seeks)? as u64);
            segments.push(Segment { offset, bytes, address, flags: 0 });
            end = offset.wrapping_add(bytes);
        }
        Ok(Layout { segments, ..old.clone() })
    }

    /// The segment that begins last at or before an offset.
    fn segment(&self, offset: u64) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.offset <= offset)
    }

    /// Where a byte is loaded, also one that only would be if its segment were longer.
    fn address(&self, offset: u64) -> u64 {
        let shift = self.segment(offset).map_or(0, |s| s.address.wrapping_sub(s.offset));
        offset.wrapping_add(shift)
    }

    /// The offset of what is loaded at an address; `None` if nothing can be there.
    fn offset(&self, address: u64) -> Option<u64> {
        let found = self.segments.iter().rev().find(|segment| segment.address <= address)?;
        // At the end of what is loaded there may be a label.
        let is_in = address - found.address <= found.bytes;
        is_in.then(|| found.offset.wrapping_add(address - found.address))
    }

    /// Calls `found` for each reference in `bytes`, which are at `offset` in the file, in order, none inside another.
    fn scan(&self, kinds: u64, bytes: &[u8], offset: u64, found: &mut dyn FnMut(Reference)) {
        let mut start = 0;
        while start < bytes.len() {
            let at = offset + start as u64;
            // Up to where another segment begins.
            let next = self
                .segments
                .iter()
                .map(|s| s.offset)
                .find(|&begins| begins > at)
                .unwrap_or(u64::MAX);
            let end = bytes
                .len()
                .min(start.saturating_add(usize::try_from(next - at).unwrap_or(usize::MAX)));
            if let Some(segment) = self.segment(at) {
                let piece = Piece { layout: self, segment, bytes: &bytes[..end], offset };
                let is_code = segment.flags & 1 != 0;
                match self.machine {
                    Machine::X86_64 | Machine::I386 if is_code && kinds & CODE != 0 => {
                        piece.scan_x86(start, found)
                    }
                    Machine::Aarch64 if is_code && kinds & CODE != 0 => {
                        piece.scan_aarch64(start, found)
                    }
                    Machine::Arm if is_code && kinds & CODE != 0 => piece.scan_arm(start, found),
                    _ if is_code => {}
                    _ => piece.scan_data(start, kinds, found),
                }
            }
            start = end;
        }
    }
}

/// A reference.
struct Reference {
    /// Where it is in the bytes that were looked at.
    at: usize,
    form: Form,
    /// The address that it points at.
    target: u64,
}

/// How a reference is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// 4 bytes, relative to the address behind them.
    Next,
    /// 4 bytes, relative to their own address.
    Place,
    /// 4 bytes, how far back from their own address.
    Back,
    /// 4 bytes, relative to the start of the .eh_frame_hdr.
    Unwinding,
    /// 4 bytes, relative to an address: of the start of a table.
    Jump(u64),
    /// A word.
    Word,
    /// 4 bytes, an address.
    Absolute,
    /// AArch64: 26 bits, in instructions from this one.
    Branch,
    /// AArch64: 21 bits, in pages from this one's.
    Page,
    /// AArch64: the low 12 bits, in units of a power of two.
    Low(u8),
    /// ARM: 24 bits, in words from two instructions on.
    ArmBranch,
    /// ARM: a pair of halves, 25 bits in halves from two halves on.
    ThumbBranch,
}

impl Form {
    fn bytes(self, word_bytes: usize) -> usize {
        if self == Form::Word { word_bytes } else { 4 }
    }
}

/// A run of bytes in one segment.
struct Piece<'a> {
    layout: &'a Layout,
    segment: &'a Segment,
    bytes: &'a [u8],
    offset: u64,
}

impl Piece<'_> {
    fn word32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// The address of the byte `at`.
    fn address(&self, at: usize) -> u64 {
        self.segment
            .address
            .wrapping_add((self.offset + at as u64).wrapping_sub(self.segment.offset))
    }

    fn is_code(&self, address: u64) -> bool {
        let holds = |s: &Segment| s.flags & 1 != 0 && address.wrapping_sub(s.address) < s.bytes;
        self.layout.segments.iter().any(holds)
    }

    /// Whether the file is loaded where it says, so that its code has addresses in it.
    fn is_fixed(&self) -> bool {
        self.layout.segments.iter().all(|segment| segment.address >= MIN_FIXED_ADDRESS)
    }

    fn is_loaded(&self, address: u64) -> bool {
        address >= MIN_ADDRESS && self.layout.offset(address).is_some()
    }

    fn scan_x86(&self, start: usize, found: &mut dyn FnMut(Reference)) {
        let is_wide = self.layout.machine == Machine::X86_64;
        let mut at = start;
        while at + 5 <= self.bytes.len() {
            let byte = self.bytes[at];
            let before = if at > start { self.bytes[at - 1] } else { 0 };
            let is_branch = matches!(byte, 0xe8 | 0xe9) || (before == 0x0f && byte & 0xf0 == 0x80);
            // An instruction's second byte, with an operand relative to RIP, behind an opcode that has one.
            let is_operand = is_wide
                && byte & 0xc7 == 0x05
                && matches!(before, 0x00..=0x3b | 0x63 | 0x69 | 0x6b | 0x80..=0x8d | 0xc6 | 0xc7 | 0xd8..=0xdf | 0xf6 | 0xf7 | 0xfe | 0xff
                    | 0x6e | 0x6f | 0x7e | 0x7f | 0xaf | 0xb6 | 0xb7 | 0xbe | 0xbf | 0x54 | 0x57..=0x5f);
            if (is_branch || is_operand)
                && let Some(word) = self.word32(at + 1)
            {
                let relative = i64::from(word as i32) as u64;
                let target = self.narrow(self.address(at + 5).wrapping_add(relative));
                let is_good = if is_branch { self.is_code(target) } else { self.is_loaded(target) };
                if is_good {
                    found(Reference { at: at + 1, form: Form::Next, target });
                    at += 5;
                    continue;
                }
            }
            if self.is_fixed()
                && let Some(word) = self.word32(at)
                && self.is_loaded(word.into())
            {
                found(Reference { at, form: Form::Absolute, target: word.into() });
                at += 4;
                continue;
            }
            at += 1;
        }
    }

    fn scan_aarch64(&self, start: usize, found: &mut dyn FnMut(Reference)) {
        // The page that each register was last made to point at.
        let mut pages = [None; 32];
        let mut at = self.align(start, 4);
        while let Some(word) = self.word32(at) {
            let place = self.address(at);
            if word & 0x7c00_0000 == 0x1400_0000 {
                let relative = i64::from((word << 6) as i32 >> 4) as u64;
                let target = place.wrapping_add(relative);
                if self.is_code(target) {
                    found(Reference { at, form: Form::Branch, target });
                }
            } else if word & 0x9f00_0000 == 0x9000_0000 {
                let pages_off = ((word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3) << 11;
                let relative = (i64::from(pages_off as i32) << 1) as u64;
                let target = (place & !0xfff).wrapping_add(relative);
                let is_good = self.layout.offset(target).is_some();
                pages[(word & 31) as usize] = is_good.then_some(target);
                // Which byte of the page is meant is told by the instruction that goes with it, if it is near.
                if is_good {
                    let low = self.low_bits(at, word & 31);
                    found(Reference { at, form: Form::Page, target: target + low });
                }
            } else if let Some((base, scale, low)) = low12(word)
                && let Some(page) = pages[base as usize]
            {
                found(Reference { at, form: Form::Low(scale), target: page + low });
            }
            at += 4;
        }
    }

    /// The low bits that one of the next instructions adds to `register`.
    fn low_bits(&self, at: usize, register: u32) -> u64 {
        let next = (1..8).filter_map(|step| low12(self.word32(at + 4 * step)?));
        next.filter(|&(base, _, _)| base == register).map(|(_, _, low)| low).next().unwrap_or(0)
    }

    fn scan_arm(&self, start: usize, found: &mut dyn FnMut(Reference)) {
        let mut at = self.align(start, 2);
        while let Some(word) = self.word32(at) {
            let place = self.address(at);
            // BL and BLX of T32.
            if word & 0xd000_f800 == 0xd000_f000 || word & 0xd001_f800 == 0xc000_f000 {
                let target = thumb_target(place, word);
                if self.is_code(target) {
                    found(Reference { at, form: Form::ThumbBranch, target });
                    at += 4;
                    continue;
                }
            }
            if place.is_multiple_of(4) {
                let relative = i64::from((word << 8) as i32 >> 6) as u64;
                let target = self.narrow(place.wrapping_add(8).wrapping_add(relative));
                if word & 0x0e00_0000 == 0x0a00_0000 && word >> 28 != 15 && self.is_code(target) {
                    found(Reference { at, form: Form::ArmBranch, target });
                    at += 4;
                    continue;
                }
                if self.is_fixed() && self.is_loaded(word.into()) {
                    found(Reference { at, form: Form::Absolute, target: word.into() });
                    at += 4;
                    continue;
                }
            }
            at += 2;
        }
    }

    fn scan_data(&self, start: usize, kinds: u64, found: &mut dyn FnMut(Reference)) {
        let mut at = self.align(start, 4);
        while let Some(word) = self.word32(at) {
            let offset = self.offset + at as u64;
            if kinds & TABLES != 0
                && let Some((begins, bytes)) = self.layout.unwinding
                && offset.wrapping_sub(begins) < bytes
            {
                let base = self.layout.address(begins);
                let target = self.narrow(base.wrapping_add(i64::from(word as i32) as u64));
                if self.is_loaded(target) {
                    found(Reference { at, form: Form::Unwinding, target });
                }
                at += 4;
                continue;
            }
            if kinds & TABLES != 0
                && let Some(bytes) = self.scan_frame(at, word, found)
            {
                at += bytes;
                continue;
            }
            let bytes = self.layout.word_bytes;
            let words = if self.segment.flags & 2 == 0 { WORDS } else { POINTERS };
            if kinds & words != 0
                && self.address(at).is_multiple_of(bytes as u64)
                && let Some(field) = self.bytes.get(at..at + bytes)
            {
                let value = field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
                if self.is_loaded(value) {
                    found(Reference { at, form: Form::Word, target: value });
                    at += bytes;
                    continue;
                }
            }
            if kinds & JUMPS != 0 && self.segment.flags & 2 == 0 {
                let bytes = self.scan_jumps(at, found);
                if bytes > 0 {
                    at += bytes;
                    continue;
                }
            }
            at += 4;
        }
    }

    /// A table of at least three places in code, relative to its start. Gives its length.
    fn scan_jumps(&self, start: usize, found: &mut dyn FnMut(Reference)) -> usize {
        let base = self.address(start);
        let target = |at: usize| {
            let relative = i64::from(self.word32(at)? as i32) as u64;
            Some(self.narrow(base.wrapping_add(relative)))
                .filter(|&target| relative != 0 && self.is_code(target))
        };
        if (1..3).any(|index| target(start + 4 * index).is_none()) {
            return 0;
        }
        let mut at = start;
        while let Some(target) = target(at) {
            found(Reference { at, form: Form::Jump(base), target });
            at += 4;
        }
        at - start
    }

    /// A frame description of the .eh_frame, if there is one: length, where its common part is (back from there), the function's start
    /// and length, and perhaps where its exception table is, behind a byte with the length of that. Gives its length.
    fn scan_frame(
        &self,
        at: usize,
        length: u32,
        found: &mut dyn FnMut(Reference),
    ) -> Option<usize> {
        let frames = self.layout.frames?;
        let offset = self.offset + at as u64;
        let back = u64::from(self.word32(at + 4)?);
        let common = offset.checked_add(4)?.checked_sub(back)?;
        let is_frame = offset >= frames && common >= frames && back > 0 && back.is_multiple_of(4);
        if !is_frame || !(12..1024).contains(&length) || !length.is_multiple_of(4) {
            return None;
        }
        let points_at = |at: usize| {
            let relative = i64::from(self.word32(at)? as i32) as u64;
            Some(self.narrow(self.address(at).wrapping_add(relative)))
        };
        let target = points_at(at + 8).filter(|&target| self.is_code(target))?;
        found(Reference { at: at + 4, form: Form::Back, target: self.layout.address(common) });
        found(Reference { at: at + 8, form: Form::Place, target });
        let table =
            points_at(at + 17).filter(|&target| self.bytes[at + 16] == 4 && self.is_loaded(target));
        if let Some(target) = table {
            found(Reference { at: at + 17, form: Form::Place, target });
        }
        Some(length as usize + 4)
    }

    /// The first place from `start` on whose address is a multiple of `bytes`.
    fn align(&self, start: usize, bytes: u64) -> usize {
        start + (self.address(start).wrapping_neg() % bytes) as usize
    }

    /// Addresses wrap around at the word size.
    fn narrow(&self, address: u64) -> u64 {
        if self.layout.word_bytes == 4 { address & 0xffff_ffff } else { address }
    }
}

/// AArch64: register, scale and byte offset of an instruction that adds 12 bits to a register, or loads from there.
fn low12(word: u32) -> Option<(u32, u8, u64)> {
    let (base, bits) = (word >> 5 & 31, u64::from(word >> 10 & 0xfff));
    if word & 0xffc0_0000 == 0x9100_0000 {
        return Some((base, 0, bits));
    }
    let is_load = word & 0x3b00_0000 == 0x3900_0000;
    let is_wide_vector = word & 0x0480_0000 == 0x0480_0000 && word >> 30 == 0;
    let scale = if is_wide_vector { 4 } else { (word >> 30) as u8 };
    is_load.then_some((base, scale, bits << scale))
}

/// T32: where a BL or BLX, as two little-endian halves, goes.
fn thumb_target(place: u64, word: u32) -> u64 {
    let (first, second) = (word & 0xffff, word >> 16);
    let sign = first >> 10 & 1;
    let [one, two] = [13, 11].map(|bit| (second >> bit & 1 ^ sign) ^ 1);
    let bits = sign << 24 | one << 23 | two << 22 | (first & 0x3ff) << 12 | (second & 0x7ff) << 1;
    let relative = i64::from((bits << 7) as i32 >> 7) as u64;
    let is_to_arm = second >> 12 & 1 == 0;
    let base = place.wrapping_add(4);
    let base = if is_to_arm { base & !3 } else { base };
    base.wrapping_add(relative) & 0xffff_ffff
}

/// Where bytes of the old file went.
///
/// A byte that was copied more than once went where the longest of the copies did; the others are often only alike.
pub struct Moves {
    /// By old offset, none overlapping: where each ends, and its new offset.
    copies: BTreeMap<u64, (u64, u64)>,
}

impl Moves {
    /// Of copies as they come: old offset, length, new offset.
    pub fn new(mut all: Vec<(u64, u64, u64)>) -> Moves {
        all.sort_by_key(|&(_, length, _)| Reverse(length));
        let mut moves = Moves { copies: BTreeMap::new() };
        for (from, length, to) in all {
            moves.add(from, from.saturating_add(length), to);
        }
        moves
    }

    /// Adds what is not there yet of the bytes from `start` to `end`, which went to `to`.
    fn add(&mut self, start: u64, end: u64, to: u64) {
        let mut at =
            self.copies.range(..=start).next_back().map_or(start, |(_, &(end, _))| end.max(start));
        while at < end {
            let next = self.copies.range(at..).next().map(|(&start, &(end, _))| (start, end));
            let (free, after) = next.filter(|&(next, _)| next < end).unwrap_or((end, end));
            if at < free {
                self.copies.insert(at, (free, to.wrapping_add(at - start)));
            }
            at = after;
        }
    }

    /// Where the byte at an old offset is now, or would be if what lies before it went on.
    fn find(&self, old: u64) -> Option<u64> {
        let (&from, &(_, to)) = self.copies.range(..=old).next_back()?;
        Some(to.wrapping_add(old - from))
    }
}

/// What is needed to predict a patch.
pub struct Prediction {
    pub kinds: u64,
    pub old: Layout,
    pub new: Layout,
    pub moves: Moves,
}

impl Prediction {
    /// Makes of `bytes`, a chunk of the old file at `old_offset`, what is expected at `new_offset` of the new one.
    pub fn predict(&self, bytes: &mut [u8], old_offset: u64, new_offset: u64) {
        let mut references = Vec::new();
        self.old.scan(self.kinds, bytes, old_offset, &mut |reference| references.push(reference));
        for Reference { at, form, target } in references {
            let Some(target) = self.moved(target) else { continue };
            let place = self.new.address(new_offset + at as u64);
            self.put(&mut bytes[at..], form, place, target);
        }
    }

    /// The new address of what was at an old one.
    fn moved(&self, address: u64) -> Option<u64> {
        let offset = self.moves.find(self.old.offset(address)?)?;
        Some(self.new.address(offset))
    }

    /// Writes a reference at the address `place` to `target` over what is there.
    fn put(&self, bytes: &mut [u8], form: Form, place: u64, target: u64) {
        let Some(field) = bytes.first_chunk_mut::<4>() else { return };
        let word = u32::from_le_bytes(*field);
        let relative = target.wrapping_sub(place);
        let changed = match form {
            Form::Next => relative.wrapping_sub(4) as u32,
            Form::Place => relative as u32,
            Form::Back => relative.wrapping_neg() as u32,
            Form::Jump(base) => match self.moved(base) {
                Some(base) => target.wrapping_sub(base) as u32,
                None => return,
            },
            Form::Absolute => target as u32,
            Form::Unwinding => {
                let base = self.new_unwinding();
                target.wrapping_sub(base) as u32
            }
            Form::Word => {
                let target = target.to_le_bytes();
                bytes[..self.old.word_bytes].copy_from_slice(&target[..self.old.word_bytes]);
                return;
            }
            Form::Branch => word & 0xfc00_0000 | (relative >> 2) as u32 & 0x03ff_ffff,
            Form::Page => {
                let pages = ((target >> 12).wrapping_sub(place >> 12)) as u32;
                word & 0x9f00_001f | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5
            }
            Form::Low(scale) => word & !(0xfff << 10) | ((target & 0xfff) >> scale << 10) as u32,
            Form::ArmBranch => {
                word & 0xff00_0000 | (relative.wrapping_sub(8) >> 2) as u32 & 0x00ff_ffff
            }
            Form::ThumbBranch => thumb_branch(word, place, target),
        };
        *field = changed.to_le_bytes();
    }

    /// Where the new .eh_frame_hdr is expected.
    fn new_unwinding(&self) -> u64 {
        let old = self.old.unwinding.map_or(0, |(offset, _)| offset);
        self.new.address(self.moves.find(old).unwrap_or(old))
    }
}

/// A T32 branch at `place` turned to `target`.
fn thumb_branch(word: u32, place: u64, target: u64) -> u32 {
    let is_to_arm = word >> 28 & 1 == 0;
    let base = place.wrapping_add(4);
    let base = if is_to_arm { base & !3 } else { base };
    let bits = target.wrapping_sub(base) as u32;
    let sign = bits >> 24 & 1;
    let [one, two] = [23, 22].map(|bit| (bits >> bit & 1 ^ 1) ^ sign);
    let first = 0xf000 | sign << 10 | bits >> 12 & 0x3ff;
    let second = word >> 16 & 0xd000 | one << 13 | two << 11 | bits >> 1 & 0x7ff;
    second << 16 | first
}

/// The file with references told by what they point at instead of where that is, so that code is like code wherever it calls, and
/// tables are like tables: for the search for matches.
pub fn mask(layout: &Layout, file: &[u8]) -> Vec<u8> {
    let (mut masked, mut references) = (file.to_vec(), Vec::new());
    layout.scan(ALL, file, 0, &mut |reference| {
        let bits: u32 = match reference.form {
            Form::Branch => 0xfc00_0000,
            Form::Page => 0x9f00_001f,
            Form::Low(_) => !(0xfff << 10),
            Form::ArmBranch => 0xff00_0000,
            Form::ThumbBranch => 0xd000_f800,
            _ => 0,
        };
        let field = &mut masked[reference.at..][..reference.form.bytes(layout.word_bytes)];
        for (byte, keep) in field.iter_mut().zip(bits.to_le_bytes().into_iter().cycle()) {
            *byte &= keep;
        }
        references.push((reference.at, layout.offset(reference.target), !bits));
    });
    let names: Vec<u32> = references.iter().map(|&(_, target, _)| name(&masked, target)).collect();
    for ((at, _, bits), name) in references.into_iter().zip(names) {
        for (byte, name) in masked[at..at + 4].iter_mut().zip((name & bits).to_le_bytes()) {
            *byte |= name;
        }
    }
    masked
}

/// A word for what is at an offset.
fn name(file: &[u8], offset: Option<u64>) -> u32 {
    let start = offset.and_then(|offset| usize::try_from(offset).ok());
    let bytes = start.and_then(|start| file.get(start..)).unwrap_or_default();
    bytes.iter().take(NAMED_BYTES).fold(0, |name: u32, &byte| {
        name.rotate_left(5).wrapping_add(byte.into()).wrapping_mul(0x9e37_79b1)
    })
}
