//! Stages of layers that a pull left unfinished: kept for the next one, within limits of age and size.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::layers::{LAYER_RECORD, LAYER_STAGE, is_finished, remove_stage};
use super::{Store, list, open_directory, root_fd};
use crate::digest::Digest;
use crate::error::Result;
use crate::layer;

/// How long an unfinished layer is kept.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Bytes of tar that unfinished layers may hold together before the oldest of them go.
const KEPT_BYTES: u64 = 1 << 30;
/// So many of the youngest stay whatever their size, for they are what one pull has under way at a time.
const ALWAYS_KEPT: usize = 3;
/// A clock that shows less than this, the first of January 2026, has not been set.
const UNSET_CLOCK: Duration = Duration::from_secs(1_767_225_600);

/// A layer that was left unfinished.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The layer.
    pub diff_id: Digest,
    /// Bytes of its tar that are on the disk already.
    pub tar_bytes: u64,
    path: PathBuf,
    touched: SystemTime,
}

impl Store {
    /// The layers that can be gone on with, the youngest first.
    pub fn unfinished_layers(&self) -> Result<Vec<Unfinished>> {
        let names = list(&self.path("stages"))?;
        let mut found: Vec<Unfinished> =
            names.iter().filter_map(|name| self.unfinished(name)).collect();
        found.sort_by_key(|layer| std::cmp::Reverse(layer.touched));
        Ok(found)
    }

    fn unfinished(&self, name: &str) -> Option<Unfinished> {
        let diff_id = name.strip_prefix(LAYER_STAGE).and_then(Digest::from_hex)?;
        let path = self.path("stages").join(name);
        let opened = open_directory(&path).ok()?;
        let finished = || {
            let record = std::fs::metadata(path.join(LAYER_RECORD)).ok()?;
            is_finished(&path).then_some((0, record.modified().ok()?))
        };
        let (tar_bytes, touched) = layer::staged_bytes(root_fd(&opened)).or_else(finished)?;
        (!self.has_layer(&diff_id)).then_some(Unfinished { diff_id, tar_bytes, path, touched })
    }

    /// Removes all stages that are not to be kept. Nobody is at work.
    pub(super) fn collect_stages(&self) -> Result<()> {
        let kept = self.kept_stages()?;
        for name in list(&self.path("stages"))? {
            let path = self.path("stages").join(name);
            if !kept.contains(&path) {
                remove_stage(&path)?;
            }
        }
        Ok(())
    }

    fn kept_stages(&self) -> Result<Vec<PathBuf>> {
        let (mut kept, mut sum) = (Vec::new(), 0_u64);
        for layer in self.unfinished_layers()? {
            sum = sum.saturating_add(layer.tar_bytes);
            if !is_old(layer.touched) && (kept.len() < ALWAYS_KEPT || sum <= KEPT_BYTES) {
                kept.push(layer.path);
            }
        }
        Ok(kept)
    }

    /// Removes all layers that were left unfinished, if nobody is at work; gives what their files held in bytes.
    pub fn remove_unfinished_layers(&self) -> Result<u64> {
        let Some(_alone) = self.lock("work", crate::sys::lock::Mode::TryExclusive)? else {
            return Ok(0);
        };
        let mut sum = 0;
        for layer in self.unfinished_layers()? {
            remove_stage(&layer.path)?;
            sum += layer.tar_bytes;
        }
        Ok(sum)
    }
}

/// A clock that went back, or was not set when the stage was touched, makes it look young: the safe side.
fn is_old(touched: SystemTime) -> bool {
    touched > UNIX_EPOCH + UNSET_CLOCK && touched.elapsed().is_ok_and(|age| age > KEPT_FOR)
}
