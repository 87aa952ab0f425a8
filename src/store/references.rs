//! References: which image a name stands for. One small record each, so that a damaged one costs one name.

use miniserde::{Deserialize, Serialize};

use super::record;
use super::{Store, list, sync_directory};
use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::reference::Reference;

/// A tag, or a repository digest, and the image that it stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// The version of this record.
    pub version: u32,
    /// The full reference, with tag or digest.
    pub name: String,
    /// The image ID, with `sha256:`.
    pub image: String,
}

impl ReferenceRecord {
    /// The name, parsed; what an older engine accepted and this one does not is an error.
    pub fn reference(&self) -> Result<Reference> {
        Reference::parse(&self.name)
    }
}

/// References may be longer than a file name: the file is named by their digest.
fn file_name(reference: &Reference) -> String {
    Digest::of(reference.to_string().as_bytes()).hex()
}

impl Store {
    /// The image that a reference stands for.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Digest>> {
        let path = self.path("references").join(file_name(reference));
        let found: Option<ReferenceRecord> = record::read(&path)?;
        found.map(|record| Digest::parse(&record.image)).transpose()
    }

    /// All references, sorted by name. A damaged one is reported and left where it is.
    pub fn references(&self) -> Result<Vec<ReferenceRecord>> {
        let directory = self.path("references");
        let mut records: Vec<ReferenceRecord> = Vec::new();
        for name in list(&directory)? {
            match record::read(&directory.join(name)) {
                Ok(found) => records.extend(found),
                Err(e) => log::warn!("{e}"),
            }
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The references that stand for one image, sorted by name.
    pub fn references_of(&self, image: &Digest) -> Result<Vec<Reference>> {
        let id = image.to_string();
        let records = self.references()?;
        records.iter().filter(|r| r.image == id).map(ReferenceRecord::reference).collect()
    }

    /// Lets `reference` stand for `image` from now on. The image must be here.
    pub fn set_reference(&self, reference: &Reference, image: &Digest) -> Result<()> {
        let _publish = self.publish()?;
        self.image(image)?;
        let new = ReferenceRecord {
            version: record::VERSION,
            name: reference.to_string(),
            image: image.to_string(),
        };
        record::write(&self.path("references"), &file_name(reference), &new)
    }

    /// Removes a reference; the image stays.
    pub(super) fn remove_reference(&self, reference: &Reference) -> Result<()> {
        let directory = self.path("references");
        let path = directory.join(file_name(reference));
        fs_err::remove_file(&path).context(|| format!("remove reference {reference}"))?;
        sync_directory(&directory)
    }
}
