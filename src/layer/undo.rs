//! The undo log of a stage: how to take back what was changed of what a checkpoint relies on.
//!
//! A layer mostly makes what was not there. Where it replaces its own members, or changes a directory that it made long ago,
//! the checkpoint on the disk would not be true any more. So each change is first written here, durably; what it replaces is
//! moved, not removed; and the move is on the disk before the next change begins, so that after a power cut the changes made
//! are the first ones of the log and no others. A checkpoint says how long the log was: what stands behind is taken back, the
//! last first. Layers that do this are rare, so the syncs are paid for where they are needed alone.
//!
//! ```text
//! entry = length:u32 crc:u32 body[length]                  numbers little-endian, CRC-32 of the body
//! body  = Change, by postcard (its wire format: postcard.jamesmunns.com/wire-format)
//! ```

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::tree::{SHADOWED, is_missing};
use super::unpack::split;
use crate::crc::Crc;
use crate::error::{Context, Error, Kind, Result};
use crate::stream::read_at_most;
use crate::sys::beneath::{self, WalkError};
use crate::sys::examine::{facts_at, xattr_names};
use crate::sys::file::{open_directory_at, open_or_create_file_at, remove_file_at, sync_directory};
use crate::sys::node::{self, Attributes, Xattr};
use crate::sys::remove::remove_tree;
use crate::sys::sync::sync_data;

/// Where replaced nodes lie that only a checkpoint needs: symlinks, whiteouts, links to other layers' files.
pub const REPLACED: &str = "replaced";
const NAME: &[u8] = b"undo";
const HEAD_BYTES: u64 = 8;
/// The longest log. A layer that changes more of its own gets no more checkpoints.
const MAX_BYTES: u64 = 4 << 20;

/// What was done.
#[derive(Serialize, Deserialize)]
pub enum Change {
    /// A node was moved to a directory of the stage.
    Moved {
        /// From where, below `fs/`.
        path: Vec<u8>,
        /// To `shadowed/`, or to `replaced/`.
        is_shadowed: bool,
        /// Its name there.
        number: u64,
    },
    /// A directory was given other attributes; these were its own. Its time is the journal's matter.
    Described {
        /// Below `fs/`; empty for that itself.
        path: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// All its extended attributes.
        xattrs: Vec<Xattr>,
    },
}

impl Change {
    /// The change of the open directory `dir`, which is at `path`, that is about to be made.
    pub fn of_directory(path: &[u8], dir: BorrowedFd) -> io::Result<Change> {
        let facts = facts_at(dir, b".")?.ok_or(io::ErrorKind::NotFound)?;
        let Attributes { mode, uid, gid, .. } = facts.attributes;
        let mut xattrs = Vec::new();
        for name in xattr_names(dir)? {
            let value = node::xattr(dir, &name)?.unwrap_or_default();
            xattrs.push((name, value));
        }
        Ok(Change::Described { path: path.to_vec(), mode, uid, gid, xattrs })
    }
}

/// The log, open for writing.
pub struct UndoLog {
    file: File,
    bytes: u64,
}

