//! The header record of a layer: what is needed, beside the files, to give back the exact tar.
//!
//! # Format, version 1; every number is little-endian
//!
//! ```text
//! file    = "vqrecord" version:u32 frame* notes index trailer
//! frame   = raw deflate of items, about 64 KiB of them before compression
//! item    = 0 len:u32 bytes                                    bytes of the tar, as they are
//!         | 1 len:u64 offset:u64 size:u64 path_len:u16 path    `len` bytes of a file, from `offset` on; the file has
//!                                                              `size` bytes, and `path` starts below `fs/`
//! notes   = (before:u64 kept_as:u32 path_len:u16 path)*        see `Note`
//! index   = (tar_at:u64 file_at:u64 packed:u32 raw:u32 crc:u32)*
//!                                                              a frame each: where it starts in the tar and in the
//!                                                              file, its two lengths, the CRC-32 of its items
//! trailer = notes_at:u64 index_at:u64 tar_bytes:u64 diff_id:[64] guard_crc:u32 trailer_crc:u32
//! ```
//!
//! The items in order are the tar. `diff_id` is its SHA-256 in hex digits. `guard_crc` is over notes and index,
//! `trailer_crc` over the trailer before it. Index entries have one length, so the frame of an offset is found by
//! bisection with small reads, and one frame at a time is all that has to be in memory, however many members the layer
//! has.

mod reader;
mod writer;

use serde::{Deserialize, Serialize};

pub use reader::{Frame, Item, RecordReader};
pub use writer::RecordWriter;

/// The file's name in a layer's directory.
pub const NAME: &str = "record";

const MAGIC: &[u8; 8] = b"vqrecord";
const VERSION: u32 = 1;
const HEAD_BYTES: u64 = 12;
const INDEX_ENTRY_BYTES: usize = 28;
const TRAILER_BYTES: usize = 96;
/// Items of a frame before compression: a frame ends where the next item would not fit.
const FRAME_BYTES: usize = 64 << 10;
/// All notes together: a layer that replaces more of its own members than that is refused.
const MAX_NOTES_BYTES: usize = 1 << 20;

const LITERAL: u8 = 0;
const LITERAL_HEAD_BYTES: usize = 5;
const CONTENT: u8 = 1;
const CONTENT_HEAD_BYTES: usize = 27;

/// A member of the layer replaced an earlier one, whose content the tar still has: for content items that start before
/// the tar offset `before`, `path` and everything below it is in `shadowed/KEPT_AS`. Of several notes that fit, the
/// first holds: what was put aside does not change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The tar offset of the member that replaced it.
    pub before: u64,
    /// The name below `shadowed/`.
    pub kept_as: u32,
    /// The path below `fs/`.
    pub path: Vec<u8>,
}

/// A record that is being written, at the end of a frame: what has to be kept to write on, or to read what there is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordState {
    file_bytes: u64,
    tar_bytes: u64,
    index: Vec<u8>,
    notes: Vec<u8>,
}

impl RecordState {
    /// Bytes of the tar that are described.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use std::io::Write;

    fn written(items: u32) -> (std::path::PathBuf, Digest) {
        let path =
            std::env::temp_dir().join(format!("vaquita-record-{}-{items}", std::process::id()));
        let mut writer = RecordWriter::new(fs_err::File::create(&path).unwrap().into()).unwrap();
        for number in 0..items {
            writer.literal(format!("header {number};").as_bytes()).unwrap();
            writer.content(format!("dir/{number}").as_bytes(), 0, 10_000, 10_000).unwrap();
            writer.literal(&[0; 300]).unwrap();
        }
        writer.literal(&vec![7; 200_000]).unwrap();
        writer.note(b"dir/3", 2).unwrap();
        let digest = Digest::of(b"the tar");
        writer.finish(digest).unwrap();
        (path, digest)
    }

    fn open(path: &std::path::Path) -> crate::error::Result<RecordReader> {
        RecordReader::open(fs_err::File::open(path).unwrap().into(), "layer x")
    }

