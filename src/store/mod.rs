//! What is on disk: layers, images, references to them, and containers. It knows nothing of registries or of running.
//!
//! ```text
//! DATA_ROOT/version                     the layout's version, refused by name if unknown
//!           layers/<diff id>/           fs/, record, layer.json, perhaps blob.json: one uncompressed layer each
//!           images/<image id>/          config.json and, if pulled, manifest.json, byte for byte
//!           references/<sha256 of name> one record for each tag and each repository digest
//!           containers/<id>/            container.json, state.json, diff/, work/, rootfs/, etc/
//!           stages/<name>/              what is being made or taken away; never read, collected when nobody works
//!           stages/layer-<diff id>/     a layer that a pull left unfinished: the next one goes on; kept for some days
//!           quarantine/<name>           what was damaged and had to make place; kept for whoever wants to look
//! RUN_ROOT/lock/                        files for flock; a crash or a reboot releases them
//! ```
//!
//! One rule publishes: a directory is made in `stages/` with everything in it synced, and one rename puts it into place;
//! a record is replaced by `sys::file::replace`. Both sync the directory that names them. Removing is the same rename
//! the other way. So a crash at any line leaves the old state or the new one, and at worst something in `stages/`.
//!
//! Two locks: `publish` is held alone, briefly, by whoever changes a record or must not see one change; `work` is shared by
//! whoever has a stage under way and needs the layers it saw to stay, and taken alone by the collector, which comes
//! back later rather than wait. A running container holds a lock of its own; so does a mount for the host while it is made.

mod blobs;
mod check;
mod collect;
mod containers;
mod images;
mod layers;
mod mounted;
mod quarantine;
mod record;
mod references;
#[cfg(test)]
mod testing;
mod unfinished;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use check::{Checked, Finding, Remedy};
pub use containers::{Container, ContainerRecord, ContainerState, NewContainer, Status};
pub use images::Image;
pub use layers::{LayerRecord, Stage};
pub use mounted::{Mounted, MountedTree};
pub use references::ReferenceRecord;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::lock::{self, Mode};
use crate::sys::{fault, file, remove};

/// The layout that this engine reads and writes.
const VERSION: &str = "vaquita-store 1\n";
const DIRECTORIES: [&str; 6] =
    ["layers", "images", "references", "containers", "stages", "quarantine"];

/// The store under one data root.
pub struct Store {
    data_root: PathBuf,
    run_root: PathBuf,
}

/// A held lock; dropping it releases it.
pub struct Lock(#[allow(dead_code)] File); // held, never read

impl Store {
    /// The store at `data_root`, its locks under `run_root`. Nothing is created until something is written; a layout of
    /// another version is refused.
    pub fn open(data_root: &Path, run_root: &Path) -> Result<Store> {
        let store = Store { data_root: data_root.into(), run_root: run_root.into() };
        let path = store.path("version");
        match fs_err::read_to_string(&path) {
            Ok(version) if version == VERSION => Ok(store),
            Ok(version) => {
                let (found, known) = (version.trim(), VERSION.trim());
                let message = format!(
                    "store {}: layout {found:?}, this engine knows {known:?}",
                    data_root.display()
                );
                Err(Error::new(Kind::Unsupported, message))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(store),
            Err(e) => Err(Error::io("open the store", e)),
        }
    }

    /// The root of what survives a reboot.
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// The root of what a reboot ends.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data_root.join(name)
    }

    /// Makes the directories and the version file where they are missing.
    fn create(&self) -> Result<()> {
        if self.path("version").exists() {
            return Ok(());
        }
        let _publish = self.publish()?;
        for name in DIRECTORIES {
            let path = self.path(name);
            make_directory(&path).context(|| "create the store".into())?;
        }
        if !self.path("version").exists() {
            restrict(&self.data_root, 0o710)?;
            // Those above may be new as well.
            self.data_root.ancestors().skip(1).try_for_each(sync_directory)?;
            let root = open_directory(&self.data_root)?;
            file::replace(root_fd(&root), "version", VERSION.as_bytes())
                .context(|| format!("write {}", self.path("version").display()))?;
        }
        Ok(())
    }

    /// Takes the lock that whoever stages something shares, and makes sure that the store exists.
    pub fn work(&self) -> Result<Lock> {
        let lock = self.lock("work", Mode::Shared)?;
        self.create()?;
        lock.ok_or_else(|| Error::new(Kind::Internal, "a shared lock was refused"))
    }

    /// Takes the lock under which records change. Whoever takes the work lock as well has taken it before.
    pub fn publish(&self) -> Result<Lock> {
        let lock = self.lock("publish", Mode::Exclusive)?;
        lock.ok_or_else(|| Error::new(Kind::Internal, "an exclusive lock was refused"))
    }

    /// Takes the lock under which a mount for the host is prepared, alone.
    pub fn mounting(&self) -> Result<Lock> {
        let lock = self.lock("mount", Mode::Exclusive)?;
        lock.ok_or_else(|| Error::new(Kind::Internal, "an exclusive lock was refused"))
    }

    fn lock(&self, name: &str, mode: Mode) -> Result<Option<Lock>> {
        let directory = self.run_root.join("lock");
        if !directory.exists() {
            fs_err::create_dir_all(&directory).context(|| "take a lock".into())?;
            // Whoever can open a lock can hold it.
            restrict(&directory, 0o700)?;
        }
        let path = directory.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context(|| format!("open lock {}", path.display()))?;
        let taken = lock::lock(&file, mode).context(|| format!("lock {}", path.display()))?;
        Ok(taken.then_some(Lock(file)))
    }
}

/// Images hold set-user-ID files of other systems: nobody but root may reach them, nor our locks.
fn restrict(directory: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(mode);
    fs_err::set_permissions(directory, mode).context(|| "create the store".into())
}

fn open_directory(path: &Path) -> Result<File> {
    File::open(path).context(|| format!("open {}", path.display()))
}

fn root_fd(directory: &File) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(directory)
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Path) -> Result<()> {
    let opened = open_directory(directory)?;
    file::sync_directory(root_fd(&opened)).context(|| format!("sync {}", directory.display()))
}

/// Removes a directory and all that is in it.
fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = open_directory(parent)?;
    remove::remove_tree(root_fd(&parent), name.as_encoded_bytes())
        .context(|| format!("remove {}", path.display()))
}

/// Makes a directory, and those above it, where they are missing.
fn make_directory(path: &Path) -> std::io::Result<()> {
    fault::before("mkdir")?;
    fs_err::create_dir_all(path)?;
    fault::after("mkdir");
    Ok(())
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fault::before("rename")?;
    fs_err::rename(from, to)?;
    fault::after("rename");
    Ok(())
}

/// Removes a file that is not a directory.
fn unlink(path: &Path) -> std::io::Result<()> {
    fault::before("unlink of a record")?;
    fs_err::remove_file(path)?;
    fault::after("unlink of a record");
    Ok(())
}

/// Renames `from` to `to` and syncs both directories that name them: on success the move survives a power cut.
fn publish_rename(from: &Path, to: &Path) -> Result<()> {
    rename(from, to).context(|| "publish".into())?;
    for directory in [to.parent(), from.parent()].into_iter().flatten() {
        sync_directory(directory)?;
    }
    Ok(())
}

/// The names in a directory, sorted; none if it does not exist.
fn list(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list the store", e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(|| "list the store".into())?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
