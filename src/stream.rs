//! Bytes as they come, behind a pointer.

use std::io::{self, Read};

/// A reader whose type is not known, as in `&mut dyn Stream`: [`Read`] with one function. `dyn Read` has ten, and each is
/// compiled for each type that it may stand for, though they are all called through `read`: 700 bytes a type.
pub trait Stream {
    /// Does what [`Read::read`] does.
    fn read_into(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl<R: Read> Stream for R {
    fn read_into(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer)
    }
}

impl Read for dyn Stream + '_ {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_into(buffer)
    }
}

impl Read for dyn Stream + Send + '_ {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_into(buffer)
    }
}

/// Appends what `stream` still gives to `bytes`, at most `limit` bytes. One function for all streams: `Take` and
/// `read_to_end` are compiled for each type.
pub fn read_at_most(stream: &mut dyn Stream, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    stream.take(limit).read_to_end(bytes).map(drop)
}
