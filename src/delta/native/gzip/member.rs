//! A file that is one gzip member (RFC 1952), opened and closed again.

use std::io::{self, Write};

use super::{Deflater, Recipe};
use crate::crc::Crc;

/// What a file may be when it is open: the peer's content is in memory when a delta is applied.
pub const MAX_OPEN_BYTES: usize = 6 << 20;

const MAGIC: &[u8] = b"\x1f\x8b\x08";
const HEAD_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

/// An open file.
pub struct Opened {
    /// What stands before the deflate stream.
    pub head: Vec<u8>,
    pub content: Vec<u8>,
    pub recipe: Recipe,
}

/// Opens a file that `close` would make again as it is.
pub fn open(file: &[u8]) -> Option<Opened> {
    let (head, content) = inflate(file)?;
    let recipe = Recipe::all().find(|&recipe| {
        let mut same = Same { rest: file };
        close(&file[..head], &content, recipe, &mut same).is_ok() && same.rest.is_empty()
    })?;
    Some(Opened { head: file[..head].to_vec(), content, recipe })
}

/// The content of a file, and the length of what stands before its deflate stream. Whether more stands behind it is not looked
/// at, nor the checksum.
pub fn inflate(file: &[u8]) -> Option<(usize, Vec<u8>)> {
    let head = head_bytes(file)?;
    let packed = file.get(head..file.len().checked_sub(TRAILER_BYTES)?)?;
    let content = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, MAX_OPEN_BYTES);
    Some((head, content.ok()?))
}

/// Writes the file.
pub fn close(head: &[u8], content: &[u8], recipe: Recipe, out: &mut dyn Write) -> io::Result<()> {
    let mut closing = Closing::new(head, recipe, out)?;
    closing.write_all(content)?;
    closing.finish()
}

/// A file that is being written by its open content.
pub struct Closing<'a> {
    deflater: Deflater<'a>,
    crc: Crc,
    /// As in the trailer: modulo 2 to the 32.
    length: u32,
}

impl<'a> Closing<'a> {
    /// Begins with the head.
    pub fn new(head: &[u8], recipe: Recipe, out: &'a mut dyn Write) -> io::Result<Self> {
        out.write_all(head)?;
        Ok(Closing { deflater: Deflater::new(recipe, out), crc: Crc::new(), length: 0 })
    }

    /// Ends with the checksum and the length.
    pub fn finish(self) -> io::Result<()> {
        let out = self.deflater.finish()?;
        out.write_all(&self.crc.value().to_le_bytes())?;
        out.write_all(&self.length.to_le_bytes())
    }
}

impl Write for Closing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        self.length = self.length.wrapping_add(bytes.len() as u32);
        self.deflater.write(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long the header is.
fn head_bytes(file: &[u8]) -> Option<usize> {
    let flags = *file.get(3).filter(|_| file.starts_with(MAGIC))?;
    let mut at = HEAD_BYTES;
    if flags & FLAG_EXTRA != 0 {
        at += 2 + usize::from(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            at += 1 + file.get(at..)?.iter().position(|&byte| byte == 0)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        at += 2;
    }
    Some(at)
}

/// Takes what is the same, and nothing else.
struct Same<'a> {
    rest: &'a [u8],
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(flags: u8, fields: &[u8], content: &[u8]) -> Vec<u8> {
        let head = [&[0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 2, 3], fields].concat();
        let mut file = Vec::new();
        let recipe = Recipe::from_byte(0x16).unwrap();
        close(&head, content, recipe, &mut file).unwrap();
        file
    }

    #[test]
    fn opens_what_it_closes() {
        let content = b"to be or not to be, that is what is to be asked\n".repeat(30);
        for (flags, fields) in [
            (0, &b""[..]),
            (FLAG_NAME, b"name\0"),
            (FLAG_EXTRA | FLAG_COMMENT, b"\x03\0abcsaid\0"),
            (FLAG_HEADER_CRC | FLAG_NAME, b"n\0\x12\x34"),
        ] {
            let file = packed(flags, fields, &content);
            let opened = open(&file).unwrap();
            assert_eq!((opened.head.len(), &opened.content), (10 + fields.len(), &content));
            let mut again = Vec::new();
            close(&opened.head, &opened.content, opened.recipe, &mut again).unwrap();
            assert_eq!(again, file);
        }
    }

    #[test]
    fn leaves_alone_what_it_could_not_close() {
        let file = packed(FLAG_NAME, b"name\0", b"some content, some more content");
        for length in 0..file.len() {
            assert!(open(&file[..length]).is_none(), "cut at {length}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            if let Some(opened) = open(&damaged) {
                let mut again = Vec::new();
                close(&opened.head, &opened.content, opened.recipe, &mut again).unwrap();
                assert_eq!(again, damaged);
            }
        }
        assert!(open(&[&file[..], b"\0"].concat()).is_none());
        assert!(open(&file.repeat(2)).is_none());
        assert!(open(&packed(0, b"", &vec![0; MAX_OPEN_BYTES + 1])).is_none());
    }
}
