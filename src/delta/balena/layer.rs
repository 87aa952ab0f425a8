//! The tar around the delta of one layer.
//!
//! A ustar header as Go's archive/tar writes it for the regular file `delta` of mode 0600 with everything else zero, the
//! delta, zeros up to a whole block, and two blocks of zeros. The tar of a shared layer is the two blocks alone.
//!
//! The length stands in the header, so who makes a layer needs the whole delta first, or has it made twice.

use std::io::{self, ErrorKind, Read};

use crate::error::{Context, Error, Kind, Result};
use crate::stream::Stream;

/// The layer that target and base share: a tar with no member.
pub const SHARED: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// The unit of a tar.
const BLOCK_BYTES: usize = 512;
/// The longest delta: what 11 octal digits hold. Go would go on in another header format.
const MAX_DELTA_BYTES: u64 = 0o77_777_777_777;
/// The most zeros accepted behind the member, or in a shared layer. Archivers pad to 10 KiB, some to a few times that.
const MAX_TRAILER_BYTES: usize = 1 << 20;

const MAGIC: std::ops::Range<usize> = 257..263;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;

/// The header block for a delta of so many bytes; `Kind::Unsupported` from 8 GiB on.
pub fn header(delta_bytes: u64) -> Result<[u8; BLOCK_BYTES]> {
    if delta_bytes > MAX_DELTA_BYTES {
        let message = format!("delta of {delta_bytes} bytes: the limit is {MAX_DELTA_BYTES}");
        return Err(Error::new(Kind::Unsupported, message));
    }
    let size = format!("{delta_bytes:011o}\0");
    let mut block = [0; BLOCK_BYTES];
    for (place, field) in [
        (0, "delta"),
        (100, "0000600\0"), // mode
        (108, "0000000\0"), // user
        (116, "0000000\0"), // group
        (SIZE.start, &size),
        (136, "00000000000\0"), // modification time
        (TYPE, "0"),
        (MAGIC.start, "ustar\0"),
        (MAGIC.end, "00"),  // version
        (329, "0000000\0"), // device, major
        (337, "0000000\0"), // device, minor
    ] {
        block[place..place + field.len()].copy_from_slice(field.as_bytes());
    }
    let checksum = format!("{:06o}\0 ", checksum(&block));
    block[CHECKSUM].copy_from_slice(checksum.as_bytes());
    Ok(block)
}

/// What follows a delta of so many bytes: zeros up to a whole block, and the end of the tar.
pub fn trailer(delta_bytes: u64) -> &'static [u8] {
    const ZEROS: [u8; 3 * BLOCK_BYTES] = [0; 3 * BLOCK_BYTES];
    &ZEROS[..padding(delta_bytes) + 2 * BLOCK_BYTES]
}

/// Zeros between a member of so many bytes and the next block.
fn padding(member_bytes: u64) -> usize {
    (BLOCK_BYTES - (member_bytes % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}

/// The sum of the header's bytes, those of the checksum itself taken as spaces.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    sum(block) - sum(&block[CHECKSUM]) + u32::from(b' ') * CHECKSUM.len() as u32
}

/// What a layer of a delta image turned out to be.
pub enum Layer<'a> {
    /// An empty tar, read to its end: the layer is the base's.
    Shared,
    /// The delta, to be read from here.
    Delta(Member<'a>),
}

/// Opens the uncompressed tar of a delta image's layer: its first member, whatever its name, is the delta. Only regular
/// files are accepted, with no extension headers before them: balenaEngine writes none.
pub fn open(stream: &mut dyn Stream) -> Result<Layer<'_>> {
    let mut block = [0; BLOCK_BYTES];
    stream.read_exact(&mut block).context(|| "read header of delta layer".into())?;
    if block.iter().all(|&byte| byte == 0) {
        read_zeros(stream, MAX_TRAILER_BYTES)?;
        return Ok(Layer::Shared);
    }
    let left = parse_header(&block)?;
    Ok(Layer::Delta(Member { stream, left, padding: padding(left) }))
}

fn parse_header(block: &[u8; BLOCK_BYTES]) -> Result<u64> {
    let sum = octal(&block[CHECKSUM]);
    if sum != Some(checksum(block).into()) {
        return Err(corrupt("delta layer does not begin with a tar header".into()));
    }
    match block[TYPE] {
        b'0' | 0 => {}
        other => {
            let kind = char::from(other);
            return Err(corrupt(format!("delta layer begins with a tar member of type {kind:?}")));
        }
    }
    octal(&block[SIZE])
        .ok_or_else(|| corrupt("delta layer: the size of its member is not octal".into()))
}

/// A tar number: octal digits between spaces, ended by a space, a zero or the field.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_start_matches(' ');
    let end = text.find(['\0', ' ']).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let clean =
        digits.bytes().all(|b| b.is_ascii_digit()) && rest.bytes().all(|b| b == 0 || b == b' ');
    if clean { u64::from_str_radix(digits, 8).ok() } else { None }
}

/// The delta inside a layer's tar: reads as the delta alone.
pub struct Member<'a> {
    stream: &'a mut dyn Stream,
    left: u64,
    padding: usize,
}

