//! The arithmetic coder, and probabilities that learn.

/// The arithmetic coder, in one of its two directions.
pub enum Coder<'a> {
    Encode { low: u32, high: u32, out: Vec<u8> },
    Decode { low: u32, high: u32, code: u32, rest: &'a [u8], over: u32 },
}

impl Coder<'_> {
    /// Codes `bit`, which has the probability `one` / 65536 of being 1 (0 < `one` < 65536); gives the bit that was coded.
    pub fn bit(&mut self, one: u32, bit: u32) -> u32 {
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

    /// Whether more was read than there is: of a whole column never, so some slack does no harm.
    pub fn is_over(&self) -> bool {
        matches!(self, Coder::Decode { over, .. } if *over > 4)
    }

    pub fn finish(self) -> Vec<u8> {
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
pub struct Counter(pub u32);

impl Counter {
    pub const EVEN: Counter = Counter(1 << 31);

    /// Of a 1, out of 65536.
    pub fn one(self) -> u32 {
        (self.0 >> 16).clamp(32, 65535 - 32)
    }

    /// Learns a bit: quickly at first, in the end by a share of 1 / (`limit` + 1.5).
    pub fn learn(&mut self, bit: u32, limit: u32) {
        let (value, count) = (self.0 >> 10, self.0 & 1023);
        let far = if bit == 1 { (1 << 22) - 1 - value } else { value };
        // Of 32 bits: a division of 64 is a long call on 32-bit ARM, and there are five for each bit of a literal.
        let step = 2 * far / (2 * count + 3);
        let value = if bit == 1 { value + step } else { value - step };
        self.0 = value << 10 | (count + 1).min(limit);
    }
}

/// How slowly the flags and numbers around matches learn.
const FLAG_LIMIT: u32 = 60;

/// Codes one bit by a counter alone.
pub fn simple(coder: &mut Coder, counter: &mut Counter, bit: u32) -> u32 {
    let bit = coder.bit(counter.one(), bit);
    counter.learn(bit, FLAG_LIMIT);
    bit
}

/// Codes `bits` bits of `value`, the highest first, each in the context of those before it.
pub fn tree(coder: &mut Coder, counters: &mut [Counter], bits: u32, value: u32) -> u32 {
    let mut node = 1;
    for at in (0..bits).rev() {
        let bit = simple(coder, &mut counters[node as usize], value >> at & 1);
        node = node << 1 | bit;
    }
    node - (1 << bits)
}
