//! A tar in parts: headers, contents in pieces, padding; and where one group of entries ends.
//!
//! Whoever makes an index and whoever reads one cut in the same places, for what is cut depends on nothing but the bytes
//! at hand. A group ends behind an entry whose name's hash says so: a file more or less changes one group, not all
//! behind it. A long content is cut where a rolling hash of its last 32 bytes says so, for the same reason.

use std::io::Read;

use super::{
    GIVEN_BYTES, GROUP_BITS, MAX_EXTENSION_BYTES, MAX_GROUP, MAX_PIECE, MIN_PIECE, PIECE_BITS,
    directory,
};
use crate::delta::native::entries::gears;
use crate::delta::native::header::{self, Block};
use crate::delta::native::{BLOCK_BYTES, padding};
use crate::error::{Context, Result};
use crate::stream::Stream;

/// What a stretch of a tar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header block of an entry.
    Header,
    /// A content so short that it is told as it is, whole.
    Given,
    /// A part of a content, or of what is no entry.
    Piece,
    /// What fills the last block of a content.
    Padding,
    /// No bytes: the group is complete.
    End,
}

/// Gives to `each` the parts of the next `bytes` of `tar`, in order.
pub fn walk(
    tar: &mut dyn Stream,
    bytes: u64,
    each: &mut dyn FnMut(Part, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut source = Source { tar, left: bytes, buffer: Vec::new() };
    let (gears, mut in_group) = (gears(), 0);
    while source.want(BLOCK_BYTES)? > 0 {
        let header = source.header();
        match header {
            Some((block, bytes)) => {
                each(Part::Header, &block)?;
                source.drop(BLOCK_BYTES);
                source.content(&block, bytes, &gears, each)?;
                source.give(Part::Padding, padding(bytes) as usize, each)?;
            }
            None => source.run(each)?,
        }
        in_group += 1;
        let is_last = header.is_some_and(|(block, _)| ends_group(&block, &gears));
        if is_last || in_group == MAX_GROUP {
            each(Part::End, &[])?;
            in_group = 0;
        }
    }
    if in_group > 0 { each(Part::End, &[]) } else { Ok(()) }
}

/// Whether a group ends behind the entry: by a hash of its name and its directory's, as what lies above may have been renamed;
/// between what extends an entry and the entry.
fn ends_group(block: &Block, gears: &[u32; 256]) -> bool {
    let path = header::path(block);
    let path = path.strip_suffix(b"/").unwrap_or(&path);
    let mut slashes = (0..path.len()).rev().filter(|&at| path[at] == b'/');
    let start = slashes.nth(1).map_or(0, |slash| slash + 1);
    let hash = path[start..].iter().fold(0_u32, |hash, &byte| {
        hash.rotate_left(5).wrapping_mul(0x9e37_79b1) ^ gears[usize::from(byte)]
    });
    !directory::is_extension(block) && hash.wrapping_mul(0x9e37_79b1) >> (32 - GROUP_BITS) == 0
}

/// Where the first piece of a content ends that begins with `bytes`, `MAX_PIECE` of them or all that there are.
fn cut(bytes: &[u8], gears: &[u32; 256]) -> usize {
    let mut rolling = 0_u32;
    for (at, &byte) in bytes.iter().enumerate().skip(MIN_PIECE - u32::BITS as usize) {
        rolling = (rolling << 1).wrapping_add(gears[usize::from(byte)]);
        if at >= MIN_PIECE && rolling >> (32 - PIECE_BITS) == 0 {
            return at;
        }
    }
    bytes.len()
}

struct Source<'a> {
    tar: &'a mut dyn Stream,
    /// Bytes to come, those in the buffer included.
    left: u64,
    buffer: Vec<u8>,
}

