//! The directory that all paths of a group begin with: it may have another name in another image, as where it names a version.
//!
//! A path begins in the field for its prefix, or for its name if that is empty. What extends an entry has none.

use std::ops::Range;

use crate::delta::native::header::{self, Block};

const NAME: Range<usize> = 0..100;
const PREFIX: Range<usize> = 345..500;

/// The field that the path begins in.
fn field(block: &Block) -> Range<usize> {
    let has_prefix = block[257..263] == *b"ustar\0" && block[PREFIX.start] != 0;
    if has_prefix { PREFIX } else { NAME }
}

/// What the field says, if nothing but zeros follows.
fn text(block: &Block) -> Option<&[u8]> {
    let field = &block[field(block)];
    let length = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(length);
    rest.iter().all(|&byte| byte == 0).then_some(text)
}

/// Whether the header extends the entry behind it.
pub fn is_extension(block: &Block) -> bool {
    matches!(header::kind(block), b'x' | b'g' | b'L' | b'K')
}

/// The longest directory, with its slash, that all paths are below; empty if there is none.
pub fn of(blocks: &mut dyn Iterator<Item = &Block>) -> Vec<u8> {
    let mut common: Option<&[u8]> = None;
    for block in blocks.filter(|block| !is_extension(block)) {
        let Some(text) = text(block) else { return Vec::new() };
        let length = common.map_or(text.len(), |common| {
            common.iter().zip(text).take_while(|(one, other)| one == other).count()
        });
        // A path is never taken away whole: what is left says which field it began in.
        let length = length.min(text.len().saturating_sub(1));
        common = text.get(..length);
    }
    let common = common.unwrap_or_default();
    let slash = common.iter().rposition(|&byte| byte == b'/');
    common[..slash.map_or(0, |slash| slash + 1)].to_vec()
}

/// Puts `new` where the path has its first `old` bytes; false if there is no room for it.
pub fn replace(block: &mut Block, old: usize, new: &[u8]) -> bool {
    if is_extension(block) || old == 0 && new.is_empty() {
        return true;
    }
    let Some(rest) = text(block).and_then(|text| text.get(old..)) else { return false };
    let path = [new, rest].concat();
    let field = field(block);
    let place = &mut block[field];
    if path.len() > place.len() {
        return false;
    }
    place.fill(0);
    place[..path.len()].copy_from_slice(&path);
    true
}
