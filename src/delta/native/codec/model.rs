//! What both sides learn, and how an item is told by it: flags, lengths and distances as in LZMA.

use super::coder::{Coder, Counter, simple, tree};
use super::literals::{Literals, Place};
use super::parse::Item;
use super::{MIN_MATCH, REPS};

/// Bytes before a start that literals learn from, if what follows is not much shorter: they cost time, and make short pieces
/// smaller. It is part of the format.
const PRIMED_BYTES: usize = 8 << 10;

/// Of what is learned of a piece and before it, tables of contexts have room for one in so many: they stay in the cache. Part of the format.
const TABLE_SHARE: usize = 4;
/// States of LZMA's automaton of what the last items were.
pub const STATES: usize = 12;

/// The state after an item, given the one before.
pub mod after {
    pub fn literal(state: usize) -> usize {
        match state {
            0..4 => 0,
            4..10 => state - 3,
            _ => state - 6,
        }
    }

    pub fn new_distance(state: usize) -> usize {
        if state < 7 { 7 } else { 10 }
    }

    pub fn rep(state: usize) -> usize {
        if state < 7 { 8 } else { 11 }
    }

    pub fn short_rep(state: usize) -> usize {
        if state < 7 { 9 } else { 11 }
    }
}

/// Everything that both sides learn.
pub struct Model {
    pub is_match: [Counter; STATES * 4],
    pub is_rep: [[Counter; STATES]; REPS + 1],
    pub length: [Lengths; 2],
    pub slots: [[Counter; 64]; 4],
    footer: [[Counter; 64]; 64],
    align: [Counter; 16],
    pub literals: Literals,
    /// Where what it is for begins.
    start: usize,
    /// What the last items were.
    pub state: usize,
    /// The last distances, the last first.
    pub reps: [usize; REPS],
}

/// The counters of lengths.
pub struct Lengths {
    pub choice: [Counter; 2],
    pub low: [[Counter; 8]; 2],
    pub high: [Counter; 256],
}

impl Model {
    /// For a column of `length` bytes.
    pub fn new(length: usize) -> Model {
        Model::with(Literals::new(length))
    }

    fn with(literals: Literals) -> Model {
        let lengths = || Lengths {
            choice: [Counter::EVEN; 2],
            low: [[Counter::EVEN; 8]; 2],
            high: [Counter::EVEN; 256],
        };
        Model {
            is_match: [Counter::EVEN; STATES * 4],
            is_rep: [[Counter::EVEN; STATES]; REPS + 1],
            length: [lengths(), lengths()],
            slots: [[Counter::EVEN; 64]; 4],
            footer: [[Counter::EVEN; 64]; 64],
            align: [Counter::EVEN; 16],
            literals,
            start: 0,
            state: 0,
            reps: [1; REPS],
        }
    }

    /// For `length` bytes behind the first `start` of `raw`, of the last of which it has learned; in the memory of another.
    pub fn after(self, raw: &[u8], start: usize, length: usize) -> Model {
        let primed = start.min(PRIMED_BYTES).min(8 * length);
        let mut literals = self.literals;
        literals.begin((length + primed) / TABLE_SHARE);
        let mut model = Model { start, ..Model::with(literals) };
        let mut nowhere = Coder::Encode { low: 0, high: u32::MAX, out: Vec::new() };
        for at in start - primed..start {
            model.literals.code(&mut nowhere, raw, at, model.place(), raw[at]);
        }
        model
    }

    /// What a literal depends on besides the bytes before it.
    pub fn place(&self) -> Place {
        Place { state: self.state, distance: self.reps[0] }
    }

    /// In what context the item at `at` in `state` is a match or not.
    pub fn match_context(&self, state: usize, at: usize) -> usize {
        state * 4 + ((at - self.start) & 3)
    }

    /// Codes the item at `at`, where `raw` has at least the bytes before; gives what was coded.
    pub fn item(&mut self, coder: &mut Coder, raw: &[u8], at: usize, item: Item) -> Item {
        let context = self.match_context(self.state, at);
        if simple(coder, &mut self.is_match[context], u32::from(item.distance != 0)) == 0 {
            let place = self.place();
            let byte = self.literals.code(coder, raw, at, place, item.length as u8);
            self.state = after::literal(self.state);
            return Item { distance: 0, length: byte.into() };
        }
        let before = self.state;
        let known = self.reps.iter().position(|&rep| rep == item.distance);
        let is_known = item.distance != 0 && known.is_some();
        if simple(coder, &mut self.is_rep[0][before], is_known.into()) == 0 {
            self.state = after::new_distance(before);
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
            self.state = after::short_rep(before);
            return Item { distance, length: 1 };
        }
        self.state = after::rep(before);
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
}

/// LZMA's slot of a distance less one: twice the logarithm, and the next bit.
pub fn slot(value: u32) -> u32 {
    if value < 4 {
        return value;
    }
    let log = u32::BITS - 1 - value.leading_zeros();
    log << 1 | value >> (log - 1) & 1
}
