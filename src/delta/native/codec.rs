//! The compressor of a delta's columns: LZ77 under a binary arithmetic coder, literals predicted by mixed contexts.
//!
//! What is left of an update once everything that is old has been taken out is small and hard, so its bytes are worth
//! more processor time than a layer's: matches and their distances are coded as LZMA codes them, and each bit of a
//! literal by a mixture of predictions, of contexts of the last zero to three bytes and of the byte that the last match
//! would have gone on with (the logistic mixing of the PAQ family). A few per cent smaller than LZMA, most of all where
//! there is little to learn from; about 2 MB a second of literals, ten times that where there are matches.
//!
//! Encoder and decoder are the same code (`Model`): each decision goes through `Coder::bit`, which writes it or reads it.
//! The encoder adds the search for matches (`parse`).
//!
//! # Format
//!
//! The raw length is known from outside; `Model::new(raw length)` and the decisions below define everything else.
//!
//! ```text
//! stream   = 4 bytes, big-endian, that begin the code; then a byte each time that the first byte of the interval is settled
//! item     = 0 literal                      until the raw length is reached
//!          | 1 0 length distance            a match: copies from `distance` bytes back (LZMA's "match")
//!          | 1 1 0 0                        one byte from the last distance ("shortrep")
//!          | 1 1 0 1 length                 the last distance ("rep0")
//!          | 1 1 1 0 length | 1 1 1 1 0 length | 1 1 1 1 1 length           the ones before ("rep1" to "rep3")
//! length   = 0 3 bits | 1 0 3 bits | 1 1 8 bits                  2 to 9, 10 to 17, 18 to 273
//! distance = slot (6 bits, by length), footer bits               the logarithm and the rest, as in LZMA
//! ```

use std::array::from_fn;

use super::parse::{self, Item};

/// The longest match.
pub const MAX_MATCH: usize = 273;
/// The shortest.
pub const MIN_MATCH: usize = 2;
/// How many distances are remembered.
pub const REPS: usize = 4;

/// The logarithm of the most slots of a table of contexts: 1 MiB each.
const MAX_TABLE_BITS: u32 = 18;
/// Predictions that are mixed for a bit of a literal.
const INPUTS: usize = 6;
/// States of LZMA's automaton of what the last items were.
const STATES: usize = 12;

/// Compresses a column.
pub fn encode(raw: &[u8]) -> Vec<u8> {
    let mut coder = Coder::Encode { low: 0, high: u32::MAX, out: Vec::new() };
    let mut model = Model::new(raw.len());
    parse::items(raw, &mut model, &mut |model, at, item| model.item(&mut coder, raw, at, item));
    coder.finish()
}

/// Appends to `raw` the `length` bytes that `packed` was made of. `None` if it cannot have been made by `encode`: a match
/// that reaches before the start or past the end, or too few bytes. Wrong bytes are not noticed.
pub fn decode(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let (first, rest) = packed.split_first_chunk::<4>()?;
    let mut coder =
        Coder::Decode { low: 0, high: u32::MAX, code: u32::from_be_bytes(*first), rest, over: 0 };
    let mut model = Model::new(length);
    let mut raw = Vec::with_capacity(length);
    while raw.len() < length {
        let item = model.item(&mut coder, &raw, raw.len(), Item::ANY);
        match item.distance {
            0 => raw.push(item.length as u8),
            distance => {
                let start = raw.len().checked_sub(distance)?;
                if item.length > length - raw.len() {
                    return None;
                }
                for at in start..start + item.length {
                    raw.push(raw[at]);
                }
            }
        }
        if coder.is_over() {
            return None;
        }
    }
    Some(raw)
}

/// The arithmetic coder, in one of its two directions.
pub enum Coder<'a> {
    Encode { low: u32, high: u32, out: Vec<u8> },
    Decode { low: u32, high: u32, code: u32, rest: &'a [u8], over: u32 },
}

