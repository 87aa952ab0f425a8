//! Reading a header record: any frame of it, one at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use super::*;
use crate::crc::Crc;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};

/// An opened header record, its trailer and index verified.
pub struct RecordReader {
    file: File,
    /// For errors: "header record of layer sha256:...".
    name: String,
    index: Index,
    frames: u64,
    tar_bytes: u64,
    diff_id: Digest,
    notes: Vec<Note>,
}

/// Where the index is.
enum Index {
    /// At this offset of the file, verified.
    InFile(u64),
    /// Not yet written.
    Held(Vec<u8>),
}

/// The items of one frame.
pub struct Frame {
    /// Where in the tar the first item starts.
    pub tar_offset: u64,
    raw: Vec<u8>,
    name: String,
}

/// A stretch of the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The bytes themselves.
    Literal(&'a [u8]),
    /// `len` bytes from `offset` of a file of `size` bytes.
    Content {
        /// Below `fs/`, or below what a `Note` says.
        path: &'a [u8],
        /// Bytes of the tar.
        len: u64,
        /// The first of them in the file.
        offset: u64,
        /// The whole file's length.
        size: u64,
    },
}

impl Item<'_> {
    /// How much of the tar it stands for.
    pub fn tar_bytes(&self) -> u64 {
        match self {
            Item::Literal(bytes) => bytes.len() as u64,
            Item::Content { len, .. } => *len,
        }
    }
}

/// One entry of the index.
struct Entry {
    tar_at: u64,
    file_at: u64,
    packed: u32,
    raw: u32,
    crc: u32,
}

impl RecordReader {
    /// Reads trailer and notes, and verifies the index; `layer` names the layer in errors.
    pub fn open(file: File, layer: &str) -> Result<RecordReader> {
        let name = format!("header record of {layer}");
        let size = file.metadata().context(|| format!("open {name}"))?.len();
        check_head(&file, size, &name)?;
        let trailer_at = size.checked_sub(TRAILER_BYTES as u64).filter(|at| *at >= HEAD_BYTES);
        let mut trailer = [0; TRAILER_BYTES];
        let trailer_at = trailer_at.ok_or_else(|| damaged(&name, "it is too short"))?;
        read_exact(&file, &mut trailer, trailer_at, &name)?;
        let mut fields = Fields(&trailer);
        let mut crc = Crc::new();
        crc.update(&trailer[..TRAILER_BYTES - 4]);
        let (Some(notes_at), Some(index_at), Some(tar_bytes), Some(hex), Some(guard)) =
            (fields.u64(), fields.u64(), fields.u64(), fields.take(64), fields.u32())
        else {
            return Err(damaged(&name, "its trailer is too short"));
        };
        let diff_id = std::str::from_utf8(hex).ok().and_then(Digest::from_hex);
        let (true, Some(diff_id)) = (fields.u32() == Some(crc.value()), diff_id) else {
            return Err(damaged(&name, "its trailer has the wrong checksum"));
        };
        let index_bytes = trailer_at.checked_sub(index_at).unwrap_or(1);
        let notes_bytes = index_at.checked_sub(notes_at).unwrap_or(u64::MAX);
        if index_bytes % INDEX_ENTRY_BYTES as u64 != 0 || notes_bytes > MAX_NOTES_BYTES as u64 {
            return Err(damaged(&name, "its trailer is wrong"));
        }
        let mut notes = vec![0; notes_bytes as usize];
        read_exact(&file, &mut notes, notes_at, &name)?;
        crc.restart();
        crc.update(&notes);
        check_index(&file, index_at..trailer_at, crc, guard, &name)?;
        let notes = parse_notes(&notes).ok_or_else(|| damaged(&name, "its notes are wrong"))?;
        let frames = index_bytes / INDEX_ENTRY_BYTES as u64;
        let index = Index::InFile(index_at);
        Ok(RecordReader { file, name, index, frames, tar_bytes, diff_id, notes })
    }

    /// The part of a record that was written when its writer gave `state`. It has no diff ID yet.
    pub fn partial(file: File, state: &RecordState, layer: &str) -> Result<RecordReader> {
        let name = format!("header record of {layer}");
        let notes = parse_notes(&state.notes);
        let notes = notes.ok_or_else(|| damaged(&name, "its notes are wrong"))?;
        let frames = (state.index.len() / INDEX_ENTRY_BYTES) as u64;
        let (index, tar_bytes) = (Index::Held(state.index.clone()), state.tar_bytes);
        Ok(RecordReader { file, name, index, frames, tar_bytes, diff_id: Digest::of(b""), notes })
    }

