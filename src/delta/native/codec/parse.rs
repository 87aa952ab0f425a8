//! Which matches to take: the cheapest way through a stretch of the column, by the model's prices as they stand.
//!
//! Positions are indexed by the hash of their next bytes, in chains; at each position the longest matches of growing
//! length are weighed against literals and the remembered distances, as LZMA's encoder does it.

use super::model::{Model, after};
use super::prices::Prices;
use super::{MAX_MATCH, MIN_MATCH, REPS};
use crate::delta::native::common;

/// A literal (`distance` 0, the byte in `length`) or a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// How far back, or 0.
    pub distance: usize,
    /// How long, or the byte.
    pub length: usize,
}

impl Item {
    /// Stands for what is not known yet, in the decoder.
    pub const ANY: Item = Item { distance: 0, length: 0 };
}

/// Positions that are decided together.
const STRETCH: usize = 2048;
/// How much is done to find the cheapest items.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Candidates looked at for a position.
    max_chain: usize,
    /// A match so long is taken at once.
    nice_length: usize,
    /// Literals cost what all of their contexts together say; if not, what the byte before them says.
    is_exact: bool,
}

impl Effort {
    /// For a delta, which is all that is sent.
    pub const BEST: Effort = Effort { max_chain: 96, nice_length: 128, is_exact: true };
    /// For an index, of which only a part is sent, and of which there is more to pack: 1 % more bytes.
    pub const QUICK: Effort = Effort { max_chain: 16, nice_length: 32, is_exact: false };
}

/// The logarithm of the number of chains.
const HASH_BITS: u32 = 17;

/// Gives all items of `raw` from `start` on in order to `emit`, which codes them: the model learns in between. What `finder` finds is
/// of `raw`, which may be longer each time and is otherwise the same.
pub fn items(
    raw: &[u8],
    start: usize,
    finder: &mut Finder,
    model: &mut Model,
    emit: &mut dyn FnMut(&mut Model, usize, Item) -> Item,
) {
    let mut at = start;
    while at < raw.len() {
        let path = stretch(raw, at, model, finder);
        for item in path {
            emit(model, at, item);
            at += if item.distance == 0 { 1 } else { item.length };
        }
    }
}

/// How a position was reached most cheaply.
#[derive(Clone, Copy)]
struct Node {
    price: u32,
    item: Item,
    state: usize,
    reps: [usize; REPS],
}

/// The cheapest items from `start` to somewhere behind it.
fn stretch(raw: &[u8], start: usize, model: &Model, finder: &mut Finder) -> Vec<Item> {
    let end = raw.len().min(start + STRETCH);
    let unreached = Node { price: u32::MAX, item: Item::ANY, state: 0, reps: [1; REPS] };
    let mut nodes = vec![unreached; end - start + MAX_MATCH + 1];
    nodes[0] = Node { price: 0, state: model.state, reps: model.reps, ..unreached };
    let prices = Prices::new(model);
    let (mut matches, mut last) = (Vec::new(), end - start);
    let mut index = 0;
    while start + index < end {
        let at = start + index;
        let node = nodes[index];
        let mut reach =
            |length: usize, price: u32, item: Item, state: usize, reps: [usize; REPS]| {
                let to = &mut nodes[index + length];
                if price < to.price {
                    *to = Node { price, item, state, reps };
                }
            };
        let literal = Item { distance: 0, length: raw[at].into() };
        let context = model.match_context(node.state, at);
        let no_match = node.price + prices.is_match(context, 0);
        let price = no_match + model.literals.price(raw, at, model.place(), finder.effort.is_exact);
        reach(1, price, literal, after::literal(node.state), node.reps);

        let limit = MAX_MATCH.min(raw.len() - at);
        let is_match = node.price + prices.is_match(context, 1);
        let mut longest_rep = 0;
        for (which, &distance) in node.reps.iter().enumerate() {
            let length = match_length(raw, at, distance, limit);
            longest_rep = longest_rep.max(length);
            let mut reps = node.reps;
            reps[..=which].rotate_right(1);
            if which == 0 && length > 0 {
                let price = is_match + prices.short_rep(node.state);
                reach(1, price, Item { distance, length: 1 }, after::short_rep(node.state), reps);
            }
            let state = after::rep(node.state);
            let price = is_match + prices.rep(node.state, which);
            for length in MIN_MATCH..=length {
                reach(
                    length,
                    price + prices.length(1, length),
                    Item { distance, length },
                    state,
                    reps,
                );
            }
        }
        finder.find(raw, at, limit, &mut matches);
        let state = after::new_distance(node.state);
        let price = is_match + prices.new_distance(node.state);
        let mut from = MIN_MATCH;
        for &Item { distance, length: longest } in &matches {
            let reps = [distance, node.reps[0], node.reps[1], node.reps[2]];
            for length in from..=longest {
                let price = price + prices.length(0, length) + prices.distance(length, distance);
                reach(length, price, Item { distance, length }, state, reps);
            }
            from = longest + 1;
        }
        let longest = matches.last().map_or(0, |found| found.length).max(longest_rep);
        if longest >= finder.effort.nice_length {
            last = index + longest;
            break;
        }
        index += 1;
    }
    finder.skip_to(raw, start + last);
    let mut path = Vec::new();
    let mut at = last;
    while at > 0 {
        let item = nodes[at].item;
        path.push(item);
        at -= if item.distance == 0 { 1 } else { item.length };
    }
    path.reverse();
    path
}

