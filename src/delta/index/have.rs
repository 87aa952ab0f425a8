//! What a device has: the groups and pieces of its layers, and where in them they are.

use super::times::{timeless, with_time};
use super::walk::{Part, walk};
use super::{directory, group_key, piece_key};
use crate::delta::native::header::Block;
use crate::digest::{Digest, Hasher};
use crate::error::Result;
use crate::stream::Stream;

/// As many groups and pieces together are remembered, at 16 bytes each: enough for some GB. What is beyond is fetched.
const MAX_REMEMBERED: usize = 1 << 18;

/// The bits below the offset of a group: a directory is shorter than its field, of 155 bytes at most.
const DIRECTORY_BITS: u32 = 8;

/// Groups and pieces by their hashes, each with its offset in the basis.
#[derive(Default)]
pub struct Have {
    groups: Vec<(u64, u64)>,
    pieces: Vec<(u64, u64)>,
}

/// The hash of a group, as its parts go by. It holds the headers, `MAX_GROUP` at most, until it knows their directory.
#[derive(Default)]
pub(super) struct GroupHash {
    headers: Vec<Block>,
    /// There is a header without a time of its own: paths are as they are.
    is_odd: bool,
    /// All parts but the headers, for each of which there is a byte.
    others: Option<Hasher>,
}

impl GroupHash {
    /// Adds a part; for a piece gives its hash.
    pub fn add(&mut self, part: Part, bytes: &[u8]) -> Option<Digest> {
        let others = self.others.get_or_insert_with(Hasher::new);
        if part == Part::Piece {
            let digest = Digest::of(bytes);
            others.update(digest.as_bytes());
            return Some(digest);
        }
        match bytes.try_into() {
            Ok(block) if part == Part::Header => {
                let plain = timeless(block);
                self.is_odd |= plain.is_none();
                self.headers.push(plain.map_or(*block, |(plain, _)| plain));
                others.update(b"h");
            }
            _ => others.update(bytes),
        }
        None
    }

    /// The hash, and the directory that its paths have in common; the next part begins another group.
    pub fn finish(&mut self) -> (Digest, Vec<u8>) {
        let GroupHash { mut headers, is_odd, others } = std::mem::take(self);
        let directory = if is_odd { Vec::new() } else { directory::of(&mut headers.iter()) };
        let mut hasher = Hasher::new();
        for block in &mut headers {
            if !directory.is_empty() {
                directory::replace(block, directory.len(), b"");
                *block = with_time(block, 0);
            }
            hasher.update(block);
        }
        hasher.update(others.unwrap_or_else(Hasher::new).finish().as_bytes());
        (hasher.finish(), directory)
    }
}

impl Have {
    /// Adds what is in the next `bytes` of `tar`, which are at `start` of the basis.
    pub fn add(&mut self, tar: &mut dyn Stream, bytes: u64, start: u64) -> Result<()> {
        let (mut hash, mut at, mut group_at) = (GroupHash::default(), start, start);
        walk(tar, bytes, &mut |part, bytes| {
            let is_full = self.groups.len() + self.pieces.len() >= MAX_REMEMBERED;
            if part == Part::End {
                let (digest, directory) = hash.finish();
                if !is_full {
                    let place = group_at << DIRECTORY_BITS | directory.len() as u64;
                    self.groups.push((group_key(&digest), place));
                }
                group_at = at;
            } else if let Some(digest) = hash.add(part, bytes).filter(|_| !is_full) {
                self.pieces.push((piece_key(digest.as_bytes(), bytes.len()), at));
            }
            at += bytes.len() as u64;
            Ok(())
        })?;
        for list in [&mut self.groups, &mut self.pieces] {
            list.sort_unstable();
            list.dedup_by_key(|&mut (key, _)| key);
        }
        Ok(())
    }

    /// Where the group is, and how long the directory is that its paths have in common.
    pub(super) fn group(&self, key: u64) -> Option<(u64, usize)> {
        let place = find(&self.groups, key)?;
        Some((place >> DIRECTORY_BITS, (place % (1 << DIRECTORY_BITS)) as usize))
    }

    /// Where the piece is.
    pub(super) fn piece(&self, key: u64) -> Option<u64> {
        find(&self.pieces, key)
    }
}

fn find(list: &[(u64, u64)], key: u64) -> Option<u64> {
    let place = list.binary_search_by_key(&key, |&(key, _)| key).ok()?;
    list.get(place).map(|&(_, offset)| offset)
}
