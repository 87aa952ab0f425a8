//! Checkpoints: from where a pull that was cut short goes on.
//!
//! While a layer is unpacked, two threads work on it: one fetches and inflates, the other makes files, some way behind.
//! The first leaves a trail of places from which the compressed stream can be taken up again (`Trail`). When a window of
//! files is full, the second notes exactly where it stands, and the youngest place of the trail that is not ahead of it;
//! once all that it made until then is on the disk, that note is written as a checkpoint.
//!
//! A checkpoint says: the stage holds all that the first `offset` bytes of the tar make, durably. It may hold more, made
//! since; the journal (`journal`) tells what, so that it can be removed. Where what was there before had to be changed, the undo
//! log (`undo`) tells how, so that it can be changed back.
//!
//! # Format, version 2
//!
//! ```text
//! slot = "vqresume" version:u32 length:u32 crc:u32 body[length]           numbers little-endian, CRC-32 of the body
//! body = Checkpoint, by postcard (its wire format: postcard.jamesmunns.com/wire-format)
//! ```
//!
//! Two slots are written in turn, so a torn write costs one step back. A slot that does not decode is as if it were not
//! there: the layer begins anew.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::decoder::DecoderState;
use super::journal;
use super::members::SourceState;
use super::peers::Peers;
use super::rebuild::LayerTar;
use super::record::RecordState;
use super::tree::TreeState;
use super::undo;
use crate::crc::Crc;
use crate::delta::ReadAt;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::file::{open_file_at, open_or_create_file_at, remove_file_at};
use crate::sys::sync::sync_data;

/// Compressed bytes between two checkpoints. Three windows may be on their way to the disk and a little more on its way to
/// the window, and all of it together is what has to be fetched again.
const STEP_BYTES: u64 = 1 << 20;
/// Places of the trail are at least this many compressed or uncompressed bytes apart.
const TRAIL_STEP_BYTES: u64 = 128 << 10;
/// Places that may wait. What is between two threads is bounded, so it is never reached.
const MAX_TRAIL: usize = 64;

const SLOTS: [&str; 2] = ["checkpoint.0", "checkpoint.1"];
const MAGIC: &[u8; 8] = b"vqresume";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 20;
/// The index of the header record is most of a checkpoint: 28 bytes for some hundred files.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Everything that is needed to go on with a layer.
#[derive(Serialize, Deserialize)]
pub struct Checkpoint {
    /// Higher is younger.
    pub(super) number: u64,
    /// The compressed layer that was fetched.
    blob: String,
    decoder: DecoderState,
    pub(super) source: SourceState,
    pub(super) record: RecordState,
    pub(super) tree: TreeState,
    pub(super) file: Option<FileState>,
    pub(super) file_bytes: u64,
    pub(super) file_count: u64,
}

/// A file that was being written.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct FileState {
    pub path: Vec<u8>,
    pub size: u64,
    /// Offset and length of each.
    pub segments: Vec<(u64, u64)>,
    /// The segment that was being written, and the offset in the file that was reached.
    pub segment: u32,
    pub at: u64,
    /// It is a link to a peer's file, equal so far.
    pub is_link: bool,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Checkpoint {
    /// The youngest checkpoint of `blob` in `stage`; `None` if there is none, or none that can be read.
    pub fn load(stage: BorrowedFd, blob: &Digest) -> Option<Checkpoint> {
        let read = |name: &&str| decode(&open_file_at(stage, name.as_bytes()).ok()?);
        let found = SLOTS.iter().filter_map(read).max_by_key(|checkpoint| checkpoint.number)?;
        let fits = found.decoder.tar_offset() <= found.source.offset
            && found.source.offset <= found.record.tar_bytes();
        (found.blob == blob.to_string() && fits).then_some(found)
    }

    /// From where the blob's bytes are needed, and what the decoder knew there.
    pub fn decoder(&self) -> &DecoderState {
        &self.decoder
    }

    /// The offset in the tar up to which everything is on the disk.
    pub fn tar_offset(&self) -> u64 {
        self.source.offset
    }

    /// Puts the stage back to what it was, and gives the end of what had been decoded, read from the files that it became.
    pub fn restore(&self, stage: BorrowedFd, name: &str) -> Result<Vec<u8>> {
        self.tree.restore(stage)?;
        let mut history = vec![0; self.decoder.history_bytes() as usize];
        let start = self.decoder.tar_offset() - history.len() as u64;
        let mut tar = LayerTar::open_partial(stage, &self.record, name)?;
        let read = tar.read_at(start, &mut history);
        if read.context(|| format!("read back {name}"))? != history.len() {
            return Err(Error::new(Kind::Corrupt, format!("read back {name}: it is too short")));
        }
        Ok(history)
    }

    fn encode(&self) -> Option<Encoded> {
        let body = postcard::to_allocvec(self).ok().filter(|body| body.len() <= MAX_BODY_BYTES)?;
        let mut crc = Crc::new();
        crc.update(&body);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend(MAGIC);
        for number in [VERSION, body.len() as u32, crc.value()] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(body);
        Some(Encoded { number: self.number, bytes })
    }
}

/// A checkpoint as it is written.
pub(super) struct Encoded {
    number: u64,
    bytes: Vec<u8>,
}

fn decode(file: &File) -> Option<Checkpoint> {
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    let number = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (version, length, expected) = (number(8)?, number(12)? as usize, number(16)?);
    if !head.starts_with(MAGIC) || version != VERSION || length > MAX_BODY_BYTES {
        return None;
    }
    let mut body = vec![0; length];
    file.read_exact_at(&mut body, HEAD_BYTES as u64).ok()?;
    let mut crc = Crc::new();
    crc.update(&body);
    if crc.value() != expected {
        return None;
    }
    postcard::from_bytes(&body).ok()
}

