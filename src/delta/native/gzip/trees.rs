//! Writing blocks: the symbols of each are held until it ends, then coded in the cheapest of the three ways (RFC 1951, 3.2.3).
//!
//! Of Huffman codes with the same cost there are many: which one it is depends on the order in which equal counts leave the heap,
//! and on how codes that get too long are shortened.

use std::io::{self, Write};

const MAX_BITS: usize = 15;
/// The same for the code of code lengths.
const MAX_RUN_BITS: usize = 7;
const END_OF_BLOCK: usize = 256;
/// Where distances begin in the tables of all symbols; bytes, the end of the block, and lengths go before them. The two last
/// lengths are in fixed codes only, and in no block.
const DISTANCES: usize = 288;
const SYMBOLS: usize = DISTANCES + 30;
/// The symbols of the code of code lengths, in the order in which their own lengths are written.
const RUN_ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// At every so many symbols, GNU gzip thinks about ending the block.
const GUESS_SYMBOLS: usize = 0x1000;
/// Collected before they are written.
const OUT_BYTES: usize = 4096;

/// The bits of a symbol's code in the order in which they are written, and how many they are: 0 if it has none.
type Code = (u16, u8);

/// A raw deflate stream in the making.
pub struct Blocks<'a> {
    bits: Bits<'a>,
    max_symbols: usize,
    /// Distance and length - 3, or 0 and a byte.
    symbols: Vec<(u16, u8)>,
    matches: usize,
    /// How often each symbol is in the block.
    counts: [u16; SYMBOLS],
}

impl<'a> Blocks<'a> {
    pub fn new(out: &'a mut dyn Write, max_symbols: usize) -> Self {
        let mut blocks = Self {
            bits: Bits { out, bytes: Vec::new(), pending: 0, count: 0 },
            max_symbols,
            symbols: Vec::with_capacity(max_symbols),
            matches: 0,
            counts: [0; SYMBOLS],
        };
        blocks.clear();
        blocks
    }

    pub fn into_out(self) -> &'a mut dyn Write {
        self.bits.out
    }

    fn clear(&mut self) {
        self.symbols.clear();
        self.matches = 0;
        self.counts = [0; SYMBOLS];
        self.counts[END_OF_BLOCK] = 1;
    }

    /// Adds a match's distance and its length - 3, or 0 and a byte. True if there is no room for another.
    pub fn add(&mut self, distance: u16, value: u8) -> bool {
        self.symbols.push((distance, value));
        if distance == 0 {
            self.counts[usize::from(value)] += 1;
        } else {
            self.matches += 1;
            self.counts[split_length(value).0] += 1;
            self.counts[split_distance(distance).0] += 1;
        }
        self.symbols.len() == self.max_symbols
    }

    /// GNU gzip's guess: it ends a block of `length` bytes that has come to half, if it is more of bytes than of matches.
    pub fn is_good_to_end(&self, length: usize) -> bool {
        let symbols = self.symbols.len();
        if !symbols.is_multiple_of(GUESS_SYMBOLS) || self.matches >= symbols / 2 {
            return false;
        }
        let bits: usize = (DISTANCES..SYMBOLS)
            .map(|symbol| usize::from(self.counts[symbol]) * (5 + extra_bits(symbol)))
            .sum();
        (symbols * 8 + bits) / 8 < length / 2
    }

    /// Writes the block. `content` is what its symbols stand for, if that is at hand.
    pub fn flush(&mut self, content: Option<&[u8]>, is_last: bool) -> io::Result<()> {
        let mut dynamic = [(0, 0); SYMBOLS];
        let (literals, distances) = dynamic.split_at_mut(DISTANCES);
        make_code(&self.counts[..DISTANCES], MAX_BITS, literals);
        make_code(&self.counts[DISTANCES..], MAX_BITS, distances);
        let header = Header::of(literals, distances);
        let fixed = fixed_codes();

        // In bytes, with the 3 bits of the block's type: two ways are the same if that is.
        let bytes = |bits: usize| (bits + 3).div_ceil(8);
        let dynamic_bytes = bytes(header.bits() + cost(&self.counts, &dynamic));
        let fixed_bytes = bytes(cost(&self.counts, &fixed));
        let put_type = |bits: &mut Bits, kind: u16| bits.put(kind << 1 | u16::from(is_last), 3);
        match content {
            Some(content) if content.len() + 4 <= dynamic_bytes.min(fixed_bytes) => {
                put_type(&mut self.bits, 0);
                self.bits.store(content)?;
            }
            _ if fixed_bytes <= dynamic_bytes => {
                put_type(&mut self.bits, 1);
                self.put_symbols(&fixed)?;
            }
            _ => {
                put_type(&mut self.bits, 2);
                header.put(&mut self.bits);
                self.put_symbols(&dynamic)?;
            }
        }
        self.clear();
        if is_last {
            self.bits.align();
        }
        self.bits.flush()
    }

    fn put_symbols(&mut self, codes: &[Code; SYMBOLS]) -> io::Result<()> {
        for &(distance, value) in &self.symbols {
            if distance == 0 {
                self.bits.put_code(codes[usize::from(value)]);
            } else {
                for (symbol, extra) in [split_length(value), split_distance(distance)] {
                    self.bits.put_code(codes[symbol]);
                    self.bits.put_code(extra);
                }
            }
            if self.bits.bytes.len() >= OUT_BYTES {
                self.bits.flush()?;
            }
        }
        self.bits.put_code(codes[END_OF_BLOCK]);
        Ok(())
    }
}

