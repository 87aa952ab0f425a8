//! From a basis and a delta to the target.
//!
//! Everything in a delta comes from outside: positions are held against the basis, lengths against what the delta said the target
//! has, before a byte is written. Whether the result is right is told by its diff ID.

use std::io::{self, BufWriter, Read, Write};

use super::column::{Column, Frame, corrupt, read_number};
use super::gzip::{self, Closing, MAX_OPEN_BYTES, Recipe};
use super::header::{self, Block};
use super::references::{CHUNK_BYTES, Layout, Moves, Prediction};
use super::watch::{Made, Watch};
use super::{BLOCK_BYTES, MAGIC, MAX_PREDICTED_STEPS, content, flag, padding};
use crate::delta::ReadAt;
use crate::error::{Context, Error, Result};
use crate::stream::Stream;

/// Basis bytes that are kept, and the longest write.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes to `out` what `delta` makes of `basis`. Success means that the delta was well-formed and was read to its end; not that the
/// basis was the right one.
///
/// `Kind::Corrupt` if the delta is truncated, has lengths or positions that cannot be, or is for a basis of another length; the
/// kind of the cause if a stream fails.
pub fn apply(delta: &mut dyn Stream, basis: &mut dyn ReadAt, out: &mut dyn Write) -> Result<()> {
    let mut patching = Patching::begin(delta, basis, out)?;
    while patching.frame(delta)? {}
    patching.finish(delta)
}

/// A delta that is being applied, frame by frame, so that another process can go on between two.
pub struct Patching<'a> {
    basis: Basis<'a>,
    target: Target<'a>,
    watch: Option<Watch<'a>>,
}

impl<'a> Patching<'a> {
    /// Reads what stands before the first frame.
    pub fn begin(
        delta: &mut dyn Stream,
        basis: &'a mut dyn ReadAt,
        out: &'a mut dyn Write,
    ) -> Result<Self> {
        let mut magic = [0; MAGIC.len()];
        delta.read_exact(&mut magic).context(|| "read delta".into())?;
        if magic != *MAGIC {
            return Err(corrupt("it is no delta of a version that is known".into()));
        }
        let (wanted, found) = (read_number(delta)?, basis.size_bytes());
        if wanted != found {
            return Err(corrupt(format!(
                "delta is for a basis of {wanted} bytes: this one has {found}"
            )));
        }
        let length = read_number(delta)?;
        let target = Target::new(out, 0, Some(length));
        Ok(Patching { basis: Basis::new(basis), target, watch: None })
    }

    /// Goes on between two frames, where another had written so many bytes of the target.
    pub fn resume(written: u64, basis: &'a mut dyn ReadAt, out: &'a mut dyn Write) -> Self {
        let target = Target::new(out, written, None);
        Patching { basis: Basis::new(basis), target, watch: None }
    }

    /// Tells `each` of what is made.
    pub fn watch(&mut self, each: &'a mut dyn FnMut(Made)) {
        self.watch = Some(Watch::new(each));
    }

    /// Applies the next frame; `false` at the end of the delta. What it makes has been written on return.
    pub fn frame(&mut self, delta: &mut dyn Stream) -> Result<bool> {
        let Some(frame) = Frame::read(delta)? else { return Ok(false) };
        self.apply(frame)?;
        self.target.flush()?;
        Ok(true)
    }

    /// Bytes of the target that have been made.
    pub fn written(&self) -> u64 {
        self.target.written
    }

    /// Looks whether that was all.
    pub fn finish(mut self, delta: &mut dyn Stream) -> Result<()> {
        if delta.read(&mut [0]).context(|| "read delta".into())? > 0 {
            return Err(corrupt("delta goes on after its end".into()));
        }
        self.target.finish()
    }
}

/// What begins anew with each frame.
struct State {
    frame: Frame,
    headers: header::Context,
    previous: Block,
    /// Where the next peer is expected.
    next: u64,
    /// Of the differences: equal bytes, and then differing ones, that are still to come.
    equal: u64,
    run: u64,
}

