//! The collector: removes layers that no image has, and what crashes left in `stages/`.
//!
//! It works only when nobody else does (the work lock, taken alone); otherwise a later call does it. What it cannot read
//! it takes for a reason to stop, never for a reason to remove: one damaged image record costs no layer.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::check::is_leftover;
use super::{MountedTree, Store, list, publish_rename, remove_tree, unlink};
use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::sys::host;
use crate::sys::lock::Mode;

/// How long a layer that no image has is kept for a pull that may come back to it.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that shows less than this, the first of January 2026, has not been set.
const UNSET_CLOCK: Duration = Duration::from_secs(1_767_225_600);

impl Store {
    /// `collect` for callers whose own work is done, or not begun: what it meets is a warning.
    pub fn collect_or_warn(&self, candidates: &[Digest]) {
        if let Err(e) = self.collect(candidates) {
            log::warn!("{e}");
        }
    }

    /// Removes the layers that no image has and that are among `candidates` or a day old, and the stages that nobody may
    /// come back to, if nobody is at work.
    pub fn collect(&self, candidates: &[Digest]) -> Result<()> {
        let Some(_alone) = self.lock("work", Mode::TryExclusive)? else { return Ok(()) };
        self.collect_stages()?;
        self.finish_removals()?;
        self.remove_leftovers()?;
        let Some(used) = self.used_layers()? else { return Ok(()) };
        for name in list(&self.path("layers"))? {
            let Some(diff_id) = Digest::from_hex(&name).filter(|id| !used.contains(id)) else {
                continue;
            };
            if candidates.contains(&diff_id) || self.is_abandoned(&diff_id) {
                self.take_away(&self.layer_path(&diff_id))?;
            }
        }
        Ok(())
    }

    /// Removes what torn replacements of records left. Where one is under way its writer holds a lock: the publish lock, or
    /// that of its container.
    fn remove_leftovers(&self) -> Result<()> {
        let _publish = self.publish()?;
        let mut directories = vec![(self.data_root.clone(), None), (self.path("references"), None)];
        for id in list(&self.path("containers"))? {
            // Shared: whoever asks meanwhile whether it runs must not take us for its runner.
            if let Some(lock) = self.container_lock(&id, Mode::TryShared)? {
                directories.push((self.path("containers").join(id), Some(lock)));
            }
        }
        for (directory, _held) in directories {
            for name in list(&directory)?.iter().filter(|name| is_leftover(name)) {
                unlink(&directory.join(name)).context(|| "remove what a crash left".into())?;
            }
        }
        Ok(())
    }

    /// The layers of all images, and those that are mounted; `None` if one image cannot be read, or what is mounted cannot,
    /// for then they are not known.
    fn used_layers(&self) -> Result<Option<Vec<Digest>>> {
        let _publish = self.publish()?;
        let mut used = Vec::new();
        match self.mounted() {
            Ok(mounted) => used.extend(mounted.iter().filter_map(|mounted| match mounted.what {
                MountedTree::Layer(diff_id) => Some(diff_id),
                // `rmi` leaves the images of the others alone.
                MountedTree::Image(_) | MountedTree::Container(_) => None,
            })),
            Err(e) => {
                log::debug!("no layer is removed: {e}");
                return Ok(None);
            }
        }
        for name in list(&self.path("images"))? {
            let Some(id) = Digest::from_hex(&name) else { continue };
            match self.image(&id).and_then(|image| image.config.diff_ids()) {
                Ok(diff_ids) => used.extend(diff_ids),
                Err(e) => {
                    log::warn!("no layer is removed while an image is damaged: {e}");
                    return Ok(None);
                }
            }
        }
        Ok(Some(used))
    }

    /// A clock that went back, or was not set yet when the layer came, makes it look new: the safe side.
    fn is_abandoned(&self, diff_id: &Digest) -> bool {
        let record = std::fs::metadata(self.layer_path(diff_id).join("layer.json"));
        let Some(at) = record.and_then(|metadata| metadata.modified()).ok() else { return false };
        let clock_was_set = at > UNIX_EPOCH + UNSET_CLOCK;
        clock_was_set && at.elapsed().is_ok_and(|age| age > ABANDONED_AFTER)
    }

    /// Removes a published directory: first from its place, in one step, then its contents.
    pub(super) fn take_away(&self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let random = host::random().context(|| "make a name for a stage".into())?;
        let stage = self.path("stages").join(Digest::of(&random).short());
        publish_rename(path, &stage)?;
        remove_tree(&stage)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{clean_up, store_with_an_image};
    use super::*;
    use crate::store::LayerRecord;

    #[test]
    fn removes_only_what_no_image_has() {
        let (store, _, used) = store_with_an_image("unused");
        let unused = Digest::of(b"other");
        store.collect(&[]).unwrap();
        assert!(store.has_layer(&unused), "it is not a day old");
        fs::create_dir(store.path("stages").join("left")).unwrap();
        store.collect(&[used, unused]).unwrap();
        assert!(store.has_layer(&used) && !store.has_layer(&unused));
        assert!(list(&store.path("stages")).unwrap().is_empty());
        clean_up(&store);
    }

    #[test]
    fn removes_no_layer_while_an_image_is_damaged() {
        let (store, image, used) = store_with_an_image("damaged");
        fs::write(store.path("images").join(image.hex()).join("config.json"), "torn").unwrap();
        store.collect(&[used, Digest::of(b"other")]).unwrap();
        assert!(store.has_layer(&used) && store.has_layer(&Digest::of(b"other")));
        clean_up(&store);
    }

    #[test]
    fn waits_for_those_at_work() {
        let (store, _, _) = store_with_an_image("busy");
        let work = store.work().unwrap();
        store.collect(&[Digest::of(b"other")]).unwrap();
        assert!(store.has_layer(&Digest::of(b"other")));
        drop(work);
        clean_up(&store);
    }

    #[test]
    fn a_damaged_image_and_layer_make_place_and_are_kept() {
        let (store, image, layer) = store_with_an_image("replaced");
        let config = store.image(&image).unwrap().config_bytes;
        fs::write(store.path("images").join(image.hex()).join("config.json"), "torn").unwrap();
        fs::write(store.layer_path(&layer).join("layer.json"), "").unwrap();
        assert!(!store.has_image(&image) && !store.has_layer(&layer));
        let _work = store.work().unwrap();
        let record = LayerRecord { version: 0, tar_bytes: 0, file_bytes: 0, file_count: 0 };
        store.commit_layer(store.stage().unwrap(), &layer, record).unwrap();
        assert_eq!(store.commit_image(&config, None, &[]).unwrap(), image);
        assert!(store.has_image(&image) && store.has_layer(&layer));
        assert_eq!(list(&store.path("quarantine")).unwrap().len(), 2);
        clean_up(&store);
    }
}
