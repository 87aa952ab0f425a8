//! From a layer's tar to the blob of its index.
//!
//! Packing takes nearly all of the time, and a piece is packed by itself: as many threads as there are processors do it, some
//! MiB of the tar at a time, for which they take nine bytes of memory for each, and 3 MiB a thread.

use std::io::Write;

use super::have::GroupHash;
use super::times::{timeless, with_time};
use super::walk::{Part, walk};
use super::{HASH_BYTES, MAGIC, PIECE_HASH_BYTES, WINDOW_BYTES, content_bytes, directory, op};
use crate::delta::native::BLOCK_BYTES;
use crate::delta::native::codec::{self, Effort, Packer};
use crate::delta::native::column::{Column, Columns, FRAME_BYTES, put_number};
use crate::delta::native::header::{self, Block};
use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::stream::Stream;
use crate::sys::host;

/// Of the tar, what is packed at a time.
const BATCH_BYTES: usize = 4 << 20;

/// Writes the blob of the layer whose tar is the `bytes` of `tar`; gives the length of its head.
pub fn make(tar: &mut dyn Stream, bytes: u64, out: &mut dyn Write) -> Result<u64> {
    let mut maker = Maker::new(out);
    let mut hash = GroupHash::default();
    walk(tar, bytes, &mut |part, bytes| {
        let start = maker.batch.len();
        maker.batch.extend_from_slice(bytes);
        let group = (part == Part::End).then(|| hash.finish());
        let digest = if group.is_some() { None } else { hash.add(part, bytes) };
        maker.parts.push(Entry { part, start, end: maker.batch.len(), digest, group });
        if maker.batch.len() >= WINDOW_BYTES + BATCH_BYTES { maker.flush() } else { Ok(()) }
    })?;
    maker.finish(bytes)
}

/// A part in the batch.
struct Entry {
    part: Part,
    start: usize,
    end: usize,
    /// Of a piece.
    digest: Option<Digest>,
    /// At the end of a group, its hash and its directory.
    group: Option<(Digest, Vec<u8>)>,
}

/// A part of the group under way: it is written when the group's directory is known.
enum Told {
    Bytes(Part, Vec<u8>),
    Piece { digest: Digest, length: u64, packed: u64 },
}

struct Maker<'a> {
    out: &'a mut dyn Write,
    /// A window, and what is to be packed behind it.
    batch: Vec<u8>,
    parts: Vec<Entry>,
    group: Vec<Told>,
    /// Of the group under way, what it has in the tar and of pieces.
    group_bytes: u64,
    group_pieces: u64,
    /// The details that are complete.
    details: Vec<u8>,
    head: Columns,
    head_frames: Vec<u8>,
    time: u64,
    directory: Vec<u8>,
    pieces_bytes: u64,
}

