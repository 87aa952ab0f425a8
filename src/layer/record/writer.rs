//! Writing a header record as the tar goes by.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};

use super::*;
use crate::crc::Crc;
use crate::digest::Digest;
use crate::error::{Error, Kind};

/// Effort of deflate: tar headers are so regular that more of it gains little.
const LEVEL: i32 = 3;
/// Raw deflate, as miniz_oxide's flag function understands it.
const RAW: i32 = -15;

/// Collects items into frames and writes each frame as it fills.
pub struct RecordWriter {
    file: File,
    /// Bytes written to `file`.
    file_bytes: u64,
    /// Items of the frame under way, not compressed.
    raw: Vec<u8>,
    /// Where in `raw` the literal item lies that can still grow.
    open_literal: Option<usize>,
    /// The tar offset of the frame under way, and of the next item.
    frame_at: u64,
    tar_bytes: u64,
    index: Vec<u8>,
    notes: Vec<u8>,
    deflate: Box<CompressorOxide>,
    packed: Box<[u8]>,
    crc: Crc,
}

impl RecordWriter {
    /// Begins a record in `file`, which is empty.
    pub fn new(mut file: File) -> io::Result<RecordWriter> {
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        let start = RecordState {
            file_bytes: HEAD_BYTES,
            tar_bytes: 0,
            index: Vec::new(),
            notes: Vec::new(),
        };
        Ok(RecordWriter::at(file, start))
    }

    /// Goes on where a writer gave `state`; what `file` has behind it is cut off.
    pub fn resume(mut file: File, state: &RecordState) -> io::Result<RecordWriter> {
        file.set_len(state.file_bytes)?;
        file.seek(SeekFrom::Start(state.file_bytes))?;
        Ok(RecordWriter::at(file, state.clone()))
    }

    fn at(file: File, state: RecordState) -> RecordWriter {
        let flags = create_comp_flags_from_zip_params(LEVEL, RAW, 0);
        RecordWriter {
            file,
            file_bytes: state.file_bytes,
            raw: Vec::with_capacity(FRAME_BYTES),
            open_literal: None,
            frame_at: state.tar_bytes,
            tar_bytes: state.tar_bytes,
            index: state.index,
            notes: state.notes,
            deflate: Box::new(CompressorOxide::new(flags)),
            // Twice the input: more than deflate's worst case, so a frame is packed in one step.
            packed: vec![0; 2 * FRAME_BYTES].into(),
            crc: Crc::new(),
        }
    }

    /// Ends the frame under way and tells where the record stands. The file has to be synced before it is relied on.
    pub fn state(&mut self) -> io::Result<RecordState> {
        self.end_frame()?;
        Ok(RecordState {
            file_bytes: self.file_bytes,
            tar_bytes: self.tar_bytes,
            index: self.index.clone(),
            notes: self.notes.clone(),
        })
    }

    /// The file, to be synced.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the tar that are described so far.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    /// The next bytes of the tar, kept as they are.
    pub fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.open_literal.is_none() || self.raw.len() == FRAME_BYTES {
                self.make_room(LITERAL_HEAD_BYTES + 1)?;
                self.open_literal = Some(self.raw.len());
                self.raw.extend([LITERAL, 0, 0, 0, 0]);
            }
            let (part, rest) = bytes.split_at(bytes.len().min(FRAME_BYTES - self.raw.len()));
            self.raw.extend_from_slice(part);
            self.tar_bytes += part.len() as u64;
            if let Some(start) = self.open_literal {
                let len = (self.raw.len() - start - LITERAL_HEAD_BYTES) as u32;
                self.raw[start + 1..start + LITERAL_HEAD_BYTES].copy_from_slice(&len.to_le_bytes());
            }
            bytes = rest;
        }
        Ok(())
    }

    /// The next `len` bytes of the tar are those at `offset` of the file `path`, which has `size` bytes in the end.
    pub fn content(&mut self, path: &[u8], offset: u64, len: u64, size: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let path_len = path_len(path)?;
        self.make_room(CONTENT_HEAD_BYTES + path.len())?;
        self.open_literal = None;
        self.raw.push(CONTENT);
        for number in [len, offset, size] {
            self.raw.extend(number.to_le_bytes());
        }
        self.raw.extend(path_len.to_le_bytes());
        self.raw.extend_from_slice(path);
        self.tar_bytes += len;
        Ok(())
    }

    /// What was written to `path`, and below it, until now is in `shadowed/KEPT_AS` from now on.
    pub fn note(&mut self, path: &[u8], kept_as: u32) -> io::Result<()> {
        self.notes.extend(self.tar_bytes.to_le_bytes());
        self.notes.extend(kept_as.to_le_bytes());
        self.notes.extend(path_len(path)?.to_le_bytes());
        self.notes.extend_from_slice(path);
        if self.notes.len() > MAX_NOTES_BYTES {
            let message = "the layer replaces too many of its own members";
            return Err(Error::new(Kind::Invalid, message).into());
        }
        Ok(())
    }

    /// Writes the rest and gives the file back; it is not yet synced.
    pub fn finish(mut self, diff_id: Digest) -> io::Result<File> {
        self.end_frame()?;
        self.crc.restart();
        self.crc.update(&self.notes);
        self.crc.update(&self.index);
        let guard = self.crc.value();
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        let index_at = self.file_bytes + self.notes.len() as u64;
        for number in [self.file_bytes, index_at, self.tar_bytes] {
            trailer.extend(number.to_le_bytes());
        }
        trailer.extend(diff_id.hex().as_bytes());
        trailer.extend(guard.to_le_bytes());
        self.crc.restart();
        self.crc.update(&trailer);
        trailer.extend(self.crc.value().to_le_bytes());
        self.file.write_all(&self.notes)?;
        self.file.write_all(&self.index)?;
        self.file.write_all(&trailer)?;
        Ok(self.file)
    }

    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if self.raw.len() + bytes > FRAME_BYTES { self.end_frame() } else { Ok(()) }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.deflate.reset();
        let (status, _, made) =
            compress(&mut self.deflate, &self.raw, &mut self.packed, TDEFLFlush::Finish);
        if status != TDEFLStatus::Done {
            return Err(io::Error::other("deflate failed"));
        }
        self.file.write_all(&self.packed[..made])?;
        self.crc.restart();
        self.crc.update(&self.raw);
        self.index.extend(self.frame_at.to_le_bytes());
        self.index.extend(self.file_bytes.to_le_bytes());
        for number in [made as u32, self.raw.len() as u32, self.crc.value()] {
            self.index.extend(number.to_le_bytes());
        }
        self.file_bytes += made as u64;
        self.frame_at = self.tar_bytes;
        self.raw.clear();
        self.open_literal = None;
        Ok(())
    }
}

fn path_len(path: &[u8]) -> io::Result<u16> {
    u16::try_from(path.len()).map_err(|_| io::Error::other("the path is too long"))
}
