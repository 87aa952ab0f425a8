//! Huffman codes of literals (RFC 8878, section 4.2).

use super::bits::{BITS_A_REFILL, BackwardBits, Damage, WORD_BITS};
use super::fse::{Distribution, Meaning, State, Table};

/// The longest code, in bits.
const MAX_CODE_BITS: u32 = 11;
const MAX_SYMBOLS: usize = 256;
/// The tables that weights are compressed with.
const WEIGHTS: Meaning = Meaning { max_log: 6, base: 0, extras: &[0; MAX_CODE_BITS as usize + 1] };
/// Symbols that are decoded between two refills.
const SYMBOLS_A_REFILL: usize = (BITS_A_REFILL / MAX_CODE_BITS) as usize;

/// A code for bytes. Every table is as large as the longest code needs: so the hot loop shifts by a constant.
pub struct Huffman {
    /// By the next bits: the symbol in the high byte, the length of its code in the low one.
    cells: Box<[u16; 1 << MAX_CODE_BITS]>,
    /// What it was built of, the last one left out, as the format does.
    weights: Vec<u8>,
}

impl Huffman {
    /// A code that must be built before it is used.
    pub fn new() -> Self {
        Huffman { cells: Box::new([0; 1 << MAX_CODE_BITS]), weights: Vec::new() }
    }

    /// The short form: what `build` takes.
    pub fn weights(&self) -> &[u8] {
        &self.weights
    }

    /// Builds the code described at the start of `bytes` (section 4.2.1) and tells how many it took.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<usize, Damage> {
        let cut = "zstd Huffman code is cut off near";
        let (&head, rest) = bytes.split_first().ok_or(cut)?;
        let (weights, used) = if head < 128 {
            let packed = rest.get(..head.into()).ok_or(cut)?;
            (unpack_weights(packed)?, packed.len())
        } else {
            let count = usize::from(head) - 127;
            let packed = rest.get(..count.div_ceil(2)).ok_or(cut)?;
            let mut weights: Vec<u8> =
                packed.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
            weights.truncate(count);
            (weights, packed.len())
        };
        self.build(weights)?;
        Ok(1 + used)
    }

    /// Builds the code of the symbols' weights, that of the last symbol left out: it follows from the others. The
    /// weights may come from anywhere.
    pub fn build(&mut self, weights: Vec<u8>) -> Result<(), Damage> {
        let wrong = "zstd Huffman code has a wrong sum near";
        if weights.len() >= MAX_SYMBOLS || weights.iter().any(|&w| u32::from(w) > MAX_CODE_BITS) {
            return Err("zstd Huffman code is too long near");
        }
        let sum: u32 = weights.iter().map(|&weight| (1_u32 << weight) >> 1).sum();
        let longest = u32::BITS - sum.leading_zeros();
        if sum == 0 || longest > MAX_CODE_BITS {
            return Err(wrong);
        }
        let left = (1 << longest) - sum;
        if !left.is_power_of_two() {
            return Err(wrong);
        }
        let last = left.ilog2() as u8 + 1;
        self.fill(&weights, last, longest);
        self.weights = weights;
        Ok(())
    }

    /// Gives each symbol its cells, the longest codes first: they fill the table exactly.
    fn fill(&mut self, weights: &[u8], last: u8, longest: u32) {
        let mut cells = self.cells.iter_mut();
        for weight in 1..=longest {
            let count = 1 << (weight - 1 + MAX_CODE_BITS - longest);
            let length = longest + 1 - weight;
            let all = weights.iter().chain([&last]).enumerate();
            for (symbol, _) in all.filter(|(_, w)| u32::from(**w) == weight) {
                for cell in cells.by_ref().take(count) {
                    *cell = (symbol << 8) as u16 | length as u16;
                }
            }
        }
    }

    /// Decodes one stream, which must hold exactly `out`.
    pub fn decode(&self, stream: &[u8], out: &mut [u8]) -> Result<(), Damage> {
        self.decode_rest(BackwardBits::new(stream)?, out)
    }

    /// Decodes four streams side by side: a quarter of `out` each, the last one what is left.
    pub fn decode_four(&self, streams: [&[u8]; 4], out: &mut [u8]) -> Result<(), Damage> {
        let few = "zstd literals are too few for four streams near";
        let quarter = out.len().div_ceil(4);
        let (out_a, rest) = out.split_at_mut_checked(quarter).ok_or(few)?;
        let (out_b, rest) = rest.split_at_mut_checked(quarter).ok_or(few)?;
        let (out_c, out_d) = rest.split_at_mut_checked(quarter).ok_or(few)?;
        let [a, b, c, d] = streams.map(BackwardBits::new);
        let (mut a, mut b, mut c, mut d) = (a?, b?, c?, d?);
        let rounds = out_d.len() / SYMBOLS_A_REFILL;
        let (now_a, later_a) = out_a.split_at_mut(rounds * SYMBOLS_A_REFILL);
        let (now_b, later_b) = out_b.split_at_mut(rounds * SYMBOLS_A_REFILL);
        let (now_c, later_c) = out_c.split_at_mut(rounds * SYMBOLS_A_REFILL);
        let (now_d, later_d) = out_d.split_at_mut(rounds * SYMBOLS_A_REFILL);
        let quads = chunks(now_a).zip(chunks(now_b)).zip(chunks(now_c)).zip(chunks(now_d));
        for (((chunk_a, chunk_b), chunk_c), chunk_d) in quads {
            a.refill();
            b.refill();
            c.refill();
            d.refill();
            for at in 0..SYMBOLS_A_REFILL {
                chunk_a[at] = self.symbol(&mut a);
                chunk_b[at] = self.symbol(&mut b);
                chunk_c[at] = self.symbol(&mut c);
                chunk_d[at] = self.symbol(&mut d);
            }
        }
        self.decode_rest(a, later_a)?;
        self.decode_rest(b, later_b)?;
        self.decode_rest(c, later_c)?;
        self.decode_rest(d, later_d)
    }

    fn decode_rest(&self, mut bits: BackwardBits, out: &mut [u8]) -> Result<(), Damage> {
        for chunk in out.chunks_mut(SYMBOLS_A_REFILL) {
            bits.refill();
            for byte in chunk {
                *byte = self.symbol(&mut bits);
            }
        }
        bits.refill();
        if bits.is_spent() { Ok(()) } else { Err("zstd literals have a wrong length near") }
    }

    #[inline(always)]
    fn symbol(&self, bits: &mut BackwardBits) -> u8 {
        let cell = self.cells[bits.ahead() >> (WORD_BITS - MAX_CODE_BITS)];
        bits.skip(u32::from(cell & 0xff));
        (cell >> 8) as u8
    }
}