impl<'a> Maker<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Maker {
            out,
            batch: Vec::new(),
            parts: Vec::new(),
            group: Vec::new(),
            group_bytes: 0,
            group_pieces: 0,
            details: Vec::new(),
            head: Columns::default(),
            head_frames: Vec::new(),
            time: 0,
            directory: Vec::new(),
            pieces_bytes: 0,
        }
    }

    /// Packs what is in the batch, and keeps the window.
    fn flush(&mut self) -> Result<()> {
        let (batch, parts) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.parts));
        for (entry, packed) in parts.iter().zip(pack(&batch, &parts)) {
            let bytes = &batch[entry.start..entry.end];
            self.group_bytes += bytes.len() as u64;
            match (&entry.group, entry.digest) {
                (Some((digest, directory)), _) => self.end_group(digest, directory),
                (None, Some(digest)) => {
                    self.out.write_all(&packed).context(what)?;
                    self.group_pieces += packed.len() as u64;
                    let (length, packed) = (bytes.len() as u64, packed.len() as u64);
                    self.group.push(Told::Piece { digest, length, packed });
                }
                (None, None) => self.group.push(Told::Bytes(entry.part, bytes.to_vec())),
            }
        }
        self.batch = batch;
        self.batch.drain(..self.batch.len().saturating_sub(WINDOW_BYTES));
        Ok(())
    }

    fn end_group(&mut self, digest: &Digest, directory: &[u8]) {
        let (mut detail, mut headers) = (Columns::default(), header::Context::new());
        let (mut last, mut rest) = ([0; BLOCK_BYTES], 0);
        for told in std::mem::take(&mut self.group) {
            match told {
                Told::Piece { digest, length, packed } => {
                    detail.byte(Column::Ops, op::PIECE);
                    detail.number(Column::Counts, if length == rest { 0 } else { length });
                    detail.number(Column::Copies, packed);
                    detail.extend(Column::Values, &digest.as_bytes()[..PIECE_HASH_BYTES]);
                    rest = rest.saturating_sub(length);
                }
                Told::Bytes(part, bytes) => match bytes.as_slice().try_into() {
                    Ok(block) if part == Part::Header => {
                        rest = content_bytes(block).unwrap_or(0);
                        let block = self.without_time(block, directory);
                        detail.byte(Column::Ops, op::HEADER);
                        headers.write(&mut detail, &block, &last);
                        last = block;
                    }
                    _ if part == Part::Padding && bytes.iter().all(|&byte| byte == 0) => {
                        detail.byte(Column::Ops, op::ZEROS);
                    }
                    _ => {
                        let is_padding = part == Part::Padding;
                        detail.byte(Column::Ops, if is_padding { op::PADDING } else { op::GIVEN });
                        detail.extend(Column::Literals, &bytes);
                    }
                },
            }
        }
        let detail = detail.pack();
        let head = &mut self.head;
        head.extend(Column::Raw, &digest.as_bytes()[..HASH_BYTES]);
        head.number(Column::Counts, self.group_bytes);
        head.number(Column::Copies, detail.len() as u64);
        head.number(Column::Extras, self.group_pieces);
        let same = self.directory.iter().zip(directory).take_while(|(one, other)| one == other);
        let same = same.count();
        head.number(Column::Prefixes, same as u64);
        head.extend(Column::Names, &directory[same..]);
        head.byte(Column::Names, 0);
        self.directory = directory.to_vec();
        self.details.extend_from_slice(&detail);
        self.pieces_bytes += self.group_pieces;
        (self.group_bytes, self.group_pieces) = (0, 0);
        if self.head.bytes() >= FRAME_BYTES {
            self.head_frames.append(&mut self.head.pack());
        }
    }

    /// The header as a detail has it; its time goes to the head.
    fn without_time(&mut self, block: &Block, directory: &[u8]) -> Block {
        let Some((mut block, time)) = timeless(block) else { return *block };
        self.head.signed(Column::Times, time.wrapping_sub(self.time) as i64);
        self.time = time;
        directory::replace(&mut block, directory.len(), b"");
        with_time(&block, 0)
    }

    /// The details, and the head.
    fn finish(mut self, tar_bytes: u64) -> Result<u64> {
        self.flush()?;
        let mut rest = Vec::new();
        put_number(&mut rest, tar_bytes);
        put_number(&mut rest, self.pieces_bytes);
        rest.append(&mut self.head_frames);
        if self.head.bytes() > 0 {
            rest.append(&mut self.head.pack());
        }
        put_number(&mut rest, 0);
        let check = Digest::of(&rest);
        let head = [MAGIC, &check.as_bytes()[..8], &rest].concat();
        self.out.write_all(&self.details).context(what)?;
        self.out.write_all(&head).context(what)?;
        Ok(head.len() as u64)
    }
}

fn what() -> String {
    "write an index".into()
}

/// What becomes of each piece of `batch`, and nothing of other parts. As many threads as there are processors pack a stretch each.
fn pack(batch: &[u8], parts: &[Entry]) -> Vec<Vec<u8>> {
    let threads = host::cpus();
    let stretches = parts.chunks(parts.len().div_ceil(threads).max(1));
    std::thread::scope(|scope| {
        let work = |parts| move || pack_stretch(batch, parts);
        let threads: Vec<_> = stretches.map(|parts| scope.spawn(work(parts))).collect();
        // Cannot fail: a panic ends the program.
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn pack_stretch(batch: &[u8], parts: &[Entry]) -> Vec<Vec<u8>> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Vec::new() };
    let start = first.start.saturating_sub(WINDOW_BYTES);
    let mut packer = Packer::new(last.end - start, Effort::QUICK);
    let mut pack = |entry: &Entry| {
        let piece = &batch[entry.start..entry.end];
        if entry.part != Part::Piece {
            return Vec::new();
        }
        if codec::is_noise(piece) {
            return piece.to_vec();
        }
        let floor = entry.start.saturating_sub(WINDOW_BYTES);
        let packed = packer.pack(&batch[start..entry.end], entry.start - start, floor - start);
        if packed.len() < piece.len() { packed } else { piece.to_vec() }
    };
    parts.iter().map(&mut pack).collect()
}