    /// The SHA-256 of the tar.
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }

    /// The length of the tar.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    /// Which contents were put aside, in the order of the tar.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The frame that holds the tar offset `offset`, which lies before the end.
    pub fn frame(&self, offset: u64) -> Result<Frame> {
        if offset >= self.tar_bytes {
            return Err(damaged(&self.name, "an offset behind the end was asked for"));
        }
        // The last frame that starts at or before the offset.
        let (mut low, mut high) = (0, self.frames);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.tar_at <= offset { low = middle } else { high = middle }
        }
        self.load(&self.entry(low)?)
    }

    fn entry(&self, number: u64) -> Result<Entry> {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        let at = number * INDEX_ENTRY_BYTES as u64;
        let mut fields = match &self.index {
            Index::InFile(start) => {
                read_exact(&self.file, &mut bytes, start + at, &self.name)?;
                Fields(&bytes)
            }
            Index::Held(entries) => Fields(entries.get(at as usize..).unwrap_or_default()),
        };
        fields.entry().ok_or_else(|| damaged(&self.name, "its index is too short"))
    }

    fn load(&self, entry: &Entry) -> Result<Frame> {
        let (packed, raw) = (entry.packed as usize, entry.raw as usize);
        let why = format!("the frame at tar offset {} is damaged", entry.tar_at);
        if packed > 2 * FRAME_BYTES || raw > FRAME_BYTES {
            return Err(damaged(&self.name, &why));
        }
        let mut input = vec![0; packed];
        read_exact(&self.file, &mut input, entry.file_at, &self.name)?;
        let mut output = vec![0; raw];
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let mut inflate = Box::<DecompressorOxide>::default();
        let (status, _, made) = decompress(&mut inflate, &input, &mut output, 0, flags);
        let mut crc = Crc::new();
        crc.update(&output);
        if status != TINFLStatus::Done || made != raw || crc.value() != entry.crc {
            return Err(damaged(&self.name, &why));
        }
        Ok(Frame { tar_offset: entry.tar_at, raw: output, name: self.name.clone() })
    }
}

impl Frame {
    /// The item at byte `at` of the frame, and where the next one is; `None` at the end of the frame.
    pub fn item(&self, at: usize) -> Result<Option<(Item<'_>, usize)>> {
        let Some(rest) = self.raw.get(at..).filter(|rest| !rest.is_empty()) else {
            return Ok(None);
        };
        let mut fields = Fields(rest);
        let item = fields.item().ok_or_else(|| damaged(&self.name, "an item is cut off"))?;
        Ok(Some((item, self.raw.len() - fields.0.len())))
    }
}

/// Takes fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn entry(&mut self) -> Option<Entry> {
        Some(Entry {
            tar_at: self.u64()?,
            file_at: self.u64()?,
            packed: self.u32()?,
            raw: self.u32()?,
            crc: self.u32()?,
        })
    }

    fn item(&mut self) -> Option<Item<'a>> {
        match self.array()? {
            [LITERAL] => {
                let len = self.u32()?;
                Some(Item::Literal(self.take(len as usize)?))
            }
            [CONTENT] => {
                let (len, offset, size) = (self.u64()?, self.u64()?, self.u64()?);
                let path_len = self.u16()?;
                Some(Item::Content { path: self.take(path_len.into())?, len, offset, size })
            }
            _ => None,
        }
    }
}

fn check_head(file: &File, size: u64, name: &str) -> Result<()> {
    let mut head = [0; HEAD_BYTES as usize];
    if size >= HEAD_BYTES {
        read_exact(file, &mut head, 0, name)?;
    }
    let mut fields = Fields(&head);
    if fields.take(MAGIC.len()) != Some(MAGIC) {
        return Err(Error::new(Kind::Corrupt, format!("the {name} is no header record")));
    }
    match fields.u32() {
        Some(VERSION) => Ok(()),
        version => {
            let version = version.unwrap_or_default();
            let message = format!("the {name} has the unknown version {version}");
            Err(Error::new(Kind::Unsupported, message))
        }
    }
}

/// Goes through the index once, in small pieces, and compares the checksum of notes and index.
fn check_index(
    file: &File,
    range: std::ops::Range<u64>,
    mut crc: Crc,
    expected: u32,
    name: &str,
) -> Result<()> {
    let mut buffer = [0; 4096];
    let mut at = range.start;
    while at < range.end {
        let count = (range.end - at).min(buffer.len() as u64) as usize;
        read_exact(file, &mut buffer[..count], at, name)?;
        crc.update(&buffer[..count]);
        at += count as u64;
    }
    if crc.value() == expected { Ok(()) } else { Err(damaged(name, "its index has changed")) }
}

fn parse_notes(bytes: &[u8]) -> Option<Vec<Note>> {
    let mut fields = Fields(bytes);
    let mut notes = Vec::new();
    while !fields.0.is_empty() {
        let (before, kept_as, path_len) = (fields.u64()?, fields.u32()?, fields.u16()?);
        notes.push(Note { before, kept_as, path: fields.take(path_len.into())?.to_vec() });
    }
    Some(notes)
}

fn read_exact(file: &File, buffer: &mut [u8], at: u64, name: &str) -> Result<()> {
    match file.read_exact_at(buffer, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(damaged(name, "it is too short"))
        }
        result => result.context(|| format!("read {name}")),
    }
}

fn damaged(name: &str, why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the {name} is damaged: {why}"))
}
