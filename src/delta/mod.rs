//! Deltas between images: signatures, differences, patches and their wire formats.
//!
//! Pure streams: everything here reads from `Read` or `ReadAt` and writes to `Write`; nothing knows files, a store or a
//! registry. `rsync` is the format of the differences themselves, `balena` the image that carries them; `native` is a smaller
//! format of our own, and `index` a way to need no pair of images at all.
//!
//! Making a delta layer: `rsync::Signature::of(basis)`, then for each target layer `rsync::diff` into a spool, and
//! `balena::layer` writes header, spool and trailer. Applying one: `balena::layer::open(stream)` finds the delta in the
//! layer's tar, and `rsync::patch` writes the target's tar. Whether the result is right is for the caller to say, by its
//! diff ID: a delta carries no checksum of its own.

use std::io::{self, Read};

pub mod balena;
pub mod index;
pub mod native;
pub mod rsync;

/// Random access to bytes that need not lie in one file: the basis of a delta.
///
/// For balena's deltas it is the concatenation, bottom to top, of the uncompressed tars of the old image's layers. Most
/// reads go on where the last one ended, so an implementor does well to keep the file it has open.
pub trait ReadAt {
    /// Reads into `buffer` from `offset`; short counts are allowed, 0 means the end. An error here ends the patch: what
    /// cannot be read is never taken for zeros.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The whole length in bytes, the same at every call.
    fn size_bytes(&self) -> u64;
}

/// A basis in memory.
impl ReadAt for &[u8] {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..));
        let mut rest = rest.unwrap_or_default();
        rest.read(buffer)
    }

    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// Reads a `ReadAt` one byte after another.
pub struct Sequential<'a> {
    source: &'a mut dyn ReadAt,
    offset: u64,
}

impl<'a> Sequential<'a> {
    /// From the start on.
    pub fn new(source: &'a mut dyn ReadAt) -> Self {
        Sequential::at(source, 0)
    }

    /// From an offset on.
    pub fn at(source: &'a mut dyn ReadAt, offset: u64) -> Self {
        Sequential { source, offset }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}