/// How far `raw` at `at` is what it was `distance` bytes before, up to `limit`.
fn match_length(raw: &[u8], at: usize, distance: usize, limit: usize) -> usize {
    let Some(from) = at.checked_sub(distance) else { return 0 };
    common(&raw[at..at + limit], &raw[from..from + limit])
}

/// Chains of the positions whose next bytes have the same hash: of three bytes, and of five.
pub struct Finder {
    heads: [Vec<u32>; 2],
    chains: [Vec<u32>; 2],
    /// Positions before this are in the chains.
    indexed: usize,
    /// Positions before this are out of reach.
    pub floor: usize,
    effort: Effort,
}

/// No position.
const NONE: u32 = u32::MAX;

impl Finder {
    /// For `length` bytes at most.
    pub fn new(length: usize, effort: Effort) -> Self {
        let (heads, chain) = (vec![NONE; 1 << HASH_BITS], vec![NONE; length]);
        let (heads, chains) = ([heads.clone(), heads], [chain.clone(), chain]);
        Finder { heads, chains, indexed: 0, floor: 0, effort }
    }

    fn hash(raw: &[u8], which: usize, at: usize) -> Option<usize> {
        let length = [3, 5][which];
        let bytes = raw.get(at..at + length)?;
        let value = bytes.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        Some((value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)) as usize)
    }

    fn skip_to(&mut self, raw: &[u8], end: usize) {
        while self.indexed < end {
            let at = self.indexed;
            for which in 0..2 {
                if let Some(hash) = Self::hash(raw, which, at) {
                    self.chains[which][at] = self.heads[which][hash];
                    self.heads[which][hash] = at as u32;
                }
            }
            self.indexed += 1;
        }
    }

    /// The matches at `at`, each longer than the one before and the nearest of its length.
    fn find(&mut self, raw: &[u8], at: usize, limit: usize, matches: &mut Vec<Item>) {
        self.skip_to(raw, at);
        matches.clear();
        let mut longest = MIN_MATCH - 1;
        for (which, most) in [(0, 8), (1, self.effort.max_chain)] {
            let Some(hash) = Self::hash(raw, which, at) else { continue };
            let mut candidate = self.heads[which][hash];
            for _ in 0..most {
                let from = candidate as usize;
                if candidate == NONE || from < self.floor || longest >= limit {
                    break;
                }
                // A longer match has to have the byte behind the longest one.
                if raw[from + longest.min(limit - 1)] == raw[at + longest.min(limit - 1)] {
                    let length = match_length(raw, at, at - from, limit);
                    if length > longest {
                        longest = length;
                        matches.push(Item { distance: at - from, length });
                    }
                }
                candidate = self.chains[which][from];
            }
        }
    }
}
