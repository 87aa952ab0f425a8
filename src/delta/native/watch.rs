//! What a delta has in it, told entry by entry to who wants to know while it is applied.

use super::header::{self, Block};
use super::{content, flag, padding};

/// An entry that was made, or bytes between two of them.
#[derive(Clone, Debug)]
pub struct Made {
    /// The path in the header; of a long one, what the header has of it. Empty if it is no entry.
    pub path: Vec<u8>,
    /// Bytes of the target.
    pub bytes: u64,
    /// What of the delta is for it: a share of its frames, as they are packed.
    pub delta_bytes: u64,
    /// Where the content comes from.
    pub content: Content,
}

/// Where a content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// The basis has it, or there is none.
    Kept,
    /// It is what the basis has with some changes.
    Patched,
    /// The delta has it.
    New,
}

/// Who wants to know.
pub struct Watch<'a> {
    each: &'a mut dyn FnMut(Made),
    /// An entry that goes on in runs, and how much of it is to come.
    unfinished: Option<(Made, u64)>,
}

impl<'a> Watch<'a> {
    pub fn new(each: &'a mut dyn FnMut(Made)) -> Self {
        Watch { each, unfinished: None }
    }

    /// Tells of an operation: what it made under which header, and what of the delta it took.
    pub fn tell(&mut self, header: &Block, flags: u8, bytes: u64, delta_bytes: u64) {
        let content = match flags & flag::CONTENT {
            content::PATCH => Content::Patched,
            content::NEW => Content::New,
            _ => Content::Kept,
        };
        let is_run = flags & flag::HAS_HEADER == 0;
        let (made, left) = match self.unfinished.take() {
            Some((before, left)) if is_run => {
                let made = Made {
                    bytes: before.bytes + bytes,
                    delta_bytes: before.delta_bytes + delta_bytes,
                    content: before.content.max(content),
                    ..before
                };
                (made, left.saturating_sub(bytes))
            }
            _ if is_run => (Made { path: Vec::new(), bytes, delta_bytes, content }, 0),
            _ => {
                let goes_on = flags & (flag::CONTENT | flag::GOES_ON) == flag::GOES_ON;
                let size = header::size(header).filter(|_| goes_on).unwrap_or(0);
                let made = Made { path: header::path(header), bytes, delta_bytes, content };
                (made, size.saturating_add(padding(size)))
            }
        };
        match left {
            0 => (self.each)(made),
            left => self.unfinished = Some((made, left)),
        }
    }
}
