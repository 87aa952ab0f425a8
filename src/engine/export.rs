//! Export: the merged tree of a container as a tar, whether it runs or not.
//!
//! The kernel does the merging: a thread with a mount namespace of its own mounts what the container wrote over the layers
//! of its image, read-only, and packs what it sees there. Nobody else sees that mount, and it goes with the thread, however
//! that ends. What the container has mounted over its tree is not part of it.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Engine;
use super::mount;
use crate::error::{Context, Error, Result};
use crate::layer;
use crate::sys::file::open_directory;
use crate::sys::process::{self, Namespace};

impl Engine {
    /// Writes the container's tree as a tar to `out`.
    pub fn export(&self, name: &str, out: &mut (dyn Write + Send)) -> Result<()> {
        let container = self.store.find_container(name)?;
        // Held so that no layer goes while it is read.
        let _work = self.store.work()?;
        let layers = self.container_layers(&container)?;
        let scratch = container.directory.join("rootfs");
        let mut pack = || pack_merged(&layers, &scratch, out);
        let packed = mount::in_thread("exporting", &mut pack);
        // What is removed meanwhile disappears from the tree without an error.
        let packed =
            packed.and_then(|()| self.store.find_container(&container.record.id).map(drop));
        packed.map_err(|e| {
            Error::new(e.kind(), format!("export container {}", container.record.name)).caused_by(e)
        })
    }
}

/// Mounts the layers, the top one first, at the directory `scratch`, where only the calling thread sees it, and packs them.
fn pack_merged(layers: &[PathBuf], scratch: &Path, out: &mut dyn Write) -> Result<()> {
    process::unshare(Namespace::Mount).context(|| "make a mount namespace".into())?;
    mount::make_all_private()?;
    let overlay = mount::prepare(layers, false, scratch)?;
    let merged = scratch.join("merged");
    std::fs::create_dir(&merged).context(|| "make a mount point".into())?;
    mount::mount_prepared(&overlay, c"overlay", &merged)?;
    let root = open_directory(&merged).context(|| "open the merged tree".into())?;
    layer::pack(root.as_fd(), out)
}