impl Member<'_> {
    /// Bytes of the delta that were not read yet.
    pub fn left_bytes(&self) -> u64 {
        self.left
    }

    /// Reads the rest of the tar, so that a digest over the stream covers all of it. `Kind::Corrupt` if the delta was
    /// not read to its end, or if anything but zeros follows it.
    pub fn finish(self) -> Result<()> {
        if self.left > 0 {
            return Err(corrupt(format!("delta layer has {} bytes that were not used", self.left)));
        }
        read_zeros(self.stream, self.padding + MAX_TRAILER_BYTES)
    }
}

impl Read for Member<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..wanted])?.min(wanted);
        if count == 0 {
            return Err(corrupt(format!("delta layer lacks its last {} bytes", self.left)).into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Reads to the end of the stream, which has to be zeros, and not too many.
fn read_zeros(stream: &mut dyn Stream, limit: usize) -> Result<()> {
    let mut buffer = [0; BLOCK_BYTES];
    let mut seen = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) if buffer.iter().take(count).any(|&byte| byte != 0) => {
                return Err(corrupt("delta layer goes on after its delta".into()));
            }
            Ok(count) => seen += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read end of delta layer", error)),
        }
        if seen > limit {
            return Err(corrupt(format!("delta layer ends in more than {limit} zeros")));
        }
    }
}

fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(delta: &[u8]) -> Vec<u8> {
        let length = delta.len() as u64;
        [&header(length).unwrap()[..], delta, trailer(length)].concat()
    }

    fn read(tar: &[u8]) -> std::result::Result<Option<Vec<u8>>, String> {
        let mut stream = tar;
        let member = match open(&mut stream).map_err(|e| e.to_string())? {
            Layer::Shared => None,
            Layer::Delta(mut member) => {
                let mut delta = Vec::new();
                member.read_to_end(&mut delta).map_err(|e| e.to_string())?;
                member.finish().map_err(|e| e.to_string())?;
                Some(delta)
            }
        };
        assert!(stream.is_empty(), "the whole stream is read");
        Ok(member)
    }

    #[test]
    fn reads_what_it_writes() {
        for length in [0, 1, 511, 512, 513, 100_000] {
            let delta = vec![7; length];
            let tar = layer(&delta);
            assert_eq!(tar.len(), 512 + length.next_multiple_of(512) + 1024);
            assert_eq!(read(&tar), Ok(Some(delta)));
        }
        assert_eq!(read(&SHARED), Ok(None));
        assert_eq!(read(&[0; 10_240]), Ok(None));
    }

    #[test]
    fn accepts_other_names_and_padding() {
        let mut tar = layer(b"abc");
        tar[..5].copy_from_slice(b"other");
        tar[TYPE] = 0;
        let block: [u8; 512] = tar[..512].try_into().unwrap();
        tar[CHECKSUM].copy_from_slice(format!(" {:5o} \0", checksum(&block)).as_bytes());
        tar.resize(10_240, 0);
        assert_eq!(read(&tar), Ok(Some(b"abc".into())));
    }

    #[test]
    fn limits_the_length() {
        assert_eq!(&header(MAX_DELTA_BYTES).unwrap()[SIZE], b"77777777777\0");
        assert_eq!(header(MAX_DELTA_BYTES + 1).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn refuses_what_is_no_delta_layer() {
        let good = layer(b"abc");
        let with = |place: usize, byte: u8| {
            let mut tar = good.clone();
            tar[place] = byte;
            let block: [u8; 512] = tar[..512].try_into().unwrap();
            tar[CHECKSUM].copy_from_slice(format!("{:06o}\0 ", checksum(&block)).as_bytes());
            tar
        };
        let mut damaged = good.clone();
        damaged[0] = b'D';
        for (tar, why) in [
            (vec![], "read header of delta layer: failed to fill whole buffer"),
            (good[..511].to_vec(), "read header of delta layer: failed to fill whole buffer"),
            (good[..514].to_vec(), "delta layer lacks its last 1 bytes"),
            (damaged, "delta layer does not begin with a tar header"),
            (vec![b' '; 512], "delta layer does not begin with a tar header"),
            (with(TYPE, b'5'), "delta layer begins with a tar member of type '5'"),
            (with(TYPE, b'x'), "delta layer begins with a tar member of type 'x'"),
            (with(130, b'8'), "delta layer: the size of its member is not octal"),
            (with(SIZE.start, 0x80), "delta layer: the size of its member is not octal"),
            (with(600, 1), "delta layer goes on after its delta"),
            ([&good[..], &good].concat(), "delta layer goes on after its delta"),
            ([&SHARED[..], &good].concat(), "delta layer goes on after its delta"),
            (vec![0; 2 << 20], "delta layer ends in more than 1048576 zeros"),
        ] {
            assert_eq!(read(&tar), Err(why.to_string()));
        }
    }

    #[test]
    fn a_delta_must_be_used_up() {
        let tar = layer(b"abc");
        let mut stream = &tar[..];
        let Layer::Delta(mut member) = open(&mut stream).unwrap() else { panic!("a delta") };
        member.read_exact(&mut [0]).unwrap();
        assert_eq!(member.left_bytes(), 2);
        let why = "delta layer has 2 bytes that were not used";
        assert_eq!(member.finish().unwrap_err().to_string(), why);
    }
}