    #[test]
    fn gives_back_every_item_in_order_and_by_offset() {
        let (path, digest) = written(3000);
        let record = open(&path).unwrap();
        assert_eq!(record.diff_id(), digest);
        let notes = [Note { before: record.tar_bytes(), kept_as: 2, path: b"dir/3".to_vec() }];
        assert_eq!(record.notes(), notes);
        let (mut offset, mut frames, mut members) = (0, 0, 0);
        while offset < record.tar_bytes() {
            let frame = record.frame(offset).unwrap();
            assert_eq!(frame.tar_offset, offset);
            let mut at = 0;
            while let Some((item, next)) = frame.item(at).unwrap() {
                if let Item::Content { path, len: 10_000, offset: 0, size: 10_000 } = item {
                    assert_eq!(path, format!("dir/{members}").as_bytes());
                    members += 1;
                }
                offset += item.tar_bytes();
                at = next;
            }
            let inside = record.frame(offset - 1).unwrap();
            assert_eq!(inside.tar_offset, frame.tar_offset);
            frames += 1;
        }
        assert_eq!((members, offset), (3000, record.tar_bytes()));
        assert!(frames > 10, "{frames}");
        assert!(record.frame(offset).is_err());
        fs_err::remove_file(&path).unwrap();
    }

    #[test]
    fn goes_on_from_a_state_and_reads_up_to_it() {
        let path =
            std::env::temp_dir().join(format!("vaquita-record-state-{}", std::process::id()));
        let write = |writer: &mut RecordWriter, numbers: std::ops::Range<u32>| {
            for number in numbers {
                writer.literal(&[number as u8; 700]).unwrap();
                writer.content(b"file", 0, 9, 9).unwrap();
            }
        };
        let digest = Digest::of(b"the tar");
        let mut writer = RecordWriter::new(fs_err::File::create(&path).unwrap().into()).unwrap();
        write(&mut writer, 0..200);
        let state = writer.state().unwrap();
        write(&mut writer, 200..900);
        drop(writer);
        let file = || fs_err::File::options().read(true).write(true).open(&path).unwrap().into();
        let partial = RecordReader::partial(file(), &state, "layer x").unwrap();
        assert_eq!(partial.tar_bytes(), 200 * 709);
        assert!(partial.frame(199 * 709).unwrap().tar_offset > 0);
        let mut writer = RecordWriter::resume(file(), &state).unwrap();
        write(&mut writer, 200..400);
        writer.finish(digest).unwrap();
        let resumed = open(&path).unwrap();
        assert_eq!((resumed.tar_bytes(), resumed.diff_id()), (400 * 709, digest));
        let frame = resumed.frame(300 * 709).unwrap();
        assert!(frame.item(0).unwrap().is_some());
        fs_err::remove_file(&path).unwrap();
    }

    #[test]
    fn refuses_what_it_cannot_trust() {
        let (path, _) = written(10);
        let good = fs_err::read(&path).unwrap();
        let changed = |at: usize| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad
        };
        let end = good.len();
        for (bad, why) in [
            (changed(0), "is no header record"),
            (changed(8), "has the unknown version 0"),
            (good[..end - 1].to_vec(), "is damaged"),
            (good[..50].to_vec(), "is damaged"),
            (changed(end - 1), "is damaged"),
            (changed(end - 100), "is damaged"),
            (changed(end - 50), "is damaged"),
            (Vec::new(), "is no header record"),
        ] {
            fs_err::File::create(&path).unwrap().write_all(&bad).unwrap();
            let error = open(&path).err().unwrap().to_string();
            assert!(error.contains(why) && error.contains("layer x"), "{error:?} lacks {why:?}");
        }
        fs_err::write(&path, changed(60)).unwrap();
        let error = open(&path).unwrap().frame(0).err().unwrap().to_string();
        assert!(error.contains("frame at tar offset 0 is damaged"), "{error}");
        fs_err::remove_file(&path).unwrap();
    }
}
