//! From a basis and a delta to the target.
//!
//! Everything in a delta comes from outside: lengths and positions are held against the basis before a byte is copied,
//! and what cannot be read, from either side, is an error that says where. How long the target may become is for the
//! writer to limit: a few bytes can ask for the whole basis any number of times.

use std::io::{BufRead, BufReader, ErrorKind, Write};

use super::{
    DELTA_MAGIC, OP_COPY_N1_N1, OP_COPY_N8_N8, OP_END, OP_LITERAL_64, OP_LITERAL_N1, OP_LITERAL_N8,
};
use crate::delta::ReadAt;
use crate::error::{Context, Error, Kind, Result};
use crate::stream::Stream;

/// The two buffers, for delta and basis; also the longest write.
const BUFFER_BYTES: usize = 32 << 10;

/// Writes to `out` what `delta` makes of `basis`. Success means that the delta was well-formed, that nothing follows
/// it, and that every byte was read and written; not that the basis was the right one: the diff ID of what was written
/// tells. Takes 64 KiB of memory.
///
/// `Kind::Corrupt` if the delta is truncated, has unknown operations, copies from outside the basis or goes on after its
/// END; the kind of the cause if a stream fails.
pub fn patch(basis: &mut dyn ReadAt, delta: &mut dyn Stream, out: &mut dyn Write) -> Result<()> {
    let mut ops = OpReader { delta: BufReader::with_capacity(BUFFER_BYTES, delta), offset: 0 };
    let mut target = Target { out, written_bytes: 0 };
    let mut buffer = vec![0; BUFFER_BYTES];
    ops.check_magic()?;
    loop {
        match ops.next()? {
            Operation::End => return ops.check_end(),
            Operation::Literal { length } => ops.literal(length, &mut target)?,
            Operation::Copy { position, length } => {
                check_range(&ops, basis.size_bytes(), position, length)?;
                copy(basis, position, length, &mut buffer, &mut target)?;
            }
        }
    }
}

enum Operation {
    End,
    Literal { length: u64 },
    Copy { position: u64, length: u64 },
}

/// The delta, and how much of it was taken.
struct OpReader<'a> {
    delta: BufReader<&'a mut dyn Stream>,
    offset: u64,
}

impl OpReader<'_> {
    fn check_magic(&mut self) -> Result<()> {
        let magic = self.number(4)? as u32;
        if magic.to_be_bytes() == DELTA_MAGIC {
            return Ok(());
        }
        Err(corrupt(format!("delta begins with {magic:#010x}, not with librsync's magic number")))
    }

    fn next(&mut self) -> Result<Operation> {
        let offset = self.offset;
        match self.number(1)? as u8 {
            OP_END => Ok(Operation::End),
            length @ 1..=OP_LITERAL_64 => Ok(Operation::Literal { length: length.into() }),
            op @ OP_LITERAL_N1..=OP_LITERAL_N8 => {
                Ok(Operation::Literal { length: self.number(1 << (op - OP_LITERAL_N1))? })
            }
            op @ OP_COPY_N1_N1..=OP_COPY_N8_N8 => {
                let widths = op - OP_COPY_N1_N1;
                let position = self.number(1 << (widths >> 2))?;
                let length = self.number(1 << (widths & 3))?;
                Ok(Operation::Copy { position, length })
            }
            op => Err(corrupt(format!("delta has unknown operation {op:#04x} at byte {offset}"))),
        }
    }

    /// A big-endian number of `width` bytes, 8 at most.
    fn number(&mut self, width: usize) -> Result<u64> {
        let mut number = 0;
        for _ in 0..width {
            let [byte, ..] = *self.fill()? else { return Err(self.truncated()) };
            self.consume(1);
            number = number << 8 | u64::from(byte);
        }
        Ok(number)
    }

    fn literal(&mut self, length: u64, target: &mut Target) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let bytes = self.fill()?;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            target.write(&bytes[..count])?;
            if count == 0 {
                return Err(self.truncated());
            }
            self.consume(count);
            left -= count as u64;
        }
        Ok(())
    }

    fn check_end(mut self) -> Result<()> {
        if self.fill()?.is_empty() {
            return Ok(());
        }
        Err(corrupt(format!("delta goes on after its end at byte {}", self.offset)))
    }

    /// What is there already, or the next bytes; nothing at the end.
    fn fill(&mut self) -> Result<&[u8]> {
        loop {
            match self.delta.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io(format!("read delta at byte {}", self.offset), error));
                }
            }
        }
        Ok(self.delta.buffer())
    }

    fn consume(&mut self, count: usize) {
        self.delta.consume(count);
        self.offset += count as u64;
    }

    fn truncated(&self) -> Error {
        corrupt(format!("delta is cut off at byte {}", self.offset))
    }
}

struct Target<'a> {
    out: &'a mut dyn Write,
    written_bytes: u64,
}

impl Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.written_bytes;
        self.out.write_all(bytes).context(|| format!("write target at byte {at}"))?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

fn check_range(ops: &OpReader, size: u64, position: u64, length: u64) -> Result<()> {
    if position.checked_add(length).is_some_and(|end| end <= size) {
        return Ok(());
    }
    let before = ops.offset;
    Err(corrupt(format!(
        "delta copies {length} bytes at {position} of a basis of {size} bytes (before byte {before})"
    )))
}

/// Copies a range that lies within the basis.
fn copy(
    basis: &mut dyn ReadAt,
    mut position: u64,
    mut left: u64,
    buffer: &mut [u8],
    target: &mut Target,
) -> Result<()> {
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = match basis.read_at(position, &mut buffer[..wanted]) {
            Ok(0) => {
                let size = basis.size_bytes();
                return Err(corrupt(format!("basis of {size} bytes ends at byte {position}")));
            }
            Ok(count) => count.min(wanted),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(format!("read basis at byte {position}"), error)),
        };
        target.write(&buffer[..count])?;
        position += count as u64;
        left -= count as u64;
    }
    Ok(())
}

fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn run(basis: &[u8], ops: &[&[u8]]) -> std::result::Result<Vec<u8>, String> {
        let delta = [&DELTA_MAGIC[..], &ops.concat()].concat();
        let mut out = Vec::new();
        match patch(&mut &basis[..], &mut &delta[..], &mut out) {
            Ok(()) => Ok(out),
            Err(error) => Err(format!("{:?}: {error}", error.kind())),
        }
    }

    /// Every operation that there is: 64 short literals, 4 literals, 16 copies.
    #[test]
    fn knows_every_operation() {
        let basis: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        for op in 1..=64_u8 {
            let literal = vec![op; op.into()];
            assert_eq!(run(&basis, &[&[op], &literal, &[0]]), Ok(literal));
        }
        for (index, op) in (0x41..=0x44_u8).enumerate() {
            let length = &9_u64.to_be_bytes()[8 - (1 << index)..];
            assert_eq!(run(&basis, &[&[op], length, b"nine byte", &[0]]), Ok(b"nine byte".into()));
        }
        for (index, op) in (0x45..=0x54_u8).enumerate() {
            let (width_p, width_l) = (1 << (index / 4), 1 << (index % 4));
            let (p, l) = ([200, 300, 66_000, 66_001][index / 4], [5, 600, 3_000, 3_001][index % 4]);
            let position = &u64::to_be_bytes(p)[8 - width_p..];
            let length = &u64::to_be_bytes(l)[8 - width_l..];
            let expected = basis[p as usize..(p + l) as usize].to_vec();
            assert_eq!(run(&basis, &[&[op], position, length, &[0]]), Ok(expected), "{op:#x}");
        }
        for op in 0x55..=0xff_u8 {
            let error = format!("Corrupt: delta has unknown operation {op:#x} at byte 4");
            assert_eq!(run(&basis, &[&[op], &[0; 20]]), Err(error));
        }
    }

    #[test]
    fn refuses_hostile_deltas() {
        let max = &u64::MAX.to_be_bytes();
        let one = &1_u64.to_be_bytes();
        for (ops, why) in [
            (&[&[][..]][..], "delta is cut off at byte 4"),
            (&[&[0x44, 0, 0]], "delta is cut off at byte 7"),
            (&[&[0x41, 3, 1, 2]], "delta is cut off at byte 8"),
            (&[&[0x44], max, b"abc"], "delta is cut off at byte 16"),
            (&[&[0x41, 1, 1, 0, 0]], "delta goes on after its end at byte 8"),
            (
                &[&[0x45, 0, 101, 0]],
                "delta copies 101 bytes at 0 of a basis of 100 bytes (before byte 7)",
            ),
            (
                &[&[0x45, 101, 0, 0]],
                "delta copies 0 bytes at 101 of a basis of 100 bytes (before byte 7)",
            ),
            (
                &[&[0x54], max, one, &[0]],
                "delta copies 1 bytes at 18446744073709551615 of a basis of 100 bytes (before byte 21)",
            ),
            (
                &[&[0x54], one, max, &[0]],
                "delta copies 18446744073709551615 bytes at 1 of a basis of 100 bytes (before byte 21)",
            ),
        ] {
            assert_eq!(run(&[1; 100], ops), Err(format!("Corrupt: {why}")));
        }
        assert_eq!(run(&[1; 100], &[&[0x45, 0, 100, 0x45, 100, 0, 0x41, 0, 0]]), Ok(vec![1; 100]));
    }

    /// A stream whose connection breaks where the delta's END has just passed.
    struct Broken<'a>(&'a [u8]);

    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn a_broken_stream_is_no_end() {
        for (ops, at) in [(&[0x41, 1, 5, 0][..], 8), (&[0x41, 2, 5], 7), (&[0x42, 1], 6)] {
            let delta = [&DELTA_MAGIC, ops].concat();
            let error = patch(&mut &b""[..], &mut Broken(&delta), &mut Vec::new()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("read delta at byte {at}: unexpected end of file")
            );
        }
    }

    #[test]
    fn refuses_what_is_no_delta() {
        for (bytes, why) in [
            (&b""[..], "delta is cut off at byte 0"),
            (b"rs\x02", "delta is cut off at byte 3"),
            (
                b"rs\x017\0\0\x02\0",
                "delta begins with 0x72730137, not with librsync's magic number",
            ),
        ] {
            let error = patch(&mut &[0; 9][..], &mut &bytes[..], &mut Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }

    /// A basis of which a part is damaged, and which ends before its size.
    struct Damaged;

    impl ReadAt for Damaged {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            match offset {
                0..1000 => {
                    buffer[0] = 7;
                    Ok(1)
                }
                1000..2000 => Err(std::io::Error::from_raw_os_error(5)),
                _ => Ok(0),
            }
        }

        fn size_bytes(&self) -> u64 {
            3000
        }
    }

    #[test]
    fn an_unreadable_basis_is_an_error_with_its_place() {
        for (copy, written, why) in [
            ([0x4a, 3, 0, 2, 0], 232, "read basis at byte 1000: Input/output error (os error 5)"),
            ([0x4a, 8, 0, 2, 0], 0, "basis of 3000 bytes ends at byte 2048"),
        ] {
            let delta = [&DELTA_MAGIC[..], &copy, &[OP_END]].concat();
            let mut out = Vec::new();
            let error = patch(&mut Damaged, &mut &delta[..], &mut out).unwrap_err();
            assert_eq!(error.to_string(), why);
            assert_eq!(out, vec![7; written]);
        }
    }
}
