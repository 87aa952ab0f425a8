//! Finding the matches: hash chains over a window of 64 KiB, with lazy evaluation from level 4 on.
//!
//! The window is filled from its start, and its upper half moved down when what is ahead gets short near its end. Positions are
//! offsets in it; 0 stands for none, so what is at the window's very start is never matched. All this shows in what is written.

use std::io::{self, Write};

use super::trees::Blocks;
use super::{Encoder, Recipe};

const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
const WINDOW_BYTES: usize = 2 * HALF;
/// What the window moves by, and the length of the ring of chains.
const HALF: usize = 1 << 15;
/// While there is more content to come, at least this much is ahead: a match, and the string to insert behind it.
const MIN_AHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
const MAX_DISTANCE: usize = HALF - MIN_AHEAD;
/// The last position with room for a match; behind it, the window has to move.
const LAST_SEARCH: usize = WINDOW_BYTES - MIN_AHEAD;
/// A match of the shortest length from farther away is not worth its distance.
const TOO_FAR: usize = 4096;
/// Up to this level, the first match is taken.
const LAST_GREEDY_LEVEL: u8 = 3;

/// How hard a level searches.
struct Effort {
    /// With a match of this length in hand, a quarter of the chain has to do for a better one.
    good: u16,
    /// With a match of this length in hand, no better one is looked for; greedy levels insert no strings within one that is longer.
    lazy: u16,
    /// A match of this length ends the search.
    nice: u16,
    /// The most strings to compare with.
    chain: u16,
}

/// The levels from 1 on.
#[rustfmt::skip]
const EFFORTS: [Effort; 9] = [
    Effort { good: 4, lazy: 4, nice: 8, chain: 4 },
    Effort { good: 4, lazy: 5, nice: 16, chain: 8 },
    Effort { good: 4, lazy: 6, nice: 32, chain: 32 },
    Effort { good: 4, lazy: 4, nice: 16, chain: 16 },
    Effort { good: 8, lazy: 16, nice: 32, chain: 32 },
    Effort { good: 8, lazy: 16, nice: 128, chain: 128 },
    Effort { good: 8, lazy: 32, nice: 128, chain: 256 },
    Effort { good: 32, lazy: 128, nice: 258, chain: 1024 },
    Effort { good: 32, lazy: 258, nice: 258, chain: 4096 },
];

#[derive(Clone, Copy)]
struct Match {
    length: usize,
    distance: usize,
}

/// Shorter than any.
const NO_MATCH: Match = Match { length: MIN_MATCH - 1, distance: 0 };

/// Writes content as a raw deflate stream. It takes 400 KB of memory at most.
pub struct Deflater<'a> {
    recipe: Recipe,
    effort: &'static Effort,
    blocks: Blocks<'a>,
    window: Vec<u8>,
    /// How much of the window is filled.
    end: usize,
    /// The next position to look at.
    at: usize,
    /// Where the block began; below zero if that is no longer in the window.
    block_start: isize,
    /// For each string of the last 32 KiB, the one before with the same hash; behind these, the latest of each hash.
    chains: Vec<u16>,
    hash_shift: u32,
    /// The match at the position before, if matching is lazy.
    previous: Match,
    /// The byte at the position before is not written yet.
    is_behind: bool,
}

impl<'a> Deflater<'a> {
    /// One that writes to `out`.
    pub fn new(recipe: Recipe, out: &'a mut dyn Write) -> Self {
        let (max_symbols, hash_shift) = match recipe.encoder {
            Encoder::Gnu => (0x7fff, 5),
            Encoder::Zlib => (0x3fff, 5),
            Encoder::ZlibLarge => (0x7fff, 6),
        };
        Self {
            recipe,
            // In range: a recipe's level is 1 to 9.
            effort: &EFFORTS[usize::from(recipe.level) - 1],
            blocks: Blocks::new(out, max_symbols),
            window: vec![0; WINDOW_BYTES],
            end: 0,
            at: 0,
            block_start: 0,
            chains: vec![0; HALF + (1 << (3 * hash_shift).min(16))],
            hash_shift,
            previous: NO_MATCH,
            is_behind: false,
        }
    }

