//! What items would cost, for the search.

use std::array::from_fn;

use super::coder::Counter;
use super::model::{Lengths, Model, STATES, slot};
use super::{MAX_MATCH, MIN_MATCH, REPS};

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
    pub fn new(model: &Model) -> Prices {
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

    /// That an item is a match, or not, in a context of the model's.
    pub fn is_match(&self, context: usize, bit: usize) -> u32 {
        self.is_match[context][bit]
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

/// The price of an event of the probability `p` / 65536, in 1/16 bits.
pub fn cost(p: u32) -> u32 {
    // log2 by its integer part and four bits of a linear fraction, a little too much at most 1/16.
    let log = u32::BITS - 1 - p.leading_zeros();
    let fraction = (p << (16 - log) >> 12) & 15;
    (16 << 4) - (log << 4 | fraction)
}
