//! Mount: an image or a container where the host can see it, for an initramfs that boots from an image, and for programs
//! that an image brings to the host.
//!
//! An image of one layer is that layer, bound read-only. Otherwise overlayfs merges, with the layers named by links in a
//! tmpfs: mount(2) takes one page of options, too short for the paths of many layers. Overlayfs holds the directories that
//! it was given, so the tmpfs, in which the writable layer is as well where there is one, is taken out of sight at once
//! and goes when the mount goes: what unmounts it is a plain umount(2).
//!
//! No record says what is mounted: the mount table does (`store::mounted`). It tells the truth after a crash, after a
//! reboot, and after an initramfs moved the mount to another place. `rmi`, `rm` and the collector look there.

use std::ffi::{CStr, CString};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::Engine;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::store::{Container, Image, Mounted};
use crate::sys::mount::{self, MountFlags, Restriction};
use crate::sys::{Errno, host, process};

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
        let tree = self.find_tree(name)?;
        let target = fs_err::canonicalize(target).context(|| format!("mount {name}"))?;
        // Held until the mount is seen, so that no layer goes before.
        let _work = self.store.work()?;
        let layers = match &tree {
            Tree::Image(image) => self.lowers(&image.id.to_string())?,
            Tree::Container(container) => self.container_layers(container)?,
        };
        let mounted = match &layers[..] {
            [] => Err(Error::new(Kind::Invalid, "it has no layers")),
            [only] if !writable => bind(only, &target),
            _ => self.mount_overlay(&layers, writable, &self.mount_name(&tree), &target),
        };
        mounted.map_err(|e| {
            let message = format!("mount {name} on {}", target.display());
            Error::new(e.kind(), message).caused_by(e)
        })?;
        // It may have been removed before the mount was there to be seen.
        let still_here = match &tree {
            Tree::Image(image) => self.store.image(&image.id).map(drop),
            Tree::Container(container) => self.store.find_container(&container.record.id).map(drop),
        };
        still_here.inspect_err(|_| {
            // Nobody could be told of a second failure.
            let _ = unmount(&target);
        })
    }

    /// Takes away what is mounted at `target`, if it is an image or container of ours. Whether the mount table can be read
    /// (it cannot without /proc) is no matter: then anything is unmounted.
    pub fn unmount(&self, target: &Path) -> Result<()> {
        let what = || format!("unmount {}", target.display());
        let target = fs_err::canonicalize(target).context(what)?;
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

    /// In a thread that can have a working directory of its own.
    fn mount_overlay(
        &self,
        layers: &[PathBuf],
        writable: bool,
        name: &Path,
        target: &Path,
    ) -> Result<()> {
        let random = host::random().context(|| "make a name".into())?;
        let scratch = self.store.run_root().join("mounts").join(Digest::of(&random).short());
        fs_err::create_dir_all(&scratch).context(|| "make a directory".into())?;
        let name = c_path(name)?;
        let mounted = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("mount".into());
            let work = || {
                process::unshare_working_directory().context(|| "unshare fs".into())?;
                let mounted = prepare(layers, writable, &scratch)
                    .and_then(|overlay| mount_prepared(&overlay, &name, target));
                // After a failure it may not be there, and the first error is the one to tell.
                let detached = mount::detach(&c_path(&scratch)?);
                mounted.and(detached.context(|| "detach its tmpfs".into()))
            };
            let thread = thread.spawn_scoped(scope, work).context(|| "start a thread".into())?;
            thread.join().map_err(|_| Error::new(Kind::Internal, "the mounting thread died"))?
        });
        // Left empty in the run root, it would be gone with the next boot.
        let _ = std::fs::remove_dir(&scratch);
        mounted
    }
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
    mount::mount(c"tmpfs", &target, MountFlags::empty(), c"mode=700")
        .context(|| "mount tmpfs".into())?;
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
        let made = std::fs::create_dir(name)
            .and_then(|()| std::fs::set_permissions(name, Permissions::from_mode(0o755)));
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
    let mounted = mount::mount_named(name, c"overlay", &target, overlay.flags, &overlay.options);
    mounted.map_err(|errno| match errno {
        Errno::NODEV => {
            let message = "this kernel has no overlayfs, or its module is not loaded: only images of one layer can be mounted";
            Error::new(Kind::Unsupported, message)
        }
        errno => Error::io("mount overlay", errno.into()),
    })
}

/// Nothing that is mounted from now on in this mount namespace shows in others.
pub(super) fn make_all_private() -> Result<()> {
    mount::make_all_private().context(|| "make mounts private".into())
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    let path = c_path(target)?;
    mount::bind(&c_path(source)?, &path).context(|| "bind".into())?;
    let read_only = Restriction { read_only: true, no_devices: false };
    mount::restrict_one(&path, read_only).context(|| "make it read-only".into()).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = unmount(target);
    })
}

fn unmount(target: &Path) -> std::io::Result<()> {
    Ok(mount::unmount(&CString::new(target.as_os_str().as_bytes())?)?)
}

fn c_path(path: &Path) -> Result<CString> {
    let bytes = path.as_os_str().as_bytes();
    CString::new(bytes)
        .map_err(|_| Error::new(Kind::Invalid, format!("path {path:?} has a NUL byte")))
}
