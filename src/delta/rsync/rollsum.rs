//! The weak sum of rsync: two sums modulo 2^16 that can slide along a stream.
//!
//! With every byte raised by 31, `s1` is the sum of the bytes and `s2` the sum of all values that `s1` took; the
//! digest is `s2 << 16 | s1`.

use super::BLOCK_BYTES;

/// What librsync adds to every byte, so that runs of zeros of different lengths differ.
const CHAR_OFFSET: u32 = 31;

/// The weak sum of some bytes. The halves are kept in 32 bits each; only their low 16 bits mean anything.
#[derive(Clone, Copy)]
pub struct Rollsum {
    s1: u32,
    s2: u32,
}

impl Rollsum {
    /// The sum of `bytes`.
    pub fn of(bytes: &[u8]) -> Rollsum {
        let mut sum = Rollsum { s1: 0, s2: 0 };
        bytes.iter().for_each(|&byte| sum.roll_in(byte));
        sum
    }

    /// Takes in the byte behind.
    #[inline(always)]
    pub fn roll_in(&mut self, byte: u8) {
        self.s1 = self.s1.wrapping_add(u32::from(byte) + CHAR_OFFSET);
        self.s2 = self.s2.wrapping_add(self.s1);
    }

    /// Lets go of `byte`, the first of a window of `BLOCK_BYTES`.
    #[inline(always)]
    pub fn roll_out(&mut self, byte: u8) {
        let raised = u32::from(byte) + CHAR_OFFSET;
        self.s1 = self.s1.wrapping_sub(raised);
        self.s2 = self.s2.wrapping_sub(BLOCK_BYTES as u32 * raised);
    }

    /// The weak sum as librsync writes it.
    #[inline(always)]
    pub fn digest(self) -> u32 {
        self.s2 << 16 | (self.s1 & 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_librsync_does() {
        // s1 = sum of (b + 31), s2 = sum of its prefixes, by hand.
        for (bytes, digest) in [
            (&b""[..], 0),
            (&[0], 31 << 16 | 31),
            (&[1, 2, 3], (32 + 65 + 99) << 16 | 99),
            (&[255; 300], (((286 * (300 * 301 / 2)) % 65536) << 16) | ((286 * 300) % 65536)),
        ] {
            assert_eq!(Rollsum::of(bytes).digest(), digest, "{bytes:?}");
        }
    }

    #[test]
    fn rolls_to_the_sum_of_the_window() {
        let bytes: Vec<u8> = (0..2000_u32).map(|i| (i * i / 7 % 256) as u8).collect();
        let mut sum = Rollsum::of(&bytes[..BLOCK_BYTES]);
        for start in 1..=bytes.len() - BLOCK_BYTES {
            sum.roll_out(bytes[start - 1]);
            sum.roll_in(bytes[start + BLOCK_BYTES - 1]);
            let fresh = Rollsum::of(&bytes[start..start + BLOCK_BYTES]);
            assert_eq!(sum.digest(), fresh.digest(), "window at {start}");
        }
    }
}
