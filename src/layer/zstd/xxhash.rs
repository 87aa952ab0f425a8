//! XXH64, the content checksum of Zstandard frames (xxHash fast digest algorithm, version 0.1.1), with seed 0.

use serde::{Deserialize, Serialize};

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

const STRIPE_BYTES: usize = 32;

/// A running XXH64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Xxh64 {
    lanes: [u64; 4],
    /// The begun stripe; how much of it is filled follows from the total.
    stripe: [u8; STRIPE_BYTES],
    total_bytes: u64,
}

impl Xxh64 {
    /// The checksum of no bytes.
    pub fn new() -> Self {
        Xxh64 {
            lanes: [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg()],
            stripe: [0; STRIPE_BYTES],
            total_bytes: 0,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let filled = self.filled();
        self.total_bytes = self.total_bytes.wrapping_add(bytes.len() as u64);
        if filled > 0 {
            let space = &mut self.stripe[filled..];
            let (now, later) = bytes.split_at(space.len().min(bytes.len()));
            space[..now.len()].copy_from_slice(now);
            if now.len() < space.len() {
                return;
            }
            let stripe = self.stripe;
            self.mix(&stripe);
            bytes = later;
        }
        let (stripes, rest) = bytes.as_chunks();
        for stripe in stripes {
            self.mix(stripe);
        }
        self.stripe[..rest.len()].copy_from_slice(rest);
    }

    /// The checksum of what was taken in.
    pub fn value(&self) -> u64 {
        let mut hash = match self.total_bytes >= STRIPE_BYTES as u64 {
            true => self.merged_lanes(),
            false => PRIME_5,
        };
        hash = hash.wrapping_add(self.total_bytes);
        let (words, rest) = self.stripe[..self.filled()].as_chunks();
        for word in words {
            hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27);
            hash = hash.wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        let (halves, rest) = rest.as_chunks();
        for half in halves {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
            hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        }
        for &byte in rest {
            hash ^= u64::from(byte).wrapping_mul(PRIME_5);
            hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
        hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
        hash ^ hash >> 32
    }

    fn filled(&self) -> usize {
        self.total_bytes as usize % STRIPE_BYTES
    }

    fn mix(&mut self, stripe: &[u8; STRIPE_BYTES]) {
        let (words, _) = stripe.as_chunks();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }

    fn merged_lanes(&self) -> u64 {
        let [a, b, c, d] = self.lanes;
        let turned = [a.rotate_left(1), b.rotate_left(7), c.rotate_left(12), d.rotate_left(18)];
        let sum = turned.into_iter().fold(0, u64::wrapping_add);
        self.lanes.iter().fold(sum, |hash, &lane| {
            (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
        })
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation's command (`xxhsum -H64`).
    #[test]
    fn matches_the_reference_in_one_piece_and_in_many() {
        let long: Vec<u8> = (0..1000_u32).map(|i| (i * 7) as u8).collect();
        for (bytes, expected) in [
            (&b""[..], 0xef46_db37_51d8_e999),
            (b"a", 0xd24e_c4f1_a98c_6e5b),
            (b"abc", 0x44bc_2cf5_ad77_0999),
            (b"Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
        ] {
            let mut hash = Xxh64::new();
            hash.update(bytes);
            assert_eq!(hash.value(), expected, "{bytes:?}");
        }
        let mut whole = Xxh64::new();
        whole.update(&long);
        for step in [1, 3, 31, 32, 33, 100] {
            let mut parts = Xxh64::new();
            long.chunks(step).for_each(|part| parts.update(part));
            assert_eq!(parts.value(), whole.value(), "steps of {step}");
        }
    }
}
