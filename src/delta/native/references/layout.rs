//! Where the parts of an executable are when it is loaded, by its ELF headers.

use crate::delta::native::column::{Column, Columns, Frame, corrupt};
use crate::error::Result;

/// As much of a file has its ELF and program headers.
const HEAD_BYTES: usize = 4096;
/// More program headers that are loaded are not looked at.
const MAX_SEGMENTS: usize = 16;

/// Instruction sets, by ELF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    I386 = 3,
    Arm = 40,
    X86_64 = 62,
    Aarch64 = 183,
}

/// A part of a file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    /// In memory: at least as many as in the file.
    pub bytes: u64,
    pub address: u64,
    /// ELF's flags: 1 executed, 2 written.
    pub flags: u32,
}

/// Where the parts of a file are when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub machine: Machine,
    pub word_bytes: usize,
    pub segments: Vec<Segment>,
    /// Offset and length of the .eh_frame_hdr.
    pub unwinding: Option<(u64, u64)>,
    /// Offset of the .eh_frame.
    pub frames: Option<u64>,
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
    pub fn segment(&self, offset: u64) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.offset <= offset)
    }

    /// Where a byte is loaded, also one that only would be if its segment were longer.
    pub fn address(&self, offset: u64) -> u64 {
        let shift = self.segment(offset).map_or(0, |s| s.address.wrapping_sub(s.offset));
        offset.wrapping_add(shift)
    }

    /// The offset of what is loaded at an address; `None` if nothing can be there.
    pub fn offset(&self, address: u64) -> Option<u64> {
        let found = self.segments.iter().rev().find(|segment| segment.address <= address)?;
        // At the end of what is loaded there may be a label.
        let is_in = address - found.address <= found.bytes;
        is_in.then(|| found.offset.wrapping_add(address - found.address))
    }
}