impl Coder<'_> {
    /// Codes `bit`, which has the probability `one` / 65536 of being 1 (0 < `one` < 65536); gives the bit that was coded.
    fn bit(&mut self, one: u32, bit: u32) -> u32 {
        match self {
            Coder::Encode { low, high, out } => {
                let middle = *low + ((u64::from(*high - *low) * u64::from(one)) >> 16) as u32;
                if bit == 1 {
                    *high = middle
                } else {
                    *low = middle + 1
                }
                while (*low ^ *high) >> 24 == 0 {
                    out.push((*high >> 24) as u8);
                    *low <<= 8;
                    *high = *high << 8 | 255;
                }
                bit
            }
            Coder::Decode { low, high, code, rest, over } => {
                let middle = *low + ((u64::from(*high - *low) * u64::from(one)) >> 16) as u32;
                let bit = u32::from(*code <= middle);
                if bit == 1 {
                    *high = middle
                } else {
                    *low = middle + 1
                }
                while (*low ^ *high) >> 24 == 0 {
                    *low <<= 8;
                    *high = *high << 8 | 255;
                    let next = match rest.split_first() {
                        Some((&first, others)) => {
                            *rest = others;
                            first
                        }
                        None => {
                            *over += 1;
                            0
                        }
                    };
                    *code = *code << 8 | u32::from(next);
                }
                bit
            }
        }
    }

    /// Whether more was read than there can have been: the encoder leaves out trailing zeros, four at most.
    fn is_over(&self) -> bool {
        matches!(self, Coder::Decode { over, .. } if *over > 4)
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Coder::Encode { low, mut out, .. } => {
                // Any code from `low` to `high` will do: the shortest above `low`.
                out.extend((low.wrapping_add(0x00ff_ffff) >> 24 << 24).to_be_bytes());
                out
            }
            Coder::Decode { .. } => Vec::new(),
        }
    }
}

/// A probability that learns: the upper 22 bits of the word, below them how often it has learned.
#[derive(Clone, Copy)]
struct Counter(u32);

impl Counter {
    const EVEN: Counter = Counter(1 << 31);

    /// Of a 1, out of 65536.
    fn one(self) -> u32 {
        (self.0 >> 16).clamp(32, 65535 - 32)
    }

    /// Learns a bit: quickly at first, in the end by a share of 1 / (`limit` + 1.5).
    fn learn(&mut self, bit: u32, limit: u32) {
        let (value, count) = (self.0 >> 10, self.0 & 1023);
        let target = if bit == 1 { (1 << 22) - 1 } else { 0 };
        let step = (i64::from(target) - i64::from(value)) * 2 / i64::from(2 * count + 3);
        let value = (i64::from(value) + step) as u32;
        self.0 = value << 10 | (count + 1).min(limit);
    }
}

/// How slowly the flags and numbers around matches learn, and the contexts of literals.
const FLAG_LIMIT: u32 = 60;
const LITERAL_LIMIT: u32 = 250;

/// Codes one bit by a counter alone.
fn simple(coder: &mut Coder, counter: &mut Counter, bit: u32) -> u32 {
    let bit = coder.bit(counter.one(), bit);
    counter.learn(bit, FLAG_LIMIT);
    bit
}

/// Codes `bits` bits of `value`, the highest first, each in the context of those before it.
fn tree(coder: &mut Coder, counters: &mut [Counter], bits: u32, value: u32) -> u32 {
    let mut node = 1;
    for at in (0..bits).rev() {
        let bit = simple(coder, &mut counters[node as usize], value >> at & 1);
        node = node << 1 | bit;
    }
    node - (1 << bits)
}

/// The logarithms of odds: `stretch(p) = ln(p / (1 - p))`, in 1/256, of a probability in 1/4096; and its inverse.
struct Logistic {
    stretch: [i16; 4096],
    squash: [u16; 4096],
}

impl Logistic {
    /// Integers all the way: every machine must come to the same tables. The curve is interpolated between 33 points.
    fn new() -> Logistic {
        const CURVE: [i32; 33] = [
            1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994,
            3348, 3607, 3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
        ];
        let mut tables = Logistic { stretch: [2047; 4096], squash: [0; 4096] };
        let mut filled = 0;
        for x in -2048..2048 {
            let (index, weight) = (((x + 2048) >> 7) as usize, (x + 2048) & 127);
            let value = (CURVE[index] * (128 - weight) + CURVE[index + 1] * weight + 64) >> 7;
            tables.squash[(x + 2048) as usize] = value as u16;
            while filled <= value {
                tables.stretch[filled as usize] = x as i16;
                filled += 1;
            }
        }
        tables
    }

