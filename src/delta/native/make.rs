//! From a basis and a target to the delta.

use std::io::Write;

use super::column::{Column, Columns, FRAME_BYTES, OPERATION_BYTES, put_number};
use super::entries::{Entry, Index, entries, read_exact};
use super::gzip::{self, MAX_OPEN_BYTES};
use super::header::{self, Block};
use super::pair::{Pair, Part, bytes_of};
use super::peers::peers;
use super::{BLOCK_BYTES, MAGIC, content, flag, padding};
use crate::delta::ReadAt;
use crate::error::{Context, Result};

/// Longer files are not matched with others: the memory for it is 10 times as much.
const MAX_MATCHED_BYTES: u64 = 256 << 20;
/// New content that is written at a time.
const RUN_BYTES: u64 = 1 << 20;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::native::matches::Step;

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
