//! What becomes of a file's content as it arrives: it is written, or compared with a file of another layer that looks the same.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use super::peers::Comparing;
use super::tree::Tree;
use super::window::WINDOW_BYTES;
use crate::error::{Context, Result};
use crate::sys::file::create_file_at;
use crate::sys::node;
use crate::sys::sync::{drop_cache, start_writeback, wait_writeback};

/// Bytes of a file between two starts of writeback.
pub const STEP_BYTES: u64 = 1 << 20;

/// Where the content goes.
pub enum Target {
    /// To a file of the layer's own.
    Written(Writing),
    /// Nowhere, as long as it is equal.
    Compared(Comparing),
}

impl Target {
    /// Takes in what comes next. A link whose content differs from there on is replaced by a file of its own, `name` in the
    /// tree's current directory.
    pub fn take(&mut self, bytes: &[u8], tree: &mut Tree, name: &[u8]) -> Result<()> {
        match self {
            Target::Written(writing) => writing.write(bytes)?,
            Target::Compared(comparing) => {
                if !comparing.goes_on_with(bytes).context(|| "compare".into())? {
                    *self = Target::Written(diverge(tree, name, comparing, bytes)?);
                }
            }
        }
        Ok(())
    }

    /// Whether the file is another layer's, so far.
    pub fn is_link(&self) -> bool {
        matches!(self, Target::Compared(_))
    }

    /// The offset that was reached.
    pub fn at(&self) -> u64 {
        match self {
            Target::Written(writing) => writing.at,
            Target::Compared(comparing) => comparing.at,
        }
    }

    /// The file, to be synced where a checkpoint relies on it.
    pub fn file(&self) -> &File {
        match self {
            Target::Written(writing) => &writing.file,
            Target::Compared(comparing) => comparing.file(),
        }
    }

    /// Goes on at `offset`: what is between is a hole.
    pub fn seek_to(&mut self, offset: u64) -> Result<()> {
        match self {
            Target::Written(writing) => writing.seek_to(offset),
            Target::Compared(_) => Ok(()),
        }
    }

    /// Whether enough has come in for `end_step`.
    pub fn is_step(&self) -> bool {
        match self {
            Target::Written(writing) => writing.at - writing.started >= STEP_BYTES,
            Target::Compared(comparing) => comparing.is_step(),
        }
    }

    /// Starts writing back what there is, or gives back the pages that were read.
    pub fn end_step(&mut self) -> io::Result<()> {
        match self {
            Target::Written(writing) => writing.write_back(),
            Target::Compared(comparing) => {
                comparing.drop_pages();
                Ok(())
            }
        }
    }
}

/// Puts a file of its own in place of a link whose content differs from here on, where `bytes` follow.
fn diverge(tree: &mut Tree, name: &[u8], equal: &Comparing, bytes: &[u8]) -> Result<Writing> {
    let doing = || "replace a link".to_string();
    // A link that no checkpoint knows of is taken away with what came after it.
    match equal.made == Some(tree.states()) {
        true => node::remove(tree.current().0, name).context(doing)?,
        false => tree.discard(name)?,
    }
    let mut file = create_file_at(tree.current().0, name).context(doing)?;
    equal.copy_equal(&mut file).context(doing)?;
    let mut writing = Writing { started: 0, dropped: 0, ..Writing::new(file, equal.at) };
    writing.write(bytes)?;
    Ok(writing)
}

/// A file that is written; what is far behind is already on the disk and no longer in the page cache.
pub struct Writing {
    file: File,
    at: u64,
    /// Writeback has been started up to here.
    started: u64,
    /// Pages have been dropped up to here.
    dropped: u64,
}

impl Writing {
    /// `file` stands at the offset `at`.
    pub fn new(file: File, at: u64) -> Writing {
        Writing { file, at, started: at, dropped: at }
    }

    fn seek_to(&mut self, offset: u64) -> Result<()> {
        if self.at != offset {
            self.file.seek(SeekFrom::Start(offset)).context(|| "seek".into())?;
            self.at = offset;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).context(|| "write file".into())?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn write_back(&mut self) -> io::Result<()> {
        start_writeback(&self.file, self.started, self.at - self.started);
        self.started = self.at;
        if self.at - self.dropped >= 2 * WINDOW_BYTES {
            let behind = self.at - self.dropped - WINDOW_BYTES;
            wait_writeback(&self.file, self.dropped, behind)?;
            drop_cache(self.file.as_fd(), self.dropped, behind);
            self.dropped += behind;
        }
        Ok(())
    }

    /// Starts writing back the rest; gives the file, how long it is, and how much of it may still be in the page cache.
    pub fn finish(self) -> (File, u64, u64) {
        if self.at > self.started {
            start_writeback(&self.file, self.started, 0);
        }
        (self.file, self.at, self.at - self.dropped)
    }
}
