//! Bit streams: those that are read from their end to their start, as Zstandard does with everything that must be fast,
//! and the plain ones of table descriptions.

/// Why a part of a stream is damaged; the reader adds where.
pub type Damage = &'static str;

const WORD_BYTES: usize = size_of::<usize>();
/// The size of the word that bits are taken from.
pub const WORD_BITS: u32 = usize::BITS;
/// How many bits can be taken between two refills.
pub const BITS_A_REFILL: u32 = WORD_BITS - 7;

/// A stream read from its last bit to its first (RFC 8878, section 4.1).
///
/// Reading on beyond its start gives meaningless bits, which `is_spent` and `is_overrun` tell: whoever reads in a loop
/// asks once, after it.
pub struct BackwardBits<'a> {
    bytes: &'a [u8],
    /// Where in `bytes` the word was loaded from.
    at: usize,
    word: usize,
    /// Bits of the word that have been taken, counted from its highest.
    used: u32,
}

impl<'a> BackwardBits<'a> {
    /// The stream in `bytes`, whose last set bit is the mark of its end.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Damage> {
        let last = match bytes.last() {
            None | Some(0) => return Err("zstd bit stream has no end mark near"),
            Some(last) => last,
        };
        let at = bytes.len().saturating_sub(WORD_BYTES);
        let missing_bytes = WORD_BYTES - (bytes.len() - at);
        let used = 8 * missing_bytes as u32 + last.leading_zeros() + 1;
        Ok(BackwardBits { bytes, at, word: load(bytes, at), used })
    }

    /// Makes `BITS_A_REFILL` bits ready, or all that are left.
    #[inline(always)]
    pub fn refill(&mut self) {
        let spent_bytes = (self.used >> 3) as usize;
        if spent_bytes <= self.at {
            self.at -= spent_bytes;
            self.used &= 7;
        } else {
            self.used -= 8 * self.at as u32;
            self.at = 0;
        }
        self.word = load(self.bytes, self.at);
    }

    /// The next bits as the highest of a word.
    #[inline(always)]
    pub fn ahead(&self) -> usize {
        self.word.wrapping_shl(self.used)
    }

    /// Passes over `count` bits.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.used += count;
    }

    /// Takes `count` bits, fewer than a word has.
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> usize {
        // Two shifts, for one by all bits of the word would be none.
        let bits = (self.ahead() >> 1).wrapping_shr(WORD_BITS - 1 - count);
        self.used += count;
        bits
    }

    /// Whether every bit was taken, and none beyond.
    pub fn is_spent(&self) -> bool {
        self.at == 0 && self.used == WORD_BITS
    }

    /// Whether more was taken than there was.
    pub fn is_overrun(&self) -> bool {
        self.used > WORD_BITS
    }
}

/// The little-endian word at `at`, with zeros for what is missing of it.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(word) => usize::from_le_bytes(*word),
        None => bytes.iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte)),
    }
}

/// A stream read from its first bit, the lowest of its first byte.
pub struct ForwardBits<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl<'a> ForwardBits<'a> {
    /// The stream in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        ForwardBits { bytes, bit: 0 }
    }

    /// The next `count` bits, at most 16, without passing over them; zeros stand beyond the end.
    pub fn peek(&self, count: u32) -> u32 {
        let byte = |index: usize| u32::from(self.bytes.get(index).copied().unwrap_or(0));
        let at = self.bit / 8;
        let word = byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16;
        word >> (self.bit % 8) & ((1 << count) - 1)
    }

    /// Passes over `count` bits.
    pub fn skip(&mut self, count: u32) {
        self.bit += count as usize;
    }

    /// Takes `count` bits, at most 16.
    pub fn take(&mut self, count: u32) -> u32 {
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// How many bytes have been begun, or an error if there are not so many.
    pub fn bytes_used(&self) -> Result<usize, Damage> {
        let used = self.bit.div_ceil(8);
        if used <= self.bytes.len() { Ok(used) } else { Err("zstd table is cut off near") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_every_bit_once_from_the_end() {
        for length in 1..40 {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37 + 11) as u8 | 1).collect();
            let whole: Vec<bool> =
                (0..length * 8).map(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1).collect();
            let mark = whole.iter().rposition(|&bit| bit).unwrap();
            for step in [1, 5, 11, 24] {
                let mut bits = BackwardBits::new(&bytes).unwrap();
                let mut left = mark;
                while left >= step {
                    let taken = bits.take(step as u32);
                    let expected =
                        (0..step).fold(0, |value, i| value << 1 | usize::from(whole[left - 1 - i]));
                    assert_eq!(taken, expected, "{length} bytes, {step} bits, {left} left");
                    left -= step;
                    assert!(!bits.is_overrun());
                    bits.refill();
                }
                assert_eq!(bits.is_spent(), left == 0);
                bits.take(left as u32);
                assert!(bits.is_spent() && !bits.is_overrun());
                bits.take(1);
                assert!(bits.is_overrun());
            }
        }
        assert!(BackwardBits::new(&[]).is_err());
        assert!(BackwardBits::new(&[1, 0]).is_err());
    }

    #[test]
    fn gives_bits_from_the_start() {
        let mut bits = ForwardBits::new(&[0b1010_0101, 0xff, 0x01]);
        assert_eq!([bits.take(4), bits.take(3), bits.take(10)], [0b0101, 0b010, 0x3ff]);
        assert_eq!(bits.bytes_used(), Ok(3));
        bits.take(9);
        assert!(bits.bytes_used().is_err());
    }
}
