//! Prunes: stopped containers, and images that nobody uses. What is taken into use meanwhile stays, without a word.

use super::containers::tree_bytes;
use super::filter::{self, Filter};
use super::{Engine, Removed, images};
use crate::digest::Digest;
use crate::error::{Kind, Result};
use crate::store::{Image, Status};
use crate::time;

/// The conditions that prunes know.
const FILTERS: &[&str] = &["until", "label", "label!"];

/// What a prune took away.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Containers, by ID.
    pub containers: Vec<String>,
    /// Names of images, and images.
    pub images: Vec<Removed>,
    /// What files held, in bytes.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes the containers that do not run and satisfy all conditions.
    pub fn prune_containers(&self, filters: &[Filter], pruned: &mut Pruned) -> Result<()> {
        filter::check(filters, FILTERS)?;
        let until = filter::until(filters, time::unix_now().0)?;
        for container in self.store.containers()? {
            let created = time::parse(&container.record.created).unwrap_or(0);
            let is_late = until.is_some_and(|until| created > until);
            let labels = self.summary(&container).labels;
            if container.status == Status::Running
                || is_late
                || !filter::labels_match(filters, &labels)
            {
                continue;
            }
            let bytes = tree_bytes(&container.directory.join("diff"))?;
            match self.remove_container(&container.record.id, false) {
                Ok(id) => {
                    pruned.containers.push(id);
                    pruned.reclaimed_bytes += bytes;
                }
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Conflict) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Removes the images that no container uses and that satisfy all conditions: those without a tag, or `all`.
    pub fn prune_images(&self, all: bool, filters: &[Filter], pruned: &mut Pruned) -> Result<()> {
        filter::check(filters, FILTERS)?;
        let until = filter::until(filters, time::unix_now().0)?;
        let mut layers: Vec<(Digest, u64)> = Vec::new();
        for image in self.store.images()? {
            let is_late = until.is_some_and(|until| images::created(&image) > until);
            if is_late || !filter::labels_match(filters, &images::labels(&image)) {
                continue;
            }
            if self.prune_image(&image, all, pruned)? {
                for diff_id in image.config.diff_ids()? {
                    if !layers.iter().any(|(known, _)| *known == diff_id) {
                        // A damaged layer goes with its image; its size is not known.
                        let bytes = self.store.layer(&diff_id).map_or(0, |layer| layer.file_bytes);
                        layers.push((diff_id, bytes));
                    }
                }
            }
        }
        let diff_ids: Vec<Digest> = layers.iter().map(|(diff_id, _)| *diff_id).collect();
        self.store.collect_or_warn(&diff_ids);
        let gone = layers.iter().filter(|(diff_id, _)| !self.store.layer_path(diff_id).exists());
        pruned.reclaimed_bytes += gone.map(|(_, bytes)| bytes).sum::<u64>();
        Ok(())
    }

    /// Removes an image with its names; false if it is used, or has a tag and `all` is not wanted.
    fn prune_image(&self, image: &Image, all: bool, pruned: &mut Pruned) -> Result<bool> {
        let names = self.store.references_of(&image.id)?;
        if !all && names.iter().any(|name| name.tag().is_some()) {
            return Ok(false);
        }
        match self.store.remove_image(&image.id, &names, true) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => return Ok(false),
            Err(e) => return Err(e),
        }
        pruned.images.extend(names.iter().map(|name| Removed::Untagged(name.familiar())));
        pruned.images.push(Removed::Deleted(image.id));
        Ok(true)
    }
}
