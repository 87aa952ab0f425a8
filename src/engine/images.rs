//! What there is to say of images, and new names for them.

use super::Engine;
use super::filter::{self, Filter, Labels};
use crate::digest::Digest;
use crate::error::Result;
use crate::reference::Reference;
use crate::store::Image;
use crate::time;

/// Docker's word where an image has no name or tag.
pub const NO_TAG: &str = "<none>";

/// The conditions that `images` knows.
const FILTERS: &[&str] = &["dangling", "label", "label!", "reference", "before", "since", "until"];

/// A line of `images`: an image under one of its names.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// Repository as people write it, or `<none>`.
    pub repository: String,
    /// Tag, or `<none>`.
    pub tag: String,
    /// The digests that the repository has for it, with `sha256:`.
    pub digests: Vec<String>,
    /// The image ID.
    pub id: Digest,
    /// Creation time in seconds since the epoch; 0 if the configuration does not say.
    pub created: u64,
    /// Sum of the layers' contents in bytes.
    pub size_bytes: u64,
}

impl Engine {
    /// The images that satisfy all conditions, the newest first; an image with several tags has several lines.
    pub fn images(&self, filters: &[Filter]) -> Result<Vec<ImageSummary>> {
        filter::check(filters, FILTERS)?;
        let dangling = filter::truth(filters, "dangling")?;
        let bounds = self.bounds(filters)?;
        let references = self.store.references()?;
        let mut lines = Vec::new();
        for image in self.store.images()? {
            let id = image.id.to_string();
            let created = created(&image);
            if !bounds.contains(created) || !filter::labels_match(filters, &labels(&image)) {
                continue;
            }
            let names = references.iter().filter(|record| record.image == id);
            let names: Vec<Reference> =
                names.map(|record| record.reference()).collect::<Result<_>>()?;
            let is_dangling = names.iter().all(|name| name.tag().is_none());
            if dangling.is_some_and(|wanted| wanted != is_dangling) {
                continue;
            }
            let size_bytes = self.store.image_bytes(&image)?;
            for (repository, tag, digests) in names_to_show(&names, filters) {
                let id = image.id;
                lines.push(ImageSummary { repository, tag, digests, id, created, size_bytes });
            }
        }
        lines.sort_by(|a, b| {
            b.created.cmp(&a.created).then_with(|| a.repository.cmp(&b.repository))
        });
        Ok(lines)
    }

    /// What `before`, `since` and `until` leave.
    fn bounds(&self, filters: &[Filter]) -> Result<Bounds> {
        let mut bounds =
            Bounds { after: None, before: filter::until(filters, time::unix_now().0)? };
        for name in filter::values(filters, "before") {
            let at = created(&self.store.find_image(name)?);
            bounds.before = Some(bounds.before.map_or(at, |before| before.min(at)));
        }
        for name in filter::values(filters, "since") {
            let at = created(&self.store.find_image(name)?);
            bounds.after = bounds.after.max(Some(at));
        }
        Ok(bounds)
    }

    /// Gives the image that `source` means one more name.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        let image = self.store.find_image(source)?;
        self.store.set_reference(target, &image.id)
    }
}

/// Creation times in seconds since the epoch, without the bounds themselves.
struct Bounds {
    after: Option<u64>,
    before: Option<u64>,
}

impl Bounds {
    fn contains(&self, at: u64) -> bool {
        self.after.is_none_or(|after| at > after) && self.before.is_none_or(|before| at < before)
    }
}

/// When an image was made, in seconds since the epoch; 0 if its configuration does not say.
pub(super) fn created(image: &Image) -> u64 {
    image.config.created.as_deref().and_then(time::parse).unwrap_or(0)
}

/// An image's labels.
pub(super) fn labels(image: &Image) -> Labels {
    image.config.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default()
}

/// Repository, tag and digests of each line that an image has: one for each tag, else one for each repository, else
/// one without a name. With `reference` conditions only for names that one of them matches.
fn names_to_show(names: &[Reference], filters: &[Filter]) -> Vec<(String, String, Vec<String>)> {
    let patterns = filter::values(filters, "reference");
    let is_wanted = |name: &&Reference| {
        let matches = |pattern: &&str| {
            filter::matches_pattern(pattern, &name.familiar())
                || filter::matches_pattern(pattern, &name.familiar_name())
        };
        patterns.is_empty() || patterns.iter().any(matches)
    };
    let mut lines: Vec<(String, String, Vec<String>)> = Vec::new();
    for name in names.iter().filter(|name| name.tag().is_some()).filter(is_wanted) {
        lines.push((name.familiar_name(), name.tag().unwrap_or(NO_TAG).into(), Vec::new()));
    }
    for name in names.iter().filter(|name| name.tag().is_none()).filter(is_wanted) {
        let Some(digest) = name.digest() else { continue };
        let repository = name.familiar_name();
        if !lines.iter().any(|(known, ..)| *known == repository) {
            lines.push((repository.clone(), NO_TAG.into(), Vec::new()));
        }
        for (_, _, digests) in lines.iter_mut().filter(|(known, ..)| *known == repository) {
            digests.push(digest.to_string());
        }
    }
    // Beside its tags, a repository that has only digests is not shown.
    if lines.iter().any(|(_, tag, _)| tag != NO_TAG) {
        lines.retain(|(_, tag, _)| tag != NO_TAG);
    }
    if lines.is_empty() && names.is_empty() && patterns.is_empty() {
        lines.push((NO_TAG.into(), NO_TAG.into(), Vec::new()));
    }
    lines
}
