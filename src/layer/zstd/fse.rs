//! Finite state entropy: distributions of symbols and the decoding tables made of them (RFC 8878, section 4.1).

use serde::{Deserialize, Serialize};

use super::bits::{BackwardBits, Damage, ForwardBits};

/// The largest table of all that Zstandard has (literal lengths and match lengths).
pub const MAX_LOG: u32 = 9;
/// The smallest, but for that of one cell.
const MIN_LOG: u32 = 5;
const MAX_CELLS: usize = 1 << MAX_LOG;
/// The most symbols that a table has: those of match lengths, rounded to a power of two.
const MAX_SYMBOLS: usize = 64;

/// How often each symbol occurs among the cells of a table with `1 << log` cells: what a table is made of, and the short
/// form that it is kept in. One symbol alone is a table of one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    log: u8,
    /// By symbol; -1 is a symbol with less than one cell, which gets one at the end.
    counts: Vec<i16>,
}

impl Distribution {
    /// One of those that the format itself knows.
    pub fn fixed(log: u8, counts: &[i16]) -> Self {
        Distribution { log, counts: counts.to_vec() }
    }

    /// That of which every cell is `symbol`.
    pub fn single(symbol: u8) -> Self {
        let mut counts = vec![0; usize::from(symbol)];
        counts.push(1);
        Distribution { log: 0, counts }
    }

    /// Parses the description at the start of `bytes` (section 4.1.1) and tells how many it took.
    pub fn parse(bytes: &[u8], meaning: &Meaning) -> Result<(Self, usize), Damage> {
        let max_symbols = meaning.extras.len();
        let mut bits = ForwardBits::new(bytes);
        let log = bits.take(4) + MIN_LOG;
        if log > meaning.max_log {
            return Err("zstd table is too large near");
        }
        let mut counts = Vec::with_capacity(max_symbols);
        let mut left = 1_i32 << log;
        while left > 0 {
            if counts.len() >= max_symbols {
                return Err("zstd table has too many symbols near");
            }
            let count = take_count(&mut bits, left);
            left -= count.abs();
            counts.push(count as i16);
            if count == 0 {
                take_zeros(&mut bits, &mut counts, max_symbols)?;
            }
        }
        if left < 0 {
            return Err("zstd table has a wrong sum near");
        }
        Ok((Distribution { log: log as u8, counts }, bits.bytes_used()?))
    }
}

/// One count of a distribution whose counts still lack `left`: the fewer bits, the less can follow.
fn take_count(bits: &mut ForwardBits, left: i32) -> i32 {
    let most = left as u32 + 1;
    let width = u32::BITS - most.leading_zeros();
    let half = 1 << (width - 1);
    let spare = 2 * half - 1 - most;
    let value = bits.peek(width);
    let low = value & (half - 1);
    let value = if low < spare {
        bits.skip(width - 1);
        low
    } else {
        bits.skip(width);
        if value >= half { value - spare } else { value }
    };
    value as i32 - 1
}

/// How many more counts of zero follow: two bits each time, 3 means that more come.
fn take_zeros(bits: &mut ForwardBits, counts: &mut Vec<i16>, max: usize) -> Result<(), Damage> {
    loop {
        let zeros = bits.take(2);
        counts.resize(counts.len() + zeros as usize, 0);
        if counts.len() > max {
            return Err("zstd table has too many symbols near");
        }
        if zeros < 3 {
            return Ok(());
        }
    }
}

/// What the symbols of a table stand for.
pub struct Meaning {
    /// The largest table, as the logarithm of its size.
    pub max_log: u32,
    /// The value of the first symbol. Each symbol takes up as many values as its extra bits can tell apart, and the next
    /// one goes on behind them.
    pub base: u32,
    /// By symbol, how many extra bits follow it; at most `MAX_SYMBOLS`.
    pub extras: &'static [u8],
}

/// A cell of a decoding table.
#[derive(Clone, Copy, Default)]
pub struct Cell {
    /// What the symbol stands for, before its extra bits are added.
    pub base: u32,
    /// The next state, before its bits are added.
    next: u16,
    /// How many extra bits follow the symbol.
    pub extra: u8,
    /// How many bits of the next state follow.
    bits: u8,
}

/// A decoding table.
pub struct Table {
    cells: Box<[Cell; MAX_CELLS]>,
    log: u32,
}

impl Table {
    /// A table that must be built before it is used.
    pub fn new() -> Self {
        Table { cells: Box::new([Cell::default(); MAX_CELLS]), log: 0 }
    }

    /// Builds the table (section 4.1.1). `meaning` is what symbols stand for. The distribution may come from anywhere.
    pub fn build(&mut self, distribution: &Distribution, meaning: &Meaning) -> Result<(), Damage> {
        let wrong = "zstd table has a wrong sum near";
        let log = u32::from(distribution.log);
        let counts = &distribution.counts;
        if log > meaning.max_log.min(MAX_LOG) || counts.len() > meaning.extras.len() {
            return Err("zstd table is too large near");
        }
        // The steps of the spread reach every cell of these alone.
        if log > 0 && log < MIN_LOG {
            return Err("zstd table is too small near");
        }
        let size = 1_usize << log;
        let sum: u32 = counts.iter().map(|count| u32::from(count.unsigned_abs())).sum();
        if sum as usize != size || counts.iter().any(|&count| count < -1) {
            return Err(wrong);
        }
        let mut symbols = [0_u8; MAX_CELLS];
        spread(counts, size, &mut symbols);
        let mut states = [(0_u16, 0_u32, 0_u8); MAX_SYMBOLS];
        let mut base = meaning.base;
        for (state, (count, &extra)) in states.iter_mut().zip(counts.iter().zip(meaning.extras)) {
            *state = (count.unsigned_abs(), base, extra);
            base = base.wrapping_add(1 << extra);
        }
        for (cell, &symbol) in self.cells[..size].iter_mut().zip(&symbols) {
            let (state, base, extra) = &mut states[usize::from(symbol) % MAX_SYMBOLS];
            // Every symbol among the cells has a count of at least one.
            let bits = log - state.ilog2();
            let next = (u32::from(*state) << bits) as usize - size;
            *cell = Cell { base: *base, next: next as u16, extra: *extra, bits: bits as u8 };
            *state += 1;
        }
        self.log = log;
        Ok(())
    }
}

