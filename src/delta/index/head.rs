//! Reading an index: what of a layer's blob has to be fetched.

use super::{
    HASH_BYTES, Have, MAGIC, MAX_PIECE, PIECE_HASH_BYTES, content_bytes, number_of, op, piece_key,
};
use crate::delta::native::column::{Column, Frame, corrupt, read_number};
use crate::delta::native::header::{self, Block};
use crate::delta::native::{BLOCK_BYTES, padding};
use crate::digest::Digest;
use crate::error::Result;

/// A stretch of a blob: its start and its end.
pub type Span = std::ops::Range<u64>;

/// The details of a layer together, packed: what is held of them in memory.
const MAX_DETAILS_BYTES: u64 = 4 << 20;

/// A layer of which the head has been read.
pub struct Layer {
    /// The length of its tar.
    pub tar_bytes: u64,
    /// Where in the blob the details are.
    details: Span,
    /// The frames of the head.
    frames: Vec<u8>,
    /// The details that were fetched, one behind another.
    fetched: Vec<u8>,
}

/// A group, as the head has it.
pub(super) struct Group {
    pub key: u64,
    pub tar_bytes: u64,
    /// What its paths begin with.
    pub directory: Vec<u8>,
    pub detail: Span,
    pub pieces: Span,
}

/// What a detail says next.
pub(super) enum Op<'a> {
    Header(&'a Block),
    Bytes(&'a [u8]),
    Piece(Piece),
}

/// A piece, as a detail has it.
pub(super) struct Piece {
    pub key: u64,
    pub length: usize,
    /// Where it is in the blob.
    pub span: Span,
}

impl Layer {
    /// Reads a head, the last bytes of a blob of `blob_bytes`.
    pub fn read(head: &[u8], blob_bytes: u64) -> Result<Layer> {
        let damaged = || corrupt("the head of the index is damaged".into());
        let rest = head.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (check, mut rest) = rest.split_at_checked(8).ok_or_else(damaged)?;
        if !Digest::of(rest).as_bytes().starts_with(check) {
            return Err(damaged());
        }
        let (tar_bytes, details) = (read_number(&mut rest)?, read_number(&mut rest)?);
        let end = blob_bytes.checked_sub(head.len() as u64).filter(|&end| details <= end);
        let details = details..end.ok_or_else(damaged)?;
        let layer = Layer { tar_bytes, details, frames: rest.to_vec(), fetched: Vec::new() };
        let mut sums = (0_u64, 0_u64, 0_u64);
        layer.groups(&mut |group, _| {
            sums = (sums.0.saturating_add(group.tar_bytes), group.pieces.end, group.detail.end);
            Ok(())
        })?;
        let is_whole =
            sums.0 == tar_bytes && sums.1 == layer.details.start && sums.2 == layer.details.end;
        if is_whole || (tar_bytes == 0 && sums.0 == 0) { Ok(layer) } else { Err(damaged()) }
    }

    /// Goes through the groups; each gets the frame in which its times are next.
    pub(super) fn groups(
        &self,
        each: &mut dyn FnMut(Group, &mut Frame) -> Result<()>,
    ) -> Result<()> {
        let (mut detail_at, mut piece_at) = (self.details.start, 0_u64);
        let (mut frames, mut directory) = (&self.frames[..], Vec::new());
        while let Some(mut frame) = Frame::read(&mut frames)? {
            while !frame.is_at_end(Column::Raw) {
                let key = number_of(frame.take(Column::Raw, HASH_BYTES)?);
                let tar_bytes = frame.number(Column::Counts)?;
                let (detail, pieces) =
                    (frame.number(Column::Copies)?, frame.number(Column::Extras)?);
                directory.truncate(
                    usize::try_from(frame.number(Column::Prefixes)?).unwrap_or(usize::MAX),
                );
                loop {
                    match frame.byte(Column::Names)? {
                        0 => break,
                        byte => directory.push(byte),
                    }
                }
                let ends = detail_at.checked_add(detail).zip(piece_at.checked_add(pieces));
                let ends = ends.filter(|&(detail, pieces)| {
                    detail <= self.details.end && pieces <= self.details.start
                });
                let (detail_end, piece_end) =
                    ends.ok_or_else(|| corrupt("the index has a group behind its blob".into()))?;
                let (detail, pieces) = (detail_at..detail_end, piece_at..piece_end);
                (detail_at, piece_at) = (detail_end, piece_end);
                let directory = directory.clone();
                each(Group { key, tar_bytes, directory, detail, pieces }, &mut frame)?;
            }
        }
        Ok(())
    }

    /// The details to be fetched, in order.
    pub fn missing_details(&self, have: &Have) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        self.groups(&mut |group, _| {
            if have.group(group.key).is_none() {
                spans.push(group.detail);
            }
            Ok(())
        })?;
        if bytes_of(&spans) > MAX_DETAILS_BYTES {
            return Err(corrupt(format!(
                "the index has more than {MAX_DETAILS_BYTES} bytes of details"
            )));
        }
        Ok(spans)
    }

    /// Takes the details that were said to be missing, one behind another.
    pub fn take_details(&mut self, details: Vec<u8>) {
        self.fetched = details;
    }

    /// The pieces to be fetched, in order. The details were taken.
    pub fn missing_pieces(&self, have: &Have) -> Result<Vec<Span>> {
        let (mut spans, mut details) = (Vec::new(), &self.fetched[..]);
        self.groups(&mut |group, _| {
            if have.group(group.key).is_some() {
                return Ok(());
            }
            read_detail(&group, &mut details, &mut |op| {
                if let Op::Piece(piece) = op
                    && have.piece(piece.key).is_none()
                {
                    spans.push(piece.span);
                }
                Ok(())
            })
        })?;
        Ok(spans)
    }

    pub(super) fn fetched(&self) -> &[u8] {
        &self.fetched
    }
}

