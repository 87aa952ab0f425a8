//! `system df`: what images, containers and unfinished work take on the disk. A layer counts once, however many images
//! have it.

use super::containers::tree_bytes;
use super::{ContainerQuery, ContainerSummary, Engine, ImageSummary};
use crate::digest::Digest;
use crate::error::Result;

/// What is on the disk, in bytes of file contents.
#[derive(Debug)]
pub struct Usage {
    /// All layers of images, each once.
    pub layers_bytes: u64,
    /// Each image, under its first name.
    pub images: Vec<ImageUsage>,
    /// Each container, and what it wrote.
    pub containers: Vec<(ContainerSummary, u64)>,
    /// What unfinished pulls and the like keep.
    pub unfinished_bytes: u64,
}

/// What one image takes.
#[derive(Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: ImageSummary,
    /// Its layers that other images have too.
    pub shared_bytes: u64,
    /// The number of its containers.
    pub containers: usize,
}

impl Engine {
    /// Measures everything; containers' writable layers are walked.
    pub fn usage(&self) -> Result<Usage> {
        let mut containers = Vec::new();
        for summary in self.containers(&ContainerQuery { all: true, ..Default::default() })? {
            // It may have gone meanwhile.
            let Ok(container) = self.store.find_container(&summary.id) else { continue };
            containers.push((summary, tree_bytes(&container.directory.join("diff"))?));
        }
        let layers = self.layers()?;
        let mut images: Vec<ImageUsage> = Vec::new();
        for image in self.images(&[])? {
            if images.iter().any(|known| known.image.id == image.id) {
                continue;
            }
            let Ok(known) = self.store.image(&image.id) else { continue };
            let diff_ids = known.config.diff_ids()?;
            let shared = layers.iter().filter(|l| l.images > 1 && diff_ids.contains(&l.diff_id));
            let shared_bytes = shared.map(|layer| layer.bytes).sum();
            let id = image.id.to_string();
            let containers = containers.iter().filter(|(c, _)| c.image_id == id).count();
            images.push(ImageUsage { image, shared_bytes, containers });
        }
        let layers_bytes = layers.iter().map(|layer| layer.bytes).sum();
        let unfinished_bytes = tree_bytes(&self.store.data_root().join("stages"))?;
        Ok(Usage { layers_bytes, images, containers, unfinished_bytes })
    }

    /// The layers of all images, each once.
    fn layers(&self) -> Result<Vec<LayerUsage>> {
        let mut layers: Vec<LayerUsage> = Vec::new();
        for image in self.store.images()? {
            let mut diff_ids = image.config.diff_ids()?;
            diff_ids.sort_unstable();
            diff_ids.dedup();
            for diff_id in diff_ids {
                match layers.iter_mut().find(|layer| layer.diff_id == diff_id) {
                    Some(layer) => layer.images += 1,
                    None => {
                        // One that is missing or damaged takes nothing that can be counted.
                        let bytes = self.store.layer(&diff_id).map_or(0, |layer| layer.file_bytes);
                        layers.push(LayerUsage { diff_id, bytes, images: 1 });
                    }
                }
            }
        }
        Ok(layers)
    }
}

struct LayerUsage {
    diff_id: Digest,
    bytes: u64,
    /// How many images have it.
    images: usize,
}
