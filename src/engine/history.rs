//! `history`: the steps that made an image, as its configuration tells them, and what each added.

use super::Engine;
use crate::digest::Digest;
use crate::error::Result;
use crate::time;

/// One step.
#[derive(Debug)]
pub struct HistoryStep {
    /// The image, for its last step; the images of the steps before it are not known.
    pub image: Option<Digest>,
    /// When, in seconds since the epoch; 0 if the configuration does not say.
    pub created: u64,
    /// The command.
    pub created_by: String,
    /// What the layer that it made holds, in bytes; 0 if it made none.
    pub size_bytes: u64,
    /// Whatever the builder noted.
    pub comment: String,
}

impl Engine {
    /// The steps of the image that `name` means, the last one first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryStep>> {
        let image = self.store.find_image(name)?;
        let mut layers = image.config.diff_ids()?.into_iter();
        let mut steps = Vec::new();
        for step in image.config.history.unwrap_or_default() {
            let layer = match step.empty_layer {
                Some(true) => None,
                _ => layers.next(),
            };
            steps.push(HistoryStep {
                image: None,
                created: step.created.as_deref().and_then(time::parse).unwrap_or(0),
                created_by: step.created_by.unwrap_or_default(),
                size_bytes: layer
                    .map_or(Ok(0), |id| self.store.layer(&id).map(|l| l.file_bytes))?,
                comment: step.comment.unwrap_or_default(),
            });
        }
        steps.reverse();
        if let Some(last) = steps.first_mut() {
            last.image = Some(image.id);
        }
        Ok(steps)
    }
}