impl Patching<'_> {
    fn apply(&mut self, frame: Frame) -> Result<()> {
        let mut state = State {
            frame,
            headers: header::Context::new(),
            previous: [0; BLOCK_BYTES],
            next: 0,
            equal: 0,
            run: 0,
        };
        while !state.frame.is_at_end(Column::Ops) {
            let (packed, written) = (state.frame.packed_used(), self.target.written);
            let flags = state.frame.byte(Column::Ops)?;
            match flags & flag::HAS_HEADER {
                0 => self.run(&mut state, flags)?,
                _ => self.entry(&mut state, flags)?,
            }
            if let Some(watch) = &mut self.watch {
                let (made, used) =
                    (self.target.written - written, state.frame.packed_used() - packed);
                watch.tell(&state.previous, flags, made, used);
            }
        }
        state.frame.finish()
    }

    /// An entry: header, content, padding.
    fn entry(&mut self, state: &mut State, flags: u8) -> Result<()> {
        let (mut peer, mut other) = (None, state.previous);
        if flags & flag::NO_PEER == 0 {
            let offset = state.peer(flags, BLOCK_BYTES as i64)?;
            self.basis.read_exact(offset, &mut other)?;
            let has_content = !matches!(header::kind(&other), b'1'..=b'6');
            let peer_bytes = if has_content { header::size(&other).unwrap_or(0) } else { 0 };
            peer = Some((offset.saturating_add(BLOCK_BYTES as u64), peer_bytes));
            state.next = offset
                .saturating_add(BLOCK_BYTES as u64 + peer_bytes)
                .saturating_add(padding(peer_bytes));
        }
        let block = match flags & flag::FIELDS_DIFFER {
            0 => other,
            _ => state.headers.read(&mut state.frame, &other)?,
        };
        state.previous = block;
        self.target.write(&block)?;
        if flags & flag::CONTENT == content::NONE {
            return Ok(());
        }
        let bytes = header::size(&block)
            .ok_or_else(|| corrupt("delta has an entry without a size".into()))?;
        match flags & flag::GZIP {
            0 => self.content(state, flags, peer.map(|(offset, _)| offset), bytes)?,
            _ => self.gzip(state, flags & !flag::GZIP, peer, bytes)?,
        }
        self.target.write(&[0; BLOCK_BYTES][..padding(bytes) as usize])
    }

    /// A gzip member of `bytes`, whose open content is given.
    fn gzip(
        &mut self,
        state: &mut State,
        flags: u8,
        peer: Option<(u64, u64)>,
        bytes: u64,
    ) -> Result<()> {
        let unknown = || corrupt("delta has a gzip member that is packed in no known way".into());
        let recipe = u8::try_from(state.frame.number(Column::Counts)?).ok();
        let recipe = recipe.and_then(Recipe::from_byte).ok_or_else(unknown)?;
        let head_bytes = state.frame.number(Column::Counts)?;
        let length = state.frame.number(Column::Counts)?;
        if length.max(head_bytes) > MAX_OPEN_BYTES as u64 {
            return Err(corrupt(format!("delta has a gzip member of {length} bytes")));
        }
        let head = state.frame.take(Column::Raw, head_bytes as usize)?.to_vec();
        let peer_is_open =
            flags & flag::CONTENT == content::PATCH && state.frame.number(Column::Counts)? != 0;
        let mut peer_content = Vec::new();
        if peer_is_open {
            let (offset, packed_bytes) = peer.unwrap_or_default();
            peer_content = self.basis.inflate(offset, packed_bytes)?;
        }
        let mut peer_content = peer_content.as_slice();
        let (source, origin): (&mut dyn ReadAt, _) = match peer_is_open {
            true => (&mut peer_content, Some(0)),
            false => (self.basis.source, peer.map(|(offset, _)| offset)),
        };
        let what = || "write a gzip member that the delta makes".to_string();
        let before = self.target.written;
        let mut closing = Closing::new(&head, recipe, &mut self.target).context(what)?;
        let target = Target::new(&mut closing, 0, Some(length));
        let mut inner = Patching { basis: Basis::new(source), target, watch: None };
        inner.content(state, flags, origin, length)?;
        inner.target.finish()?;
        drop(inner);
        closing.finish().context(what)?;
        if self.target.written - before != bytes {
            return Err(corrupt("delta has a gzip member of another length".into()));
        }
        Ok(())
    }

    /// Bytes without a header.
    fn run(&mut self, state: &mut State, flags: u8) -> Result<()> {
        let peer = match flags & flag::PEER_GIVEN {
            0 => None,
            _ => Some(state.next.wrapping_add(state.frame.signed(Column::Peers)? as u64)),
        };
        let bytes = state.frame.number(Column::Counts)?;
        self.content(state, flags, peer, bytes)
    }

    fn content(
        &mut self,
        state: &mut State,
        flags: u8,
        peer: Option<u64>,
        bytes: u64,
    ) -> Result<()> {
        self.target.check(bytes)?;
        let peer = || peer.ok_or_else(|| corrupt("delta copies from nowhere".into()));
        match flags & flag::CONTENT {
            content::PEER => self.copy(peer()?, bytes),
            content::PATCH => self.patch(state, flags, peer()?, bytes),
            _ => {
                let literal = state
                    .frame
                    .take(Column::Literals, usize::try_from(bytes).unwrap_or(usize::MAX))?;
                self.target.write(literal)
            }
        }
    }

    fn copy(&mut self, mut offset: u64, bytes: u64) -> Result<()> {
        let mut left = bytes;
        while left > 0 {
            let count = left.min(BUFFER_BYTES as u64) as usize;
            self.target.write(self.basis.bytes(offset, count)?)?;
            offset += count as u64;
            left -= count as u64;
        }
        Ok(())
    }

    /// A patch against what lies at `origin`, of `bytes`.
    fn patch(&mut self, state: &mut State, flags: u8, origin: u64, bytes: u64) -> Result<()> {
        let count = state.frame.number(Column::Counts)?;
        let prediction = match flags & flag::PREDICTED {
            0 => None,
            _ => Some(self.prediction(state, origin, count)?),
        };
        let (mut from, mut left) = (0_u64, bytes);
        let mut at = prediction.as_ref().map_or(0, |(_, start, _)| *start);
        for index in 0..count {
            let step = match &prediction {
                Some((_, _, steps)) => steps[index as usize],
                None => state.step()?,
            };
            let length = step.copy.checked_add(step.extra).filter(|&length| length <= left);
            left -= length
                .ok_or_else(|| corrupt("delta has a patch that is longer than its entry".into()))?;
            from = from.wrapping_add(step.seek as u64);
            let mut copied = 0;
            while copied < step.copy {
                let count = (step.copy - copied).min(CHUNK_BYTES as u64) as usize;
                let place = from.wrapping_add(copied);
                let chunk = self.basis.bytes(origin.wrapping_add(place), count)?;
                if let Some((prediction, _, _)) = &prediction {
                    prediction.predict(chunk, place, at + copied);
                }
                state.add_differences(chunk)?;
                self.target.write(chunk)?;
                copied += count as u64;
            }
            from = from.wrapping_add(step.copy);
            let extra = usize::try_from(step.extra).unwrap_or(usize::MAX);
            self.target.write(state.frame.take(Column::Literals, extra)?)?;
            at += step.copy + step.extra;
        }
        if left > 0 {
            return Err(corrupt(format!("delta has a patch that lacks its last {left} bytes")));
        }
        Ok(())
    }

    /// What is needed to predict references: the layouts, and all steps beforehand.
    fn prediction(
        &mut self,
        state: &mut State,
        origin: u64,
        count: u64,
    ) -> Result<(Prediction, u64, Vec<Step>)> {
        if count > MAX_PREDICTED_STEPS as u64 {
            return Err(corrupt(format!("delta has a patch of {count} steps")));
        }
        let kinds = state.frame.number(Column::Counts)?;
        let start = state.frame.number(Column::Counts)?;
        let mut failure = None;
        let old = Layout::parse(&mut |offset, buffer| {
            let read = self.basis.read_up_to(origin.saturating_add(offset), buffer);
            match read {
                Ok(count) => count == buffer.len(),
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        let no_layout = || corrupt("delta takes a file for an executable that is none".into());
        let old = old.ok_or_else(no_layout)?;
        let new = Layout::read(&mut state.frame, &old)?;
        let (mut steps, mut copies, mut from, mut at) = (Vec::new(), Vec::new(), 0_u64, start);
        for _ in 0..count {
            let step = state.step()?;
            from = from.wrapping_add(step.seek as u64);
            copies.push((from, step.copy, at));
            from = from.wrapping_add(step.copy);
            let lengths =
                step.copy.checked_add(step.extra).and_then(|length| at.checked_add(length));
            at = lengths.ok_or_else(|| corrupt("delta has a patch of more than 64 bits".into()))?;
            steps.push(step);
        }
        Ok((Prediction { kinds, old, new, moves: Moves::new(copies) }, start, steps))
    }
}

#[derive(Clone, Copy)]
struct Step {
    copy: u64,
    extra: u64,
    seek: i64,
}

impl State {
    /// The offset of the peer, whose difference to the expected one is in `unit`s.
    fn peer(&mut self, flags: u8, unit: i64) -> Result<u64> {
        if flags & flag::PEER_GIVEN == 0 {
            return Ok(self.next);
        }
        let difference = self.frame.signed(Column::Peers)?.wrapping_mul(unit);
        Ok(self.next.wrapping_add(difference as u64))
    }

    fn step(&mut self) -> Result<Step> {
        Ok(Step {
            copy: self.frame.number(Column::Copies)?,
            extra: self.frame.number(Column::Extras)?,
            seek: self.frame.signed(Column::Seeks)?,
        })
    }

    /// Makes copied bytes what is wanted.
    fn add_differences(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            if self.run == 0 && self.equal == 0 {
                if self.frame.is_at_end(Column::Gaps) {
                    return Ok(());
                }
                self.equal = self.frame.number(Column::Gaps)?;
                self.run = self.frame.number(Column::Runs)?;
            }
            let left = (bytes.len() - at) as u64;
            let skipped = self.equal.min(left);
            self.equal -= skipped;
            at += skipped as usize;
            if self.equal > 0 {
                return Ok(());
            }
            let count = self.run.min(left - skipped) as usize;
            let values = self.frame.take(Column::Values, count)?;
            for (byte, value) in bytes[at..at + count].iter_mut().zip(values) {
                *byte = byte.wrapping_add(*value);
            }
            self.run -= count as u64;
            at += count;
        }
        Ok(())
    }
}

/// The basis, with what was read last.
struct Basis<'a> {
    source: &'a mut dyn ReadAt,
    buffer: Vec<u8>,
    /// Where the buffer's bytes are in the basis.
    offset: u64,
    filled: usize,
    /// What is given out: it may be changed there.
    copy: Vec<u8>,
}