/// Gives each cell its symbol: the rare ones from the end, the others in steps that reach every cell.
fn spread(counts: &[i16], size: usize, symbols: &mut [u8; MAX_CELLS]) {
    let mut end = size;
    for (symbol, _) in counts.iter().enumerate().filter(|(_, count)| **count == -1) {
        end -= 1;
        symbols[end] = symbol as u8;
    }
    let step = (size >> 1) + (size >> 3) + 3;
    let mut at = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        for _ in 0..count.max(0) {
            symbols[at] = symbol as u8;
            at = (at + step) & (size - 1);
            // Ends: the steps come by every cell, and one with a count is below the end.
            while at >= end {
                at = (at + step) & (size - 1);
            }
        }
    }
}

/// A place in a table while symbols are decoded.
pub struct State<'a> {
    table: &'a Table,
    at: usize,
}

impl<'a> State<'a> {
    /// The first state, whose number is in the next bits; a refill must have gone before.
    pub fn new(table: &'a Table, bits: &mut BackwardBits) -> Self {
        State { table, at: bits.take(table.log) }
    }

    /// The cell of this state.
    #[inline(always)]
    pub fn cell(&self) -> Cell {
        self.table.cells[self.at & (MAX_CELLS - 1)]
    }

    /// Goes on from `cell`; takes at most `MAX_LOG` bits.
    #[inline(always)]
    pub fn advance(&mut self, cell: Cell, bits: &mut BackwardBits) {
        self.at = usize::from(cell.next) + bits.take(cell.bits.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Meaning = Meaning { max_log: 9, base: 0, extras: &[0; 53] };

    #[test]
    fn parses_counts_of_varying_width() {
        let (found, used) = Distribution::parse(&[0x00, 0x3f, 0xff], &PLAIN).unwrap();
        assert_eq!((found, used), (Distribution::fixed(5, &[15, 17]), 2));
        // Nothing of the first 4 symbols, then all of the next.
        let (found, used) = Distribution::parse(&[0x10, 0xe6, 0x07], &PLAIN).unwrap();
        assert_eq!((found, used), (Distribution::fixed(5, &[0, 0, 0, 0, 32]), 3));
        for (bytes, why) in [
            (&[0x05][..], "too large"),
            (&[0x10, 0xfe, 255, 255, 255, 255, 255, 255], "too many symbols"),
            (&[0x00], "cut off"),
            (&[], "cut off"),
        ] {
            let damage = Distribution::parse(bytes, &PLAIN).unwrap_err();
            assert!(damage.contains(why), "{bytes:x?}: {damage}");
        }
    }

    #[test]
    fn builds_only_what_is_whole() {
        let mut table = Table::new();
        let fixed = |log, counts: &[i16]| Distribution::fixed(log, counts);
        for good in [fixed(5, &[16, 15, -1]), fixed(5, &[32]), Distribution::single(52)] {
            assert_eq!(table.build(&good, &PLAIN), Ok(()), "{good:?}");
        }
        assert_eq!(table.cells[0].base, 52);
        assert_eq!((table.cells[0].next, table.cells[0].bits), (0, 0));
        for bad in [
            fixed(5, &[16, 15]),
            fixed(5, &[33]),
            fixed(5, &[]),
            fixed(5, &[-32, 0]),
            fixed(5, &[i16::MIN]),
            fixed(0, &[]),
            fixed(1, &[0, 2]),
            fixed(3, &[0, 8]),
            fixed(10, &[1024]),
            fixed(255, &[1]),
            fixed(9, &[2; 257]),
            Distribution::single(53),
        ] {
            assert!(table.build(&bad, &PLAIN).is_err(), "{bad:?}");
        }
        assert!(table.build(&fixed(7, &[128]), &Meaning { max_log: 6, ..PLAIN }).is_err());
    }

    /// Appendix A.1 of RFC 8878: the table of literal lengths that the format itself knows.
    #[test]
    fn builds_the_table_of_the_appendix() {
        let counts = [
            4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1,
            1, 1, 1, -1, -1, -1, -1,
        ];
        let mut table = Table::new();
        table.build(&Distribution::fixed(6, &counts), &PLAIN).unwrap();
        let row = |at: usize| {
            let cell = table.cells[at];
            (cell.base, cell.bits, cell.next)
        };
        for (at, expected) in [
            (0, (0, 4, 0)),
            (1, (0, 4, 16)),
            (2, (1, 5, 32)),
            (3, (3, 5, 0)),
            (60, (35, 6, 0)),
            (63, (32, 6, 0)),
        ] {
            assert_eq!(row(at), expected, "state {at}");
        }
    }
}
