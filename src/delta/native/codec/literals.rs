//! Literals: each bit by a mixture of what several contexts predict.

use super::coder::{Coder, Counter};
use super::prices::cost;

/// The logarithm of the most slots of a table of contexts: 1 MiB each.
const MAX_TABLE_BITS: u32 = 18;
/// Predictions that are mixed for a bit.
const INPUTS: usize = 6;
/// How slowly contexts learn.
const LITERAL_LIMIT: u32 = 250;

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

/// What both sides learn of literals.
pub struct Literals {
    logistic: Logistic,
    table_bits: u32,
    orders: [Vec<Counter>; 4],
    expected: Vec<Counter>,
    weights: Vec<[i32; INPUTS]>,
}

/// What the items before a literal were: LZMA's state, and the last distance.
#[derive(Clone, Copy)]
pub struct Place {
    pub state: usize,
    pub distance: usize,
}

/// The contexts of a literal, which its bits have in common.
struct Literal {
    contexts: [u32; 4],
    expected: Option<u8>,
    weights: usize,
}

impl Literals {
    /// For a column of `length` bytes.
    pub fn new(length: usize) -> Literals {
        let mut literals = Literals {
            logistic: Logistic::new(),
            table_bits: 0,
            orders: Default::default(),
            expected: Vec::new(),
            weights: Vec::new(),
        };
        literals.begin(length);
        literals
    }

    /// Forgets everything, for a column of `length` bytes, and keeps its memory: getting that from the kernel takes longer.
    pub fn begin(&mut self, length: usize) {
        self.table_bits = (usize::BITS - length.leading_zeros() + 3).clamp(10, MAX_TABLE_BITS);
        let bits = [8, 16, self.table_bits, self.table_bits, 16];
        let tables = self.orders.iter_mut().chain([&mut self.expected]);
        for (table, bits) in tables.zip(bits) {
            table.clear();
            table.resize(1 << bits, Counter::EVEN);
        }
        self.weights.clear();
        self.weights.resize(3 * 256, [(1 << 16) / 4; INPUTS]);
    }

    /// The contexts of the literal at `at`.
    fn contexts(raw: &[u8], at: usize, place: Place) -> Literal {
        let before = |back: usize| {
            at.checked_sub(back).and_then(|at| raw.get(at)).copied().map_or(0, u32::from)
        };
        let (one, two, three) = (before(1), before(2), before(3));
        let hash = |value: u32| value.wrapping_mul(0x9e37_79b1);
        let expected = at.checked_sub(place.distance).and_then(|at| raw.get(at)).copied();
        let after_match = place.state >= 7;
        Literal {
            contexts: [
                0,
                one << 8,
                hash(one << 8 | two | 1 << 24),
                hash(one << 16 | two << 8 | three | 2 << 24),
            ],
            expected,
            weights: usize::from(after_match) + usize::from(place.state >= 4 && !after_match) * 2,
        }
    }

    /// Codes the byte at `at`.
    pub fn code(&mut self, coder: &mut Coder, raw: &[u8], at: usize, place: Place, byte: u8) -> u8 {
        let literal = Self::contexts(raw, at, place);
        let (mut node, mut mixed) = (1_u32, Mixed::default());
        for shift in (0..8).rev() {
            let bit = u32::from(byte) >> shift & 1;
            self.mix(&literal, node, &mut mixed);
            let bit = coder.bit(mixed.one, bit);
            self.learn(&mixed, bit);
            node = node << 1 | bit;
        }
        node as u8
    }

    /// What the literal at `at` would cost, in 1/16 bits, or nearly that; nothing is learned.
    pub fn price(&self, raw: &[u8], at: usize, place: Place, is_exact: bool) -> u32 {
        let literal = Self::contexts(raw, at, place);
        let (byte, mut node, mut price) = (u32::from(raw[at]), 1, 0);
        let mut mixed = Mixed::default();
        for shift in (0..8).rev() {
            let bit = byte >> shift & 1;
            let one = if is_exact {
                self.mix(&literal, node, &mut mixed);
                mixed.one
            } else {
                self.orders[1][(literal.contexts[1] | node) as usize].one()
            };
            price += cost(if bit == 1 { one } else { 65536 - one });
            node = node << 1 | bit;
        }
        price
    }

    /// The prediction of the bit behind `node`: into one place, for there are eight for each byte.
    fn mix(&self, literal: &Literal, node: u32, mixed: &mut Mixed) {
        let Mixed { slots, inputs, .. } = mixed;
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
        mixed.set = set;
        mixed.odds = self.logistic.squash((dot >> 16) as i32);
        // Twelve bits of the squashed odds, spread over sixteen.
        mixed.one = ((mixed.odds as u32) << 4 | 8).clamp(24, 65536 - 24);
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
        let error = ((bit << 12) as i32 - mixed.odds) * 10;
        for (weight, &input) in self.weights[mixed.set].iter_mut().zip(&mixed.inputs) {
            *weight += (input * error + 0x2000) >> 14;
        }
    }
}

/// A prediction and what it was made of.
#[derive(Default)]
struct Mixed {
    slots: [u32; INPUTS - 1],
    inputs: [i32; INPUTS],
    set: usize,
    odds: i32,
    one: u32,
}
