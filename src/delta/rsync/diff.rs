//! From a signature and a target to a delta.
//!
//! One buffer holds, in this order: bytes that will be a literal, the window of one block that is being looked up, and
//! bytes read ahead. A literal's length stands before its bytes, so the buffer may grow to 16 MiB before it is written;
//! it grows only as far as the longest literal needs.

use std::io::{ErrorKind, Read, Write};

use super::rollsum::Rollsum;
use super::{BLOCK_BYTES, DELTA_MAGIC, OP_COPY_N1_N1, OP_END, OP_LITERAL_N1, Signature};
use crate::error::{Context, Result};
use crate::stream::Stream;

/// Where a literal is cut. librsync-go's limit: other limits make other bytes.
const MAX_LITERAL_BYTES: usize = 16 << 20;
/// How much of the target is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The buffer with the longest literal, a window that lacks its last byte, and a chunk.
const MAX_BUFFER_BYTES: usize = MAX_LITERAL_BYTES + BLOCK_BYTES + CHUNK_BYTES;

/// Writes the delta that makes `target` from the basis of `signature`, and returns its length in bytes. Takes up to
/// twice the memory of the longest literal, and never more than 16 MiB and 65 KiB. `out` gets many small writes.
pub fn diff(signature: &Signature, target: &mut dyn Stream, out: &mut dyn Write) -> Result<u64> {
    let mut ops = OpWriter { out, position: 0, length: 0, written_bytes: 0 };
    ops.write(&DELTA_MAGIC)?;
    let mut window = Window::new(target);
    while window.fill()? {
        let found = window.slide(signature);
        if found.is_some() || window.literal().len() == MAX_LITERAL_BYTES {
            ops.literal(window.literal())?;
            window.drop_literal();
        }
        if let Some(number) = found {
            ops.copy_block(number)?;
            window.skip_block();
        }
    }
    for literal in window.rest().chunks(MAX_LITERAL_BYTES) {
        ops.literal(literal)?;
    }
    ops.end()
}

/// The target as it passes by. `literal <= start <= end <= buffer.len()` holds at all times.
struct Window<'a> {
    target: &'a mut dyn Stream,
    buffer: Vec<u8>,
    /// Where the pending literal begins; it ends at `start`.
    literal: usize,
    /// Where the window begins.
    start: usize,
    /// Where what was read ends.
    end: usize,
    /// The sum of the window but for its last byte; none after a jump.
    sum: Option<Rollsum>,
    read_bytes: u64,
}

impl<'a> Window<'a> {
    fn new(target: &'a mut dyn Stream) -> Self {
        Window {
            target,
            buffer: Vec::new(),
            literal: 0,
            start: 0,
            end: 0,
            sum: None,
            read_bytes: 0,
        }
    }

    /// Reads on until the window is whole; false if the target ends before.
    fn fill(&mut self) -> Result<bool> {
        if self.end - self.start >= BLOCK_BYTES {
            return Ok(true);
        }
        self.make_room();
        while self.end - self.start < BLOCK_BYTES {
            match self.target.read(&mut self.buffer[self.end..self.end + CHUNK_BYTES]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.end += count.min(CHUNK_BYTES);
                    self.read_bytes += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = self.read_bytes;
                    return Err(error).context(|| format!("read target of the delta at byte {at}"));
                }
            }
        }
        Ok(true)
    }

    /// Moves what is still needed to the front and makes space for a window and a chunk.
    fn make_room(&mut self) {
        if self.literal > 0 {
            self.buffer.copy_within(self.literal..self.end, 0);
            self.start -= self.literal;
            self.end -= self.literal;
            self.literal = 0;
        }
        let needed = self.start + BLOCK_BYTES + CHUNK_BYTES;
        if self.buffer.len() < needed {
            let size = needed.max((2 * self.buffer.len()).min(MAX_BUFFER_BYTES));
            self.buffer.reserve_exact(size - self.buffer.len());
            self.buffer.resize(size, 0);
        }
    }

    /// Slides over what was read, until the window is a block of the basis or the literal is full; `fill` must have
    /// said that the window is whole.
    fn slide(&mut self, signature: &Signature) -> Option<u32> {
        let bytes = &self.buffer[self.start..self.end];
        let (mut sum, tails) = (self.sum.take(), &bytes[BLOCK_BYTES - 1..]);
        let sum = sum.get_or_insert_with(|| Rollsum::of(&bytes[..BLOCK_BYTES - 1]));
        let room = MAX_LITERAL_BYTES - (self.start - self.literal);
        let mut slid = 0;
        for (&head, &tail) in bytes.iter().zip(tails).take(room) {
            sum.roll_in(tail);
            let weak = sum.digest();
            if signature.may_contain(weak) {
                let found = signature.find(weak, &bytes[slid..slid + BLOCK_BYTES]);
                if found.is_some() {
                    self.start += slid;
                    return found;
                }
            }
            sum.roll_out(head);
            slid += 1;
        }
        self.start += slid;
        self.sum = Some(*sum);
        None
    }

    fn literal(&self) -> &[u8] {
        &self.buffer[self.literal..self.start]
    }

    fn drop_literal(&mut self) {
        self.literal = self.start;
    }

    /// Goes on behind the window, which matched.
    fn skip_block(&mut self) {
        self.start += BLOCK_BYTES;
        self.literal = self.start;
        self.sum = None;
    }

    /// The pending literal and the window that the target's end left incomplete.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.literal..self.end]
    }
}

/// Writes operations, joining copies that follow each other in the basis.
struct OpWriter<'a> {
    out: &'a mut dyn Write,
    /// The pending copy's place in the basis.
    position: u64,
    /// The pending copy's length; none is pending if it is 0.
    length: u64,
    written_bytes: u64,
}

