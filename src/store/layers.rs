//! Layers, keyed by diff ID, and the stages in which they are made.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use miniserde::{Deserialize, Serialize};

use super::record;
use super::{Store, open_directory, publish_rename, remove_tree};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::host;

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

/// A directory of ours under `stages/`. Dropped without being published, it is removed.
pub struct Stage {
    path: PathBuf,
    directory: File,
    published: bool,
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
        self.published = true;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.published
            && let Err(e) = remove_tree(&self.path)
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
        fs_err::create_dir(&path).context(|| "begin a stage".into())?;
        let directory = open_directory(&path)?;
        Ok(Stage { path, directory, published: false })
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
        let path = self.layer_path(diff_id).join("layer.json");
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
        record::write(stage.path(), "layer.json", &layer)?;
        let _publish = self.publish()?;
        if self.has_layer(diff_id) {
            return Ok(());
        }
        self.set_aside(&self.layer_path(diff_id))?;
        stage.publish(&self.layer_path(diff_id))
    }
}
