//! The tree of files that a layer becomes: safe paths, parents kept open, replaced nodes put aside.
//!
//! Making a node changes its parent's time, and the parent has to be synced when the last node is made in it. So the
//! directories that were used last stay open, each with the time that it had before: when one makes room for another,
//! its time is restored and it goes into the window. A tar in the usual order leaves each directory once. No list of
//! directories is kept, however many there are.

mod replace;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::checkpoint::Slots;
use super::journal::{self, Journal};
use super::undo::{self, UndoLog};
use super::window::Window;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::beneath::{self, WalkError, components};
use crate::sys::file::{create_directory_at, open_directory_at, sync_directory};
use crate::sys::node::{self, Mtime, NodeKind};
use crate::sys::sync::{directories_sync_alone, sync_file_system};

pub use replace::OPAQUE;
use replace::set_opaque;

/// The tree's name in a layer's directory.
pub const FS: &str = "fs";
/// Where replaced content lies that the record still needs.
pub const SHADOWED: &str = "shadowed";
/// Directories kept open: more than the usual depth of a tree.
const MAX_PARENTS: usize = 16;

/// A layer's `fs` directory while it is written.
pub struct Tree<'a> {
    stage: BorrowedFd<'a>,
    fs: OwnedFd,
    /// Used last comes last; that one is where nodes are made.
    parents: Vec<Parent>,
    shadowed: Option<OwnedFd>,
    shadowed_count: u32,
    window: Window,
    /// Kept where checkpoints are made.
    journal: Option<Journal>,
    /// The same, of what was changed.
    undo_log: Option<UndoLog>,
    /// How many states have been taken; what was made since the last goes when that is gone back to.
    states: u32,
    /// A state was taken, now or before this process: what is changed of it has to be logged.
    has_state: bool,
    /// Too much was changed to be logged.
    is_barred: bool,
    /// Nodes were made that no fsync reaches, on a file system where that of their directory does not do.
    has_unsynced: bool,
}

struct Parent {
    /// From the root, without symlinks.
    path: Vec<u8>,
    dir: OwnedFd,
    mtime: Mtime,
    /// `Tree::states` when it was made; `None` if it was found.
    made: Option<u32>,
}

/// What has to be kept to go on with a tree, beside what is on the disk.
#[derive(Clone, Serialize, Deserialize)]
pub struct TreeState {
    /// The directories that are open, and the time that each is to have.
    parents: Vec<(Vec<u8>, i64, u32)>,
    shadowed_count: u32,
    journal_bytes: u64,
    undo_bytes: u64,
}

impl TreeState {
    /// Puts the tree in `stage` back to what it was when this was taken.
    pub fn restore(&self, stage: BorrowedFd) -> Result<()> {
        let fs = open_directory_at(stage, FS.as_bytes()).context(|| format!("open {FS:?}"))?;
        let open: Vec<&[u8]> = self.parents.iter().map(|(path, ..)| &path[..]).collect();
        undo::undo(stage, fs.as_fd(), self.undo_bytes)?;
        journal::roll_back(stage, fs.as_fd(), self.journal_bytes, &open)
    }
}

