//! Save: images as Docker has saved them since version 25, an archive that is both an OCI layout and one of
//! `manifest.json`, written from front to end with nothing on the side.
//!
//! The same images give the same bytes: the documents first, so that a reader of a pipe knows what will come, then
//! configurations, then layers, each once, plain, under their digests, which are their diff IDs: `load` sees at once what it
//! has already. Every member is dated 1970 and owned by root. What does not have its digest any more is an error: an
//! archive that is finished is right.

use std::io::{Read, Write};

use miniserde::json::{Object, Value};

use super::Engine;
use crate::delta::ReadAt;
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Context, Result};
use crate::json;
use crate::layer::{LayerTar, archive};
use crate::oci::archive::{ArchiveImage, IMAGE_NAME, INDEX, MANIFEST, REF_NAME, blob_path};
use crate::oci::manifest::{Annotations, OCI_INDEX, OCI_MANIFEST, annotations};
use crate::reference::Reference;
use crate::store::Image;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// What `oci-layout` says.
pub(super) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image to save, and what the archive says of it.
pub(super) struct Saved {
    image: Image,
    names: Vec<Reference>,
    diff_ids: Vec<Digest>,
    pub(super) manifest: String,
}

impl Engine {
    /// Writes the images that `names` mean, each with the tag it was asked by: a repository alone means all its tags, and an
    /// image asked for by ID has no name, as docker has it.
    pub fn save(&self, names: &[String], out: &mut dyn Write) -> Result<()> {
        // Held so that no layer goes while it is read.
        let _work = self.store.work()?;
        let mut images: Vec<Saved> = Vec::new();
        for name in names {
            for (image, name) in self.images_to_save(name)? {
                let index = match images.iter().position(|saved| saved.image.id == image.id) {
                    Some(index) => index,
                    None => {
                        images.push(self.saved(image)?);
                        images.len() - 1
                    }
                };
                if let (Some(saved), Some(name)) = (images.get_mut(index), name)
                    && !saved.names.contains(&name)
                {
                    saved.names.push(name);
                }
            }
        }
        let mut archive = archive::Writer::new(out);
        write_documents(&images, &mut archive)?;
        self.write_layers(&images, &mut archive)?;
        archive.finish()
    }

    fn images_to_save(&self, name: &str) -> Result<Vec<(Image, Option<Reference>)>> {
        let mut found = Vec::new();
        if let Some(repository) = repository_alone(name) {
            for record in self.store.references()? {
                let reference = record.reference()?;
                if reference.tag().is_some() && reference.familiar_name() == repository {
                    found
                        .push((self.store.image(&Digest::parse(&record.image)?)?, Some(reference)));
                }
            }
        }
        if found.is_empty() {
            let image = self.store.find_image(name)?;
            let asked = self.name_asked_by(name, &image)?;
            found.push((image, asked));
        }
        Ok(found)
    }

    /// The tag that `text` is, if it is one of the image.
    pub(super) fn name_asked_by(&self, text: &str, image: &Image) -> Result<Option<Reference>> {
        let asked = Reference::parse(text).ok().filter(|asked| asked.tag().is_some());
        let known = self.store.references_of(&image.id)?;
        Ok(asked.filter(|asked| known.contains(asked)))
    }

    pub(super) fn saved(&self, image: Image) -> Result<Saved> {
        let diff_ids = image.config.diff_ids()?;
        let mut layers = Vec::new();
        for diff_id in &diff_ids {
            let size_bytes = self.store.layer(diff_id)?.tar_bytes;
            layers.push(descriptor(LAYER_TYPE, diff_id, size_bytes, ""));
        }
        let config = descriptor(CONFIG_TYPE, &image.id, image.config_bytes.len() as u64, "");
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        Ok(Saved { image, names: Vec::new(), diff_ids, manifest })
    }

    fn write_layers(&self, images: &[Saved], archive: &mut archive::Writer) -> Result<()> {
        let mut written: Vec<Digest> = Vec::new();
        for diff_id in images.iter().flat_map(|saved| &saved.diff_ids) {
            if written.contains(diff_id) {
                continue;
            }
            write_layer(self.layer_tar(diff_id)?, diff_id, archive)?;
            written.push(*diff_id);
        }
        Ok(())
    }
}