/// Gives what the group's detail says, the next of `details`, to `each`.
pub(super) fn read_detail(
    group: &Group,
    details: &mut &[u8],
    each: &mut dyn FnMut(Op) -> Result<()>,
) -> Result<()> {
    let bytes = usize::try_from(group.detail.end - group.detail.start).unwrap_or(usize::MAX);
    let (mut detail, rest) = details
        .split_at_checked(bytes)
        .ok_or_else(|| corrupt("the index lacks a detail".into()))?;
    *details = rest;
    let no_frame = || corrupt("the index has an empty detail".into());
    let mut frame = Frame::read(&mut detail)?.ok_or_else(no_frame)?;
    let mut headers = header::Context::new();
    let (mut block, mut rest, mut gap, mut at) = ([0; BLOCK_BYTES], 0, 0, group.pieces.start);
    while !frame.is_at_end(Column::Ops) {
        match frame.byte(Column::Ops)? {
            op::HEADER => {
                block = headers.read(&mut frame, &block)?;
                rest = content_bytes(&block).unwrap_or(0);
                gap = padding(rest) as usize;
                each(Op::Header(&block))?;
            }
            op::GIVEN => {
                let count = usize::try_from(std::mem::take(&mut rest)).unwrap_or(usize::MAX);
                each(Op::Bytes(frame.take(Column::Literals, count)?))?;
            }
            op::PIECE => {
                let length = match frame.number(Column::Counts)? {
                    0 => rest,
                    length => length,
                };
                let packed = frame.number(Column::Copies)?;
                if length > MAX_PIECE as u64 || packed > length || packed > group.pieces.end - at {
                    return Err(corrupt(format!("the index has a piece of {length} bytes")));
                }
                rest = rest.saturating_sub(length);
                let key = piece_key(frame.take(Column::Values, PIECE_HASH_BYTES)?, length as usize);
                let span = at..at + packed;
                at = span.end;
                each(Op::Piece(Piece { key, length: length as usize, span }))?;
            }
            op::ZEROS => each(Op::Bytes(&[0; BLOCK_BYTES][..gap]))?,
            op::PADDING => each(Op::Bytes(frame.take(Column::Literals, gap)?))?,
            unknown => return Err(corrupt(format!("the index has an operation {unknown}"))),
        }
    }
    frame.finish()
}

/// The spans, in order, those joined between which lie `gap` bytes or fewer.
pub fn join(spans: &[Span], gap: u64) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for span in spans.iter().filter(|span| !span.is_empty()) {
        match joined.last_mut() {
            Some(last) if span.start.saturating_sub(last.end) <= gap => last.end = span.end,
            _ => joined.push(span.clone()),
        }
    }
    joined
}

/// What the spans have together.
pub fn bytes_of(spans: &[Span]) -> u64 {
    spans.iter().fold(0, |sum, span| sum.saturating_add(span.end - span.start))
}
