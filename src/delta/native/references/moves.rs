//! Where the bytes of a file went.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Where bytes of the old file went.
///
/// A byte that was copied more than once went where the longest of the copies did, the first of those that are as long;
/// the others are often only alike.
pub struct Moves {
    /// Old offsets in ascending order, and how far what lies from there on was moved, in wrapping arithmetic.
    pieces: Vec<(u64, u64)>,
}

/// A copy that covers the offset that is looked at: the greatest is the longest, and the first of those.
type Covering = (u64, Reverse<usize>, (u64, u64));

impl Moves {
    /// Of copies as they come: old offset, length, new offset.
    pub fn new(all: Vec<(u64, u64, u64)>) -> Moves {
        let mut starts: Vec<(u64, usize)> =
            all.iter().enumerate().map(|(index, &(from, ..))| (from, index)).collect();
        starts.sort_unstable();
        let mut starts = starts.into_iter().peekable();
        let mut covering: BinaryHeap<Covering> = BinaryHeap::new();
        let mut pieces = Vec::new();
        let mut at = 0;
        loop {
            while let Some((_, index)) = starts.next_if(|&(from, _)| from <= at) {
                let (from, length, to) = all[index];
                let end = from.saturating_add(length);
                covering.push((length, Reverse(index), (end, to.wrapping_sub(from))));
            }
            let next = starts.peek().map(|&(from, _)| from);
            match covering.peek().map(|&(.., piece)| piece) {
                Some((end, _)) if end <= at => drop(covering.pop()),
                Some((end, shift)) => {
                    pieces.push((at, shift));
                    at = next.map_or(end, |next| next.min(end));
                }
                None => match next {
                    Some(next) => at = next,
                    None => return Moves { pieces },
                },
            }
        }
    }

    /// Where the byte at an old offset is now, or would be if what lies before it went on.
    pub fn find(&self, old: u64) -> Option<u64> {
        let after = self.pieces.partition_point(|&(from, _)| from <= old);
        let (_, shift) = self.pieces.get(after.checked_sub(1)?)?;
        Some(old.wrapping_add(*shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: each byte's longest copy, or what covers the last byte before it that has one.
    fn expected(all: &[(u64, u64, u64)], old: u64) -> Option<u64> {
        (0..=old).rev().find_map(|at| {
            let covers = |&&(from, length, _): &&(u64, u64, u64)| from <= at && at - from < length;
            let longest = all.iter().filter(covers).map(|&(_, length, _)| length).max()?;
            let (from, _, to) = all.iter().filter(covers).find(|copy| copy.1 == longest)?;
            Some(to.wrapping_add(old.wrapping_sub(*from)))
        })
    }

    #[test]
    fn each_byte_goes_with_its_longest_copy() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..200 {
            let all: Vec<_> =
                (0..random(12)).map(|_| (random(60), random(20), random(1000))).collect();
            let moves = Moves::new(all.clone());
            for old in 0..90 {
                assert_eq!(moves.find(old), expected(&all, old), "round {round}, {old}: {all:?}");
            }
        }
    }

    #[test]
    fn offsets_near_the_end_of_all_do_not_overflow() {
        let moves = Moves::new(vec![(u64::MAX - 1, 10, 5), (0, u64::MAX, 1)]);
        assert_eq!(moves.find(3), Some(4));
        assert_eq!(moves.find(u64::MAX), Some(0));
    }
}