impl OpWriter<'_> {
    fn copy_block(&mut self, number: u32) -> Result<()> {
        let position = u64::from(number) * BLOCK_BYTES as u64;
        if self.position + self.length != position {
            self.flush_copy()?;
            self.position = position;
        }
        self.length += BLOCK_BYTES as u64;
        Ok(())
    }

    fn literal(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.flush_copy()?;
        let length = bytes.len() as u64;
        let mut op = Operation::new(OP_LITERAL_N1 + width_index(length));
        op.push(length);
        self.write(op.bytes())?;
        self.write(bytes)
    }

    fn flush_copy(&mut self) -> Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let widths = 4 * width_index(self.position) + width_index(self.length);
        let mut op = Operation::new(OP_COPY_N1_N1 + widths);
        op.push(self.position);
        op.push(self.length);
        self.length = 0;
        self.write(op.bytes())
    }

    fn end(mut self) -> Result<u64> {
        self.flush_copy()?;
        self.write(&[OP_END])?;
        Ok(self.written_bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.written_bytes;
        self.out.write_all(bytes).context(|| format!("write delta at byte {at}"))?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// One operation and its operands: 17 bytes at most.
struct Operation {
    bytes: [u8; 17],
    length: usize,
}

impl Operation {
    fn new(op: u8) -> Operation {
        let mut bytes = [0; 17];
        bytes[0] = op;
        Operation { bytes, length: 1 }
    }

    /// Adds an operand in as few bytes as it needs.
    fn push(&mut self, value: u64) {
        let width = 1 << width_index(value);
        let end = self.length + width;
        self.bytes[self.length..end].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        self.length = end;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The base-2 logarithm of the fewest bytes, of 1, 2, 4 and 8, that hold `value`.
fn width_index(value: u64) -> u8 {
    match value {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn delta(basis: &[u8], target: &[u8]) -> Vec<u8> {
        let signature = Signature::of(&mut &basis[..]).unwrap();
        let mut out = Vec::new();
        let length = diff(&signature, &mut &target[..], &mut out).unwrap();
        assert_eq!(length, out.len() as u64);
        out
    }

    fn block(fill: u8) -> Vec<u8> {
        vec![fill; BLOCK_BYTES]
    }

    #[test]
    fn makes_the_expected_operations() {
        let basis: Vec<u8> = (0..=129).flat_map(block).collect();
        let ones = |count: usize| vec![200; count];
        for (name, target, ops) in [
            ("empty", vec![], vec![]),
            ("one byte", vec![7], vec![0x41, 1, 7]),
            ("the first block", block(0), [0x46, 0, 2, 0].to_vec()),
            ("two in a row", [block(1), block(2)].concat(), [0x4a, 2, 0, 4, 0].to_vec()),
            (
                "two out of order",
                [block(2), block(1)].concat(),
                [0x4a, 4, 0, 2, 0, 0x4a, 2, 0, 2, 0].to_vec(),
            ),
            ("position of four bytes", block(129), [0x4e, 0, 1, 2, 0, 2, 0].to_vec()),
            ("a copy of four bytes", basis.clone(), [0x47, 0, 0, 1, 4, 0].to_vec()),
            ("literal of 255", ones(255), [&[0x41, 255][..], &ones(255)].concat()),
            ("literal of 256", ones(256), [&[0x42, 1, 0][..], &ones(256)].concat()),
            ("literal of 65536", ones(65536), [&[0x43, 0, 1, 0, 0][..], &ones(65536)].concat()),
            (
                "shifted",
                [&[200][..], &block(3), &[200, 201]].concat(),
                [0x41, 1, 200, 0x4a, 6, 0, 2, 0, 0x41, 2, 200, 201].to_vec(),
            ),
        ] {
            let expected = [&DELTA_MAGIC[..], &ops, &[OP_END]].concat();
            assert!(delta(&basis, &target) == expected, "{name}");
        }
    }

    #[test]
    fn cuts_literals_at_sixteen_mebibytes() {
        let limit = MAX_LITERAL_BYTES;
        for extra in [0, 1, BLOCK_BYTES + 1] {
            let target = vec![9; limit + extra];
            let delta = delta(&block(1), &target);
            assert_eq!(delta[4..9], [0x43, 1, 0, 0, 0], "first of {extra}");
            let second = &delta[9 + limit..];
            let header: &[u8] = match extra {
                0 => &[],
                1 => &[0x41, 1],
                _ => &[0x42, 2, 1],
            };
            assert_eq!(&second[..header.len()], header);
            assert_eq!(second.len(), header.len() + extra + 1);
        }
    }

    #[test]
    fn a_match_right_after_a_full_literal() {
        let target = [vec![9; MAX_LITERAL_BYTES], block(1)].concat();
        let delta = delta(&block(1), &target);
        assert_eq!(delta[9 + MAX_LITERAL_BYTES..], [0x46, 0, 2, 0, OP_END]);
    }

    struct Fails(i32);

    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(self.0))
        }
    }

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(self.0))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failing_stream_is_an_error_with_its_place() {
        let signature = Signature::of(&mut &b""[..]).unwrap();
        let mut target = (&[1; 1000][..]).chain(Fails(5));
        let error = diff(&signature, &mut target, &mut Vec::new()).unwrap_err();
        let why = "read target of the delta at byte 1000: Input/output error (os error 5)";
        assert_eq!(error.to_string(), why);

        let error = diff(&signature, &mut &b""[..], &mut Fails(28)).unwrap_err();
        assert_eq!(error.kind(), Kind::NoSpace);
        let why = "write delta at byte 0: No space left on device (os error 28)";
        assert_eq!(error.to_string(), why);
    }
}
