//! What looks like a reference, in the code of each instruction set and in data.

use super::layout::{Layout, Machine, Segment};
use super::{CODE, Form, JUMPS, POINTERS, Reference, TABLES, WORDS};

/// Words below this are taken for numbers.
const MIN_ADDRESS: u64 = 0x1000;
/// A file that can be loaded anywhere says that it is loaded below.
const MIN_FIXED_ADDRESS: u64 = 0x1_0000;

impl Layout {
    /// Calls `found` for each reference in `bytes`, which are at `offset` in the file, in order, none inside another. (What a
    /// damaged delta asks for may lie before the file: offsets wrap around.)
    pub(super) fn scan(
        &self,
        kinds: u64,
        bytes: &[u8],
        offset: u64,
        found: &mut dyn FnMut(Reference),
    ) {
        let mut start = 0;
        while start < bytes.len() {
            let at = offset.wrapping_add(start as u64);
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

    /// The offset in the file of the byte `at`.
    fn offset(&self, at: usize) -> u64 {
        self.offset.wrapping_add(at as u64)
    }

    /// The address of the byte `at`.
    fn address(&self, at: usize) -> u64 {
        self.segment.address.wrapping_add(self.offset(at).wrapping_sub(self.segment.offset))
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
                    found(Reference { at, form: Form::Page, target: target.wrapping_add(low) });
                }
            } else if let Some((base, scale, low)) = low12(word)
                && let Some(page) = pages[base as usize]
            {
                found(Reference { at, form: Form::Low(scale), target: page.wrapping_add(low) });
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
            let offset = self.offset(at);
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
        let offset = self.offset(at);
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
