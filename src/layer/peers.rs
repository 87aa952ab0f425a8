//! Peers: layers that are here already, in which a new one may find its files.
//!
//! A file at the same path with the same size, owner, permissions, time and extended attributes is very likely the same
//! file. It is linked at once, and what arrives is compared with it: an update writes what changed. Where the content
//! differs after all, the link is replaced by a copy of what was equal, and writing goes on from there. Nothing is
//! looked up by content: that would need an index of all files, to be kept, synced and repaired.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::content::STEP_BYTES;
use super::members::Member;
use crate::sys::examine::{self, FactKind};
use crate::sys::file::{open_directory_at, open_file_at};
use crate::sys::node::Xattr;
use crate::sys::sync::drop_cache;

/// Layers that are looked into.
pub const MAX_PEERS: usize = 16;

/// The peers of one layer, best first.
#[derive(Default)]
pub struct Peers {
    layers: Vec<OwnedFd>,
    /// The directory looked into last, in each of the layers that have it.
    path: Vec<u8>,
    directories: Vec<OwnedFd>,
}

impl Peers {
    /// `layers` are the open directories that hold the `fs` of each; what is beyond `MAX_PEERS` is not looked at.
    pub fn new(layers: Vec<OwnedFd>) -> Peers {
        let layers: Vec<OwnedFd> = layers
            .iter()
            .take(MAX_PEERS)
            .filter_map(|layer| open_directory_at(layer.as_fd(), super::tree::FS.as_bytes()).ok())
            .collect();
        let directories = layers.iter().filter_map(|layer| layer.try_clone().ok()).collect();
        Peers { layers, path: Vec::new(), directories }
    }

    /// A file of `size` bytes that has all that `member` says, at `name` in the directory `parent`: opened, with the
    /// directory that it is in.
    pub fn find(
        &mut self,
        parent: &[u8],
        name: &[u8],
        member: &Member,
        size: u64,
    ) -> Option<(File, &OwnedFd)> {
        if self.layers.is_empty() {
            return None;
        }
        self.enter(parent);
        self.directories.iter().find_map(|directory| {
            let facts = examine::facts_at(directory.as_fd(), name).ok()??;
            if facts.kind != FactKind::File(size) || facts.attributes != member.attributes {
                return None;
            }
            let file = open_file_at(directory.as_fd(), name).ok()?;
            has_exactly(&file, &member.xattrs).ok()?.then_some((file, directory))
        })
    }

    fn enter(&mut self, path: &[u8]) {
        if self.path == path {
            return;
        }
        self.path = path.to_vec();
        self.directories = self.layers.iter().filter_map(|layer| descend(layer, path)).collect();
    }
}

/// Whether the file's extended attributes are these and no others.
fn has_exactly(file: &File, xattrs: &[Xattr]) -> io::Result<bool> {
    let names = examine::xattr_names(file.as_fd())?;
    if names.len() != xattrs.len() {
        return Ok(false);
    }
    for (name, value) in xattrs {
        if examine::has_xattr(file.as_fd(), name, value)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directory `path` below `root`; none where a component is missing, or a symlink.
fn descend(root: &OwnedFd, path: &[u8]) -> Option<OwnedFd> {
    let mut at = root.try_clone().ok()?;
    for name in crate::sys::beneath::components(path) {
        at = open_directory_at(at.as_fd(), name).ok()?;
    }
    Some(at)
}

/// A peer's file that what arrives is compared with.
pub struct Comparing {
    file: File,
    /// All before is equal.
    pub at: u64,
    /// `Tree::states` when the link was made; `None` if a checkpoint has it.
    pub made: Option<u32>,
    dropped: u64,
    buffer: Vec<u8>,
}

impl Comparing {
    /// Compares with `file` from the offset `at` on.
    pub fn new(file: File, at: u64, made: Option<u32>) -> Comparing {
        Comparing { file, at, made, dropped: at, buffer: Vec::new() }
    }

    /// Whether the file goes on with `bytes`.
    pub fn goes_on_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.buffer.resize(bytes.len(), 0);
        match self.file.read_exact_at(&mut self.buffer, self.at) {
            Ok(()) if self.buffer == bytes => self.at += bytes.len() as u64,
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Whether enough has been compared since its pages were dropped last.
    pub fn is_step(&self) -> bool {
        self.at - self.dropped >= STEP_BYTES
    }

    /// Drops the pages of what was compared.
    pub fn drop_pages(&mut self) {
        drop_cache(self.file.as_fd(), self.dropped, self.at - self.dropped);
        self.dropped = self.at;
    }

    /// The file, to be synced where a checkpoint relies on it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes what was equal to `out`.
    pub fn copy_equal(&self, out: &mut File) -> io::Result<()> {
        let mut start = &self.file;
        start.seek(SeekFrom::Start(0))?;
        match io::copy(&mut start.take(self.at), out)? == self.at {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Comparing {
    fn drop(&mut self) {
        drop_cache(self.file.as_fd(), 0, 0);
    }
}
