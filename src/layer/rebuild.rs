//! The exact tar of an unpacked layer, from its files and its header record.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::record::{self, Frame, Item, Note, RecordReader, RecordState};
use super::tree::{FS, SHADOWED};
use crate::delta::ReadAt;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::beneath::{self, WalkError};
use crate::sys::file::{open_directory_at, open_file_at};
use crate::sys::sync::drop_cache;

/// The tar of a layer: to be read from the start with `Read`, or anywhere with `ReadAt`.
///
/// It keeps one frame of the record and one file open, so reading in order opens each file once. The bytes are exact as long
/// as the files are; a file that is gone or has another length is an error, other changes show in the digest, which the
/// caller compares. Pages are dropped when a file is closed.
pub struct LayerTar {
    /// For errors: "layer sha256:...".
    name: String,
    record: RecordReader,
    files: Files,
    /// Where `Read` goes on.
    position: u64,
    cursor: Option<Cursor>,
}

/// A frame of the record and an item in it.
struct Cursor {
    frame: Frame,
    /// Where the item is in the frame, and where in the tar.
    at: usize,
    tar_offset: u64,
}

impl LayerTar {
    /// Opens the layer in the directory `layer`; `name` names it in errors.
    pub fn open(layer: BorrowedFd, name: &str) -> Result<LayerTar> {
        let record = RecordReader::open(open_record(layer, name)?, name)?;
        LayerTar::of(layer, record, false, name)
    }

    /// Opens what there is of a layer that is being unpacked: as much as `state` describes.
    pub(super) fn open_partial(
        layer: BorrowedFd,
        state: &RecordState,
        name: &str,
    ) -> Result<LayerTar> {
        let record = RecordReader::partial(open_record(layer, name)?, state, name)?;
        LayerTar::of(layer, record, true, name)
    }

    fn of(layer: BorrowedFd, record: RecordReader, growing: bool, name: &str) -> Result<LayerTar> {
        let directory = |what: &str| {
            open_directory_at(layer, what.as_bytes()).context(|| format!("open {what:?} of {name}"))
        };
        let fs = directory(FS)?;
        let shadowed = if record.notes().is_empty() { None } else { Some(directory(SHADOWED)?) };
        let files = Files { fs, shadowed, growing, parent: None, open: None };
        Ok(LayerTar { name: name.to_string(), record, files, position: 0, cursor: None })
    }

    /// The SHA-256 that the tar had when it was unpacked.
    pub fn diff_id(&self) -> Digest {
        self.record.diff_id()
    }

    /// Which contents were put aside.
    pub(super) fn notes(&self) -> &[Note] {
        self.record.notes()
    }

    /// Reads at `offset`, to the end of one item at most; 0 at the end of the tar.
    fn read_piece(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if offset >= self.record.tar_bytes() || buffer.is_empty() {
            return Ok(0);
        }
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.frame.tar_offset <= offset => cursor,
            _ => Cursor::new(self.record.frame(offset)?),
        };
        cursor.rewind(offset);
        let count = loop {
            match cursor.frame.item(cursor.at)? {
                Some((item, _)) if offset - cursor.tar_offset < item.tar_bytes() => {
                    let item_at = cursor.tar_offset;
                    break self.files.read_item(
                        &item,
                        item_at,
                        offset,
                        buffer,
                        &self.record,
                        &self.name,
                    )?;
                }
                Some((item, next)) => {
                    cursor.tar_offset += item.tar_bytes();
                    cursor.at = next;
                }
                None => {
                    let next = Cursor::new(self.record.frame(offset)?);
                    if next.frame.tar_offset <= cursor.frame.tar_offset {
                        let message = format!("the header record of {} has a gap", self.name);
                        return Err(Error::new(Kind::Corrupt, message));
                    }
                    cursor = next;
                }
            }
        };
        self.cursor = Some(cursor);
        Ok(count)
    }
}

impl Cursor {
    fn new(frame: Frame) -> Cursor {
        let tar_offset = frame.tar_offset;
        Cursor { frame, at: 0, tar_offset }
    }