    fn squash(&self, x: i32) -> i32 {
        i32::from(self.squash[(x.clamp(-2047, 2047) + 2048) as usize])
    }
}

/// Everything that both sides learn.
pub struct Model {
    logistic: Logistic,
    table_bits: u32,
    is_match: [Counter; STATES * 4],
    is_rep: [[Counter; STATES]; REPS + 1],
    length: [Lengths; 2],
    slots: [[Counter; 64]; 4],
    footer: [[Counter; 64]; 64],
    align: [Counter; 16],
    orders: [Vec<Counter>; 4],
    expected: Vec<Counter>,
    weights: Vec<[i32; INPUTS]>,
    /// What the last items were.
    pub state: usize,
    /// The last distances, the last first.
    pub reps: [usize; REPS],
}

/// The counters of lengths.
struct Lengths {
    choice: [Counter; 2],
    low: [[Counter; 8]; 2],
    high: [Counter; 256],
}

/// The contexts of a literal, which its bits have in common.
struct Literal {
    contexts: [u32; 4],
    expected: Option<u8>,
    weights: usize,
}

impl Model {
    /// For a column of `length` bytes.
    pub fn new(length: usize) -> Model {
        let table_bits = (usize::BITS - length.leading_zeros() + 3).clamp(10, MAX_TABLE_BITS);
        let table = |bits: u32| vec![Counter::EVEN; 1 << bits];
        let lengths = || Lengths {
            choice: [Counter::EVEN; 2],
            low: [[Counter::EVEN; 8]; 2],
            high: [Counter::EVEN; 256],
        };
        Model {
            logistic: Logistic::new(),
            table_bits,
            is_match: [Counter::EVEN; STATES * 4],
            is_rep: [[Counter::EVEN; STATES]; REPS + 1],
            length: [lengths(), lengths()],
            slots: [[Counter::EVEN; 64]; 4],
            footer: [[Counter::EVEN; 64]; 64],
            align: [Counter::EVEN; 16],
            orders: [table(8), table(16), table(table_bits), table(table_bits)],
            expected: table(16),
            weights: vec![[(1 << 16) / 4; INPUTS]; 3 * 256],
            state: 0,
            reps: [1; REPS],
        }
    }

    /// Codes the item at `at`, where `raw` has at least the bytes before; gives what was coded.
    pub fn item(&mut self, coder: &mut Coder, raw: &[u8], at: usize, item: Item) -> Item {
        let context = self.state * 4 + (at & 3);
        if simple(coder, &mut self.is_match[context], u32::from(item.distance != 0)) == 0 {
            let byte = self.literal(coder, raw, at, item.length as u8);
            self.state = match self.state {
                0..4 => 0,
                4..10 => self.state - 3,
                _ => self.state - 6,
            };
            return Item { distance: 0, length: byte.into() };
        }
        let before = self.state;
        let known = self.reps.iter().position(|&rep| rep == item.distance);
        let is_known = item.distance != 0 && known.is_some();
        if simple(coder, &mut self.is_rep[0][before], is_known.into()) == 0 {
            self.state = if before < 7 { 7 } else { 10 };
            let length = self.length(coder, 0, item.length);
            let distance = self.distance(coder, length, item.distance);
            self.reps = [distance, self.reps[0], self.reps[1], self.reps[2]];
            return Item { distance, length };
        }
        let mut index = 0;
        while index < REPS - 1
            && simple(coder, &mut self.is_rep[1 + index][before], (known > Some(index)).into()) == 1
        {
            index += 1;
        }
        self.reps[..=index].rotate_right(1);
        let distance = self.reps[0];
        if index == 0
            && simple(coder, &mut self.is_rep[REPS][before], (item.length > 1).into()) == 0
        {
            self.state = if before < 7 { 9 } else { 11 };
            return Item { distance, length: 1 };
        }
        self.state = if before < 7 { 8 } else { 11 };
        Item { distance, length: self.length(coder, 1, item.length) }
    }

