//! What a layer changes of what it has made before: replaced members, directories with other attributes.
//!
//! A checkpoint may rely on what was there, so each change is logged before it is made (`layer::undo`), unless no state was
//! taken yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Parent, SHADOWED, Tree, is_missing};
use crate::error::{Context, Error, Result};
use crate::layer::record::RecordWriter;
use crate::layer::undo::{self, Change};
use crate::sys::examine::{facts_at, has_xattr};
use crate::sys::file::{create_directory_at, open_directory_at, sync_directory};
use crate::sys::node::{self, Attributes, NodeKind, Xattr};

/// What tells overlayfs that nothing of the lower directories shows through (overlayfs.rst, "whiteouts and opaque
/// directories").
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

impl Tree<'_> {
    /// Clears the place of `name` in the current directory. What the record needs is put aside, and the record told.
    /// True when a whiteout was there.
    pub fn replace(&mut self, name: &[u8], record: &mut RecordWriter) -> Result<bool> {
        let (dir, _) = self.current();
        let kind = node::kind_at(dir, name).context(|| "look up".into())?;
        if kind.is_none() {
            return Ok(false);
        }
        match kind {
            Some(NodeKind::File | NodeKind::Directory) => self.put_aside(name, record)?,
            _ => self.discard(name)?,
        }
        let path = self.path_of(name);
        if let (Some(NodeKind::Directory), Some(journal)) = (kind, &mut self.journal) {
            journal.gone(&path).context(|| "write the journal".into())?;
        }
        Ok(kind == Some(NodeKind::Whiteout))
    }

    fn put_aside(&mut self, name: &[u8], record: &mut RecordWriter) -> Result<()> {
        let (parent_path, path) = (self.current().1.to_vec(), self.path_of(name));
        let number = self.shadowed_count;
        self.shadowed_count += 1;
        record.note(&path, number).context(|| "replace".into())?;
        // Directories below the one that moves may be open; they have to be left under the path that they have now.
        self.leave_all()?;
        self.enter_existing(&parent_path).map_err(Error::from)?;
        let shadowed = match self.shadowed.take() {
            Some(shadowed) => shadowed,
            None => self.aside(SHADOWED)?,
        };
        let moved = self.move_aside(name, shadowed.as_fd(), number.into(), true);
        self.shadowed = Some(shadowed);
        moved
    }

    /// The layers below have nothing called `name` in the current directory any more.
    pub fn white_out(&mut self, name: &[u8]) -> Result<()> {
        let doing = || "make whiteout".to_string();
        match node::kind_at(self.current().0, name).context(doing)? {
            None => {
                node::make_character_device(self.current().0, name, 0, 0).context(doing)?;
                self.made(name)
            }
            // A whiteout is about the layers below (OCI image spec, layer.md, "Whiteouts"): what this layer has stays, and
            // hides them; a directory only if it is opaque.
            Some(NodeKind::Directory) => {
                let hidden = open_directory_at(self.current().0, name).context(doing)?;
                self.log_attributes(&self.path_of(name), hidden.as_fd())?;
                set_opaque(hidden.as_fd()).context(doing)?;
                // It may have been left, and synced, before.
                sync_directory(hidden.as_fd()).context(doing)
            }
            Some(_) => Ok(()),
        }
    }

    /// Nothing that the layers below have in the current directory shows through.
    pub fn make_opaque(&mut self) -> Result<()> {
        let (dir, path) = self.current();
        let doing = || "make its directory opaque".to_string();
        let (dir, path) = (dir.try_clone_to_owned().context(doing)?, path.to_vec());
        self.log_attributes(&path, dir.as_fd())?;
        set_opaque(dir.as_fd()).context(doing)
    }

    /// Opens the directory `name` of the current one, to give it these attributes; it will be entered anew.
    pub fn reopen_directory(
        &mut self,
        name: &[u8],
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<OwnedFd> {
        let doing = || "open directory".to_string();
        let path = self.path_of(name);
        let dir = open_directory_at(self.current().0, name).context(doing)?;
        if !is_described(dir.as_fd(), attributes, xattrs).context(doing)? {
            self.log_attributes(&path, dir.as_fd())?;
        }
        self.parents.retain(|parent| parent.path != path);
        Ok(dir)
    }

    /// Logs what is about to be changed of what a checkpoint may rely on.
    fn log(&mut self, change: &Change) -> Result<()> {
        let doing = || "write the undo log".to_string();
        if let Some(log) = &mut self.undo_log
            && !log.write(change).context(doing)?
        {
            (self.is_barred, self.has_state) = (true, false);
            return self.window.clear_checkpoints();
        }
        Ok(())
    }

    /// Logs the attributes of the directory `path`, which are about to be changed.
    fn log_attributes(&mut self, path: &[u8], dir: BorrowedFd) -> Result<()> {
        let is_new = |parent: &Parent| parent.path == path && parent.made == Some(self.states);
        if !self.has_state || self.parents.iter().any(is_new) {
            return Ok(());
        }
        let change = Change::of_directory(path, dir);
        self.log(&change.context(|| "look up attributes".into())?)
    }

    /// Takes the node `name`, which is no directory, out of the current directory. Nothing but a checkpoint needs it.
    pub fn discard(&mut self, name: &[u8]) -> Result<()> {
        let doing = || "replace".to_string();
        match &self.undo_log {
            Some(log) if self.has_state => {
                let number = log.bytes();
                let aside = self.aside(undo::REPLACED)?;
                self.move_aside(name, aside.as_fd(), number, false)
            }
            _ => node::remove(self.current().0, name).context(doing),
        }
    }

    /// The directory `name` of the stage, for what is moved out of the tree.
    fn aside(&self, name: &str) -> Result<OwnedFd> {
        let doing = || format!("make {name:?}");
        match open_directory_at(self.stage, name.as_bytes()) {
            Err(error) if is_missing(&error) => {
                let made = create_directory_at(self.stage, name.as_bytes()).context(doing)?;
                if self.has_state {
                    sync_directory(self.stage).context(doing)?;
                }
                Ok(made)
            }
            opened => opened.context(doing),
        }
    }

    /// Moves `name` out of the current directory to `number` in `aside`.
    fn move_aside(
        &mut self,
        name: &[u8],
        aside: BorrowedFd,
        number: u64,
        is_shadowed: bool,
    ) -> Result<()> {
        let doing = || "put aside what it replaces".to_string();
        if self.has_state {
            self.log(&Change::Moved { path: self.path_of(name), is_shadowed, number })?;
        }
        let dir = self.current().0;
        node::rename(dir, name, aside, number.to_string().as_bytes()).context(doing)?;
        if self.has_state {
            sync_directory(aside).and_then(|()| sync_directory(dir)).context(doing)?;
        }
        Ok(())
    }
}

/// Whether the open directory has these attributes already; its time aside.
fn is_described(dir: BorrowedFd, attributes: &Attributes, xattrs: &[Xattr]) -> io::Result<bool> {
    let found = facts_at(dir, b".")?.map(|facts| facts.attributes);
    let mtime = attributes.mtime;
    if found.map(|found| Attributes { mtime, ..found }) != Some(*attributes) {
        return Ok(false);
    }
    for (name, value) in xattrs {
        if has_xattr(dir, name, value)? == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn set_opaque(dir: BorrowedFd) -> io::Result<()> {
    node::set_xattr(dir, OPAQUE, b"y")
}
