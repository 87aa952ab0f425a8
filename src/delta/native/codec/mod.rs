//! The compressor of a delta's columns: LZ77 under a binary arithmetic coder, literals predicted by mixed contexts.
//!
//! What is left of an update once everything that is old has been taken out is small and hard, so its bytes are worth
//! more processor time than a layer's: matches and their distances are coded as LZMA codes them, and each bit of a
//! literal by a mixture of predictions, of contexts of the last zero to three bytes and of the byte that the last match
//! would have gone on with (the logistic mixing of the PAQ family). Against `xz -9e` that was 0.4 to 4 % less on a program,
//! scripts, texts and names, and 3 % more on the first 60 KB of that program.
//!
//! Encoder and decoder are the same code (`model`, `literals`): each decision goes through `Coder::bit` (`coder`), which
//! writes it or reads it. The encoder adds the search for the cheapest items (`parse`, `prices`).
//!
//! # Format
//!
//! The raw length is known from outside; `Model::new(raw length)` and the decisions below define everything else. What was before a
//! piece that is packed by itself (`Packer`) may be copied from, and literals have learned its last bytes (`Model::after`).
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

mod coder;
mod literals;
mod model;
mod parse;
mod prices;

use coder::Coder;
use model::Model;
use parse::{Finder, Item};

pub use parse::Effort;

/// The longest match.
pub const MAX_MATCH: usize = 273;
/// The shortest.
pub const MIN_MATCH: usize = 2;
/// How many distances are remembered.
pub const REPS: usize = 4;

/// Compresses a column.
pub fn encode(raw: &[u8]) -> Vec<u8> {
    pack(raw, 0, &mut Finder::new(raw.len(), Effort::BEST), &mut Model::new(raw.len()))
}

fn pack(raw: &[u8], start: usize, finder: &mut Finder, model: &mut Model) -> Vec<u8> {
    let mut coder = Coder::Encode { low: 0, high: u32::MAX, out: Vec::new() };
    parse::items(raw, start, finder, model, &mut |model, at, item| {
        model.item(&mut coder, raw, at, item)
    });
    coder.finish()
}

/// Compresses one piece after another of the same bytes.
pub struct Packer {
    finder: Finder,
    model: Option<Model>,
}

impl Packer {
    /// For `length` bytes, of which it takes eight times as much memory, and 2 MiB.
    pub fn new(length: usize, effort: Effort) -> Packer {
        Packer { finder: Finder::new(length, effort), model: None }
    }

    /// Compresses what `raw` has from `start` on, for a reader that has what is before, from `floor` on: matches may reach there,
    /// and the literals' contexts have learned its last bytes (`Model::after`). `raw` begins with that of the piece before.
    pub fn pack(&mut self, raw: &[u8], start: usize, floor: usize) -> Vec<u8> {
        let spare = self.model.take().unwrap_or_else(|| Model::new(0));
        let model = self.model.insert(spare.after(raw, start, raw.len() - start));
        self.finder.floor = floor;
        pack(raw, start, &mut self.finder, model)
    }
}

/// Gives back one piece after another.
#[derive(Default)]
pub struct Unpacker(Option<Model>);

impl Unpacker {
    /// Appends to `raw`, what was before them, the `length` bytes that `Packer::pack` made `packed` of; as `decode`.
    pub fn unpack(&mut self, raw: &mut Vec<u8>, packed: &[u8], length: usize) -> Option<()> {
        let spare = self.0.take().unwrap_or_else(|| Model::new(0));
        let model = self.0.insert(spare.after(raw, raw.len(), length));
        unpack(raw, packed, length, model)
    }
}

/// Whether there is nothing to gain: every byte as likely as any other, and nothing that comes twice. Each byte of such a column
/// would take the encoder as long as ten others.
pub fn is_noise(raw: &[u8]) -> bool {
    const MIN_BYTES: usize = 4096;
    const SAMPLES: usize = 1 << 12;
    let mut counts = [0_u64; 256];
    raw.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    // Of n random bytes n * n / 256 + n are expected, and compressed ones are near that.
    let (length, expected) = (raw.len() as u64, (raw.len() as u64).pow(2) / 256);
    if raw.len() < MIN_BYTES || squares > expected + expected / 64 + length {
        return false;
    }
    let (mut table, mut samples, mut repeats) = (vec![0; SAMPLES], 0_u32, 0_u32);
    for window in raw.windows(8) {
        // Cannot fail: windows of eight.
        let hash =
            u64::from_le_bytes(window.try_into().unwrap()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // One place in 64, chosen by what is there.
        if hash >> 58 == 0 {
            let last = &mut table[(hash >> 46) as usize % SAMPLES];
            repeats += u32::from(*last == hash);
            samples += 1;
            *last = hash;
        }
    }
    repeats <= samples / 64
}

/// The `length` bytes that `packed` was made of. `None` if it cannot have been made by `encode`: a match
/// that reaches before the start or past the end, or too few bytes. Wrong bytes are not noticed.
pub fn decode(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    unpack(&mut raw, packed, length, &mut Model::new(length)).map(|()| raw)
}

fn unpack(raw: &mut Vec<u8>, packed: &[u8], length: usize, model: &mut Model) -> Option<()> {
    let (first, rest) = packed.split_first_chunk::<4>()?;
    let mut coder =
        Coder::Decode { low: 0, high: u32::MAX, code: u32::from_be_bytes(*first), rest, over: 0 };
    raw.reserve_exact(length);
    let length = raw.len() + length;
    while raw.len() < length {
        let item = model.item(&mut coder, raw, raw.len(), Item::ANY);
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
    Some(())
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
        let text = include_bytes!("../references/scan.rs");
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
        assert!(is_noise(&noise) && !is_noise(text) && !is_noise(&noise[..1000]));
        let twice = [&noise[..], &noise].concat();
        assert!(!is_noise(&twice));
        assert!(check(&twice) < 30_700);
        let few: Vec<u8> = (0..30_000).map(|_| (random() % 3) as u8).collect();
        assert!(check(&few) < 7_000);
    }

    #[test]
    fn damage_is_an_end_not_a_panic() {
        let raw: Vec<u8> = include_bytes!("../references/scan.rs")[..3000].to_vec();
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
