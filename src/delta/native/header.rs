//! Tar header blocks, as changes of other header blocks.
//!
//! A field is written by its kind. Text: in Prefixes, how many bytes it begins with that the last text of the same field began with, the
//! rest and a zero in Names. Numbers: the difference to the other header's, in Numbers, printed as the other's is: octal digits from
//! the field's start, then the same bytes behind them (a zero where the other has no digits). Times: the difference to the last
//! time that was written. Raw: the bytes. The checksum is computed, and printed as a number is (six digits, a zero and a space where
//! the other has none); bit `RAW_CHECKSUM` gives it in Raw if it is another. A header with a field that does not fit its kind is given whole.

use super::BLOCK_BYTES;
use super::column::{Column, Columns, Frame, corrupt};
use crate::error::Result;

/// A header block.
pub type Block = [u8; BLOCK_BYTES];

enum FieldKind {
    Text,
    Number,
    Time,
    Raw,
}

/// Start, end and kind of each field that is told by itself.
const FIELDS: [(usize, usize, FieldKind); 15] = [
    (0, 100, FieldKind::Text),     // name
    (100, 108, FieldKind::Number), // mode
    (108, 116, FieldKind::Number), // user
    (116, 124, FieldKind::Number), // group
    (124, 136, FieldKind::Number), // size
    (136, 148, FieldKind::Time),
    (156, 157, FieldKind::Raw),  // type
    (157, 257, FieldKind::Text), // target of a link
    (257, 265, FieldKind::Raw),  // magic, version
    (265, 297, FieldKind::Text), // user
    (297, 329, FieldKind::Text), // group
    (329, 337, FieldKind::Raw),  // device, major
    (337, 345, FieldKind::Raw),  // device, minor
    (345, 500, FieldKind::Text), // prefix
    (500, 512, FieldKind::Raw),
];
pub const CHECKSUM: std::ops::Range<usize> = 148..156;
/// In the mask: the checksum is given.
const RAW_CHECKSUM: u64 = 1 << FIELDS.len();
/// In the mask: the block is given.
const WHOLE: u64 = 1 << (FIELDS.len() + 1);

/// What headers of a frame are told against, besides another header.
pub struct Context {
    texts: [Vec<u8>; FIELDS.len()],
    time: u64,
}

impl Context {
    /// As a frame starts.
    pub fn new() -> Context {
        Context { texts: Default::default(), time: 0 }
    }

    /// Writes `block` as a change of `other`.
    pub fn write(&mut self, columns: &mut Columns, block: &Block, other: &Block) {
        let differs =
            |&(start, end, _): &(usize, usize, FieldKind)| block[start..end] != other[start..end];
        let fits = FIELDS.iter().all(|field| !differs(field) || fits(field, block, other));
        if !fits {
            columns.number(Column::Fields, WHOLE);
            columns.extend(Column::Raw, block);
            return;
        }
        let changed = FIELDS.iter().enumerate().filter(|(_, field)| differs(field));
        let mut mask = changed.clone().fold(0, |mask, (index, _)| mask | 1 << index);
        if block[CHECKSUM] != checksum(block, other) {
            mask |= RAW_CHECKSUM;
        }
        columns.number(Column::Fields, mask);
        for (index, &(start, end, ref kind)) in changed {
            let (new, old) = (&block[start..end], &other[start..end]);
            match kind {
                FieldKind::Raw => columns.extend(Column::Raw, new),
                FieldKind::Number => {
                    let (new, old) = (parse(new).unwrap_or(0), parse(old).unwrap_or(0));
                    columns.signed(Column::Numbers, new.wrapping_sub(old) as i64);
                }
                FieldKind::Time => {
                    let new = parse(new).unwrap_or(0);
                    columns.signed(Column::Times, new.wrapping_sub(self.time) as i64);
                    self.time = new;
                }
                FieldKind::Text => {
                    let text = text(new).to_vec();
                    let same =
                        text.iter().zip(&self.texts[index]).take_while(|(a, b)| a == b).count();
                    columns.number(Column::Prefixes, same as u64);
                    columns.extend(Column::Names, &text[same..]);
                    columns.byte(Column::Names, 0);
                    self.texts[index] = text;
                }
            }
        }
        if mask & RAW_CHECKSUM != 0 {
            columns.extend(Column::Raw, &block[CHECKSUM]);
        }
    }