    /// Takes more of the content. What is made of it may be written much later.
    pub fn write(&mut self, mut content: &[u8]) -> io::Result<()> {
        while !content.is_empty() {
            self.slide_if_due();
            let (now, later) = content.split_at(content.len().min(WINDOW_BYTES - self.end));
            self.window[self.end..self.end + now.len()].copy_from_slice(now);
            self.end += now.len();
            content = later;
            while self.end - self.at >= MIN_AHEAD {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Ends the content; when all has been written, gives back what it was written to.
    pub fn finish(mut self) -> io::Result<&'a mut dyn Write> {
        self.slide_if_due();
        // There is room: with less than 2 bytes left, the window was due to slide.
        self.window[self.end..self.end + MIN_MATCH - 1].fill(0);
        while self.at < self.end {
            self.step()?;
            // GNU gzip leaves the window alone once it has seen the end, and finds no match behind its last position.
            if self.recipe.encoder != Encoder::Gnu {
                self.slide_if_due();
            }
        }
        if self.is_behind {
            self.tally(0, self.window[self.at - 1]);
        }
        self.flush(true)?;
        Ok(self.blocks.into_out())
    }

    /// Moves the window, if there is no room for a match at the next position. Less than `MIN_AHEAD` is ahead.
    fn slide_if_due(&mut self) {
        if self.at < LAST_SEARCH {
            return;
        }
        // The upper half keeps its bytes: GNU gzip compares with them beyond the end of the content.
        self.window.copy_within(HALF.., 0);
        self.at -= HALF;
        self.end -= HALF;
        self.block_start -= HALF as isize;
        for position in &mut self.chains {
            *position = position.saturating_sub(HALF as u16);
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let head = self.insert(self.at);
        if self.recipe.level <= LAST_GREEDY_LEVEL {
            self.step_greedy(head)
        } else {
            self.step_lazy(head)
        }
    }

    /// Takes the match at this position, if there is one.
    fn step_greedy(&mut self, head: usize) -> io::Result<()> {
        let found = self.longest_match(head, NO_MATCH.length);
        if found.length < MIN_MATCH {
            let is_full = self.tally(0, self.window[self.at]);
            self.at += 1;
            return self.flush_if(is_full);
        }
        let is_full = self.tally_match(found);
        let next = self.at + found.length;
        if found.length <= self.effort.lazy.into() {
            self.insert_all(self.at + 1, next);
        }
        self.at = next;
        self.flush_if(is_full)
    }

    /// Takes the match at the position before, if the one here is no better.
    fn step_lazy(&mut self, head: usize) -> io::Result<()> {
        let previous = self.previous;
        self.previous = NO_MATCH;
        if previous.length < self.effort.lazy.into() {
            let found = self.longest_match(head, previous.length);
            if found.length != MIN_MATCH || found.distance <= TOO_FAR {
                self.previous = found;
            }
        }
        if previous.length >= MIN_MATCH && self.previous.length <= previous.length {
            let is_full = self.tally_match(previous);
            let next = self.at - 1 + previous.length;
            self.insert_all(self.at + 1, next);
            self.at = next;
            self.previous = NO_MATCH;
            self.is_behind = false;
            return self.flush_if(is_full);
        }
        if self.is_behind {
            let is_full = self.tally(0, self.window[self.at - 1]);
            self.flush_if(is_full)?;
        }
        self.is_behind = true;
        self.at += 1;
        Ok(())
    }

    /// Makes the string at `at` the first of its chain; returns the one that was, or 0. (At the end of the content the string may
    /// go beyond it; no match that short is taken.)
    fn insert(&mut self, at: usize) -> usize {
        let hash = self.window[at..at + MIN_MATCH]
            .iter()
            .fold(0, |hash, &byte| hash << self.hash_shift ^ usize::from(byte));
        let head = HALF + (hash & (self.chains.len() - HALF - 1));
        let before = std::mem::replace(&mut self.chains[head], at as u16);
        self.chains[at % HALF] = before;
        before.into()
    }

    fn insert_all(&mut self, from: usize, to: usize) {
        for at in from..to {
            self.insert(at);
        }
    }

    /// The longest match for the string here, of those in the chain from `head` on that are longer than `length`; the nearest of
    /// these. If none is, a length not over `length`.
    fn longest_match(&self, head: usize, length: usize) -> Match {
        if head == 0 || self.at - head > MAX_DISTANCE || self.at > LAST_SEARCH {
            return NO_MATCH;
        }
        let ahead = self.end - self.at;
        let mut left = self.effort.chain;
        if length >= self.effort.good.into() {
            left >>= 2;
        }
        let mut nice = self.effort.nice.into();
        // GNU gzip goes on for a match that is longer than what is ahead.
        if self.recipe.encoder != Encoder::Gnu {
            nice = ahead.min(nice);
        }
        let farthest = self.at.saturating_sub(MAX_DISTANCE);
        let here = &self.window[self.at..self.at + MAX_MATCH];
        let mut best = Match { length, distance: 0 };
        let mut position = head;
        loop {
            let there = &self.window[position..position + MAX_MATCH];
            // A longer one differs from most at its end.
            if there[best.length] == here[best.length]
                && there[best.length - 1] == here[best.length - 1]
            {
                let mut length = 0;
                while length < MAX_MATCH && there[length] == here[length] {
                    length += 1;
                }
                if length > best.length {
                    best = Match { length, distance: self.at - position };
                    if length >= nice {
                        break;
                    }
                }
            }
            position = self.chains[position % HALF].into();
            left -= 1;
            if position <= farthest || left == 0 {
                break;
            }
        }
        best.length = best.length.min(ahead);
        best
    }

    fn tally_match(&mut self, found: Match) -> bool {
        self.tally(found.distance as u16, (found.length - MIN_MATCH) as u8)
    }

    /// Adds a symbol to the block; true if the block has to end with it.
    fn tally(&mut self, distance: u16, value: u8) -> bool {
        let is_full = self.blocks.add(distance, value);
        // Not below zero: a block starts here at the latest.
        let length = (self.at as isize - self.block_start) as usize;
        let guesses = self.recipe.encoder == Encoder::Gnu && self.recipe.level > 2;
        is_full || guesses && self.blocks.is_good_to_end(length)
    }

    fn flush_if(&mut self, is_full: bool) -> io::Result<()> {
        if is_full { self.flush(false) } else { Ok(()) }
    }

    /// Writes the block that ends here.
    fn flush(&mut self, is_last: bool) -> io::Result<()> {
        let start = usize::try_from(self.block_start).ok();
        self.blocks.flush(start.map(|start| &self.window[start..self.at]), is_last)?;
        self.block_start = self.at as isize;
        Ok(())
    }
}
