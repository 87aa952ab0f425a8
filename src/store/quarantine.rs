//! Quarantine: what is damaged leaves its place and is kept, under its old name and a random one, for whoever wants to
//! look. Nothing is ever deleted from here; `check` lists it with what it takes.

use std::path::{Path, PathBuf};

use super::{
    LayerRecord, Stage, Store, list, make_directory, publish_rename, record, rename, sync_directory,
};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::host;

/// Where a layer's record is while the layer is known to be damaged and nothing better is here. Such a layer counts as
/// missing, so that the next pull fetches it again, but its files stay: a container that needs them can still start.
pub(super) const DAMAGED: &str = "damaged";

impl Store {
    /// Moves what is damaged out of the way, under `quarantine/`, and says where it is; nothing if nothing is there. The
    /// caller holds the publish lock.
    pub(super) fn set_aside(&self, path: &Path) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|_| path.symlink_metadata().is_ok()) else { return Ok(()) };
        let directory = self.path("quarantine");
        make_directory(&directory).context(|| "set aside what is damaged".into())?;
        let random = host::random().context(|| "make a name".into())?;
        let place = directory.join(format!("{name}-{}", Digest::of(&random).short()));
        log::warn!("{} is damaged and now {}", path.display(), place.display());
        publish_rename(path, &place)
    }

    /// The same for callers of `check`, with the lock taken. Refused for a container that runs.
    pub fn quarantine(&self, path: &Path) -> Result<()> {
        let _held = self.refuse_if_running(path)?;
        let _publish = self.publish()?;
        self.set_aside(path)
    }

    /// Publishes an unpacked layer in place of the damaged one, which goes to `quarantine/`: on success the new one is
    /// here and survives a power cut. Containers that run on the old one keep its files.
    pub fn replace_layer(
        &self,
        stage: Stage,
        diff_id: &Digest,
        mut layer: LayerRecord,
    ) -> Result<()> {
        layer.version = record::VERSION;
        record::write(stage.path(), "layer.json", &layer)?;
        let _publish = self.publish()?;
        self.set_aside(&self.layer_path(diff_id))?;
        stage.publish(&self.layer_path(diff_id))
    }

    /// Publishes an image in place of the damaged one, which goes to `quarantine/`. Its layers may be missing: `commit_image`
    /// is for an image that is to be announced, this is for one that was.
    pub fn restore_image(&self, config_bytes: &[u8], manifest: Option<&[u8]>) -> Result<()> {
        let id = Digest::of(config_bytes);
        let stage = self.stage()?;
        record::write_bytes(stage.path(), "config.json", config_bytes)?;
        if let Some(bytes) = manifest {
            record::write_bytes(stage.path(), "manifest.json", bytes)?;
        }
        let _publish = self.publish()?;
        if self.image(&id).is_ok() {
            return Ok(());
        }
        let place = self.path("images").join(id.hex());
        self.set_aside(&place)?;
        stage.publish(&place)
    }

    /// Lets a damaged layer count as missing from now on; its files stay until another one takes its place.
    pub fn mark_damaged(&self, diff_id: &Digest) -> Result<()> {
        let layer = self.layer_path(diff_id);
        let _publish = self.publish()?;
        match rename(&layer.join("layer.json"), &layer.join(DAMAGED)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io(format!("mark layer {diff_id}"), e)),
            Ok(()) => sync_directory(&layer),
        }
    }

    /// What lies in `quarantine/`: each with the bytes that it takes on the disk.
    pub(super) fn quarantined(&self) -> Result<Vec<(PathBuf, u64)>> {
        let directory = self.path("quarantine");
        let paths = list(&directory)?.into_iter().map(|name| directory.join(name));
        Ok(paths.map(|path| (path.clone(), disk_bytes(path))).collect())
    }

    fn refuse_if_running(&self, path: &Path) -> Result<Option<super::Lock>> {
        let containers = self.path("containers");
        let Some(directory) = path.ancestors().find(|at| at.parent() == Some(&*containers)) else {
            return Ok(None);
        };
        let id = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Shared: whoever asks meanwhile whether it runs must not take us for its runner.
        match self.container_lock(id, crate::sys::lock::Mode::TryShared)? {
            Some(lock) => Ok(Some(lock)),
            None => {
                let message = format!("set aside {}: its container runs", path.display());
                Err(Error::new(Kind::Conflict, message))
            }
        }
    }
}

/// What a file, or a tree without what is mounted in it, takes on the disk in bytes. What cannot be read counts nothing.
pub(super) fn disk_bytes(path: PathBuf) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(top) = path.symlink_metadata() else { return 0 };
    let (mut sum, mut pending) = (0_u64, vec![path]);
    while let Some(path) = pending.pop() {
        let Ok(found) = path.symlink_metadata() else { continue };
        if found.dev() != top.dev() {
            continue;
        }
        sum = sum.saturating_add(found.blocks().saturating_mul(512));
        if found.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(entries.map(|entry| entry.path()));
        }
    }
    sum
}
