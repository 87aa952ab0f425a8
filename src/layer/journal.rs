//! The journal of a stage: every node that was made, so that what was made after a checkpoint can be told apart.
//!
//! A pull that goes on from a checkpoint must find the tree as it was then, and nothing more: what was fetched behind it
//! has not been verified, and could be anything. So each node's path is noted, as the first half of its SHA-256, and for
//! each directory that was left the time that it got, and each that was moved away with all that it held; a checkpoint says
//! how long the journal was.
//!
//! ```text
//! entry = path:[16] seconds:i64 nanoseconds:u32                little-endian; nanoseconds is 2^32-1 where a node was made,
//!                                                              2^32-2 where a directory was moved away
//! ```

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::file::{
    entries, open_directory_at, open_or_create_file_at, remove_file_at, sync_directory,
};
use crate::sys::node::{self, Mtime};
use crate::sys::remove::remove_tree;

const NAME: &[u8] = b"journal";
const ENTRY_BYTES: usize = 28;
const MADE: u32 = u32::MAX;
const GONE: u32 = u32::MAX - 1;
/// Entries that a resumed layer may have: 32 MiB, held in memory for as long as the tree is compared with them. A layer of
/// more begins anew.
const MAX_ENTRIES: u64 = 1 << 20;
/// Entries are written in pieces.
const BUFFER_BYTES: usize = 16 << 10;

/// The journal, open for writing.
pub struct Journal {
    file: File,
    buffer: Vec<u8>,
    written: u64,
}

type Name = [u8; 16];

impl Journal {
    /// Opens the journal in `stage` to go on behind its first `bytes`.
    pub fn open(stage: BorrowedFd, bytes: u64) -> io::Result<Journal> {
        let mut file = open_or_create_file_at(stage, NAME)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Journal { file, buffer: Vec::with_capacity(BUFFER_BYTES), written: bytes })
    }

    /// Notes that the node `path` was made.
    pub fn made(&mut self, path: &[u8]) -> io::Result<()> {
        self.add(path, Mtime { seconds: 0, nanoseconds: MADE })
    }

    /// Notes that the directory `path` was moved away: what was made below it is there no more.
    pub fn gone(&mut self, path: &[u8]) -> io::Result<()> {
        self.add(path, Mtime { seconds: 0, nanoseconds: GONE })
    }

    /// Notes the time that the directory `path` has, now that nothing more is made in it.
    pub fn left(&mut self, path: &[u8], mtime: Mtime) -> io::Result<()> {
        self.add(path, mtime)
    }

    fn add(&mut self, path: &[u8], mtime: Mtime) -> io::Result<()> {
        if self.buffer.len() + ENTRY_BYTES > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend(name_of(path));
        self.buffer.extend(mtime.seconds.to_le_bytes());
        self.buffer.extend(mtime.nanoseconds.to_le_bytes());
        Ok(())
    }

    /// Writes what is held back and gives the length; the file has to be synced before that is relied on.
    pub fn flush(&mut self) -> io::Result<u64> {
        self.file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(self.written)
    }

    /// The file, to be synced.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Removes the journal of a finished layer.
pub fn remove(stage: BorrowedFd) -> io::Result<()> {
    remove_file_at(stage, NAME)
}

fn name_of(path: &[u8]) -> Name {
    let digest = Digest::of(path);
    // Cannot fail: a digest has 32 bytes.
    digest.as_bytes()[..16].try_into().unwrap_or_default()
}

/// Takes everything out of the tree `fs` of `stage` that the first `bytes` of its journal do not name, and gives the
/// directories their times back, except those that are `open`: they get them when they are left again.
pub fn roll_back(stage: BorrowedFd, fs: BorrowedFd, bytes: u64, open: &[&[u8]]) -> Result<()> {
    let mut known = Known(read(stage, bytes).context(|| "read the journal".into())?);
    known.0.sort_unstable_by_key(|entry| (entry.name, entry.number));
    known.roll_back(fs, b"", 0, open)
}

/// An entry as it was written; `number` counts from 1.
#[derive(Clone, Copy)]
struct Entry {
    name: Name,
    seconds: i64,
    nanoseconds: u32,
    number: u32,
}

fn read(stage: BorrowedFd, bytes: u64) -> io::Result<Vec<Entry>> {
    let count = bytes / ENTRY_BYTES as u64;
    if count > MAX_ENTRIES {
        return Err(Error::new(Kind::Unsupported, "the journal is too long").into());
    }
    let file = open_or_create_file_at(stage, NAME)?;
    let mut known = Vec::with_capacity(count as usize);
    let mut buffer = vec![0; 1024 * ENTRY_BYTES];
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..part], at)?;
        for entry in buffer[..part].as_chunks().0 {
            known.push(parse(entry, known.len() as u32 + 1));
        }
        at += part as u64;
    }
    Ok(known)
}

fn parse(entry: &[u8; ENTRY_BYTES], number: u32) -> Entry {
    let mut name = Name::default();
    name.copy_from_slice(&entry[..16]);
    let (mut seconds, mut nanoseconds) = ([0; 8], [0; 4]);
    seconds.copy_from_slice(&entry[16..24]);
    nanoseconds.copy_from_slice(&entry[24..]);
    let (seconds, nanoseconds) = (i64::from_le_bytes(seconds), u32::from_le_bytes(nanoseconds));
    Entry { name, seconds, nanoseconds, number }
}

/// The entries, sorted by name; those of one name in the order in which they were written.
struct Known(Vec<Entry>);

impl Known {
    fn of(&self, path: &[u8]) -> &[Entry] {
        let name = name_of(path);
        let start = self.0.partition_point(|known| known.name < name);
        let end = self.0.partition_point(|known| known.name <= name);
        self.0.get(start..end).unwrap_or_default()
    }

    /// In the directory `path`, of which only entries behind number `since` speak.
    fn roll_back(&self, dir: BorrowedFd, path: &[u8], since: u32, open: &[&[u8]]) -> Result<()> {
        let doing = || format!("look through {:?}", String::from_utf8_lossy(path));
        let mut removed = false;
        for (name, is_directory) in entries(dir).context(doing)? {
            let child = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            let told = self.of(&child);
            if !told.iter().any(|entry| entry.nanoseconds != GONE && entry.number > since) {
                remove_tree(dir, &name).context(doing)?;
                removed = true;
            } else if is_directory {
                let opened = open_directory_at(dir, &name).context(doing)?;
                let gone = told.iter().rev().find(|entry| entry.nanoseconds == GONE);
                let since = gone.map_or(since, |entry| since.max(entry.number));
                self.roll_back(opened.as_fd(), &child, since, open)?;
                if !open.contains(&&child[..]) {
                    restore_time(opened.as_fd(), told, since).context(doing)?;
                }
            }
        }
        if removed { sync_directory(dir).context(doing) } else { Ok(()) }
    }
}

/// Gives a directory the time that it had when it was left, if it was.
fn restore_time(dir: BorrowedFd, told: &[Entry], since: u32) -> io::Result<()> {
    let is_time = |entry: &&Entry| entry.nanoseconds < GONE && entry.number > since;
    let Some(left) = told.iter().rev().find(is_time) else { return Ok(()) };
    let mtime = Mtime { seconds: left.seconds, nanoseconds: left.nanoseconds };
    if node::mtime(dir)? == mtime {
        return Ok(());
    }
    node::set_mtime(dir, mtime)?;
    sync_directory(dir)
}