    /// Reads a block that was told as a change of `other`.
    pub fn read(&mut self, frame: &mut Frame, other: &Block) -> Result<Block> {
        let mask = frame.number(Column::Fields)?;
        let mut block = *other;
        if mask == WHOLE {
            block.copy_from_slice(frame.take(Column::Raw, BLOCK_BYTES)?);
            return Ok(block);
        }
        for (index, &(start, end, ref kind)) in FIELDS.iter().enumerate() {
            if mask >> index & 1 == 0 {
                continue;
            }
            let field = &mut block[start..end];
            match kind {
                FieldKind::Raw => field.copy_from_slice(frame.take(Column::Raw, end - start)?),
                FieldKind::Number => {
                    let old = parse(field).unwrap_or(0);
                    print(field, old.wrapping_add(frame.signed(Column::Numbers)? as u64));
                }
                FieldKind::Time => {
                    self.time = self.time.wrapping_add(frame.signed(Column::Times)? as u64);
                    print(field, self.time);
                }
                FieldKind::Text => {
                    let same = frame.number(Column::Prefixes)?;
                    let mut text = std::mem::take(&mut self.texts[index]);
                    text.truncate(usize::try_from(same).unwrap_or(usize::MAX));
                    loop {
                        match frame.byte(Column::Names)? {
                            0 => break,
                            byte => text.push(byte),
                        }
                    }
                    let whole = field
                        .get_mut(..text.len())
                        .ok_or_else(|| corrupt("delta has a name too long for its field".into()))?;
                    whole.copy_from_slice(&text);
                    field[text.len()..].fill(0);
                    self.texts[index] = text;
                }
            }
        }
        let checksum = checksum(&block, other);
        block[CHECKSUM].copy_from_slice(&checksum);
        if mask & RAW_CHECKSUM != 0 {
            block[CHECKSUM].copy_from_slice(frame.take(Column::Raw, CHECKSUM.len())?);
        }
        Ok(block)
    }
}

/// Whether a field can be told by its kind.
fn fits(&(start, end, ref kind): &(usize, usize, FieldKind), block: &Block, other: &Block) -> bool {
    let (new, old) = (&block[start..end], &other[start..end]);
    match kind {
        FieldKind::Raw => true,
        FieldKind::Text => new[text(new).len()..].iter().all(|&byte| byte == 0),
        FieldKind::Number | FieldKind::Time => parse(new).is_some_and(|value| {
            let mut printed = [0; 12];
            let printed = &mut printed[..new.len()];
            printed.copy_from_slice(old);
            print(printed, value);
            printed == new
        }),
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The octal number that a field begins with; `None` if there is none.
pub fn parse(field: &[u8]) -> Option<u64> {
    let digits = field.iter().take_while(|byte| (b'0'..=b'7').contains(byte));
    let count = digits.clone().count();
    let value = digits.fold(0, |value, &digit| value << 3 | u64::from(digit - b'0'));
    (count > 0).then_some(value)
}

/// Prints a number over another one, in as many digits, or in all but one if there was none.
fn print(field: &mut [u8], mut value: u64) {
    let mut count = field.iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    if count == 0 {
        count = field.len() - 1;
        field.fill(0);
    }
    for digit in field[..count].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// The checksum as it is written where `other` has its: the sum of all bytes, those of the checksum itself as spaces.
fn checksum(block: &Block, other: &Block) -> [u8; 8] {
    let mut field = *b"000000\0 ";
    if parse(&other[CHECKSUM]).is_some() {
        field.copy_from_slice(&other[CHECKSUM]);
    }
    print(&mut field, sum(block));
    field
}

/// What the checksum should be: the sum of all bytes, those of the checksum itself as spaces.
pub fn sum(block: &Block) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(block) - sum(&block[CHECKSUM]) + u64::from(b' ') * CHECKSUM.len() as u64
}

/// The size field: what follows the header. `None` if it is not octal digits, or if they are over 8 GiB.
pub fn size(block: &Block) -> Option<u64> {
    let (start, end, _) = FIELDS[4];
    let field = &block[start..end];
    let value = parse(field)?;
    let rest = field.iter().skip_while(|byte| (b'0'..=b'7').contains(byte));
    rest.clone().all(|&byte| byte == 0 || byte == b' ').then_some(value)
}

/// Whether it is a header block: its checksum is right, in any of the ways to write it.
pub fn is_header(block: &Block) -> bool {
    let field = &block[CHECKSUM];
    let blanks = field.iter().take_while(|&&byte| byte == b' ').count();
    parse(&field[blanks..]) == Some(sum(block))
}

/// What kind of member the header is of.
pub fn kind(block: &Block) -> u8 {
    block[156]
}

/// The name, with its prefix.
pub fn path(block: &Block) -> Vec<u8> {
    let (prefix, name) = (text(&block[345..500]), text(&block[..100]));
    let has_prefix = block[257..263] == *b"ustar\0" && !prefix.is_empty();
    if has_prefix { [prefix, b"/", name].concat() } else { name.to_vec() }
}
