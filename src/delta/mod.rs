//! Deltas between images: signatures, differences, patches and their wire formats.
//!
//! Pure streams: everything here reads from `Read` or `ReadAt` and writes to `Write`; nothing knows files, a store or a
//! registry.

use std::io;

/// Random access to bytes that need not lie in one file: the basis of a delta.
pub trait ReadAt {
    /// Reads into `buffer` from `offset`; short counts are allowed, 0 means the end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The whole length in bytes.
    fn size_bytes(&self) -> u64;
}