impl UndoLog {
    /// Opens the log in `stage` to go on behind its first `bytes`.
    pub fn open(stage: BorrowedFd, bytes: u64) -> io::Result<UndoLog> {
        let mut file = open_or_create_file_at(stage, NAME)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(UndoLog { file, bytes })
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes an entry. After `true` it survives a power cut and the change may be made; `false` if the log is too long.
    pub fn write(&mut self, change: &Change) -> io::Result<bool> {
        let body = postcard::to_allocvec(change).map_err(io::Error::other)?;
        let length = HEAD_BYTES + body.len() as u64;
        if self.bytes + length > MAX_BYTES {
            return Ok(false);
        }
        let mut crc = Crc::new();
        crc.update(&body);
        let head = [body.len() as u32, crc.value()].map(u32::to_le_bytes);
        self.file.write_all(&[head.as_flattened(), &body].concat())?;
        sync_data(&self.file)?;
        self.bytes += length;
        Ok(true)
    }
}

/// Removes what only a layer that is not finished needs.
pub fn remove(stage: BorrowedFd) -> io::Result<()> {
    remove_file_at(stage, NAME)?;
    remove_tree(stage, REPLACED.as_bytes())
}

/// Takes back in the tree `fs` of `stage` what the log tells behind its first `bytes`, and cuts it there. Whatever this is
/// stopped at, it can be done again.
pub fn undo(stage: BorrowedFd, fs: BorrowedFd, bytes: u64) -> Result<()> {
    let doing = || "read the undo log".to_string();
    let mut file = open_or_create_file_at(stage, NAME).context(doing)?;
    let length = file.metadata().context(doing)?.len();
    if length < bytes {
        return Err(Error::new(Kind::Corrupt, "the undo log is too short"));
    }
    if length == bytes {
        return Ok(());
    }
    let mut log = Vec::new();
    file.seek(SeekFrom::Start(bytes)).context(doing)?;
    read_at_most(&mut file, MAX_BYTES, &mut log).context(doing)?;
    for change in parse(&log).iter().rev() {
        take_back(stage, fs, change)?;
    }
    file.set_len(bytes).and_then(|()| sync_data(&file)).context(|| "cut the undo log".into())
}

/// The entries, up to one that was torn: its change was not made.
fn parse(mut log: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some((change, rest)) = parse_entry(log) {
        changes.push(change);
        log = rest;
    }
    changes
}

fn parse_entry(log: &[u8]) -> Option<(Change, &[u8])> {
    let (length, rest) = log.split_first_chunk()?;
    let (expected, rest) = rest.split_first_chunk()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let mut crc = Crc::new();
    crc.update(body);
    let is_whole = crc.value() == u32::from_le_bytes(*expected);
    Some((is_whole.then(|| postcard::from_bytes(body).ok())??, rest))
}

fn take_back(stage: BorrowedFd, fs: BorrowedFd, change: &Change) -> Result<()> {
    match change {
        Change::Moved { path, is_shadowed, number } => {
            let from = if *is_shadowed { SHADOWED } else { REPLACED };
            move_back(stage, fs, path, from, *number)
                .context(|| format!("put back {:?}", String::from_utf8_lossy(path)))
        }
        Change::Described { path, mode, uid, gid, xattrs } => {
            let attributes =
                Attributes { mode: *mode, uid: *uid, gid: *gid, mtime: Default::default() };
            describe(fs, path, attributes, xattrs)
                .context(|| format!("give {:?} its attributes back", String::from_utf8_lossy(path)))
        }
    }
}

/// The directory `path`; a missing one was made after the checkpoint, and power was cut before it was on the disk.
fn find(fs: BorrowedFd, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    match beneath::find(fs, path) {
        Ok(place) => Ok(Some(place.dir)),
        Err(WalkError::Io(error)) if is_missing(&error) => Ok(None),
        Err(error) => Err(Error::from(error).into()),
    }
}

fn move_back(
    stage: BorrowedFd,
    fs: BorrowedFd,
    path: &[u8],
    from: &str,
    number: u64,
) -> io::Result<()> {
    let aside = match open_directory_at(stage, from.as_bytes()) {
        Err(error) if is_missing(&error) => return Ok(()),
        opened => opened?,
    };
    let number = number.to_string();
    if node::kind_at(aside.as_fd(), number.as_bytes())?.is_none() {
        return Ok(());
    }
    let (parent, name) = split(path);
    match find(fs, parent)? {
        None => remove_tree(aside.as_fd(), number.as_bytes())?,
        Some(dir) => {
            // What came in its place.
            remove_tree(dir.as_fd(), name)?;
            node::rename(aside.as_fd(), number.as_bytes(), dir.as_fd(), name)?;
            sync_directory(dir.as_fd())?;
        }
    }
    sync_directory(aside.as_fd())
}

fn describe(fs: BorrowedFd, path: &[u8], was: Attributes, xattrs: &[Xattr]) -> io::Result<()> {
    let Some(dir) = find(fs, path)? else { return Ok(()) };
    let dir = dir.as_fd();
    for name in xattr_names(dir)? {
        if !xattrs.iter().any(|(kept, _)| *kept == name) {
            node::remove_xattr(dir, &name)?;
        }
    }
    node::set_attributes(dir, &Attributes { mtime: node::mtime(dir)?, ..was }, xattrs)?;
    sync_directory(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_whole_and_no_more() {
        let path = std::env::temp_dir().join(format!("vaquita-undo-{}", std::process::id()));
        fs_err::create_dir_all(&path).unwrap();
        let stage = crate::sys::file::open_directory(&path).unwrap();
        let moved = |number| Change::Moved { path: b"a/b".to_vec(), is_shadowed: false, number };
        let mut log = UndoLog::open(stage.as_fd(), 0).unwrap();
        assert!(log.write(&moved(1)).unwrap());
        let first = log.bytes() as usize;
        assert!(log.write(&moved(2)).unwrap());
        let written = fs_err::read(path.join("undo")).unwrap();
        assert_eq!(written.len() as u64, log.bytes());
        for (length, whole) in
            [(0, 0), (first - 1, 0), (first, 1), (first + 9, 1), (written.len(), 2)]
        {
            assert_eq!(parse(&written[..length]).len(), whole, "{length}");
        }
        let mut damaged = written.clone();
        damaged[first + 9] ^= 1;
        assert_eq!(parse(&damaged).len(), 1);
        let long =
            Change::Moved { path: vec![b'x'; MAX_BYTES as usize], is_shadowed: true, number: 3 };
        assert!(!log.write(&long).unwrap());
        fs_err::remove_dir_all(&path).unwrap();
    }
}