/// The symbol for a match's length - 3, and the extra bits behind it.
fn split_length(value: u8) -> (usize, Code) {
    let (symbol, extra) = match value {
        255 => (28, (0, 0)),
        _ => split(value.into(), 2),
    };
    (END_OF_BLOCK + 1 + symbol, extra)
}

/// The same for a distance.
fn split_distance(distance: u16) -> (usize, Code) {
    let (symbol, extra) = split(distance - 1, 1);
    (DISTANCES + symbol, extra)
}

/// A symbol for the highest bit and `precision` bits below it; the rest are extra bits.
fn split(value: u16, precision: u32) -> (usize, Code) {
    let extra = (value | 1).ilog2().saturating_sub(precision);
    let symbol = (extra << precision) + u32::from(value >> extra);
    (symbol as usize, (value & ((1 << extra) - 1), extra as u8))
}

/// How many extra bits there are behind a symbol.
fn extra_bits(symbol: usize) -> usize {
    match symbol {
        DISTANCES.. => ((symbol - DISTANCES) / 2).saturating_sub(1),
        // The longest length has a symbol of its own, without any.
        257..285 => ((symbol - 257) / 4).saturating_sub(1),
        _ => 0,
    }
}

/// The bits of all symbols.
fn cost(counts: &[u16; SYMBOLS], codes: &[Code; SYMBOLS]) -> usize {
    (0..SYMBOLS)
        .map(|symbol| {
            usize::from(counts[symbol]) * (usize::from(codes[symbol].1) + extra_bits(symbol))
        })
        .sum()
}

/// The codes of a fixed block (RFC 1951, 3.2.6).
fn fixed_codes() -> [Code; SYMBOLS] {
    let mut codes = [(0, 8); SYMBOLS];
    for (from, to, bits) in [(144, 256, 9), (256, 280, 7), (DISTANCES, SYMBOLS, 5)] {
        codes[from..to].fill((0, bits));
    }
    let (literals, distances) = codes.split_at_mut(DISTANCES);
    assign(literals);
    assign(distances);
    codes
}

/// The codes of a dynamic block, as they are written in front of it (RFC 1951, 3.2.7).
struct Header {
    literals: usize,
    distances: usize,
    /// Code lengths in runs: a symbol, and the value of its extra bits.
    runs: Vec<(u16, u8)>,
    codes: [Code; RUN_ORDER.len()],
    /// How many of the codes' lengths are written.
    written: usize,
}

