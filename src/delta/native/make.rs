//! From a basis and a target to the delta.

use std::io::Write;

use super::column::{Column, Columns, FRAME_BYTES, OPERATION_BYTES, put_number};
use super::entries::{Entry, Index, entries, read_exact};
use super::gzip::{self, MAX_OPEN_BYTES};
use super::header::{self, Block};
use super::matches::{self, Step, Weights};
use super::peers::peers;
use super::references::{self, ALL, CHUNK_BYTES, CODE, JUMPS, Layout, Moves, POINTERS, Prediction};
use super::suffixes::suffixes;
use super::{BLOCK_BYTES, MAGIC, MAX_PREDICTED_STEPS, content, flag, padding};
use crate::delta::ReadAt;
use crate::error::{Context, Result};

/// Longer files are not matched with others: the memory for it is 10 times as much.
const MAX_MATCHED_BYTES: u64 = 256 << 20;
/// New content that is written at a time.
const RUN_BYTES: u64 = 1 << 20;
/// Where a file begins with so many bytes and no zero, it is text.
const TEXT_BYTES: usize = 1024;

/// Writes to `out` the delta that makes `target` of `basis`, of which `index` was made.
pub fn make(
    index: &Index,
    basis: &mut dyn ReadAt,
    target: &mut dyn ReadAt,
    out: &mut dyn Write,
) -> Result<()> {
    let mut head = MAGIC.to_vec();
    put_number(&mut head, basis.size_bytes());
    put_number(&mut head, target.size_bytes());
    out.write_all(&head).context(what)?;
    let entries = entries(target)?;
    let peers = peers(index, &entries);
    let mut maker = Maker { frame: FrameState::new(), out };
    let mut at = 0;
    for (entry, peer) in entries.iter().zip(peers) {
        maker.runs(target, at, entry.offset)?;
        maker.entry(basis, target, entry, peer.map(|number| &index.entries[number]))?;
        at = entry.end().min(target.size_bytes());
    }
    let end = target.size_bytes();
    maker.runs(target, at, end)?;
    maker.flush()?;
    maker.out.write_all(&[0]).context(what)
}

fn what() -> String {
    "write the delta".into()
}

struct Maker<'a> {
    frame: FrameState,
    out: &'a mut dyn Write,
}

/// What begins anew with each frame.
struct FrameState {
    columns: Columns,
    headers: header::Context,
    previous: Block,
    /// Where the next peer is expected.
    next: u64,
    /// Of the differences: equal bytes since the last run, and the length of a run under way.
    equal: u64,
    run: u64,
}

impl FrameState {
    fn new() -> FrameState {
        FrameState {
            columns: Columns::default(),
            headers: header::Context::new(),
            previous: [0; BLOCK_BYTES],
            next: 0,
            equal: 0,
            run: 0,
        }
    }

    /// Takes in the difference of copied bytes to those that are wanted.
    fn difference(&mut self, copied: &[u8], wanted: &[u8]) {
        for (&copied, &wanted) in copied.iter().zip(wanted) {
            let difference = wanted.wrapping_sub(copied);
            if difference == 0 {
                self.end_run();
                self.equal += 1;
                continue;
            }
            if self.run == 0 {
                self.columns.number(Column::Gaps, self.equal);
                self.equal = 0;
            }
            self.run += 1;
            self.columns.byte(Column::Values, difference);
        }
    }

    fn end_run(&mut self) {
        if self.run > 0 {
            self.columns.number(Column::Runs, self.run);
            self.run = 0;
        }
    }
}