impl<'a> Tree<'a> {
    /// Makes the empty `fs` in `stage`, for checkpoints if `resumable`.
    pub fn new(stage: BorrowedFd<'a>, resumable: bool) -> Result<Tree<'a>> {
        let fs = create_directory_at(stage, FS.as_bytes()).context(|| format!("make {FS:?}"))?;
        match resumable {
            false => Ok(Tree::of(stage, fs, None)),
            true => Tree::resumable(stage, fs, 0, 0),
        }
    }

    /// Goes on with the tree of which `state` was taken, after `TreeState::restore`.
    pub fn resume(stage: BorrowedFd<'a>, state: &TreeState) -> Result<Tree<'a>> {
        let doing = || format!("go on with {FS:?}");
        let fs = open_directory_at(stage, FS.as_bytes()).context(doing)?;
        let mut tree = Tree::resumable(stage, fs, state.journal_bytes, state.undo_bytes)?;
        tree.has_state = true;
        for (path, seconds, nanoseconds) in &state.parents {
            let mtime = Mtime { seconds: *seconds, nanoseconds: *nanoseconds };
            let place = tree.find(path).map_err(Error::from)?;
            tree.parents.push(Parent { path: place.path, dir: place.dir, mtime, made: None });
        }
        if state.shadowed_count > 0 {
            let shadowed = open_directory_at(stage, SHADOWED.as_bytes());
            tree.shadowed = Some(shadowed.context(|| format!("open {SHADOWED:?}"))?);
        }
        tree.shadowed_count = state.shadowed_count;
        Ok(tree)
    }

    fn resumable(
        stage: BorrowedFd<'a>,
        fs: OwnedFd,
        journal_bytes: u64,
        undo_bytes: u64,
    ) -> Result<Tree<'a>> {
        let doing = || "prepare for checkpoints".to_string();
        let mut tree = Tree::of(stage, fs, Some(Slots::open(stage).context(doing)?));
        tree.journal = Some(Journal::open(stage, journal_bytes).context(doing)?);
        tree.undo_log = Some(UndoLog::open(stage, undo_bytes).context(doing)?);
        Ok(tree)
    }

    fn of(stage: BorrowedFd<'a>, fs: OwnedFd, slots: Option<Slots>) -> Tree<'a> {
        Tree {
            stage,
            fs,
            parents: Vec::with_capacity(MAX_PARENTS + 1),
            shadowed: None,
            shadowed_count: 0,
            window: Window::new(slots),
            journal: None,
            undo_log: None,
            states: 0,
            has_state: false,
            is_barred: false,
            has_unsynced: false,
        }
    }

    /// Notes that a node which cannot be opened was given its attributes. It reaches the disk with its directory, except on
    /// btrfs: there, all of the file system is synced before a state is relied on.
    pub fn described(&mut self) -> Result<()> {
        if !self.has_unsynced {
            let alone = directories_sync_alone(self.fs.as_fd());
            self.has_unsynced = alone.context(|| "look up the file system".into())?;
        }
        Ok(())
    }

    fn sync_described(&mut self) -> Result<()> {
        if std::mem::take(&mut self.has_unsynced) {
            sync_file_system(self.fs.as_fd()).context(|| "sync the file system".into())?;
        }
        Ok(())
    }

    /// Where the tree stands, for a checkpoint. Everything that it relies on goes into the window that is about to end.
    pub fn state(&mut self) -> Result<TreeState> {
        self.sync_described()?;
        let doing = || "write the journal".to_string();
        let journal_bytes = match &mut self.journal {
            None => 0,
            Some(journal) => {
                let bytes = journal.flush().context(doing)?;
                let file = journal.file().try_clone().context(doing)?;
                self.window.add(file.into(), b"journal".to_vec(), 0);
                bytes
            }
        };
        let fs = self.fs.try_clone().context(doing)?;
        self.window.add(fs, FS.into(), 0);
        let stage = self.stage.try_clone_to_owned().context(doing)?;
        self.window.add(stage, Vec::new(), 0);
        if let Some(shadowed) = &self.shadowed {
            let shadowed = shadowed.try_clone().context(doing)?;
            self.window.add(shadowed, SHADOWED.into(), 0);
        }
        for parent in &self.parents {
            let dir = parent.dir.try_clone().context(doing)?;
            self.window.add(dir, parent.path.clone(), 0);
        }
        self.states += 1;
        self.has_state = true;
        let open =
            |parent: &Parent| (parent.path.clone(), parent.mtime.seconds, parent.mtime.nanoseconds);
        let parents = self.parents.iter().map(open).collect();
        let undo_bytes = self.undo_log.as_ref().map_or(0, UndoLog::bytes);
        let shadowed_count = self.shadowed_count;
        Ok(TreeState { parents, shadowed_count, journal_bytes, undo_bytes })
    }

    /// How many states have been taken.
    pub fn states(&self) -> u32 {
        self.states
    }

    /// Whether a state still can tell all that it has to.
    pub fn takes_states(&self) -> bool {
        !self.is_barred
    }

    /// The window of what is on its way to the disk.
    pub fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Notes that `name` was made in the current directory.
    pub fn made(&mut self, name: &[u8]) -> Result<()> {
        let path = self.path_of(name);
        match &mut self.journal {
            None => Ok(()),
            Some(journal) => journal.made(&path).context(|| "write the journal".into()),
        }
    }

    /// The directory entered last: open, and its path from the root.
    pub fn current(&self) -> (BorrowedFd<'_>, &[u8]) {
        match self.parents.last() {
            Some(parent) => (parent.dir.as_fd(), &parent.path),
            None => (self.fs.as_fd(), b""),
        }
    }

    /// The path of `name` in the current directory.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(self.current().1, name)
    }

    /// Makes the directory `path` current. Relative symlinks are followed, missing directories made (root's, 0755).
    pub fn enter(&mut self, path: &[u8]) -> Result<()> {
        match self.enter_existing(path) {
            Err(WalkError::Io(error)) if is_missing(&error) => {}
            result => return result.map_err(Error::from),
        }
        let mut prefix = Vec::new();
        self.enter_existing(b"").map_err(Error::from)?;
        for name in components(path) {
            prefix = join(&prefix, name);
            self.enter_or_make(name, &prefix)?;
        }
        Ok(())
    }

    /// Makes `name` of the current directory current; `path` is how the member's name leads there.
    fn enter_or_make(&mut self, name: &[u8], path: &[u8]) -> Result<()> {
        let lookup = || "make a parent directory".to_string();
        match node::kind_at(self.current().0, name).context(lookup)? {
            None | Some(NodeKind::Whiteout) => {
                let made = self.make_directory(name)?;
                let mtime = node::mtime(made.as_fd()).context(lookup)?;
                self.push_directory(name, made, mtime)
            }
            Some(NodeKind::Directory) => {
                let true_path = self.path_of(name);
                if self.use_open(&true_path) {
                    return Ok(());
                }
                let dir = open_directory_at(self.current().0, name).context(lookup)?;
                let mtime = node::mtime(dir.as_fd()).context(lookup)?;
                self.push(Parent { path: true_path, dir, mtime, made: None })
            }
            Some(_) => self.enter_existing(path).map_err(Error::from),
        }
    }

    fn enter_existing(&mut self, path: &[u8]) -> Result<(), WalkError> {
        if self.use_open(path) {
            return Ok(());
        }
        let place = beneath::find(self.fs.as_fd(), path)?;
        if !self.use_open(&place.path) {
            let mtime = node::mtime(place.dir.as_fd())?;
            self.push(Parent { path: place.path, dir: place.dir, mtime, made: None })
                .map_err(|error| WalkError::Io(error.into()))?;
        }
        Ok(())
    }

    /// Makes `path` current if it is open. Open ones are known by their true path, so a path with symlinks is never found.
    fn use_open(&mut self, path: &[u8]) -> bool {
        let found = self.parents.iter().rposition(|parent| parent.path == path);
        if let Some(index) = found {
            let parent = self.parents.remove(index);
            self.parents.push(parent);
        }
        found.is_some()
    }

    /// Makes a directory in the current one; what it replaces of the layers below is hidden whole.
    pub fn make_directory(&mut self, name: &[u8]) -> Result<OwnedFd> {
        let doing = || "make directory".to_string();
        let found = node::kind_at(self.current().0, name).context(doing)?;
        let whited_out = found == Some(NodeKind::Whiteout);
        if whited_out {
            self.discard(name)?;
        }
        let made = create_directory_at(self.current().0, name).context(doing)?;
        self.made(name)?;
        if whited_out {
            set_opaque(made.as_fd()).context(doing)?;
        }
        Ok(made)
    }

    /// Makes the open directory `name` of the current one current, with the time to be restored.
    pub fn push_directory(&mut self, name: &[u8], dir: OwnedFd, mtime: Mtime) -> Result<()> {
        let path = self.path_of(name);
        self.push(Parent { path, dir, mtime, made: Some(self.states) })
    }

    fn push(&mut self, parent: Parent) -> Result<()> {
        self.parents.push(parent);
        if self.parents.len() > MAX_PARENTS {
            let oldest = self.parents.remove(0);
            self.leave(oldest)?;
        }
        Ok(())
    }

    fn leave(&mut self, parent: Parent) -> Result<()> {
        let doing = || format!("set the time of {:?}", String::from_utf8_lossy(&parent.path));
        node::set_mtime(parent.dir.as_fd(), parent.mtime).context(doing)?;
        if let Some(journal) = &mut self.journal {
            journal.left(&parent.path, parent.mtime).context(doing)?;
        }
        self.window.add(parent.dir, parent.path, 0);
        Ok(())
    }

    fn leave_all(&mut self) -> Result<()> {
        for parent in std::mem::take(&mut self.parents) {
            self.leave(parent)?;
        }
        Ok(())
    }

    /// Hands over a file that is complete; `bytes` of it may still be in the page cache.
    pub fn add_file(&mut self, file: OwnedFd, name: &[u8], bytes: u64) {
        let path = self.path_of(name);
        self.window.add(file, path, bytes);
    }

    /// The directory of `path`, which exists, for a hard link; the current directory stays.
    pub fn find(&self, path: &[u8]) -> Result<beneath::Place, WalkError> {
        beneath::find(self.fs.as_fd(), path)
    }

    /// Waits until everything made survives a power cut.
    pub fn finish(mut self) -> Result<()> {
        self.leave_all()?;
        self.sync_described()?;
        self.window.finish()?;
        if let Some(shadowed) = &self.shadowed {
            sync_directory(shadowed.as_fd()).context(|| format!("sync {SHADOWED:?}"))?;
        }
        sync_directory(self.fs.as_fd()).context(|| format!("sync {FS:?}"))
    }
}

impl From<WalkError> for Error {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Io(error) => Error::io("open its parent directory", error),
            other => Error::new(Kind::Invalid, other.to_string()),
        }
    }
}

pub fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