impl Header {
    fn of(literals: &[Code], distances: &[Code]) -> Self {
        let mut runs = Vec::new();
        let literals = add_runs(literals, &mut runs);
        let distances = add_runs(distances, &mut runs);
        let mut counts = [0; RUN_ORDER.len()];
        for &(symbol, _) in &runs {
            counts[usize::from(symbol)] += 1;
        }
        let mut codes = [(0, 0); RUN_ORDER.len()];
        make_code(&counts, MAX_RUN_BITS, &mut codes);
        let mut written = RUN_ORDER.len();
        while written > 4 && codes[usize::from(RUN_ORDER[written - 1])].1 == 0 {
            written -= 1;
        }
        Self { literals, distances, runs, codes, written }
    }

    fn bits(&self) -> usize {
        let runs: usize = self
            .runs
            .iter()
            .map(|&(symbol, _)| {
                usize::from(self.codes[usize::from(symbol)].1 + run_extra_bits(symbol))
            })
            .sum();
        5 + 5 + 4 + 3 * self.written + runs
    }

    fn put(&self, bits: &mut Bits) {
        bits.put((self.literals - 257) as u16, 5);
        bits.put((self.distances - 1) as u16, 5);
        bits.put((self.written - 4) as u16, 4);
        for &symbol in &RUN_ORDER[..self.written] {
            bits.put(self.codes[usize::from(symbol)].1.into(), 3);
        }
        for &(symbol, extra) in &self.runs {
            bits.put_code(self.codes[usize::from(symbol)]);
            bits.put(extra.into(), run_extra_bits(symbol));
        }
    }
}

/// How many extra bits there are behind a symbol of the code of code lengths.
fn run_extra_bits(symbol: u16) -> u8 {
    match symbol {
        0..16 => 0,
        16 => 2,
        17 => 3,
        _ => 7,
    }
}

/// Adds the lengths of codes in runs, up to the last that is not 0; returns how many they are. Symbol 16 is the length before 3 to 6
/// times, 17 is 3 to 10 zeros, 18 is 11 to 138.
fn add_runs(codes: &[Code], runs: &mut Vec<(u16, u8)>) -> usize {
    // There is one: a code has two symbols at least.
    let count = codes.iter().rposition(|code| code.1 != 0).map_or(0, |last| last + 1);
    for run in codes[..count].chunk_by(|one, other| one.1 == other.1) {
        let bits = run[0].1.into();
        let mut left = run.len();
        let mut most = 138;
        if bits != 0 {
            runs.push((bits, 0));
            left -= 1;
            most = 6;
        }
        while left > 0 {
            let count = left.min(most);
            left -= count;
            let count = count as u8;
            match count {
                0..3 => (0..count).for_each(|_| runs.push((bits, 0))),
                _ if bits != 0 => runs.push((16, count - 3)),
                3..11 => runs.push((17, count - 3)),
                _ => runs.push((18, count - 11)),
            }
        }
    }
    count
}