    fn length(&mut self, coder: &mut Coder, kind: usize, length: usize) -> usize {
        let value = length.wrapping_sub(MIN_MATCH) as u32;
        let lengths = &mut self.length[kind];
        if simple(coder, &mut lengths.choice[0], u32::from(value >= 8)) == 0 {
            return tree(coder, &mut lengths.low[0], 3, value) as usize + MIN_MATCH;
        }
        if simple(coder, &mut lengths.choice[1], u32::from(value >= 16)) == 0 {
            return tree(coder, &mut lengths.low[1], 3, value.wrapping_sub(8)) as usize
                + MIN_MATCH
                + 8;
        }
        tree(coder, &mut lengths.high, 8, value.wrapping_sub(16)) as usize + MIN_MATCH + 16
    }

    fn distance(&mut self, coder: &mut Coder, length: usize, distance: usize) -> usize {
        let value = distance.wrapping_sub(1) as u32;
        let wanted = slot(value);
        let by_length = (length - MIN_MATCH).min(3);
        let slot = tree(coder, &mut self.slots[by_length], 6, wanted);
        if slot < 4 {
            return slot as usize + 1;
        }
        let bits = (slot >> 1) - 1;
        let base = (2 | slot & 1) << bits;
        let rest = value.wrapping_sub(base);
        // The upper five bits below the slot's in contexts of the slot, the lowest four in contexts of their own.
        let low_bits = bits.min(4);
        let (high_bits, mut high) = (bits - low_bits, 0);
        let modelled = high_bits.min(5);
        if high_bits > 0 {
            high = tree(
                coder,
                &mut self.footer[slot as usize],
                modelled,
                rest >> (bits - modelled) & 31,
            );
            for at in (low_bits..bits - modelled).rev() {
                high = high << 1 | coder.bit(1 << 15, rest >> at & 1);
            }
        }
        let mut low = 0;
        let mut node = 1;
        let counters =
            if high_bits > 0 { &mut self.align[..] } else { &mut self.footer[slot as usize][..] };
        for at in 0..low_bits {
            let bit = simple(coder, &mut counters[node as usize], rest >> at & 1);
            node = node << 1 | bit;
            low |= bit << at;
        }
        (base + (high << low_bits | low)) as usize + 1
    }

    /// The contexts of the literal at `at`.
    fn contexts(&self, raw: &[u8], at: usize) -> Literal {
        let before = |back: usize| {
            at.checked_sub(back).and_then(|at| raw.get(at)).copied().map_or(0, u32::from)
        };
        let (one, two, three) = (before(1), before(2), before(3));
        let hash = |value: u32| value.wrapping_mul(0x9e37_79b1);
        let expected = at.checked_sub(self.reps[0]).and_then(|at| raw.get(at)).copied();
        let after_match = self.state >= 7;
        Literal {
            contexts: [
                0,
                one << 8,
                hash(one << 8 | two | 1 << 24),
                hash(one << 16 | two << 8 | three | 2 << 24),
            ],
            expected,
            weights: usize::from(after_match) + usize::from(self.state >= 4 && !after_match) * 2,
        }
    }

    /// Codes a byte.
    fn literal(&mut self, coder: &mut Coder, raw: &[u8], at: usize, byte: u8) -> u8 {
        let literal = self.contexts(raw, at);
        let mut node = 1_u32;
        for shift in (0..8).rev() {
            let bit = u32::from(byte) >> shift & 1;
            let mixed = self.mix(&literal, node);
            let bit = coder.bit(mixed.one, bit);
            self.learn(&mixed, bit);
            node = node << 1 | bit;
        }
        node as u8
    }

    /// What the literal at `at` would cost, in 1/16 bits; nothing is learned.
    pub fn literal_price(&self, raw: &[u8], at: usize) -> u32 {
        let literal = self.contexts(raw, at);
        let (byte, mut node, mut price) = (u32::from(raw[at]), 1, 0);
        for shift in (0..8).rev() {
            let bit = byte >> shift & 1;
            let one = self.mix(&literal, node).one;
            price += cost(if bit == 1 { one } else { 65536 - one });
            node = node << 1 | bit;
        }
        price
    }

