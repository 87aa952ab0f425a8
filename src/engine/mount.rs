//! Mount: an image or a container where the host can see it, for an initramfs that boots from an image, and for programs
//! that an image brings to the host.
//!
//! An image of one layer is that layer, bound read-only. Otherwise overlayfs merges, with the layers named by links in a
//! tmpfs: mount(2) takes one page of options, too short for the paths of many layers. Overlayfs holds the directories that
//! it was given, so the tmpfs, in which the writable layer is as well where there is one, is taken out of sight at once
//! and goes when the mount goes: what unmounts it is a plain umount(2).
//!
//! Either way leads over a scratch directory in the run root, so that the target shows all or nothing, however this ends;
//! what a mount that was killed left there, the next one takes away.
//!
//! No record says what is mounted: the mount table does (`store::mounted`). It tells the truth after a crash, after a
//! reboot, and after an initramfs moved the mount to another place. `rmi`, `rm` and the collector look there, under the lock
//! that `mount` holds while it mounts. Where there is no /proc to look in, a directory in the run root tells that something
//! was mounted in this boot, and nothing is removed.

use std::ffi::{CStr, CString};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Engine;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::store::{Container, Image, Lock, Mounted};
use crate::sys::mount::{self, MountFlags, Restriction};
use crate::sys::{Errno, fault, host, process};

/// The most lower directories that overlayfs takes (OVL_MAX_STACK, fs/overlayfs/params.c).
const MAX_LOWERS: usize = 500;

/// What is to be mounted, and the name that the mount table shows.
enum Tree {
    Image(Image),
    Container(Container),
}

impl Engine {
    /// Mounts the container or, if there is none of that name, the image at the directory `target`: read-only, or with what
    /// is written kept in memory until it is unmounted. A container shows what it wrote so far; it may run.
    pub fn mount(&self, name: &str, target: &Path, writable: bool) -> Result<()> {
        // For what is not there, nothing is made.
        self.find_tree(name)?;
        // Held until the mount is seen: nothing that is looked up from here on goes before.
        let _work = self.store.work()?;
        let _publish = self.store.publish()?;
        fs_err::create_dir_all(self.store.mounts_directory()).context(|| "mount".into())?;
        let tree = self.find_tree(name)?;
        let target = fs_err::canonicalize(target).context(|| format!("mount {name}"))?;
        let layers = match &tree {
            Tree::Image(image) => self.lowers(&image.id.to_string())?,
            Tree::Container(container) => self.container_layers(container)?,
        };
        let mounted = match &layers[..] {
            [] => Err(Error::new(Kind::Invalid, "it has no layers")),
            [only] if !writable => {
                self.by_way_of_scratch(&target, &mut |scratch| bind(only, scratch, &target))
            }
            _ => {
                let name = c_path(&self.mount_name(&tree))?;
                self.by_way_of_scratch(&target, &mut |scratch| {
                    mount_overlay(&layers, writable, &name, scratch, &target)
                })
            }
        };
        mounted.map_err(|e| {
            let message = format!("mount {name} on {}", target.display());
            Error::new(e.kind(), message).caused_by(e)
        })
    }

    /// Takes away what is mounted at `target`, if it is an image or container of ours. Whether the mount table can be read
    /// (it cannot without /proc) is no matter: then anything is unmounted.
    pub fn unmount(&self, target: &Path) -> Result<()> {
        let what = || format!("unmount {}", target.display());
        let target = fs_err::canonicalize(target).context(what)?;
        // Where nobody can take locks any more, it is left for the next boot.
        let _ = self.sweep();
        match self.store.mounted() {
            Ok(all) if !all.iter().any(|mounted| mounted.at == target) => {
                let message = format!("{}: no image or container is mounted there", what());
                Err(Error::new(Kind::NotFound, message))
            }
            _ => unmount(&target).context(what),
        }
    }

    fn find_tree(&self, name: &str) -> Result<Tree> {
        match self.store.find_container(name) {
            Ok(container) => return Ok(Tree::Container(container)),
            Err(e) if e.kind() != Kind::NotFound => return Err(e),
            Err(_) => {}
        }
        self.store.find_image(name).map(Tree::Image)
    }

    /// What a container's tree is made of, the top one first: what it wrote, and its image's layers.
    pub(super) fn container_layers(&self, container: &Container) -> Result<Vec<PathBuf>> {
        let mut layers = self.lowers(&container.record.image)?;
        layers.insert(0, container.directory.join("diff"));
        Ok(layers)
    }

    fn mount_name(&self, tree: &Tree) -> PathBuf {
        let root = self.store.data_root();
        match tree {
            Tree::Image(image) => Mounted::image_name(root, &image.id),
            Tree::Container(container) => Mounted::container_name(root, &container.record.id),
        }
    }

    /// Lets `mount` mount at `target` by way of a directory that nobody else has, and takes away what it mounted there.
    fn by_way_of_scratch(
        &self,
        target: &Path,
        mount: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let _alone = self.sweep()?;
        let random = host::random().context(|| "make a name".into())?;
        let scratch = self.store.mounts_directory().join(Digest::of(&random).short());
        fs_err::create_dir(&scratch).context(|| "make a directory".into())?;
        let mounted = mount(&scratch);
        let detached = detach(&scratch).context(|| format!("detach {}", scratch.display()));
        // Left empty in the run root, it would be gone with the next boot.
        let _ = fs::remove_dir(&scratch);
        match (mounted, detached) {
            (Ok(()), Err(e)) => {
                // The first error is the one to tell.
                let _ = unmount(target);
                Err(e)
            }
            // After a failure nothing may be mounted there.
            (mounted, _) => mounted,
        }
    }

