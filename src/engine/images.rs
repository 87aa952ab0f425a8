//! What there is to say of images, and new names for them.

use super::Engine;
use crate::digest::Digest;
use crate::error::Result;
use crate::reference::Reference;
use crate::time;

/// Docker's word where an image has no name or tag.
pub const NO_TAG: &str = "<none>";

/// A line of `images`: an image under one of its names.
#[derive(Debug)]
pub struct ImageSummary {
    /// Repository as people write it, or `<none>`.
    pub repository: String,
    /// Tag, or `<none>`.
    pub tag: String,
    /// The image ID.
    pub id: Digest,
    /// Creation time in seconds since the epoch; 0 if the configuration does not say.
    pub created: u64,
    /// Sum of the layers' contents in bytes.
    pub size_bytes: u64,
}

impl Engine {
    /// All images, the newest first; an image with several tags has several lines.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        let references = self.store.references()?;
        let mut lines = Vec::new();
        for image in self.store.images()? {
            let id = image.id.to_string();
            let created = image.config.created.as_deref().and_then(time::parse).unwrap_or(0);
            let size_bytes = self.store.image_bytes(&image)?;
            let line = |repository: &str, tag: &str| ImageSummary {
                repository: repository.into(),
                tag: tag.into(),
                id: image.id,
                created,
                size_bytes,
            };
            let before = lines.len();
            let mut untagged = None;
            for record in references.iter().filter(|record| record.image == id) {
                let reference = record.reference()?;
                match reference.tag() {
                    Some(tag) => lines.push(line(&reference.familiar_name(), tag)),
                    None => untagged = Some(line(&reference.familiar_name(), NO_TAG)),
                }
            }
            if lines.len() == before {
                lines.push(untagged.unwrap_or_else(|| line(NO_TAG, NO_TAG)));
            }
        }
        lines.sort_by(|a, b| {
            b.created.cmp(&a.created).then_with(|| a.repository.cmp(&b.repository))
        });
        Ok(lines)
    }

    /// Gives the image that `source` means one more name.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        let image = self.store.find_image(source)?;
        self.store.set_reference(target, &image.id)
    }
}
