//! The output that matches may refer to: laps over one buffer that holds a window and two blocks.
//!
//! A block is always decoded into one piece: when the next one might not fit behind the last, the lap ends and a new one
//! begins at the front. What a match may refer to is then at most in two pieces: this lap, and the end of the last.

use super::bits::Damage;

/// How many bytes behind a block may be overwritten by copies in whole steps.
const STEP_BYTES: usize = 16;

/// The window of one frame after the other. The buffer grows with what was really decoded, and is let go where the next
/// frame has a window of another size.
pub struct Window {
    bytes: Vec<u8>,
    /// The end of what was decoded in this lap.
    at: usize,
    /// The end of the last lap; 0 in the first.
    last_lap: usize,
    window_bytes: usize,
    /// The most that one block decodes to.
    block_bytes: usize,
}

impl Window {
    /// One that `begin` must be called on.
    pub fn new() -> Self {
        Window { bytes: Vec::new(), at: 0, last_lap: 0, window_bytes: 0, block_bytes: 0 }
    }

    /// Forgets everything, for a frame with such a window and such blocks, and `past` before the next byte.
    pub fn begin(&mut self, window_bytes: usize, block_bytes: usize, past: Vec<u8>) {
        self.at = past.len();
        self.last_lap = 0;
        if window_bytes != self.window_bytes || !past.is_empty() {
            self.bytes = past;
        }
        self.window_bytes = window_bytes;
        self.block_bytes = block_bytes;
    }

    /// Makes room for a block behind what there is. Returns where it begins.
    pub fn begin_block(&mut self) -> usize {
        let room = self.block_bytes + STEP_BYTES;
        // Two blocks more than the window: what the block overwrites is older than all that it may refer to.
        let limit = self.window_bytes + 2 * room;
        if self.at + room > limit {
            self.last_lap = self.at;
            self.at = 0;
        }
        let needed = self.at + room;
        if needed > self.bytes.len() {
            if needed > self.bytes.capacity() {
                let target = needed.max((2 * self.bytes.capacity()).min(limit));
                self.bytes.reserve_exact(target - self.bytes.len());
            }
            self.bytes.resize(needed, 0);
        }
        self.at
    }

    /// Where the next byte comes to stand.
    pub fn end(&self) -> usize {
        self.at
    }

    /// What was decoded between two places of one block.
    pub fn slice(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Room for `count` bytes of the block, which the caller fills; no more than the block has left in all.
    pub fn extend(&mut self, count: usize) -> &mut [u8] {
        let start = self.at;
        self.at += count;
        &mut self.bytes[start..start + count]
    }

    /// Appends `source[from..from + length]`, which must lie within, and the block must have room for it.
    #[inline(always)]
    pub fn append(&mut self, source: &[u8], from: usize, length: usize) {
        let at = self.at;
        self.at += length;
        if length <= STEP_BYTES
            && let Some(step) = source.get(from..from + STEP_BYTES)
            && let Some(target) = self.bytes.get_mut(at..at + STEP_BYTES)
        {
            target.copy_from_slice(step);
            return;
        }
        self.bytes[at..at + length].copy_from_slice(&source[from..from + length]);
    }

    /// Appends what stands `offset` bytes before the end, for `length` bytes, which may run into what is being
    /// appended. The block must have room for it. The offset may come from anywhere.
    #[inline(always)]
    pub fn repeat(&mut self, offset: usize, length: usize) -> Result<(), Damage> {
        let at = self.at;
        if offset > self.window_bytes || offset == 0 {
            return Err("zstd match lies before the window near");
        }
        if offset > at {
            return self.repeat_last_lap(offset - at, length);
        }
        self.at += length;
        let from = at - offset;
        if offset >= STEP_BYTES && length <= 4 * STEP_BYTES {
            let mut done = 0;
            while done < length {
                let step = from + done;
                self.bytes.copy_within(step..step + STEP_BYTES, at + done);
                done += STEP_BYTES;
            }
        } else {
            copy_pattern(&mut self.bytes, from, at, length);
        }
        Ok(())
    }

    /// The same where the match begins `before` bytes before the front of the buffer: at the end of the last lap.
    fn repeat_last_lap(&mut self, before: usize, length: usize) -> Result<(), Damage> {
        let Some(from) = self.last_lap.checked_sub(before) else {
            return Err("zstd match lies before the start of the frame near");
        };
        let count = before.min(length);
        self.bytes.copy_within(from..from + count, self.at);
        self.at += count;
        if length > count {
            // The match goes on at the front, all of which has been decoded.
            copy_pattern(&mut self.bytes, 0, self.at, length - count);
            self.at += length - count;
        }
        Ok(())
    }
}

/// Copies to `at` what stands at `from`, and repeats it when it runs into itself: in pieces that double.
fn copy_pattern(bytes: &mut [u8], from: usize, mut at: usize, mut length: usize) {
    let mut ready = at - from;
    while length > 0 {
        let count = ready.min(length);
        bytes.copy_within(from..from + count, at);
        at += count;
        length -= count;
        ready += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the plain way: one byte after the other, on a buffer without end.
    #[test]
    fn repeats_as_byte_by_byte() {
        let mut state = 0x2545_f491_u32;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % below
        };
        for window_bytes in [1, 10, 100, 1000, 5000] {
            let block_bytes = window_bytes.min(300);
            let mut plain = Vec::new();
            let mut window = Window::new();
            window.begin(window_bytes, block_bytes, Vec::new());
            for _ in 0..500 {
                let start = window.begin_block();
                let mut left = block_bytes;
                while left > 0 {
                    let length = 1 + random(left);
                    let literals = if plain.is_empty() { length } else { random(length) };
                    let bytes: Vec<u8> = (0..literals).map(|_| random(256) as u8).collect();
                    window.append(&bytes, 0, literals);
                    plain.extend(&bytes);
                    left -= literals;
                    let reach = window_bytes.min(plain.len());
                    if reach > 0 {
                        let offset = 1 + random(reach);
                        window.repeat(offset, length - literals).unwrap();
                        for _ in literals..length {
                            plain.push(plain[plain.len() - offset]);
                        }
                        left -= length - literals;
                    }
                }
                let got = window.slice(start..window.end());
                assert!(got == &plain[plain.len() - block_bytes..], "window of {window_bytes}");
            }
            assert!(window.bytes.capacity() <= window_bytes + 2 * (block_bytes + STEP_BYTES));
        }
    }

    #[test]
    fn refuses_what_is_not_there() {
        let mut window = Window::new();
        window.begin(100, 50, b"abc".to_vec());
        window.begin_block();
        for offset in [0, 4, 101, usize::MAX] {
            assert!(window.repeat(offset, 1).is_err(), "{offset}");
        }
        window.repeat(3, 5).unwrap();
        assert_eq!(window.slice(0..window.end()), b"abcabcab");
    }
}
