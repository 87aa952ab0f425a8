//! Where the bytes of a file went.

use std::cmp::Reverse;
use std::collections::BTreeMap;

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
    pub fn find(&self, old: u64) -> Option<u64> {
        let (&from, &(_, to)) = self.copies.range(..=old).next_back()?;
        Some(to.wrapping_add(old - from))
    }
}
