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
//! `layout` knows where a file's parts are loaded, `scan` finds what looks like a reference, `moves` says where bytes went; here they come
//! together: `Prediction` for both sides, `mask` for the search of the side that makes a delta.
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

mod layout;
mod moves;
mod scan;

pub use layout::Layout;
pub use moves::Moves;

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
/// What is pointed at is known again by its first bytes.
const NAMED_BYTES: usize = 16;

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
            Form::Unwinding => target.wrapping_sub(self.new_unwinding()) as u32,
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