impl Maker<'_> {
    /// Closes the frame if it has enough.
    fn end_operation(&mut self) -> Result<()> {
        if self.frame.columns.bytes() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.frame.end_run();
        let mut frame = std::mem::replace(&mut self.frame, FrameState::new());
        if frame.columns.bytes() == 0 {
            return Ok(());
        }
        self.out.write_all(&frame.columns.pack()).context(what)
    }

    /// What is no entry.
    fn runs(&mut self, target: &mut dyn ReadAt, start: u64, end: u64) -> Result<()> {
        let mut at = start;
        while at < end {
            let mut bytes = vec![0; (end - at).min(RUN_BYTES) as usize];
            read_exact(target, at, &mut bytes)?;
            let columns = &mut self.frame.columns;
            columns.byte(Column::Ops, content::NEW);
            columns.number(Column::Counts, bytes.len() as u64);
            columns.extend(Column::Literals, &bytes);
            at += bytes.len() as u64;
            self.end_operation()?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        basis: &mut dyn ReadAt,
        target: &mut dyn ReadAt,
        entry: &Entry,
        peer: Option<&Entry>,
    ) -> Result<()> {
        let mut block = [0; BLOCK_BYTES];
        read_exact(target, entry.offset, &mut block)?;
        let other = match peer {
            Some(peer) => {
                let mut other = [0; BLOCK_BYTES];
                read_exact(basis, peer.offset, &mut other)?;
                Some((peer, other))
            }
            None => None,
        };
        let end = entry.end().min(target.size_bytes());
        let has_zero_padding = end == entry.end() && {
            let mut bytes = vec![0; padding(entry.bytes) as usize];
            read_exact(target, entry.content() + entry.bytes, &mut bytes)?;
            bytes.iter().all(|&byte| byte == 0)
        };
        let fits = has_zero_padding && entry.bytes == header::size(&block).unwrap_or(u64::MAX);
        if entry.bytes == 0 && fits {
            self.header(content::NONE, &block, other);
            return self.end_operation();
        }
        if !fits {
            self.header(content::NONE | flag::GOES_ON, &block, other);
            self.end_operation()?;
            return self.runs(target, entry.content(), end);
        }
        if let Some(peer) = peer
            && peer.hash == entry.hash
            && peer.bytes == entry.bytes
        {
            self.header(content::PEER, &block, other);
            return self.end_operation();
        }
        if self.gzip(basis, target, entry, &block, other)? {
            return self.end_operation();
        }
        match peer {
            Some(peer) if peer.bytes > 0 && peer.bytes.max(entry.bytes) <= MAX_MATCHED_BYTES => {
                self.patched(basis, target, entry, &block, peer, other)
            }
            _ if entry.bytes <= RUN_BYTES => {
                self.header(content::NEW, &block, other);
                let mut bytes = vec![0; entry.bytes as usize];
                read_exact(target, entry.content(), &mut bytes)?;
                self.frame.columns.extend(Column::Literals, &bytes);
                self.end_operation()
            }
            _ => {
                self.header(content::NONE | flag::GOES_ON, &block, other);
                self.runs(target, entry.content(), entry.end())
            }
        }
    }

    /// Begins an operation with a header; `flags` are those that say nothing of the header.
    fn header(&mut self, flags: u8, block: &Block, peer: Option<(&Entry, Block)>) {
        let frame = &mut self.frame;
        let mut flags = flags | flag::HAS_HEADER;
        let other = match peer {
            None => {
                flags |= flag::NO_PEER;
                frame.previous
            }
            Some((peer, other)) => {
                let difference = peer.offset.wrapping_sub(frame.next) as i64;
                if difference != 0 {
                    flags |= flag::PEER_GIVEN;
                    frame.columns.signed(Column::Peers, difference / BLOCK_BYTES as i64);
                }
                frame.next = peer.end();
                other
            }
        };
        if *block != other {
            flags |= flag::FIELDS_DIFFER;
            frame.headers.write(&mut frame.columns, block, &other);
        }
        frame.columns.byte(Column::Ops, flags);
        frame.previous = *block;
    }

    /// A file that is a gzip member: `false` if it is none that can be opened, and nothing was done.
    fn gzip(
        &mut self,
        basis: &mut dyn ReadAt,
        target: &mut dyn ReadAt,
        entry: &Entry,
        block: &Block,
        peer: Option<(&Entry, Block)>,
    ) -> Result<bool> {
        let file = file_up_to(target, entry, MAX_OPEN_BYTES)?;
        let Some(opened) = gzip::open(&file) else { return Ok(false) };
        let (mut old, mut peer_is_open) = (Vec::new(), false);
        if let Some((peer, _)) = peer {
            old = file_up_to(basis, peer, MAX_OPEN_BYTES)?;
            if let Some((_, content)) = gzip::inflate(&old) {
                (old, peer_is_open) = (content, true);
            }
        }
        let pair = Pair::of(&old, &opened.content);
        let parts = if old.is_empty() { Vec::new() } else { pair.parts() };
        let (flags, part) = match &parts[..] {
            [part] => (content::PATCH | part.flags(), Some(part)),
            [] if opened.content.len() <= OPERATION_BYTES => (content::NEW, None),
            _ => return Ok(false),
        };
        self.header(flags | flag::GZIP, block, peer);
        let columns = &mut self.frame.columns;
        columns.number(Column::Counts, u64::from(opened.recipe.to_byte()));
        columns.number(Column::Counts, opened.head.len() as u64);
        columns.number(Column::Counts, opened.content.len() as u64);
        columns.extend(Column::Raw, &opened.head);
        match part {
            Some(part) => {
                columns.number(Column::Counts, u64::from(peer_is_open));
                self.patch(&pair, part);
            }
            None => columns.extend(Column::Literals, &opened.content),
        }
        Ok(true)
    }

    /// A file that is like its peer.
    fn patched(
        &mut self,
        basis: &mut dyn ReadAt,
        target: &mut dyn ReadAt,
        entry: &Entry,
        block: &Block,
        peer: &Entry,
        other: Option<(&Entry, Block)>,
    ) -> Result<()> {
        let (mut old, mut new) = (vec![0; peer.bytes as usize], vec![0; entry.bytes as usize]);
        read_exact(basis, peer.content(), &mut old)?;
        read_exact(target, entry.content(), &mut new)?;
        let pair = Pair::of(&old, &new);
        let parts = pair.parts();
        if let [part] = &parts[..] {
            self.header(content::PATCH | part.flags(), block, other);
            self.patch(&pair, part);
            return self.end_operation();
        }
        self.header(content::NONE | flag::GOES_ON, block, other);
        for part in &parts {
            let columns = &mut self.frame.columns;
            columns.byte(Column::Ops, content::PATCH | flag::PEER_GIVEN | part.flags());
            columns.signed(Column::Peers, peer.content().wrapping_sub(self.frame.next) as i64);
            columns.number(Column::Counts, bytes_of(&part.steps) as u64);
            self.patch(&pair, part);
            self.end_operation()?;
        }
        self.runs(target, entry.content() + entry.bytes, entry.end())
    }

    fn patch(&mut self, pair: &Pair, part: &Part) {
        let frame = &mut self.frame;
        frame.columns.number(Column::Counts, part.steps.len() as u64);
        if let Some(prediction) = &part.prediction {
            frame.columns.number(Column::Counts, prediction.kinds);
            frame.columns.number(Column::Counts, part.start as u64);
            prediction.new.write(&mut frame.columns);
        }
        let mut from = 0;
        for step in &part.steps {
            frame.columns.number(Column::Copies, step.copy as u64);
            frame.columns.number(Column::Extras, step.extra as u64);
            frame.columns.signed(Column::Seeks, step.from as i64 - from as i64);
            from = step.from + step.copy;
        }
        pair.walk(
            &part.steps,
            part.start,
            part.prediction.as_ref(),
            &mut |copied, wanted, extra| {
                frame.difference(copied, wanted);
                frame.columns.extend(Column::Literals, extra);
            },
        );
    }
}