fn write_layer(tar: LayerTar, diff_id: &Digest, archive: &mut archive::Writer) -> Result<()> {
    let size_bytes = tar.size_bytes();
    let mut verified = VerifyingReader::new(tar, *diff_id);
    archive.append(&blob_path(diff_id), size_bytes, &mut verified)?;
    // The digest is compared at the end, which is found by reading on.
    verified.read(&mut [0]).context(|| format!("save layer {diff_id}")).map(drop)
}

/// Everything but layers; an image's documents are as small as those of `load`.
fn write_documents(images: &[Saved], archive: &mut archive::Writer) -> Result<()> {
    let mut append = |path: &str, text: &[u8]| archive.append(path, text.len() as u64, &mut &*text);
    append("oci-layout", OCI_LAYOUT)?;
    append(INDEX, index(images).as_bytes())?;
    append(MANIFEST, manifest(images).as_bytes())?;
    append("repositories", repositories(images).as_bytes())?;
    for saved in images {
        append(&blob_path(&Digest::of(saved.manifest.as_bytes())), saved.manifest.as_bytes())?;
        append(&blob_path(&saved.image.id), &saved.image.config_bytes)?;
    }
    Ok(())
}

/// Docker's list of images.
fn manifest(images: &[Saved]) -> String {
    let entry = |saved: &Saved| ArchiveImage {
        config: blob_path(&saved.image.id),
        repo_tags: (!saved.names.is_empty())
            .then(|| saved.names.iter().map(Reference::familiar).collect()),
        layers: saved.diff_ids.iter().map(blob_path).collect(),
    };
    json::to_string(&images.iter().map(entry).collect::<Vec<_>>())
}

/// OCI's list of images: an entry for each name.
fn index(images: &[Saved]) -> String {
    let mut entries = Vec::new();
    for saved in images {
        let digest = Digest::of(saved.manifest.as_bytes());
        let mut entry = |annotations: &str| {
            let size_bytes = saved.manifest.len() as u64;
            entries.push(descriptor(OCI_MANIFEST, &digest, size_bytes, annotations));
        };
        for name in &saved.names {
            let annotations = json::to_string(&name_annotations(name));
            entry(&format!(r#","annotations":{annotations}"#));
        }
        if saved.names.is_empty() {
            entry("");
        }
    }
    let entries = entries.join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#)
}

/// What the entry of an image says of a name.
pub(super) fn name_annotations(name: &Reference) -> Annotations {
    let tag = name.tag().unwrap_or_default();
    annotations(&[(IMAGE_NAME, &name.to_string()), (REF_NAME, tag)])
}

/// The list of names for engines of before 2016: repository, tag, top layer.
fn repositories(images: &[Saved]) -> String {
    let mut repositories = Object::new();
    for saved in images {
        let Some(top) = saved.diff_ids.last() else { continue };
        for name in &saved.names {
            let tags = repositories.entry(name.familiar_name());
            if let Value::Object(tags) = tags.or_insert_with(|| Value::Object(Object::new())) {
                tags.insert(name.tag().unwrap_or_default().into(), json::text(&top.hex()));
            }
        }
    }
    json::to_string(&repositories)
}

fn descriptor(media_type: &str, digest: &Digest, size_bytes: u64, more: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size_bytes}{more}}}"#)
}

/// The name as people write it, if it has neither tag nor digest.
fn repository_alone(name: &str) -> Option<String> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let reference = Reference::parse(name).ok().filter(|_| !last.contains([':', '@']))?;
    Some(reference.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_repository_from_a_tag() {
        for (name, repository) in [
            ("busybox", Some("busybox")),
            ("docker.io/library/busybox", Some("busybox")),
            ("host:5000/app", Some("host:5000/app")),
            ("host:5000/app:1", None),
            ("busybox:latest", None),
            ("Busybox", None),
        ] {
            assert_eq!(repository_alone(name).as_deref(), repository, "{name}");
        }
    }
}