    /// Back to the first item if the one that is pointed to lies behind `offset`.
    fn rewind(&mut self, offset: u64) {
        if offset < self.tar_offset {
            (self.at, self.tar_offset) = (0, self.frame.tar_offset);
        }
    }
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_piece(self.position, buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl ReadAt for LayerTar {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_piece(offset.saturating_add(filled as u64), &mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn size_bytes(&self) -> u64 {
        self.record.tar_bytes()
    }
}

fn open_record(layer: BorrowedFd, name: &str) -> Result<File> {
    let file = open_file_at(layer, record::NAME.as_bytes());
    file.context(|| format!("open {:?} of {name}", record::NAME))
}

/// The layer's files, with the one read last and its directory kept open.
struct Files {
    fs: OwnedFd,
    shadowed: Option<OwnedFd>,
    /// The last file is not complete.
    growing: bool,
    parent: Option<(Location, OwnedFd)>,
    open: Option<Open>,
}

/// A path below `fs/`, or below `shadowed/`.
#[derive(Clone, PartialEq)]
pub(super) struct Location {
    pub shadowed: bool,
    pub path: Vec<u8>,
}

struct Open {
    location: Location,
    file: File,
}

impl Drop for Open {
    fn drop(&mut self) {
        drop_cache(self.file.as_fd(), 0, 0);
    }
}

impl Files {
    /// Reads what the tar has at `offset` from the item that starts at `item_at`; at least one byte.
    fn read_item(
        &mut self,
        item: &Item,
        item_at: u64,
        offset: u64,
        buffer: &mut [u8],
        record: &RecordReader,
        layer: &str,
    ) -> Result<usize> {
        let skip = offset - item_at;
        let count = (item.tar_bytes() - skip).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..count];
        match *item {
            Item::Literal(bytes) => {
                // Cannot fail: `skip` and `count` lie within the item's length.
                buffer.copy_from_slice(&bytes[skip as usize..][..count]);
                Ok(count)
            }
            Item::Content { path, offset: start, size, .. } => {
                let name = || format!("read {:?} of {layer}", String::from_utf8_lossy(path));
                let file = self.open(locate(path, item_at, record.notes())).context(name)?;
                let found = file.metadata().context(name)?;
                let at = start.saturating_add(skip);
                let count = file.read_at(buffer, at).context(name)?;
                let whole = found.len() == size || self.growing;
                if !found.is_file() || !whole || count == 0 {
                    let why = format!("it has {} bytes and had {size}", found.len());
                    return Err(Error::new(Kind::Corrupt, name()).caused_by(why));
                }
                Ok(count)
            }
        }
    }

    fn open(&mut self, location: Location) -> io::Result<&File> {
        if let Some(open) = self.open.take_if(|open| open.location == location) {
            return Ok(&self.open.insert(open).file);
        }
        let slash = location.path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match slash {
            Some(slash) => (&location.path[..slash], &location.path[slash + 1..]),
            None => (&b""[..], &location.path[..]),
        };
        let parent = Location { shadowed: location.shadowed, path: parent.to_vec() };
        let file = open_file_at(self.directory(parent)?, name)?;
        Ok(&self.open.insert(Open { location, file }).file)
    }

    fn directory(&mut self, location: Location) -> io::Result<BorrowedFd<'_>> {
        if let Some(parent) = self.parent.take_if(|(held, _)| *held == location) {
            return Ok(self.parent.insert(parent).1.as_fd());
        }
        let root = match &self.shadowed {
            Some(shadowed) if location.shadowed => shadowed,
            _ => &self.fs,
        };
        let place = beneath::find(root.as_fd(), &location.path).map_err(|error| match error {
            WalkError::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })?;
        Ok(self.parent.insert((location, place.dir)).1.as_fd())
    }
}

/// Where the content is now that was written to `path` when the tar was at `item_at`.
pub(super) fn locate(path: &[u8], item_at: u64, notes: &[Note]) -> Location {
    for note in notes.iter().filter(|note| note.before > item_at) {
        match path.strip_prefix(&note.path[..]) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => {
                let path = [note.kept_as.to_string().as_bytes(), rest].concat();
                return Location { shadowed: true, path };
            }
            _ => {}
        }
    }
    Location { shadowed: false, path: path.to_vec() }
}
