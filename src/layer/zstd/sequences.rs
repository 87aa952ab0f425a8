//! The sequences section of a compressed block: its tables, and what the sequences make of literals and window
//! (RFC 8878, sections 3.1.1.3.2 and 3.1.1.4).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::bits::{BackwardBits, Damage, WORD_BITS};
use super::fse::{Distribution, Meaning, State, Table};
use super::window::Window;

const LITERAL_LENGTHS: Meaning = Meaning {
    max_log: 9,
    base: 0,
    extras: &[
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10,
        11, 12, 13, 14, 15, 16,
    ],
};
const OFFSETS: Meaning = Meaning {
    max_log: 8,
    base: 1,
    extras: &[
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31,
    ],
};
const MATCH_LENGTHS: Meaning = Meaning {
    max_log: 9,
    base: 3,
    extras: &[
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ],
};

/// In the order in which a block brings them.
const MEANINGS: [&Meaning; 3] = [&LITERAL_LENGTHS, &OFFSETS, &MATCH_LENGTHS];

/// The distributions that the format itself knows (section 3.1.1.3.2.2), with the logarithms of their tables' sizes.
const FIXED: [(u8, &[i16]); 3] = [
    (
        6,
        &[
            4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1,
            1, 1, 1, -1, -1, -1, -1,
        ],
    ),
    (
        5,
        &[
            1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1,
            -1,
        ],
    ),
    (
        6,
        &[
            1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
        ],
    ),
];

/// No offset that a window of 8 MiB allows has more extra bits; more would not fit between two refills.
const MAX_OFFSET_BITS: u8 = 24;

/// What sequences refer to from block to block, in the form that it is kept in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The last three offsets, the latest first.
    offsets: [u32; 3],
    /// What the tables were last made of; none before the first sequences.
    tables: [Option<Distribution>; 3],
}

/// Decodes the sequences of one block after the other.
pub struct Sequences {
    history: History,
    tables: [Table; 3],
}

/// The header of the section (section 3.1.1.3.2.1).
struct Header {
    count: usize,
    /// How each of the tables is given.
    modes: [u8; 3],
    header_bytes: usize,
}

const MODE_FIXED: u8 = 0;
const MODE_SINGLE: u8 = 1;
const MODE_DESCRIBED: u8 = 2;

impl Sequences {
    /// Sequences of a first block.
    pub fn new() -> Self {
        Sequences { history: History::new(), tables: [(); 3].map(|()| Table::new()) }
    }

    /// Forgets everything, for a new frame.
    pub fn restart(&mut self) {
        self.history = History::new();
    }

    /// What later blocks may refer to.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Goes on from `history`, which may come from anywhere.
    pub fn set_history(&mut self, history: &History) -> Result<(), Damage> {
        for ((table, kept), meaning) in self.tables.iter_mut().zip(&history.tables).zip(MEANINGS) {
            if let Some(distribution) = kept {
                table.build(distribution, meaning)?;
            }
        }
        self.history = history.clone();
        Ok(())
    }

    /// Decodes the section, which fills the rest of a block, and appends what the block stands for to `window`: at most
    /// `room` bytes. `literals` are those of the block, a range of `source`.
    pub fn decode(
        &mut self,
        section: &[u8],
        (source, literals): (&[u8], Range<usize>),
        window: &mut Window,
        room: usize,
    ) -> Result<(), Damage> {
        let header = Header::parse(section).ok_or("zstd sequences are cut off near")?;
        let mut rest = section.get(header.header_bytes..).unwrap_or_default();
        let mut output = Output { window, room, source, literals };
        if header.count > 0 {
            rest = self.take_tables(header.modes, rest)?;
            self.play(header.count, BackwardBits::new(rest)?, &mut output)?;
        } else if !rest.is_empty() {
            return Err("zstd block goes on behind its end near");
        }
        output.finish()
    }