/// The two files that checkpoints are written to.
pub(super) struct Slots([File; 2]);

impl Slots {
    /// Opens them in `stage`, where they may be already.
    pub fn open(stage: BorrowedFd) -> io::Result<Slots> {
        let open = |name: &str| open_or_create_file_at(stage, name.as_bytes());
        Ok(Slots([open(SLOTS[0])?, open(SLOTS[1])?]))
    }

    /// Writes a checkpoint over the one before the last: on success it survives a power cut; on a failure, or a power cut
    /// on the way, the last one stands.
    pub fn write(&self, checkpoint: &Encoded) -> io::Result<()> {
        let [even, odd] = &self.0;
        let file = if checkpoint.number.is_multiple_of(2) { even } else { odd };
        file.write_all_at(&checkpoint.bytes, 0)?;
        sync_data(file)
    }

    /// Takes all checkpoints away, durably. Nobody writes one meanwhile.
    pub fn clear(&self) -> io::Result<()> {
        for file in &self.0 {
            file.set_len(0)?;
            sync_data(file)?;
        }
        Ok(())
    }
}

/// How many bytes of its tar an unfinished layer has on the disk, and when its last checkpoint was written; `None` where
/// there is nothing to go on from.
pub fn staged_bytes(stage: BorrowedFd) -> Option<(u64, SystemTime)> {
    let read = |name: &&str| {
        let file = open_file_at(stage, name.as_bytes()).ok()?;
        let written = file.metadata().ok()?.modified().ok()?;
        Some((decode(&file)?.tar_offset(), written))
    };
    SLOTS.iter().filter_map(read).max()
}

/// Removes from `stage` what a layer that is complete needs no more. It survives a power cut when the stage is synced.
pub fn remove_checkpoints(stage: BorrowedFd) -> io::Result<()> {
    SLOTS.iter().try_for_each(|name| remove_file_at(stage, name.as_bytes()))?;
    journal::remove(stage)?;
    undo::remove(stage)
}

/// The places from which the stream of a layer can be taken up again, in order: left by who decodes, used by who unpacks.
#[derive(Default)]
pub struct Trail(Mutex<VecDeque<DecoderState>>);

impl Trail {
    /// Notes where `decoder` stands, if that is a place to go on from and far enough from the last.
    pub fn note(&self, decoder: &mut super::Decoder) {
        let far = |last: &DecoderState| decoder.offset() - last.tar_offset() >= TRAIL_STEP_BYTES;
        if self.lock().back().is_some_and(|last| !far(last)) {
            return;
        }
        if let Some(state) = decoder.state() {
            self.add(state);
        }
    }

    /// Notes a place to go on from.
    pub fn add(&self, state: DecoderState) {
        let mut places = self.lock();
        if places.len() < MAX_TRAIL {
            places.push_back(state);
        }
    }

    /// The youngest place at or before `tar_offset`; those before it are forgotten.
    fn find(&self, tar_offset: u64) -> Option<DecoderState> {
        let mut places = self.lock();
        while places.get(1).is_some_and(|place| place.tar_offset() <= tar_offset) {
            places.pop_front();
        }
        places.front().filter(|place| place.tar_offset() <= tar_offset).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<DecoderState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What unpacking needs to make checkpoints, or to go on from one.
pub struct Resumption<'a> {
    /// Where the decoder has been.
    pub trail: &'a Trail,
    /// The digest of the compressed layer.
    pub blob: Digest,
    /// The checkpoint that the stage holds. The tar then begins at its decoder's `tar_offset`.
    pub from: Option<Checkpoint>,
    /// Where files may be found that are equal to the layer's.
    pub peers: Peers,
}

/// Decides when a checkpoint is due, and puts it together.
pub(super) struct Course<'a> {
    trail: &'a Trail,
    blob: String,
    number: u64,
    /// The compressed offset of the last one.
    last: u64,
}

impl<'a> Course<'a> {
    /// The course of a layer that begins, or goes on.
    pub fn new(resumption: &Resumption<'a>) -> Course<'a> {
        let from = resumption.from.as_ref();
        Course {
            trail: resumption.trail,
            blob: resumption.blob.to_string(),
            number: from.map_or(0, |checkpoint| checkpoint.number),
            last: from.map_or(0, |checkpoint| checkpoint.decoder.blob_offset()),
        }
    }

    /// The place to go on from, if it is far enough from that of the last checkpoint.
    pub fn due(&self, tar_offset: u64) -> Option<DecoderState> {
        let place = self.trail.find(tar_offset)?;
        (place.blob_offset() >= self.last + STEP_BYTES).then_some(place)
    }

    /// The next checkpoint, encoded; `None` if it is too long to be kept.
    pub fn encode(
        &mut self,
        decoder: DecoderState,
        source: SourceState,
        record: RecordState,
        tree: TreeState,
        file: Option<FileState>,
        (file_bytes, file_count): (u64, u64),
    ) -> Option<Encoded> {
        self.number += 1;
        self.last = decoder.blob_offset();
        let (number, blob) = (self.number, self.blob.clone());
        let checkpoint = Checkpoint {
            number,
            blob,
            decoder,
            source,
            record,
            tree,
            file,
            file_bytes,
            file_count,
        };
        checkpoint.encode()
    }
}
