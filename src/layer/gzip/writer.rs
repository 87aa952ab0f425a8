//! Writing gzip streams: the same bytes in give the same bytes out, on every machine.

use std::io::{self, Write};

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};

use crate::layer::crc::Crc;

const OUTPUT_BYTES: usize = 32 << 10;
/// Header of a member without name and time, made on an unknown system (RFC 1952, section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Raw deflate: no zlib header, as `create_comp_flags_from_zip_params` understands it.
const RAW: i32 = -15;

/// Compresses into one gzip member. `finish` must be called: what is dropped before is truncated.
pub struct GzipWriter<'a> {
    inner: &'a mut dyn Write,
    deflate: Box<CompressorOxide>,
    output: Box<[u8]>,
    crc: Crc,
    input_bytes: u64,
    begun: bool,
}

impl<'a> GzipWriter<'a> {
    /// Compresses at `level`, 1 (fast) to 9 (small), into `inner`.
    pub fn new(inner: &'a mut dyn Write, level: u8) -> Self {
        let flags = create_comp_flags_from_zip_params(level.into(), RAW, 0);
        GzipWriter {
            inner,
            deflate: Box::new(CompressorOxide::new(flags)),
            output: vec![0; OUTPUT_BYTES].into(),
            crc: Crc::new(),
            input_bytes: 0,
            begun: false,
        }
    }

    /// Writes what is left, the checksum and the length.
    pub fn finish(mut self) -> io::Result<()> {
        self.push(&[], TDEFLFlush::Finish)?;
        self.inner.write_all(&self.crc.value().to_le_bytes())?;
        self.inner.write_all(&(self.input_bytes as u32).to_le_bytes())?;
        self.inner.flush()
    }

    fn push(&mut self, mut bytes: &[u8], flush: TDEFLFlush) -> io::Result<()> {
        if !self.begun {
            self.inner.write_all(&HEADER)?;
            self.begun = true;
        }
        loop {
            let (status, used, made) = compress(&mut self.deflate, bytes, &mut self.output, flush);
            self.inner.write_all(&self.output[..made])?;
            bytes = &bytes[used..];
            match status {
                TDEFLStatus::Done => return Ok(()),
                TDEFLStatus::Okay if flush == TDEFLFlush::Finish || !bytes.is_empty() => {}
                TDEFLStatus::Okay => return Ok(()),
                _ => return Err(io::Error::other("deflate failed")),
            }
        }
    }
}

impl Write for GzipWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes, TDEFLFlush::None)?;
        self.crc.update(bytes);
        self.input_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Does not force out partial blocks: that would make the output depend on when it is called.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