    /// Renews the tables as the modes say; returns what is behind the descriptions.
    fn take_tables<'a>(&mut self, modes: [u8; 3], mut rest: &'a [u8]) -> Result<&'a [u8], Damage> {
        let parts = self.tables.iter_mut().zip(&mut self.history.tables).zip(MEANINGS).zip(FIXED);
        for ((((table, kept), meaning), (log, counts)), mode) in parts.zip(modes) {
            let (distribution, used) = match mode {
                MODE_FIXED => (Distribution::fixed(log, counts), 0),
                MODE_SINGLE => {
                    let symbol = rest.first().ok_or("zstd table is cut off near")?;
                    (Distribution::single(*symbol), 1)
                }
                MODE_DESCRIBED => Distribution::parse(rest, meaning)?,
                _ if kept.is_none() => return Err("zstd sequences lack their table near"),
                _ => continue,
            };
            if kept.as_ref() != Some(&distribution) {
                *kept = None;
                table.build(&distribution, meaning)?;
                *kept = Some(distribution);
            }
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(rest)
    }

    /// Decodes and carries out `count` sequences.
    fn play(
        &mut self,
        count: usize,
        mut bits: BackwardBits,
        output: &mut Output,
    ) -> Result<(), Damage> {
        let [lengths, offsets, matches] = &self.tables;
        let mut lengths = State::new(lengths, &mut bits);
        refill_short_word(&mut bits);
        let mut offsets = State::new(offsets, &mut bits);
        refill_short_word(&mut bits);
        let mut matches = State::new(matches, &mut bits);
        for left in (0..count).rev() {
            bits.refill();
            let (length, offset, matched) = (lengths.cell(), offsets.cell(), matches.cell());
            if offset.extra > MAX_OFFSET_BITS {
                return Err("zstd match lies before the window near");
            }
            let offset_value = offset.base + bits.take(offset.extra.into()) as u32;
            refill_short_word(&mut bits);
            let match_length = matched.base as usize + bits.take(matched.extra.into());
            refill_short_word(&mut bits);
            let literal_length = length.base as usize + bits.take(length.extra.into());
            if left > 0 {
                bits.refill();
                lengths.advance(length, &mut bits);
                matches.advance(matched, &mut bits);
                refill_short_word(&mut bits);
                offsets.advance(offset, &mut bits);
            }
            let offset = next_offset(&mut self.history.offsets, offset_value, literal_length)?;
            output.carry_out(literal_length, offset, match_length)?;
        }
        bits.refill();
        if bits.is_spent() { Ok(()) } else { Err("zstd sequences have a wrong length near") }
    }
}

/// Where a word is long enough for the largest values of all parts of a sequence, one refill serves them all.
#[inline(always)]
fn refill_short_word(bits: &mut BackwardBits) {
    if WORD_BITS < u64::BITS {
        bits.refill();
    }
}

/// The offset that `value` stands for; the first three values are those before (section 3.1.1.5).
#[inline(always)]
fn next_offset(last: &mut [u32; 3], value: u32, literal_length: usize) -> Result<usize, Damage> {
    let [first, second, third] = *last;
    if value > 3 {
        *last = [value - 3, first, second];
        return Ok(last[0] as usize);
    }
    // Without literals before it a match with the last offset would only lengthen the match before.
    let choice = if literal_length == 0 { value + 1 } else { value };
    *last = match choice {
        1 => return Ok(first as usize),
        2 => [second, first, third],
        3 => [third, first, second],
        _ => [first.wrapping_sub(1), first, second],
    };
    if last[0] == 0 { Err("zstd match has no offset near") } else { Ok(last[0] as usize) }
}

impl History {
    /// That of the start of a frame.
    pub fn new() -> Self {
        History { offsets: [1, 4, 8], tables: [None, None, None] }
    }
}

/// What a block decodes to while its sequences are carried out.
struct Output<'a> {
    window: &'a mut Window,
    /// How many bytes more the block may give.
    room: usize,
    source: &'a [u8],
    /// The literals that are left.
    literals: Range<usize>,
}

impl Output<'_> {
    #[inline(always)]
    fn carry_out(
        &mut self,
        literal_length: usize,
        offset: usize,
        match_length: usize,
    ) -> Result<(), Damage> {
        if literal_length > self.literals.len() {
            return Err("zstd sequence has too few literals near");
        }
        // Both are under 2^18: no overflow.
        self.room = self.room.checked_sub(literal_length + match_length).ok_or(TOO_LONG)?;
        self.window.append(self.source, self.literals.start, literal_length);
        self.literals.start += literal_length;
        self.window.repeat(offset, match_length)
    }

    /// The literals behind the last sequence.
    fn finish(self) -> Result<(), Damage> {
        let count = self.literals.len();
        if count > self.room {
            return Err(TOO_LONG);
        }
        self.window.append(self.source, self.literals.start, count);
        Ok(())
    }
}

