//! The literals section of a compressed block (RFC 8878, section 3.1.1.3.1).

use std::ops::Range;

use super::bits::Damage;
use super::huffman::Huffman;

/// How many bytes stand behind the literals, so that they can be copied in whole steps.
const SLACK_BYTES: usize = 16;

/// Decodes the literals of one block after the other.
pub struct Literals {
    /// The code of the last block that brought one.
    code: Huffman,
    has_code: bool,
    buffer: Vec<u8>,
}

/// The header of the section.
struct Header {
    kind: u8,
    /// How many literals there are.
    count: usize,
    /// Whether they are in four streams rather than one.
    in_four: bool,
    /// The size of description and streams.
    packed_bytes: usize,
    header_bytes: usize,
}

const RAW: u8 = 0;
const RUN: u8 = 1;
const WITH_CODE: u8 = 2;

impl Literals {
    /// Literals of a first block.
    pub fn new() -> Self {
        Literals { code: Huffman::new(), has_code: false, buffer: Vec::new() }
    }

    /// Forgets the code, for a new frame.
    pub fn restart(&mut self) {
        self.has_code = false;
    }

    /// The code in its short form, if there is one.
    pub fn weights(&self) -> Option<&[u8]> {
        self.has_code.then(|| self.code.weights())
    }

    /// Builds a code of its short form, which may come from anywhere.
    pub fn set_weights(&mut self, weights: &[u8]) -> Result<(), Damage> {
        self.code.build(weights.to_vec())?;
        self.has_code = true;
        Ok(())
    }

    /// Decodes the section at the start of `block`. Returns where the literals are, at most `limit`: a range of a
    /// buffer, which is this one's or the block itself; and how many bytes the section took.
    pub fn decode<'a>(
        &'a mut self,
        block: &'a [u8],
        limit: usize,
    ) -> Result<(&'a [u8], Range<usize>, usize), Damage> {
        let cut = "zstd literals are cut off near";
        let header = Header::parse(block).ok_or(cut)?;
        if header.count > limit {
            return Err("zstd literals are more than a block near");
        }
        let body = block.get(header.header_bytes..).ok_or(cut)?;
        let packed = body.get(..header.packed_bytes).ok_or(cut)?;
        let used = header.header_bytes + header.packed_bytes;
        match header.kind {
            RAW => return Ok((block, header.header_bytes..used, used)),
            RUN => {
                let byte = packed.first().copied().ok_or(cut)?;
                self.room(header.count).fill(byte);
            }
            _ => self.unpack(&header, packed)?,
        }
        Ok((&self.buffer, 0..header.count, used))
    }

    fn room(&mut self, count: usize) -> &mut [u8] {
        if self.buffer.len() < count + SLACK_BYTES {
            self.buffer.resize(count + SLACK_BYTES, 0);
        }
        &mut self.buffer[..count]
    }

    fn unpack(&mut self, header: &Header, packed: &[u8]) -> Result<(), Damage> {
        let mut streams = packed;
        if header.kind == WITH_CODE {
            self.has_code = false;
            let used = self.code.parse(packed)?;
            self.has_code = true;
            streams = packed.get(used..).unwrap_or_default();
        } else if !self.has_code {
            return Err("zstd literals lack their Huffman code near");
        }
        self.room(header.count);
        let out = &mut self.buffer[..header.count];
        if header.in_four {
            self.code.decode_four(split_streams(streams)?, out)
        } else {
            self.code.decode(streams, out)
        }
    }
}

impl Header {
    fn parse(block: &[u8]) -> Option<Header> {
        let first = *block.first()?;
        let (kind, form) = (first & 3, first >> 2 & 3);
        let packs = kind >= WITH_CODE;
        let (header_bytes, count_bits) = match (packs, form) {
            (false, 0 | 2) => (1, 5),
            (false, 1) => (2, 12),
            (false, _) => (3, 20),
            (true, 0 | 1) => (3, 10),
            (true, 2) => (4, 14),
            (true, _) => (5, 18),
        };
        let field = block.get(..header_bytes)?;
        let value = field.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        // The shorter form of one byte has one bit more for the count.
        let value = if header_bytes == 1 { value >> 3 } else { value >> 4 };
        let count = (value & ((1 << count_bits) - 1)) as usize;
        let packed_bytes = match kind {
            RAW => count,
            RUN => 1,
            _ => (value >> count_bits) as usize,
        };
        Some(Header { kind, count, in_four: packs && form != 0, packed_bytes, header_bytes })
    }
}

/// Four streams behind the table of the first three's sizes (section 3.1.1.3.1.6).
fn split_streams(bytes: &[u8]) -> Result<[&[u8]; 4], Damage> {
    let cut = "zstd literals are cut off near";
    let (sizes, mut rest) = bytes.split_first_chunk::<6>().ok_or(cut)?;
    let mut streams = [&[][..]; 4];
    let (sizes, _) = sizes.as_chunks();
    for (stream, size) in streams.iter_mut().zip(sizes) {
        let size = usize::from(u16::from_le_bytes(*size));
        (*stream, rest) = rest.split_at_checked(size).ok_or(cut)?;
    }
    streams[3] = rest;
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_of_header() {
        for (bytes, kind, count, packed, header, in_four) in [
            (&[31 << 3][..], RAW, 31, 31, 1, false),
            (&[31 << 3 | 2 << 2][..], RAW, 31, 31, 1, false),
            (&[0x50 | 1 << 2, 0x12], RAW, 0x125, 0x125, 2, false),
            (&[0x50 | 3 << 2 | 1, 0x12, 0x03], RUN, 0x3125, 1, 3, false),
            (&[0xf2, 0x7f, 0x00], WITH_CODE, 1023, 1, 3, false),
            (&[0xf6, 0x7f, 0x00], WITH_CODE, 1023, 1, 3, true),
            (&[0xfa, 0xff, 0x07, 0x00], WITH_CODE, 16383, 1, 4, true),
            (&[0xff, 0xff, 0x7f, 0x00, 0x00], 3, 0x3ffff, 1, 5, true),
        ] {
            let found = Header::parse(bytes).unwrap();
            assert_eq!(
                (found.kind, found.count, found.packed_bytes, found.header_bytes, found.in_four),
                (kind, count, packed, header, in_four),
                "{bytes:x?}"
            );
            assert!(Header::parse(&bytes[..bytes.len() - 1]).is_none());
        }
    }

    #[test]
    fn gives_runs_and_raw_bytes_and_refuses_the_rest() {
        let mut literals = Literals::new();
        let (bytes, range, used) = literals.decode(&[3 << 3 | RUN, b'x', 9], 10).unwrap();
        assert_eq!((&bytes[range], used), (&b"xxx"[..], 2));
        let (bytes, range, used) = literals.decode(b"\x18abcd", 10).unwrap();
        assert_eq!((&bytes[range], used), (&b"abc"[..], 4));
        for bad in [&b""[..], b"\x18ab", &[3 << 3 | RUN], &[0xf2, 0x7f, 0, 1], &[0xf3, 0x3f, 0, 1]]
        {
            assert!(literals.decode(bad, 1 << 17).is_err(), "{bad:x?}");
        }
        assert!(literals.decode(b"\x18abcd", 2).is_err());
    }
}
