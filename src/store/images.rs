//! Images: a configuration, byte for byte, whose digest is the image's ID, over layers that are all here.

use std::path::PathBuf;

use fs_err as fs;

use super::record;
use super::{MountedTree, Store, list, publish_rename};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::oci::config::ImageConfig;
use crate::reference::Reference;

/// The fewest hex digits that name an image or a container.
const MIN_PREFIX: usize = 1;

/// What the name of an image that is being removed begins with.
pub(super) const LEAVING: &str = ".removing-";

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the configuration.
    pub id: Digest,
    /// The configuration, parsed.
    pub config: ImageConfig,
    /// The configuration as it came.
    pub config_bytes: Vec<u8>,
}

impl Store {
    /// The image with this ID; `Kind::NotFound` in Docker's words if it is not here.
    pub fn image(&self, id: &Digest) -> Result<Image> {
        let path = self.path("images").join(id.hex()).join("config.json");
        let config_bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(no_such_image(&id.to_string()));
            }
            Err(e) => return Err(Error::io(format!("read image {}", id.short()), e)),
        };
        if Digest::of(&config_bytes) != *id {
            let message = format!("image {id}: {} is damaged: its digest differs", path.display());
            return Err(Error::new(Kind::Corrupt, message));
        }
        let config = ImageConfig::parse(&config_bytes, &format!("configuration of image {id}"))?;
        Ok(Image { id: *id, config, config_bytes })
    }

    /// The manifest that the image was pulled by, byte for byte; `None` if it came in another way.
    pub fn image_manifest(&self, id: &Digest) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path("images").join(id.hex()).join("manifest.json")) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("read image {}", id.short()), e)),
        }
    }

    /// Whether an image with this ID is here, undamaged and with all its layers.
    pub fn has_image(&self, id: &Digest) -> bool {
        let diff_ids = self.image(id).and_then(|image| image.config.diff_ids());
        diff_ids.is_ok_and(|diff_ids| diff_ids.iter().all(|diff_id| self.has_layer(diff_id)))
    }

    /// Whether there is any image; what is damaged counts.
    pub fn images_are_here(&self) -> Result<bool> {
        let names = list(&self.path("images"))?;
        Ok(names.iter().any(|name| Digest::from_hex(name).is_some()))
    }

    /// All images, by ID. A damaged one is reported and left where it is.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for name in list(&self.path("images"))? {
            let Some(id) = Digest::from_hex(&name) else { continue };
            match self.image(&id) {
                Ok(image) => images.push(image),
                Err(e) => log::warn!("{e}"),
            }
        }
        Ok(images)
    }

    /// The image that a user means: a reference, an ID, or a prefix of an ID that is unique.
    pub fn find_image(&self, text: &str) -> Result<Image> {
        if let Some(id) = text.strip_prefix("sha256:").and_then(Digest::from_hex) {
            return self.image(&id);
        }
        let reference = Reference::parse(text);
        if let Ok(reference) = &reference
            && let Some(id) = self.resolve(reference)?
        {
            return self.image(&id);
        }
        match self.image_by_prefix(text.strip_prefix("sha256:").unwrap_or(text))? {
            Some(id) => self.image(&id),
            // Docker names the tag that it looked for.
            None => Err(no_such_image(&reference.map_or(text.into(), |r| r.familiar()))),
        }
    }

    fn image_by_prefix(&self, prefix: &str) -> Result<Option<Digest>> {
        if prefix.len() < MIN_PREFIX || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let names = list(&self.path("images"))?;
        let mut matches = names.iter().filter(|name| name.starts_with(prefix));
        let first = matches.next();
        if matches.next().is_some() {
            let message = format!("multiple images found with provided prefix: {prefix}");
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(first.and_then(|name| Digest::from_hex(name)))
    }

    /// Publishes an image whose layers are all committed, and lets `names` stand for it; on success all of it survives a
    /// power cut. An image that is here already stays as it is. After an error neither a new image nor its names are
    /// there. The caller holds the work lock, so that no layer can go meanwhile.
    pub fn commit_image(
        &self,
        config_bytes: &[u8],
        manifest_bytes: Option<&[u8]>,
        names: &[&Reference],
    ) -> Result<Digest> {
        let id = Digest::of(config_bytes);
        let config = ImageConfig::parse(config_bytes, &format!("configuration of image {id}"))?;
        for diff_id in config.diff_ids()? {
            self.layer(&diff_id)?;
        }
        let stage = self.stage()?;
        record::write_bytes(stage.path(), "config.json", config_bytes)?;
        if let Some(bytes) = manifest_bytes {
            record::write_bytes(stage.path(), "manifest.json", bytes)?;
        }
        let _publish = self.publish()?;
        let is_new = !self.has_image(&id);
        let place = self.path("images").join(id.hex());
        if is_new {
            self.set_aside(&place)?;
            stage.publish(&place)?;
        }
        // A name that cannot be read stood for nothing.
        let stood_for = |name: &&Reference| self.resolve(name).ok().flatten();
        let before: Vec<Option<Digest>> = names.iter().map(stood_for).collect();
        if let Err(e) = names.iter().try_for_each(|name| self.write_reference(name, &id)) {
            // What could not be taken back stands for the new image, which then stays; there is an error to report already.
            if is_new && let Err(e) = self.take_back_image(&id, names, &before) {
                log::warn!("{e}");
            }
            return Err(e);
        }
        Ok(id)
    }

    /// Removes an image that could not be named, after its names stand again for what they stood for `before`. The caller
    /// holds the publish lock.
    fn take_back_image(
        &self,
        id: &Digest,
        names: &[&Reference],
        before: &[Option<Digest>],
    ) -> Result<()> {
        for (name, before) in names.iter().zip(before) {
            match before {
                Some(before) => self.write_reference(name, before)?,
                None => self.remove_reference(name, id)?,
            }
        }
        publish_rename(&self.path("images").join(id.hex()), &self.leaving(id))?;
        self.finish_removal(id)
    }

    /// The size of an image: the sum of its layers' file contents in bytes. A layer that is missing or damaged counts
    /// nothing: `check` reports it, and a list of images must not fail for it.
    pub fn image_bytes(&self, image: &Image) -> Result<u64> {
        let mut sum = 0;
        for diff_id in image.config.diff_ids()? {
            sum += self.layer(&diff_id).map_or(0, |layer| layer.file_bytes);
        }
        Ok(sum)
    }

    /// Removes references, and if `and_image` the image with them, in one step. Its layers are the collector's. `references`
    /// are then all that it has.
    pub fn remove_image(
        &self,
        id: &Digest,
        references: &[Reference],
        and_image: bool,
    ) -> Result<()> {
        let _publish = self.publish()?;
        if and_image {
            self.refuse_if_wanted(id, references)?;
            let layers = self.image(id)?.config.diff_ids()?;
            self.refuse_if_mounted(
                &format!("unable to remove image {} (cannot be forced)", id.short()),
                &|tree| match tree {
                    MountedTree::Image(mounted) => mounted == id,
                    MountedTree::Layer(diff_id) => layers == [*diff_id],
                    MountedTree::Container(_) => false,
                },
            )?;
        }
        if !and_image {
            return references.iter().try_for_each(|name| self.remove_reference(name, id));
        }
        let (place, leaving) = (self.path("images").join(id.hex()), self.leaving(id));
        if !place.exists() {
            // Another process was faster.
            return Err(no_such_image(&id.to_string()));
        }
        self.take_away(&leaving)?;
        publish_rename(&place, &leaving)?;
        self.finish_removal(id)
    }

    /// Where an image is whose removal has begun: that one rename decides it. Its names lead nowhere from then on, whether
    /// or not they are there still.
    fn leaving(&self, id: &Digest) -> PathBuf {
        self.path("images").join(format!("{LEAVING}{}", id.hex()))
    }

    /// Whether the image was being removed when the power went.
    pub(super) fn is_leaving(&self, id: &Digest) -> bool {
        self.leaving(id).exists()
    }

    /// Removes the names of an image that was removed, unless it has come again, and what is left of it. The caller holds
    /// the publish lock.
    fn finish_removal(&self, id: &Digest) -> Result<()> {
        if !self.path("images").join(id.hex()).exists() {
            for reference in self.references_of(id)? {
                self.remove_reference(&reference, id)?;
            }
        }
        self.take_away(&self.leaving(id))
    }

    /// Finishes every removal that a crash cut short.
    pub(super) fn finish_removals(&self) -> Result<()> {
        let _publish = self.publish()?;
        for name in list(&self.path("images"))? {
            if let Some(id) = name.strip_prefix(LEAVING).and_then(Digest::from_hex) {
                self.finish_removal(&id)?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// What the caller looked at before it took the lock may have changed: a container or a name that came meanwhile
    /// keeps the image.
    fn refuse_if_wanted(&self, id: &Digest, leaving: &[Reference]) -> Result<()> {
        let text = id.to_string();
        let container = self.containers()?.into_iter().find(|c| c.record.image == text);
        let name = self.references_of(id)?.into_iter().find(|name| !leaving.contains(name));
        let user = match (container, name) {
            (Some(container), _) => format!("container {}", container.record.name),
            (None, Some(name)) => format!("the name {}", name.familiar()),
            (None, None) => return Ok(()),
        };
        let message = format!("conflict: unable to remove image {}: {user} uses it", id.short());
        Err(Error::new(Kind::Conflict, message))
    }
}

fn no_such_image(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("No such image: {name}"))
}
