//! References: which image a name stands for. One small record each, so that a damaged one costs one name.

use miniserde::{Deserialize, Serialize};

use super::record;
use super::{Store, list, sync_directory, unlink};
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
            // A record is named by a digest; what a crash left of one that was being replaced is not.
            if Digest::from_hex(&name).is_none() {
                continue;
            }
            match record::read(&directory.join(name)) {
                Ok(found) => records.extend(found),
                Err(e) => log::warn!("{e}"),
            }
        }
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The references that stand for one image, sorted by name.
    pub fn references_of(&self, image: &Digest) -> Result<Vec<Reference>> {
        let id = image.to_string();
        let records = self.references()?;
        let names = records.iter().filter(|record| record.image == id);
        // What does not parse was damaged, or accepted by another engine; it names nothing that a user could type.
        Ok(names.filter_map(|record| record.reference().ok()).collect())
    }

    /// Lets `reference` stand for `image` from now on. The image must be here.
    pub fn set_reference(&self, reference: &Reference, image: &Digest) -> Result<()> {
        let _publish = self.publish()?;
        self.write_reference(reference, image)
    }

    /// The same for whoever holds the publish lock.
    pub(super) fn write_reference(&self, reference: &Reference, image: &Digest) -> Result<()> {
        self.image(image)?;
        if self.resolve(reference).is_ok_and(|known| known == Some(*image)) {
            return Ok(());
        }
        let new = ReferenceRecord {
            version: record::VERSION,
            name: reference.to_string(),
            image: image.to_string(),
        };
        record::write(&self.path("references"), &file_name(reference), &new)
    }

    /// Removes a reference, unless it stands for another image by now; the image stays.
    pub(super) fn remove_reference(&self, reference: &Reference, image: &Digest) -> Result<()> {
        if self.resolve(reference)? != Some(*image) {
            return Ok(());
        }
        let directory = self.path("references");
        let path = directory.join(file_name(reference));
        unlink(&path).context(|| format!("remove reference {reference}"))?;
        sync_directory(&directory)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{clean_up, store_with_an_image};
    use super::*;

    #[test]
    fn what_a_crash_left_of_a_record_is_no_record() {
        let (store, image, _) = store_with_an_image("ghost");
        let name = Reference::parse("app:1").unwrap();
        store.set_reference(&name, &image).unwrap();
        let directory = store.path("references");
        let record = directory.join(file_name(&name));
        std::fs::rename(&record, directory.join(format!(".{}.new", file_name(&name)))).unwrap();
        assert!(store.references().unwrap().is_empty());
        assert_eq!(store.resolve(&name).unwrap(), None);
        clean_up(&store);
    }

    #[test]
    fn a_name_that_moved_on_is_not_removed() {
        let (store, image, _) = store_with_an_image("moved");
        let name = Reference::parse("app:1").unwrap();
        store.set_reference(&name, &image).unwrap();
        store.remove_reference(&name, &Digest::of(b"another image")).unwrap();
        assert_eq!(store.resolve(&name).unwrap(), Some(image));
        clean_up(&store);
    }
}