    fn mix(&self, literal: &Literal, node: u32) -> Mixed {
        let mut slots = [0; INPUTS - 1];
        let mut inputs = [0; INPUTS];
        for (order, &context) in literal.contexts.iter().enumerate() {
            slots[order] = match order {
                0 => node,
                1 => context | node,
                _ => context.wrapping_add(node.wrapping_mul(0x2545_f491)) >> (32 - self.table_bits),
            };
            inputs[order] = self.stretch(self.orders[order][slots[order] as usize]);
        }
        // Expected: the byte after the last match's source, as long as the bits so far agree with it.
        let high = u32::BITS - 1 - node.leading_zeros();
        let expected = literal.expected.map_or(0, |byte| {
            let byte = u32::from(byte) | 256;
            let agrees = byte >> (8 - high) == node;
            if agrees { 1 + (byte >> (7 - high) & 1) } else { 0 }
        });
        slots[4] = expected << 11 | (literal.weights as u32) << 8 | node & 255;
        inputs[4] = if expected == 0 { 0 } else { self.stretch(self.expected[slots[4] as usize]) };
        inputs[5] = 256;
        let set = literal.weights * 256 + (node & 255) as usize;
        let weights = &self.weights[set];
        let dot: i64 = inputs
            .iter()
            .zip(weights)
            .map(|(&input, &weight)| i64::from(input) * i64::from(weight))
            .sum();
        let mixed = self.logistic.squash((dot >> 16) as i32);
        // Twelve bits of the squashed odds, spread over sixteen.
        let one = ((mixed as u32) << 4 | 8).clamp(24, 65536 - 24);
        Mixed { slots, inputs, set, mixed, one }
    }

    fn stretch(&self, counter: Counter) -> i32 {
        self.logistic.stretch[(counter.0 >> 20) as usize].into()
    }

    fn learn(&mut self, mixed: &Mixed, bit: u32) {
        for (order, &slot) in mixed.slots[..4].iter().enumerate() {
            self.orders[order][slot as usize].learn(bit, LITERAL_LIMIT);
        }
        if mixed.inputs[4] != 0 {
            self.expected[mixed.slots[4] as usize].learn(bit, LITERAL_LIMIT);
        }
        let error = ((bit << 12) as i32 - mixed.mixed) * 10;
        for (weight, &input) in self.weights[mixed.set].iter_mut().zip(&mixed.inputs) {
            *weight += (input * error + 0x2000) >> 14;
        }
    }

    /// What matches would cost now.
    pub fn prices(&self) -> Prices {
        Prices::new(self)
    }
}

/// A prediction and what it was made of.
struct Mixed {
    slots: [u32; INPUTS - 1],
    inputs: [i32; INPUTS],
    set: usize,
    mixed: i32,
    one: u32,
}

/// LZMA's slot of a distance less one: twice the logarithm, and the next bit.
fn slot(value: u32) -> u32 {
    if value < 4 {
        return value;
    }
    let log = u32::BITS - 1 - value.leading_zeros();
    log << 1 | value >> (log - 1) & 1
}

/// The price of an event of the probability `p` / 65536, in 1/16 bits.
fn cost(p: u32) -> u32 {
    // log2 by its integer part and four bits of a linear fraction, a little too much at most 1/16.
    let log = u32::BITS - 1 - p.leading_zeros();
    let fraction = (p << (16 - log) >> 12) & 15;
    (16 << 4) - (log << 4 | fraction)
}

/// What items would cost if nothing more were learned, in 1/16 bits.
pub struct Prices {
    is_match: [[u32; 2]; STATES * 4],
    is_rep: [[[u32; 2]; STATES]; REPS + 1],
    /// By kind and length.
    lengths: [[u32; MAX_MATCH + 1]; 2],
    /// By length, up to 5, and slot; the footer's bits are taken as even.
    slots: [[u32; 64]; 4],
}

impl Prices {
    fn new(model: &Model) -> Prices {
        let flag = |counter: &Counter| [0, 1].map(|bit| bit_price(*counter, bit));
        let footer = |slot: u32| if slot < 4 { 0 } else { ((slot >> 1) - 1) << 4 };
        let slot = |counters: &[Counter], slot: usize| {
            tree_price(counters, 6, slot as u32) + footer(slot as u32)
        };
        let length = |lengths: &Lengths, length: usize| {
            length.checked_sub(MIN_MATCH).map_or(0, |value| lengths.price(value as u32))
        };
        Prices {
            is_match: from_fn(|at| flag(&model.is_match[at])),
            is_rep: from_fn(|which| from_fn(|state| flag(&model.is_rep[which][state]))),
            lengths: from_fn(|kind| from_fn(|at| length(&model.length[kind], at))),
            slots: from_fn(|by_length| from_fn(|at| slot(&model.slots[by_length], at))),
        }
    }

