//! Making gzip streams: the same bytes in give the same bytes out, on every machine, in whatever pieces they come.

use std::io::{self, Read, Write};

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};

use crate::crc::Crc;
use crate::stream::Stream;

const OUTPUT_BYTES: usize = 32 << 10;
/// What is read of a source at a time.
const INPUT_BYTES: usize = 64 << 10;
/// Header of a member without name and time, made on an unknown system (RFC 1952, section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Raw deflate: no zlib header, as `create_comp_flags_from_zip_params` understands it.
const RAW: i32 = -15;

/// Compresses into one gzip member. `finish` must be called: what is dropped before is truncated.
pub struct GzipWriter<'a> {
    inner: &'a mut dyn Write,
    member: Member,
}

impl<'a> GzipWriter<'a> {
    /// Compresses at `level`, 1 (fast) to 9 (small), into `inner`.
    pub fn new(inner: &'a mut dyn Write, level: u8) -> Self {
        GzipWriter { inner, member: Member::new(level) }
    }

    /// Writes what is left, the checksum and the length.
    pub fn finish(mut self) -> io::Result<()> {
        self.member.finish(self.inner)?;
        self.inner.flush()
    }
}

impl Write for GzipWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.member.push(bytes, TDEFLFlush::None, self.inner)?;
        Ok(bytes.len())
    }

    /// Does not force out partial blocks: that would make the output depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads as one gzip member with the content of another reader.
pub struct Gzipped<'a> {
    source: Box<dyn Stream + 'a>,
    input: Vec<u8>,
    /// `None` once the member has ended.
    member: Option<Member>,
    /// What is compressed and not yet read.
    ready: io::Cursor<Vec<u8>>,
}

impl<'a> Gzipped<'a> {
    /// Compresses `source` at `level`, 1 (fast) to 9 (small).
    pub fn new(source: Box<dyn Stream + 'a>, level: u8) -> Self {
        let (input, ready) = (vec![0; INPUT_BYTES], io::Cursor::new(Vec::new()));
        Gzipped { source, input, member: Some(Member::new(level)), ready }
    }
}

impl Read for Gzipped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.ready.read(buffer)?;
            let Some(member) = self.member.as_mut().filter(|_| count == 0 && !buffer.is_empty())
            else {
                return Ok(count);
            };
            let made = self.ready.get_mut();
            made.clear();
            match self.source.read(&mut self.input) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(0) => {
                    member.finish(made)?;
                    self.member = None;
                }
                Ok(count) => member.push(&self.input[..count], TDEFLFlush::None, made)?,
            }
            self.ready.set_position(0);
        }
    }
}

/// A member that is being made.
struct Member {
    deflate: Box<CompressorOxide>,
    output: Box<[u8]>,
    crc: Crc,
    input_bytes: u64,
    begun: bool,
}

impl Member {
    fn new(level: u8) -> Member {
        let flags = create_comp_flags_from_zip_params(level.into(), RAW, 0);
        Member {
            deflate: Box::new(CompressorOxide::new(flags)),
            output: vec![0; OUTPUT_BYTES].into(),
            crc: Crc::new(),
            input_bytes: 0,
            begun: false,
        }
    }

    /// Takes in `bytes` and gives `out` what is compressed by now.
    fn push(&mut self, bytes: &[u8], flush: TDEFLFlush, out: &mut dyn Write) -> io::Result<()> {
        if !self.begun {
            out.write_all(&HEADER)?;
            self.begun = true;
        }
        let mut left = bytes;
        loop {
            let (status, used, made) = compress(&mut self.deflate, left, &mut self.output, flush);
            out.write_all(&self.output[..made])?;
            left = &left[used..];
            match status {
                TDEFLStatus::Done => break,
                TDEFLStatus::Okay if flush == TDEFLFlush::Finish || !left.is_empty() => {}
                TDEFLStatus::Okay => break,
                _ => return Err(io::Error::other("deflate failed")),
            }
        }
        self.crc.update(bytes);
        self.input_bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.push(&[], TDEFLFlush::Finish, out)?;
        out.write_all(&self.crc.value().to_le_bytes())?;
        out.write_all(&(self.input_bytes as u32).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most so many bytes at once.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn the_pieces_that_come_do_not_matter() {
        let mut state = 0x9e37_79b9_u32;
        let sample: Vec<u8> = (0..300_000)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if index % 4096 < 2048 { (index / 97 % 23) as u8 } else { (state >> 24) as u8 }
            })
            .collect();
        for level in [1, 6, 9] {
            let mut expected = Vec::new();
            let mut writer = GzipWriter::new(&mut expected, level);
            writer.write_all(&sample).unwrap();
            writer.finish().unwrap();
            for piece in [1, 7, 511, 4096, 65_537, 300_000] {
                let mut made = Vec::new();
                let source = Box::new(Pieces(&sample, piece));
                Gzipped::new(source, level).read_to_end(&mut made).unwrap();
                assert!(made == expected, "level {level}, pieces of {piece}");
            }
        }
        let mut empty = Vec::new();
        Gzipped::new(Box::new(io::empty()), 6).read_to_end(&mut empty).unwrap();
        assert_eq!(empty[..], [&HEADER[..], &[3, 0], &[0; 8]].concat());
    }
}