fn chunks(bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8; SYMBOLS_A_REFILL]> {
    bytes.as_chunks_mut().0.iter_mut()
}

/// Weights that are compressed themselves, by two states that take turns (section 4.2.1.2).
fn unpack_weights(packed: &[u8]) -> Result<Vec<u8>, Damage> {
    let (distribution, used) = Distribution::parse(packed, &WEIGHTS)?;
    let mut table = Table::new();
    table.build(&distribution, &WEIGHTS)?;
    let mut bits = BackwardBits::new(packed.get(used..).unwrap_or_default())?;
    let mut now = State::new(&table, &mut bits);
    let mut other = State::new(&table, &mut bits);
    let mut weights = Vec::with_capacity(MAX_SYMBOLS);
    bits.refill();
    if bits.is_overrun() {
        return Err("zstd Huffman code is cut off near");
    }
    // The stream is over when a state lacks bits to go on from: the other one still has a weight to give.
    while weights.len() < MAX_SYMBOLS {
        let cell = now.cell();
        weights.push(cell.base as u8);
        now.advance(cell, &mut bits);
        if bits.is_overrun() {
            weights.push(other.cell().base as u8);
            return Ok(weights);
        }
        bits.refill();
        std::mem::swap(&mut now, &mut other);
    }
    Err("zstd Huffman code is too long near")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8878, section 4.2.1: weights 4 3 2 0 1 and a last symbol of weight 1.
    #[test]
    fn builds_the_code_of_the_example() {
        let mut code = Huffman::new();
        code.build(vec![4, 3, 2, 0, 1]).unwrap();
        for (bits, symbol, length) in
            [("1", 0, 1), ("01", 1, 2), ("001", 2, 3), ("0001", 5, 4), ("0000", 4, 4)]
        {
            let at = usize::from_str_radix(bits, 2).unwrap() << (11 - bits.len());
            assert_eq!(code.cells[at], symbol << 8 | length, "code {bits}");
        }
        assert_eq!(code.weights(), [4, 3, 2, 0, 1]);
        let mut direct = Huffman::new();
        assert_eq!(direct.parse(&[127 + 5, 0x43, 0x20, 0x10, 0xff]), Ok(4));
        assert!(direct.cells == code.cells);
    }

    #[test]
    fn decodes_from_the_end_and_wants_it_exact() {
        let mut code = Huffman::new();
        code.build(vec![4, 3, 2, 0, 1]).unwrap();
        // 0 1 2 5: 1 01 001 0001, after the mark.
        let value = 0b110_1001_0001_u16;
        let mut out = [9; 4];
        code.decode(&value.to_le_bytes(), &mut out).unwrap();
        assert_eq!(out, [0, 1, 2, 5]);
        assert!(code.decode(&value.to_le_bytes(), &mut [0; 3]).is_err());
        assert!(code.decode(&value.to_le_bytes(), &mut [0; 5]).is_err());
    }

    #[test]
    fn refuses_what_is_no_code() {
        let mut code = Huffman::new();
        for bad in [vec![], vec![0, 0], vec![12], vec![11, 11], vec![4, 1], vec![1; 256]] {
            assert!(code.build(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
