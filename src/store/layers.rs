//! Layers, keyed by diff ID, and the stages in which they are made.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use miniserde::{Deserialize, Serialize};

use super::record;
use super::{Lock, Store, list, open_directory, publish_rename, remove_tree};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::layer;
use crate::sys::lock::Mode::Exclusive;
use crate::sys::{fault, file, host};

/// The file that a finished layer has.
pub(super) const LAYER_RECORD: &str = "layer.json";
/// What the names of stages begin with that can be gone on with; the diff ID follows.
pub(super) const LAYER_STAGE: &str = "layer-";

/// What is known of a finished layer beside its files and its header record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The version of this record.
    pub version: u32,
    /// Length of the uncompressed tar in bytes.
    pub tar_bytes: u64,
    /// Sum of the regular files' contents in bytes: what Docker calls the size of a layer.
    pub file_bytes: u64,
    /// Number of regular files.
    pub file_count: u64,
}

/// A directory of ours under `stages/`. Dropped without being published or kept, it is removed.
pub struct Stage {
    path: PathBuf,
    directory: File,
    stays: bool,
    /// Of a stage that others may want as well.
    _lock: Option<Lock>,
}

impl Stage {
    /// Where it is, until it is published.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Puts the stage into place as `target`. What is in it must be synced already.
    pub(super) fn publish(mut self, target: &Path) -> Result<()> {
        publish_rename(&self.path, target)?;
        self.stays = true;
        Ok(())
    }

    /// Leaves the stage of a layer for another try, which can go on from its checkpoint.
    pub fn keep(mut self) {
        self.stays = true;
    }

    /// Empties the stage.
    pub fn restart(&mut self) -> Result<()> {
        if list(&self.path)?.is_empty() {
            return Ok(());
        }
        remove_stage(&self.path)?;
        fs_err::create_dir(&self.path).context(|| "begin a stage".into())?;
        self.directory = open_directory(&self.path)?;
        Ok(())
    }
}

/// Removes a stage. One that can be gone on with first loses its name, durably: half of it with its checkpoint, or with the
/// record of a finished layer, must never be found.
pub(super) fn remove_stage(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.starts_with(LAYER_STAGE) {
        return remove_tree(path);
    }
    let random = host::random().context(|| "make a name for a stage".into())?;
    let nameless = path.with_file_name(Digest::of(&random).short());
    publish_rename(path, &nameless)?;
    remove_tree(&nameless)
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.stays
            && let Err(e) = remove_stage(&self.path)
        {
            // The collector will find it again.
            log::warn!("{e}");
        }
    }
}

impl Store {
    /// A new empty stage. The caller holds the work lock.
    pub fn stage(&self) -> Result<Stage> {
        let random = host::random().context(|| "make a name for a stage".into())?;
        let name = Digest::of(&random).short();
        let path = self.path("stages").join(name);
        let made = fault::before("mkdir of a stage").and_then(|()| fs_err::create_dir(&path));
        made.context(|| "begin a stage".into())?;
        let directory = open_directory(&path)?;
        Ok(Stage { path, directory, stays: false, _lock: None })
    }

    /// The stage of the layer `diff_id`, with what an earlier try left in it; waits while another process works on it.
    /// `None`: the layer is here by now. The caller holds the work lock, and no other layer's stage.
    pub fn layer_stage(&self, diff_id: &Digest) -> Result<Option<Stage>> {
        // Few files for the locks of all layers; two layers that share one wait for each other, no more.
        let hex = diff_id.hex();
        let lock = self.lock(&format!("layer-{}", hex.get(..2).unwrap_or_default()), Exclusive)?;
        if self.has_layer(diff_id) {
            return Ok(None);
        }
        let path = self.path("stages").join(format!("{LAYER_STAGE}{hex}"));
        let made = fault::before("mkdir of a stage").and_then(|()| fs_err::create_dir(&path));
        match made {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => result.context(|| "begin a stage".into())?,
        }
        let stage = Stage { directory: open_directory(&path)?, path, stays: false, _lock: lock };
        if !is_finished(&stage.path) {
            return Ok(Some(stage));
        }
        self.publish_layer(stage, diff_id)?;
        Ok(None)
    }

    /// Where a layer is: a directory that holds `fs/` and `record`.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers").join(diff_id.hex())
    }

    /// The open directory of a layer that is here.
    pub fn open_layer(&self, diff_id: &Digest) -> Result<File> {
        open_directory(&self.layer_path(diff_id))
    }

    /// Whether a layer is here, whole.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer(diff_id).is_ok()
    }

    /// The record of a layer that is here.
    pub fn layer(&self, diff_id: &Digest) -> Result<LayerRecord> {
        let path = self.layer_path(diff_id).join(LAYER_RECORD);
        record::read(&path)?.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("layer {diff_id} is not in the store"))
        })
    }

    /// Publishes an unpacked layer; its files are synced and its diff ID is verified. Another process that was faster
    /// with the same layer wins.
    pub fn commit_layer(
        &self,
        stage: Stage,
        diff_id: &Digest,
        mut layer: LayerRecord,
    ) -> Result<()> {
        layer.version = record::VERSION;
        // From here on the stage is a finished layer, also after a crash.
        record::write(stage.path(), LAYER_RECORD, &layer)?;
        self.publish_layer(stage, diff_id)
    }

    fn publish_layer(&self, stage: Stage, diff_id: &Digest) -> Result<()> {
        let removed = layer::remove_checkpoints(stage.directory());
        removed
            .and_then(|()| file::sync_directory(stage.directory()))
            .context(|| format!("finish layer {diff_id}"))?;
        let _publish = self.publish()?;
        if self.has_layer(diff_id) {
            return Ok(());
        }
        self.set_aside(&self.layer_path(diff_id))?;
        stage.publish(&self.layer_path(diff_id))
    }
}

/// Whether a stage holds a layer that was verified and is on the disk whole, and only lacks its place.
pub(super) fn is_finished(stage: &Path) -> bool {
    matches!(record::read::<LayerRecord>(&stage.join(LAYER_RECORD)), Ok(Some(_)))
}