impl<'a> Basis<'a> {
    fn new(source: &'a mut dyn ReadAt) -> Self {
        Basis { source, buffer: vec![0; BUFFER_BYTES], offset: 0, filled: 0, copy: Vec::new() }
    }

    /// `count` bytes at `offset`, at most as many as the buffer holds.
    fn bytes(&mut self, offset: u64, count: usize) -> Result<&mut [u8]> {
        let is_held = |basis: &Self| {
            let start =
                offset.checked_sub(basis.offset).filter(|&start| start <= basis.filled as u64)?;
            (basis.filled as u64 - start >= count as u64).then_some(start as usize)
        };
        let start = match is_held(self) {
            Some(start) => start,
            None => {
                self.fill(offset, count)?;
                0
            }
        };
        self.copy.clear();
        self.copy.extend_from_slice(&self.buffer[start..start + count]);
        Ok(&mut self.copy)
    }

    fn fill(&mut self, offset: u64, count: usize) -> Result<()> {
        (self.offset, self.filled) = (offset, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_up_to(offset, &mut buffer);
        self.buffer = buffer;
        self.filled = result?;
        if self.filled >= count { Ok(()) } else { Err(ended(offset)) }
    }

    fn read_exact(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let count = buffer.len();
        buffer.copy_from_slice(self.bytes(offset, count)?);
        Ok(())
    }

    /// What is in the gzip member at `offset`, of `bytes`.
    fn inflate(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let mut packed = vec![0; bytes.min(MAX_OPEN_BYTES as u64) as usize];
        self.read_up_to(offset, &mut packed)?;
        match gzip::inflate(&packed) {
            Some((_, content)) => Ok(content),
            None => Err(corrupt(format!("basis has no gzip member at byte {offset}"))),
        }
    }

    /// As many bytes as there are, up to the buffer's length.
    fn read_up_to(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let what = || format!("read the basis at byte {offset}");
            match self
                .source
                .read_at(offset.saturating_add(filled as u64), &mut buffer[filled..])
                .context(what)?
            {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }
}

fn ended(offset: u64) -> Error {
    corrupt(format!("delta copies from behind the end of its basis, at byte {offset}"))
}

struct Target<'a> {
    out: BufWriter<&'a mut dyn Write>,
    written: u64,
    /// How many bytes it is to have, if that is known.
    length: Option<u64>,
}

impl<'a> Target<'a> {
    fn new(out: &'a mut dyn Write, written: u64, length: Option<u64>) -> Self {
        Target { out: BufWriter::with_capacity(BUFFER_BYTES, out), written, length }
    }

    fn check(&self, bytes: u64) -> Result<()> {
        match self.length {
            Some(length) if bytes > length - self.written => {
                Err(corrupt("delta makes more than it says".into()))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.check(bytes.len() as u64)?;
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).context(|| "write what the delta makes".into())
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().context(|| "write what the delta makes".into())
    }

    fn finish(&mut self) -> Result<()> {
        match self.length.map(|length| length - self.written) {
            Some(left) if left > 0 => {
                Err(corrupt(format!("delta lacks the last {left} bytes of what it makes")))
            }
            _ => self.flush(),
        }
    }
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Target::write(self, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
