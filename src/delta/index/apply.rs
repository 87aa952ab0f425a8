//! From an index, what the device has, and what it fetches to the layer's tar.
//!
//! Everything in an index comes from outside: lengths are held against what was said before, and each piece that was fetched
//! against its hash. Whether the result is right is told by its diff ID.

use std::io::{BufWriter, Read, Write};

use super::head::{Group, Layer, Op, Piece, Span, read_detail};
use super::times::{timeless, with_time};
use super::walk::{Part, walk};
use super::{Have, Window, directory, piece_key};
use crate::delta::native::codec::Unpacker;
use crate::delta::native::column::{Column, Frame, corrupt};
use crate::delta::native::header::Block;
use crate::delta::{ReadAt, Sequential};
use crate::digest::Digest;
use crate::error::{Context, Result};

/// Reads a span of the blob into a buffer of its length. Spans come in order.
pub type Fetch<'a> = dyn FnMut(Span, &mut [u8]) -> Result<()> + 'a;

/// Writes the tar of `layer`, whose missing details were taken, to `out`: from `basis`, of which `have` tells what it has, and
/// from pieces that `fetch` reads, those that `Layer::missing_pieces` gave.
pub fn apply(
    layer: &Layer,
    have: &Have,
    basis: &mut dyn ReadAt,
    fetch: &mut Fetch,
    out: &mut dyn Write,
) -> Result<()> {
    let target = Target {
        out: BufWriter::with_capacity(super::MAX_PIECE, out),
        left: 0,
        window: Window::new(),
        unpacker: Unpacker::default(),
        time: 0,
    };
    let mut applier = Applier { have, basis, fetch, target };
    let mut details = layer.fetched();
    layer.groups(&mut |group, times| {
        applier.target.left = group.tar_bytes;
        match have.group(group.key) {
            Some((offset, directory)) => applier.copy(&group, offset, directory, times)?,
            None => applier.make(&group, &mut details, times)?,
        }
        match applier.target.left {
            0 => Ok(()),
            left => Err(corrupt(format!("the index lacks the last {left} bytes of a group"))),
        }
    })?;
    applier.target.out.flush().context(what)
}

fn what() -> String {
    "write what the index makes".into()
}

struct Applier<'a> {
    have: &'a Have,
    basis: &'a mut dyn ReadAt,
    fetch: &'a mut Fetch<'a>,
    target: Target<'a>,
}

impl Applier<'_> {
    /// A group that is in the basis, but for its times and the first bytes of its paths, so many there.
    fn copy(&mut self, group: &Group, offset: u64, old: usize, times: &mut Frame) -> Result<()> {
        let (mut from, target) = (Sequential::at(self.basis, offset), &mut self.target);
        walk(&mut from, group.tar_bytes, &mut |part, bytes| match bytes.try_into() {
            Ok(block) if part == Part::Header => target.header(block, old, group, times),
            _ => target.write(bytes),
        })
    }

    /// A group that is made as its detail says.
    fn make(&mut self, group: &Group, details: &mut &[u8], times: &mut Frame) -> Result<()> {
        read_detail(group, details, &mut |op| match op {
            Op::Header(block) => self.target.header(block, 0, group, times),
            Op::Bytes(bytes) => self.target.write(bytes),
            Op::Piece(piece) => self.piece(&piece),
        })
    }

    fn piece(&mut self, piece: &Piece) -> Result<()> {
        if let Some(offset) = self.have.piece(piece.key) {
            let mut bytes = vec![0; piece.length];
            let mut from = Sequential::at(self.basis, offset);
            from.read_exact(&mut bytes).context(|| format!("read the basis at byte {offset}"))?;
            return self.target.write(&bytes);
        }
        let mut packed = vec![0; (piece.span.end - piece.span.start) as usize];
        (self.fetch)(piece.span.clone(), &mut packed)?;
        let is_right = self.target.unpack(piece, &packed);
        if !is_right {
            return Err(corrupt(format!("the piece at byte {} is damaged", piece.span.start)));
        }
        self.target.write_last(piece.length)
    }
}

struct Target<'a> {
    out: BufWriter<&'a mut dyn Write>,
    /// What is still to come of the group.
    left: u64,
    window: Window,
    unpacker: Unpacker,
    /// The last time.
    time: u64,
}

impl Target<'_> {
    /// A header, whose path begins with so many bytes of another directory.
    fn header(
        &mut self,
        block: &Block,
        old: usize,
        group: &Group,
        times: &mut Frame,
    ) -> Result<()> {
        let Some((mut block, _)) = timeless(block) else { return self.write(block) };
        if !directory::replace(&mut block, old, &group.directory) {
            return Err(corrupt("the index has a path too long for its field".into()));
        }
        self.time = self.time.wrapping_add(times.signed(Column::Times)? as u64);
        self.write(&with_time(&block, self.time))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // Only what is damaged gives more than a piece at once.
        for bytes in bytes.chunks(super::MAX_PIECE) {
            self.window.make_room();
            self.window.0.extend_from_slice(bytes);
            self.write_last(bytes.len())?;
        }
        Ok(())
    }

    /// Appends to the window what `packed` is; false if that is not the piece.
    fn unpack(&mut self, piece: &Piece, packed: &[u8]) -> bool {
        self.window.make_room();
        let window = &mut self.window.0;
        let start = window.len();
        if packed.len() == piece.length {
            window.extend_from_slice(packed);
        } else if self.unpacker.unpack(window, packed, piece.length).is_none() {
            return false;
        }
        piece_key(Digest::of(&window[start..]).as_bytes(), piece.length) == piece.key
    }

    /// Writes the last bytes of the window.
    fn write_last(&mut self, count: usize) -> Result<()> {
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| corrupt("the index makes more than it says".into()))?;
        let start = self.window.0.len() - count;
        self.out.write_all(&self.window.0[start..]).context(what)
    }
}