    /// Takes away what mounts left that were killed under way. The lock says that no other is under way.
    fn sweep(&self) -> Result<Lock> {
        let alone = self.store.mounting()?;
        let left = fs::read_dir(self.store.mounts_directory());
        for entry in left.into_iter().flatten().flatten() {
            // It may not be mounted, and what cannot be taken away is gone with the next boot.
            let _ = detach(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
        Ok(alone)
    }
}

/// In a thread that can have a working directory of its own.
fn mount_overlay(
    layers: &[PathBuf],
    writable: bool,
    name: &CStr,
    scratch: &Path,
    target: &Path,
) -> Result<()> {
    in_thread("mounting", &mut || {
        process::unshare_working_directory().context(|| "unshare fs".into())?;
        let overlay = prepare(layers, writable, scratch)?;
        mount_prepared(&overlay, name, target)
    })
}

/// Does `work` in a thread that ends with it; `name` is what the thread does.
pub(super) fn in_thread(name: &str, work: &mut (dyn FnMut() -> Result<()> + Send)) -> Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into());
        let thread = thread.spawn_scoped(scope, work).context(|| "start a thread".into())?;
        let died = |_| Error::new(Kind::Internal, format!("the {name} thread died"));
        thread.join().map_err(died)?
    })
}

/// An overlay that is ready to be mounted from the working directory.
pub(super) struct Overlay {
    options: CString,
    flags: MountFlags,
}

/// Mounts a tmpfs at `scratch`, makes it the calling thread's working directory, and links the layers, the top one first,
/// into it.
pub(super) fn prepare(layers: &[PathBuf], writable: bool, scratch: &Path) -> Result<Overlay> {
    if layers.len() > MAX_LOWERS {
        let message = format!("{} layers, overlayfs takes {MAX_LOWERS}", layers.len());
        return Err(Error::new(Kind::Unsupported, message));
    }
    let target = c_path(scratch)?;
    let mounted = step(&mut || mount::mount(c"tmpfs", &target, MountFlags::empty(), c"mode=700"));
    mounted.context(|| "mount tmpfs".into())?;
    std::env::set_current_dir(scratch).context(|| "enter its tmpfs".into())?;
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = number.to_string();
        symlink(layer, &name).context(|| "link a layer".into())?;
        names.push(name);
    }
    let directories: &[&str] = if writable { &["upper", "work"] } else { &["empty"] };
    for name in directories {
        // The one that is written shows as the root of the tree, whatever the umask.
        let made = fs::create_dir(name)
            .and_then(|()| fs::set_permissions(name, Permissions::from_mode(0o755)));
        made.context(|| format!("make directory {name:?}"))?;
    }
    let mut options = format!("lowerdir={}", names.join(":"));
    match (writable, layers) {
        (true, _) => options.push_str(",upperdir=upper,workdir=work"),
        // Without a writable one, overlayfs wants two.
        (false, [_]) => options.push_str(":empty"),
        (false, _) => {}
    }
    let flags = if writable { MountFlags::empty() } else { MountFlags::RDONLY };
    // Cannot be lost: the options are numbers and words of this file.
    Ok(Overlay { options: CString::new(options).unwrap_or_default(), flags })
}

/// Mounts what was prepared at `target`; `name` is for the mount table.
pub(super) fn mount_prepared(overlay: &Overlay, name: &CStr, target: &Path) -> Result<()> {
    let target = c_path(target)?;
    let mounted = step(&mut || {
        mount::mount_named(name, c"overlay", &target, overlay.flags, &overlay.options)
    });
    mounted.map_err(|e| match Errno::from_io_error(&e) {
        Some(Errno::NODEV) => {
            let message = "this kernel has no overlayfs, or its module is not loaded: only images of one layer can be mounted";
            Error::new(Kind::Unsupported, message)
        }
        _ => Error::io("mount overlay", e),
    })
}

/// Nothing that is mounted from now on in this mount namespace shows in others.
pub(super) fn make_all_private() -> Result<()> {
    mount::make_all_private().context(|| "make mounts private".into())
}

/// A bind takes the restrictions of what it binds along: the layer can at no time be written at the target.
fn bind(source: &Path, scratch: &Path, target: &Path) -> Result<()> {
    let (source, scratch, target) = (c_path(source)?, c_path(scratch)?, c_path(target)?);
    step(&mut || mount::bind(&source, &scratch)).context(|| "bind".into())?;
    let read_only = Restriction { read_only: true, no_devices: false };
    let restricted = step(&mut || mount::restrict_one(&scratch, read_only));
    restricted.context(|| "make it read-only".into())?;
    step(&mut || mount::bind(&scratch, &target)).context(|| "bind".into())
}

fn unmount(target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    step(&mut || mount::unmount(&target))
}

fn detach(target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    step(&mut || mount::detach(&target))
}

/// A change of the mount table, for tests to stop at (`sys::fault`).
fn step(change: &mut dyn FnMut() -> std::result::Result<(), Errno>) -> io::Result<()> {
    fault::before("mount")?;
    change()?;
    fault::after("mount");
    Ok(())
}

fn c_path(path: &Path) -> Result<CString> {
    let bytes = path.as_os_str().as_bytes();
    CString::new(bytes)
        .map_err(|_| Error::new(Kind::Invalid, format!("path {path:?} has a NUL byte")))
}