const TOO_LONG: Damage = "zstd block is larger than its frame allows near";

impl Header {
    fn parse(section: &[u8]) -> Option<Header> {
        let byte = |at: usize| section.get(at).map(|&byte| usize::from(byte));
        let (count, count_bytes) = match byte(0)? {
            0 => return Some(Header { count: 0, modes: [0; 3], header_bytes: 1 }),
            low @ ..128 => (low, 1),
            high @ ..255 => (((high - 128) << 8) + byte(1)?, 2),
            _ => (byte(1)? + (byte(2)? << 8) + 0x7f00, 3),
        };
        let modes = section.get(count_bytes)?;
        // The lowest two bits are reserved.
        if modes & 3 != 0 {
            return None;
        }
        let modes = [modes >> 6, modes >> 4 & 3, modes >> 2 & 3];
        Some(Header { count, modes, header_bytes: count_bytes + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_the_values_of_the_format() {
        let value = |meaning: &Meaning, symbol: usize| {
            meaning.extras[..symbol].iter().fold(meaning.base, |base, &bits| base + (1 << bits))
        };
        for (meaning, symbol, base, extra) in [
            (&LITERAL_LENGTHS, 24, 48, 4),
            (&LITERAL_LENGTHS, 35, 65536, 16),
            (&MATCH_LENGTHS, 0, 3, 0),
            (&MATCH_LENGTHS, 43, 131, 7),
            (&MATCH_LENGTHS, 52, 65539, 16),
            (&OFFSETS, 0, 1, 0),
            (&OFFSETS, 31, 1 << 31, 31),
        ] {
            assert_eq!((value(meaning, symbol), meaning.extras[symbol]), (base, extra));
        }
        let mut table = Table::new();
        for ((log, counts), meaning) in FIXED.iter().zip(MEANINGS) {
            table.build(&Distribution::fixed(*log, counts), meaning).unwrap();
        }
    }

    /// The example of RFC 8878, section 3.1.1.5.
    #[test]
    fn follows_the_last_offsets() {
        let mut last = [1, 4, 8];
        for (value, literals, offset, after) in [
            (1114, 11, 1111, [1111, 1, 4]),
            (1, 22, 1111, [1111, 1, 4]),
            (2225, 22, 2222, [2222, 1111, 1]),
            (1114, 111, 1111, [1111, 2222, 1111]),
            (3336, 33, 3333, [3333, 1111, 2222]),
            (2, 22, 1111, [1111, 3333, 2222]),
            (3, 33, 2222, [2222, 1111, 3333]),
            (3, 0, 2221, [2221, 2222, 1111]),
            (1, 0, 2222, [2222, 2221, 1111]),
        ] {
            assert_eq!(next_offset(&mut last, value, literals), Ok(offset));
            assert_eq!(last, after);
        }
        assert!(next_offset(&mut [1, 4, 8], 3, 0).is_err());
        assert!(next_offset(&mut [5, 0, 8], 2, 1).is_err(), "of a damaged state");
    }

    #[test]
    fn reads_every_form_of_header() {
        for (bytes, count, modes, header_bytes) in [
            (&[0][..], 0, [0; 3], 1),
            (&[127, 0b1001_1100], 127, [2, 1, 3], 2),
            (&[128, 200, 0], 200, [0; 3], 3),
            (&[254, 255, 0], 0x7eff, [0; 3], 3),
            (&[255, 1, 2, 0], 0x8101, [0; 3], 4),
        ] {
            let found = Header::parse(bytes).unwrap();
            assert_eq!(
                (found.count, found.modes, found.header_bytes),
                (count, modes, header_bytes)
            );
            assert!(Header::parse(&bytes[..bytes.len() - 1]).is_none());
        }
        assert!(Header::parse(&[1, 1]).is_none(), "reserved bits");
    }
}
