//! Save: images as a `docker save` archive, written from front to end with nothing on the side.
//!
//! The same images give the same bytes: layers first, each once, then configurations and `manifest.json`; every member
//! is dated 1970, owned by root. A layer is named by its diff ID, which lets `load` see at once what it has already.

use std::io::Write;

use super::Engine;
use crate::delta::ReadAt;
use crate::digest::Digest;
use crate::error::Result;
use crate::json;
use crate::layer::archive;
use crate::oci::archive::ArchiveImage;
use crate::reference::Reference;
use crate::store::Image;

impl Engine {
    /// Writes the images that `names` mean, each with the tag it was asked by; without a name if asked by ID, as docker.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<()> {
        // Held so that no layer goes while it is read.
        let _work = self.store.work()?;
        let mut entries: Vec<(Image, Vec<String>)> = Vec::new();
        for name in names {
            let image = self.store.find_image(name)?;
            let tags = self.tags_asked_for(name, &image.id)?;
            match entries.iter_mut().find(|(other, _)| other.id == image.id) {
                Some((_, known)) => known.extend(tags),
                None => entries.push((image, tags)),
            }
        }
        let mut archive = archive::Writer::new(out);
        self.save_layers(&entries, &mut archive)?;
        let mut manifest = Vec::new();
        for (image, tags) in entries {
            let config = format!("{}.json", image.id.hex());
            archive.append(
                &config,
                image.config_bytes.len() as u64,
                &mut image.config_bytes.as_slice(),
            )?;
            let layers = image.config.diff_ids()?.iter().map(layer_name).collect();
            manifest.push(ArchiveImage {
                config,
                repo_tags: (!tags.is_empty()).then_some(tags),
                layers,
            });
        }
        let manifest = json::to_string(&manifest);
        archive.append("manifest.json", manifest.len() as u64, &mut manifest.as_bytes())?;
        archive.finish()
    }

    fn save_layers(
        &self,
        entries: &[(Image, Vec<String>)],
        archive: &mut archive::Writer,
    ) -> Result<()> {
        let mut written: Vec<Digest> = Vec::new();
        for (image, _) in entries {
            for diff_id in image.config.diff_ids()? {
                if written.contains(&diff_id) {
                    continue;
                }
                let mut tar = self.layer_tar(&diff_id)?;
                archive.append(&layer_name(&diff_id), tar.size_bytes(), &mut tar)?;
                written.push(diff_id);
            }
        }
        Ok(())
    }

    fn tags_asked_for(&self, name: &str, image: &Digest) -> Result<Vec<String>> {
        let Ok(asked) = Reference::parse(name) else { return Ok(Vec::new()) };
        let known = self.store.references_of(image)?.contains(&asked);
        Ok(if known && asked.tag().is_some() { vec![asked.familiar()] } else { Vec::new() })
    }
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}/layer.tar", diff_id.hex())
}