/// Makes a Huffman code for symbols with these counts.
fn make_code(counts: &[u16], max_bits: usize, codes: &mut [Code]) {
    let leaves = counts.len();
    // Of each node, the count, and below it the height of its tree: of equal counts, the flatter tree is the smaller.
    let mut weights = [0_u32; 2 * DISTANCES];
    let mut heap = Vec::new();
    let mut end = 0;
    for (node, &count) in counts.iter().enumerate() {
        if count != 0 {
            weights[node] = u32::from(count) << 8;
            heap.push(node as u16);
            end = node + 1;
        }
    }
    // A code has two symbols at least.
    while heap.len() < 2 {
        let node = if end < 3 { end } else { 0 };
        end += 1;
        weights[node] = 1 << 8;
        heap.push(node as u16);
    }
    for top in (0..heap.len() / 2).rev() {
        sift_down(&mut heap, &weights, top);
    }

    // The nodes in the order in which they leave the heap, two by two; the parent of both is made then.
    let mut order = Vec::new();
    let mut parent = leaves;
    while heap.len() > 1 {
        let one = heap.swap_remove(0);
        sift_down(&mut heap, &weights, 0);
        let other = heap[0];
        order.push(one);
        order.push(other);
        let [one, other] = [one, other].map(|node| weights[usize::from(node)]);
        weights[parent] = (one & !255) + (other & !255) + (one & 255).max(other & 255) + 1;
        heap[0] = parent as u16;
        sift_down(&mut heap, &weights, 0);
        parent += 1;
    }

    let mut lengths = [0; 2 * DISTANCES];
    let mut length_counts = [0_u16; MAX_BITS + 1];
    let mut too_long = 0;
    for (number, &node) in order.iter().enumerate().rev() {
        let node = usize::from(node);
        let mut bits = lengths[leaves + number / 2] + 1;
        if bits > max_bits {
            bits = max_bits;
            too_long += 1;
        }
        lengths[node] = bits;
        if node < leaves {
            length_counts[bits] += 1;
            codes[node].1 = bits as u8;
        }
    }
    if too_long > 0 {
        shorten(&mut length_counts, max_bits, too_long);
        // The longest codes for the rarest.
        let mut bits = max_bits;
        for node in order.into_iter().map(usize::from).filter(|&node| node < leaves) {
            while length_counts[bits] == 0 {
                bits -= 1;
            }
            length_counts[bits] -= 1;
            codes[node].1 = bits as u8;
        }
    }
    assign(codes);
}

/// Moves the node at `top` down to where none below it is smaller.
fn sift_down(heap: &mut [u16], weights: &[u32; 2 * DISTANCES], mut top: usize) {
    let weight = |node: u16| weights[usize::from(node)];
    loop {
        let mut below = 2 * top + 1;
        if below >= heap.len() {
            return;
        }
        if below + 1 < heap.len() && weight(heap[below + 1]) <= weight(heap[below]) {
            below += 1;
        }
        if weight(heap[top]) <= weight(heap[below]) {
            return;
        }
        heap.swap(top, below);
        top = below;
    }
}

/// Completes a code of which `too_long` nodes were cut to `max_bits`: two of them at a time go below the deepest leaf that can move
/// down, one as its brother, and one in the place of the other's.
fn shorten(length_counts: &mut [u16], max_bits: usize, too_long: usize) {
    for _ in 0..too_long.div_ceil(2) {
        let mut bits = max_bits - 1;
        while length_counts[bits] == 0 {
            bits -= 1;
        }
        length_counts[bits] -= 1;
        length_counts[bits + 1] += 2;
        length_counts[max_bits] -= 1;
    }
}

/// Gives codes with these lengths their bits: canonical ones.
fn assign(codes: &mut [Code]) {
    let mut next = 0_u16;
    for bits in 1..=MAX_BITS as u8 {
        next <<= 1;
        for code in &mut *codes {
            if code.1 == bits {
                code.0 = next.reverse_bits() >> (16 - bits);
                next += 1;
            }
        }
    }
}

/// Bits on their way out, the lowest first.
struct Bits<'a> {
    out: &'a mut dyn Write,
    bytes: Vec<u8>,
    pending: u32,
    /// Of `pending`: under 8.
    count: u8,
}

impl Bits<'_> {
    fn put(&mut self, value: u16, count: u8) {
        self.pending |= u32::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    fn put_code(&mut self, (bits, count): Code) {
        self.put(bits, count);
    }

    fn align(&mut self) {
        self.put(0, (8 - self.count) % 8);
    }

    /// Writes the content of a stored block.
    fn store(&mut self, content: &[u8]) -> io::Result<()> {
        self.align();
        // In range: it is a part of the window, and ends before the window does.
        let length = content.len() as u16;
        self.put(length, 16);
        self.put(!length, 16);
        self.flush()?;
        self.out.write_all(content)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}