/// The content of a file; nothing if it is longer than `limit`.
fn file_up_to(tar: &mut dyn ReadAt, entry: &Entry, limit: usize) -> Result<Vec<u8>> {
    let mut file =
        vec![0; usize::try_from(entry.bytes).ok().filter(|&bytes| bytes <= limit).unwrap_or(0)];
    read_exact(tar, entry.content(), &mut file)?;
    Ok(file)
}

/// The steps that make the part of a new file from `start` on, in one operation.
struct Part {
    steps: Vec<Step>,
    start: usize,
    prediction: Option<Prediction>,
}

impl Part {
    fn flags(&self) -> u8 {
        if self.prediction.is_some() { flag::PREDICTED } else { 0 }
    }
}

fn bytes_of(steps: &[Step]) -> usize {
    steps.iter().map(|step| step.copy + step.extra).sum()
}

/// An old file, and the new one that is to be made of it.
struct Pair<'a> {
    old: &'a [u8],
    new: &'a [u8],
    layouts: Option<(Layout, Layout)>,
    steps: Vec<Step>,
}

impl<'a> Pair<'a> {
    fn of(old: &'a [u8], new: &'a [u8]) -> Pair<'a> {
        let layout = |file: &[u8]| {
            Layout::parse(&mut |offset, buffer| {
                let bytes = usize::try_from(offset)
                    .ok()
                    .and_then(|start| file.get(start..)?.get(..buffer.len()));
                bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
            })
        };
        let layouts = layout(old).zip(layout(new)).filter(|(old, new)| old.is_like(new));
        let is_text = |file: &[u8]| !file[..file.len().min(TEXT_BYTES)].contains(&0);
        let weights = if is_text(old) && is_text(new) { Weights::TEXT } else { Weights::BINARY };
        let steps = match &layouts {
            Some((old_layout, new_layout)) => {
                let (old, new) =
                    (references::mask(old_layout, old), references::mask(new_layout, new));
                matches::steps(&old, &new, &suffixes(&old), weights)
            }
            None => matches::steps(old, new, &suffixes(old), weights),
        };
        Pair { old, new, layouts, steps }
    }

    /// The steps, in parts that fit into an operation each.
    fn parts(&self) -> Vec<Part> {
        let steps: Vec<Step> = self.steps.iter().flat_map(|&step| split(step)).collect();
        let mut parts = Vec::new();
        let mut start = 0;
        for steps in steps.chunks(MAX_PREDICTED_STEPS) {
            self.fit(steps, start, &mut parts);
            start += bytes_of(steps);
        }
        if parts.is_empty() {
            parts.push(Part { steps, start, prediction: None });
        }
        parts
    }

    /// Adds `steps` to `parts`: as one, or as halves, and those again, where that is too much.
    fn fit(&self, steps: &[Step], start: usize, parts: &mut Vec<Part>) {
        let (cost, prediction) = self.prediction(steps, start);
        if cost <= OPERATION_BYTES || steps.len() == 1 {
            return parts.push(Part { steps: steps.to_vec(), start, prediction });
        }
        let (first, second) = steps.split_at(steps.len() / 2);
        self.fit(first, start, parts);
        self.fit(second, start + bytes_of(first), parts);
    }

    /// The cheapest prediction for steps that make the new file from `start` on, and how many bytes they then take at most.
    fn prediction(&self, steps: &[Step], start: usize) -> (usize, Option<Prediction>) {
        let (cost, layouts) = (self.cost(steps, start, None), self.layouts.as_ref());
        let Some((old, new)) = layouts else { return (cost, None) };
        let moves = || {
            let mut at = start as u64;
            let copies = steps.iter().map(|step| {
                let copy = (step.from as u64, step.copy as u64, at);
                at += (step.copy + step.extra) as u64;
                copy
            });
            Moves::new(copies.collect())
        };
        let choices = [CODE, ALL & !POINTERS & !JUMPS, ALL & !POINTERS, ALL & !JUMPS, ALL];
        let candidates = choices.into_iter().map(|kinds| {
            let (old, new) = (old.clone(), new.clone());
            let prediction = Prediction { kinds, old, new, moves: moves() };
            (self.cost(steps, start, Some(&prediction)), Some(prediction))
        });
        let all = std::iter::once((cost, None)).chain(candidates);
        // Cannot fail: there is one.
        all.min_by_key(|(cost, _)| *cost).unwrap()
    }

    /// What the steps take at most, in bytes: numbers, differences and new bytes.
    fn cost(&self, steps: &[Step], start: usize, prediction: Option<&Prediction>) -> usize {
        const NUMBERS_OF_STEP: usize = 16;
        let (mut cost, mut differed) = (steps.len() * NUMBERS_OF_STEP, false);
        self.walk(steps, start, prediction, &mut |copied, wanted, extra| {
            for (one, other) in copied.iter().zip(wanted) {
                let differs = one != other;
                // A gap and a run before the first value of a run, a byte each; longer numbers are for more bytes than 64.
                cost += usize::from(differs) + if differs && !differed { 2 } else { 0 };
                differed = differs;
            }
            cost += copied.len() / 64 + extra.len();
        });
        cost
    }

    /// Goes through the steps as the reader of the delta does: for each chunk what was copied, what is wanted, and the new bytes
    /// behind it.
    fn walk(&self, steps: &[Step], start: usize, prediction: Option<&Prediction>, each: &mut Each) {
        let mut at = start;
        for step in steps {
            for chunk in (0..step.copy).step_by(CHUNK_BYTES) {
                let bytes = CHUNK_BYTES.min(step.copy - chunk);
                let mut copied = self.old[step.from + chunk..][..bytes].to_vec();
                if let Some(prediction) = prediction {
                    prediction.predict(
                        &mut copied,
                        (step.from + chunk) as u64,
                        (at + chunk) as u64,
                    );
                }
                each(&copied, &self.new[at + chunk..][..bytes], &[]);
            }
            at += step.copy;
            each(&[], &[], &self.new[at..][..step.extra]);
            at += step.extra;
        }
    }
}