impl Source<'_> {
    /// Has the next `count` bytes in the buffer, or all that are left; says how many.
    fn want(&mut self, count: usize) -> Result<usize> {
        let count = self.left.min(count as u64) as usize;
        let held = self.buffer.len();
        if held < count {
            self.buffer.resize(count, 0);
            self.tar.read_exact(&mut self.buffer[held..]).context(|| "read the tar".into())?;
        }
        Ok(count)
    }

    fn drop(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.left -= count as u64;
    }

    fn give(
        &mut self,
        part: Part,
        count: usize,
        each: &mut dyn FnMut(Part, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if count > 0 {
            let count = self.want(count)?;
            each(part, &self.buffer[..count])?;
            self.drop(count);
        }
        Ok(())
    }

    /// The next block, if it is a header and all that belongs to it is there; and the length of the content.
    fn header(&self) -> Option<(Block, u64)> {
        let block = *self.buffer.first_chunk::<BLOCK_BYTES>()?;
        let bytes = super::content_bytes(&block).filter(|_| header::is_header(&block))?;
        let whole = bytes.checked_add(padding(bytes))?.checked_add(BLOCK_BYTES as u64)?;
        (whole <= self.left).then_some((block, bytes))
    }

    fn content(
        &mut self,
        block: &Block,
        bytes: u64,
        gears: &[u32; 256],
        each: &mut dyn FnMut(Part, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if bytes <= if directory::is_extension(block) { MAX_EXTENSION_BYTES } else { GIVEN_BYTES } {
            return self.give(Part::Given, bytes as usize, each);
        }
        let mut left = bytes;
        while left > 0 {
            let count = self.want(left.min(MAX_PIECE as u64) as usize)?;
            let count = cut(&self.buffer[..count], gears);
            self.give(Part::Piece, count, each)?;
            left -= count as u64;
        }
        Ok(())
    }

    /// What is no entry, up to the next one.
    fn run(&mut self, each: &mut dyn FnMut(Part, &[u8]) -> Result<()>) -> Result<()> {
        let mut count = self.buffer.len().min(BLOCK_BYTES);
        while count < MAX_PIECE && self.want(count + BLOCK_BYTES)? > count {
            let next = self.buffer[count..].first_chunk::<BLOCK_BYTES>();
            if next.is_some_and(header::is_header) {
                break;
            }
            count = self.buffer.len().min(count + BLOCK_BYTES);
        }
        self.give(Part::Piece, count, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::index::tests::{noise, tar};

    fn parts(tar: &[u8]) -> Vec<(Part, Vec<u8>)> {
        let mut parts = Vec::new();
        walk(&mut &tar[..], tar.len() as u64, &mut |part, bytes| {
            parts.push((part, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        parts
    }

    #[test]
    fn the_parts_are_the_tar() {
        let whole =
            tar(&[("a", &noise(1, 300_000)), ("b", b"short"), ("c", b""), ("d", &noise(2, 5000))]);
        for length in [0, 1, 511, 512, 700, whole.len() - 1024, whole.len() - 1, whole.len()] {
            let found = parts(&whole[..length]);
            let joined: Vec<u8> = found.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert_eq!(joined, whole[..length], "{length}");
            assert_eq!(found.last().map(|part| part.0), (length > 0).then_some(Part::End));
        }
        let kinds: Vec<Part> =
            parts(&whole).iter().map(|part| part.0).filter(|&part| part != Part::End).collect();
        use Part::*;
        let pieces = kinds.iter().filter(|&&part| part == Piece).count();
        assert!(pieces > 5, "{pieces}");
        assert_eq!(
            kinds[pieces - 2..],
            [Piece, Padding, Header, Given, Padding, Header, Header, Piece, Padding, Piece]
                [..kinds.len() + 2 - pieces]
        );
    }

    #[test]
    fn what_is_put_in_moves_no_cut_far_behind() {
        let content = noise(3, 1 << 20);
        let other = [&content[..200_000], b"more", &content[200_000..]].concat();
        let pieces = |content: &[u8]| -> Vec<Vec<u8>> {
            let found = parts(&tar(&[("a", content)]));
            found.into_iter().filter(|part| part.0 == Part::Piece).map(|part| part.1).collect()
        };
        let (one, two) = (pieces(&content), pieces(&other));
        let fresh = two.iter().filter(|piece| !one.contains(piece)).count();
        assert!(fresh <= 3 && one.len() > 15, "{fresh} of {}", one.len());
    }
}