    /// That the item at `at` in `state` is a match, or not.
    pub fn is_match(&self, state: usize, at: usize, bit: usize) -> u32 {
        self.is_match[state * 4 + (at & 3)][bit]
    }

    /// Choosing the remembered distance `index`; for 0 with a length over 1.
    pub fn rep(&self, state: usize, index: usize) -> u32 {
        let flag = |which: usize, bit: usize| self.is_rep[which][state][bit];
        let passed: u32 = (1..=index).map(|before| flag(before, 1)).sum();
        let stop = if index < REPS - 1 { flag(1 + index, 0) } else { 0 };
        flag(0, 1) + passed + stop + if index == 0 { flag(REPS, 1) } else { 0 }
    }

    /// One byte from the last distance.
    pub fn short_rep(&self, state: usize) -> u32 {
        let flag = |which: usize, bit: usize| self.is_rep[which][state][bit];
        flag(0, 1) + flag(1, 0) + flag(REPS, 0)
    }

    /// A new distance.
    pub fn new_distance(&self, state: usize) -> u32 {
        self.is_rep[0][state][0]
    }

    /// A length; `kind` 1 of a remembered distance.
    pub fn length(&self, kind: usize, length: usize) -> u32 {
        self.lengths[kind][length]
    }

    /// A distance under a match of `length`.
    pub fn distance(&self, length: usize, distance: usize) -> u32 {
        self.slots[(length - MIN_MATCH).min(3)][slot((distance - 1) as u32) as usize]
    }
}

impl Lengths {
    fn price(&self, value: u32) -> u32 {
        let choice = |which: usize, bit: u32| bit_price(self.choice[which], bit);
        match value {
            0..8 => choice(0, 0) + tree_price(&self.low[0], 3, value),
            8..16 => choice(0, 1) + choice(1, 0) + tree_price(&self.low[1], 3, value - 8),
            _ => choice(0, 1) + choice(1, 1) + tree_price(&self.high, 8, value - 16),
        }
    }
}

fn bit_price(counter: Counter, bit: u32) -> u32 {
    cost(if bit == 1 { counter.one() } else { 65536 - counter.one() })
}

fn tree_price(counters: &[Counter], bits: u32, value: u32) -> u32 {
    let (mut node, mut price) = (1, 0);
    for at in (0..bits).rev() {
        let bit = value >> at & 1;
        price += bit_price(counters[node as usize], bit);
        node = node << 1 | bit;
    }
    price
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &[u8]) -> usize {
        let packed = encode(raw);
        assert_eq!(decode(&packed, raw.len()).as_deref(), Some(raw));
        packed.len()
    }

    #[test]
    fn gives_back_what_it_packed() {
        let text = include_bytes!("codec.rs");
        assert!(check(text) < text.len() / 3);
        assert_eq!(check(b""), 4);
        assert!(check(b"a") <= 6);
        assert!(check(&[0; 200_000]) < 100);
        let mut seed = 1_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 24
        };
        let noise: Vec<u8> = (0..30_000).map(|_| random() as u8).collect();
        assert!(check(&noise) < 30_400);
        let twice = [&noise[..], &noise].concat();
        assert!(check(&twice) < 30_700);
        let few: Vec<u8> = (0..30_000).map(|_| (random() % 3) as u8).collect();
        assert!(check(&few) < 7_000);
    }

    #[test]
    fn damage_is_an_end_not_a_panic() {
        let raw: Vec<u8> = include_bytes!("codec.rs")[..3000].to_vec();
        let packed = encode(&raw);
        for at in 0..packed.len() {
            for flip in [1, 0x80] {
                let mut damaged = packed.clone();
                damaged[at] ^= flip;
                let _ = decode(&damaged, raw.len());
            }
            let _ = decode(&packed[..at], raw.len());
        }
        assert_eq!(decode(&packed[..packed.len() / 2], raw.len()), None);
        assert_eq!(decode(b"abc", 1), None);
    }
}