/// What is done with each chunk of a patch: what was copied, what is wanted, and the new bytes behind it.
type Each<'a> = dyn FnMut(&[u8], &[u8], &[u8]) + 'a;

/// A step, in parts none of which is too much for an operation.
fn split(step: Step) -> Vec<Step> {
    const PART: usize = OPERATION_BYTES / 8;
    let (mut parts, mut step) = (Vec::new(), step);
    while step.copy > 2 * PART {
        parts.push(Step { copy: PART, extra: 0, ..step });
        step = Step { from: step.from + PART, copy: step.copy - PART, ..step };
    }
    while step.extra > PART {
        parts.push(Step { extra: PART, ..step });
        step = Step { from: step.from + step.copy, copy: 0, extra: step.extra - PART };
    }
    parts.push(step);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of three bytes are equal: enough for a match, and as dear as new bytes.
    #[test]
    fn a_part_is_never_more_than_a_frame_holds() {
        let old = vec![0; 3 * OPERATION_BYTES];
        let new: Vec<u8> = (0..old.len()).map(|at| u8::from(at % 3 == 0)).collect();
        let steps = vec![Step { from: 0, copy: old.len(), extra: 0 }];
        let pair = Pair { old: &old, new: &new, layouts: None, steps };
        let parts = pair.parts();
        let mut sink = std::io::sink();
        let (mut maker, mut at) = (Maker { frame: FrameState::new(), out: &mut sink }, 0);
        for part in &parts {
            assert_eq!(part.start, at);
            at += bytes_of(&part.steps);
            let before = maker.frame.columns.bytes();
            maker.patch(&pair, part);
            let bytes = maker.frame.columns.bytes() - before;
            assert!(bytes <= OPERATION_BYTES, "{bytes} from {}", part.start);
        }
        assert_eq!(at, new.len());
    }
}
