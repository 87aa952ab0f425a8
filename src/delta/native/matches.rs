//! What of a file can be copied from another: bsdiff's search (Percival: "Matching with mismatches and assorted applications").

use super::common;

/// A part of the new file: `copy` bytes like those at `from` in the old one, and `extra` new bytes behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub from: usize,
    pub copy: usize,
    pub extra: usize,
}

/// What a copy gains from an equal byte, and loses by one that differs.
#[derive(Clone, Copy)]
pub struct Weights {
    equal: i64,
    differs: i64,
}

impl Weights {
    /// In machine code and tables a byte that differs is often a small number.
    pub const BINARY: Weights = Weights { equal: 1, differs: 1 };
    /// In text it is another letter.
    pub const TEXT: Weights = Weights { equal: 1, differs: 8 };

    fn of(self, is_equal: bool) -> i64 {
        if is_equal { self.equal } else { -self.differs }
    }
}

/// How many bytes a match must have more than the copy under way would have anyway.
const MIN_GAIN: usize = 8;
/// Longer matches are found piece by piece.
const MAX_SEARCH: usize = 1 << 16;

/// The steps that make `new`; `suffixes` is the suffix array of `old`. The last has no copy if there is nothing to copy.
pub fn steps(old: &[u8], new: &[u8], suffixes: &[u32], weights: Weights) -> Vec<Step> {
    let mut steps = Vec::new();
    // The copy under way, at `last` in `new` and `last_from` in `old`, and the search.
    let (mut last, mut last_from) = (0, 0);
    let (mut scan, mut length, mut from) = (0, 0, 0);
    while scan < new.len() {
        scan += length;
        let (mut counted, mut expected) = (scan, 0);
        let goes_on = |at: usize| {
            (at + last_from).checked_sub(last).is_some_and(|place| old.get(place) == Some(&new[at]))
        };
        while scan < new.len() {
            (from, length) = longest(old, &new[scan..], suffixes);
            while counted < scan + length {
                expected += usize::from(goes_on(counted));
                counted += 1;
            }
            if (length == expected && length != 0) || length > expected + MIN_GAIN {
                break;
            }
            expected -= usize::from(goes_on(scan));
            scan += 1;
        }
        if length == expected && scan < new.len() {
            continue;
        }
        let mut forward = extend(weights, (scan - last).min(old.len() - last_from), |at| {
            old[last_from + at] == new[last + at]
        });
        let mut back = 0;
        if scan < new.len() {
            back = extend(weights, (scan - last).min(from), |at| {
                old[from - 1 - at] == new[scan - 1 - at]
            });
        }
        if let Some(overlap @ 1..) = (last + forward).checked_sub(scan - back) {
            let split = best_split(overlap, |at| {
                let place = scan - back + at;
                let by_old = old[last_from + place - last] == new[place];
                (by_old, old[from - back + at] == new[place])
            });
            forward -= overlap - split;
            back -= split;
        }
        steps.push(Step { from: last_from, copy: forward, extra: scan - back - last - forward });
        (last, last_from) = (scan - back, from - back);
    }
    steps
}

/// How far a copy pays, of at most `limit` bytes.
fn extend(weights: Weights, limit: usize, is_equal: impl Fn(usize) -> bool) -> usize {
    let (mut score, mut best, mut length) = (0, 0, 0);
    for at in 0..limit {
        score += weights.of(is_equal(at));
        if score > best {
            (best, length) = (score, at + 1);
        }
    }
    length
}

/// Where to end the one copy and begin the other, which both cover `overlap` bytes.
fn best_split(overlap: usize, equal: impl Fn(usize) -> (bool, bool)) -> usize {
    let (mut score, mut best, mut split) = (0, 0, 0);
    for at in 0..overlap {
        let (one, other) = equal(at);
        score += i64::from(one) - i64::from(other);
        if score > best {
            (best, split) = (score, at + 1);
        }
    }
    split
}

/// The place in `old` that has the most in common with the start of `new`, and how much.
fn longest(old: &[u8], new: &[u8], suffixes: &[u32]) -> (usize, usize) {
    let new = &new[..new.len().min(MAX_SEARCH)];
    let length = |suffix: u32| {
        let old = &old[suffix as usize..];
        let length = old.len().min(new.len());
        common(&old[..length], &new[..length])
    };
    // All that both ends of the range have in common with `new`, everything between them has, too.
    let (mut low, mut high) = (0, suffixes.len());
    let (mut best, mut at) = (0, 0);
    while low < high {
        let middle = low + (high - low) / 2;
        let suffix = suffixes[middle];
        let same = length(suffix);
        if same > best {
            (best, at) = (same, suffix as usize);
        }
        let is_less = match (old.get(suffix as usize + same), new.get(same)) {
            (_, None) => return (at, best),
            (None, _) => true,
            (Some(old), Some(new)) => old < new,
        };
        if is_less { low = middle + 1 } else { high = middle }
    }
    (at, best)
}

#[cfg(test)]
mod tests {
    use super::super::suffixes::suffixes;
    use super::*;

    fn check(old: &[u8], new: &[u8]) -> Vec<Step> {
        let steps = steps(old, new, &suffixes(old), Weights::BINARY);
        let mut at = 0;
        for step in &steps {
            assert!(step.from + step.copy <= old.len());
            at += step.copy + step.extra;
        }
        assert_eq!(at, new.len());
        steps
    }

    #[test]
    fn copies_what_is_like() {
        let old: Vec<u8> =
            (0..2000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(check(&old, b""), []);
        assert_eq!(check(&old, &old), [Step { from: 0, copy: 2000, extra: 0 }]);
        let mut changed = old.clone();
        changed[700] ^= 1;
        assert_eq!(check(&old, &changed), [Step { from: 0, copy: 2000, extra: 0 }]);
        let moved = [&old[1000..], b"something new", &old[..1000]].concat();
        let expected = [
            Step { from: 0, copy: 0, extra: 0 },
            Step { from: 1000, copy: 1000, extra: 13 },
            Step { from: 0, copy: 1000, extra: 0 },
        ];
        assert_eq!(check(&old, &moved)[..], expected);
        check(b"", b"new");
        check(b"a", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        check(&[0; 3000], &[0; 5000]);
    }
}
