//! Pull: reference -> manifest -> configuration -> each missing layer -> image -> name.
//!
//! A layer's bytes go from the socket through SHA-256, inflate and the tar reader into files of a stage (`fetch`); it is
//! committed when both its digests are right. The image, then its names, are published last. A pull that fails for good
//! takes back the layers that it committed; one that lost the network leaves them, and the stages of those under way,
//! for the next try, unseen by any image.
//!
//! Between the configuration and the layers, a delta may make some or all of those (`patch`). An image with balena's delta
//! labels is pulled the same way, except that each layer's bytes are a patch against an image that is here, and that the
//! result is the target's image under the delta's name. If that image is not here, the delta may say what its target is in the
//! registry (its `subject`), and that is pulled.

use super::patch::{Deltas, Target};
use super::progress::{Event, Report};
use super::{Engine, fetch};
use crate::delta::balena::{self, BalenaDelta};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::layer;
use crate::oci::artifact::{DELTA_TYPE, EMPTY_TYPE};
use crate::oci::config::ImageConfig;
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Resolved};
use crate::store::LayerRecord;

/// What a pull came to.
#[derive(Debug)]
pub struct Pulled {
    /// The image that the reference now stands for.
    pub image: Digest,
    /// What the registry's name points at: the digest of an index or a manifest.
    pub digest: Digest,
    /// Whether the reference stood for another image before, or for none.
    pub is_new: bool,
}

/// The layers committed by a verb under way, to be taken back if it fails.
pub(super) struct Committed(pub Vec<Digest>);

impl Engine {
    /// Pulls `reference` for `platform`, by a delta where `deltas` lets it and that costs less. On success the image survives
    /// a power cut.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        deltas: Deltas,
        report: Report,
    ) -> Result<Pulled> {
        let client = Client::new(self.registry.clone())?;
        report(Event::Pulling {
            tag: reference.manifest_key(),
            repository: reference.repository().to_string(),
        });
        let resolved = client.resolve(reference, platform)?;
        self.store.collect_or_warn(&[]);
        let work = self.store.work()?;
        let before = self.store.resolve(reference)?;
        let mut committed = Committed(Vec::new());
        let image = self.pull_image(&client, reference, &resolved, deltas, &mut committed, report);
        drop(work);
        let image = self.keep_or_take_back(image, &committed)?;
        let pulled = Pulled { image, digest: resolved.digest, is_new: before != Some(image) };
        report(Event::Pulled {
            reference: reference.familiar(),
            digest: pulled.digest.to_string(),
            is_new: pulled.is_new,
        });
        Ok(pulled)
    }

    /// After a failure for good, removes what was committed on the way; nothing refers to it.
    pub(super) fn keep_or_take_back<T>(
        &self,
        result: Result<T>,
        committed: &Committed,
    ) -> Result<T> {
        if let Err(e) = &result
            && !matches!(e.kind(), Kind::Unavailable | Kind::Cancelled)
        {
            self.store.collect_or_warn(&committed.0);
            // What other layers of this pull, or of others, had reached is room for those who need it now.
            if e.kind() == Kind::NoSpace
                && let Err(e) = self.store.remove_unfinished_layers()
            {
                log::warn!("{e}");
            }
        }
        result
    }

    fn pull_image(
        &self,
        client: &Client,
        reference: &Reference,
        resolved: &Resolved,
        deltas: Deltas,
        committed: &mut Committed,
        report: Report,
    ) -> Result<Digest> {
        let manifest = &resolved.manifest;
        let image_id = manifest.config.digest()?;
        let names = [&reference.at(resolved.digest), reference];
        if self.store.has_image(&image_id) {
            names.iter().try_for_each(|name| self.store.set_reference(name, &image_id))?;
            return Ok(image_id);
        }
        if manifest.artifact_type.as_deref() == Some(DELTA_TYPE)
            && manifest.config.media_type == EMPTY_TYPE
        {
            let message = format!(
                "{} is a delta: pull the image that it makes, and it is found",
                reference.familiar()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let wanted = Wanted::read(client.small_blob(reference, &manifest.config)?, reference)?;
        wanted.check_layer_count(manifest.layers.len(), reference)?;
        let mut missing = Vec::new();
        for (blob, diff_id) in manifest.layers.iter().zip(&wanted.diff_ids) {
            let layer = blob.digest()?.short();
            match self.bring_layer(diff_id, committed)? {
                true => report(Event::LayerExists { layer }),
                false => missing.push(fetch::Wanted { blob, diff_id: *diff_id }),
            }
        }
        if let Some(delta) = &wanted.delta
            && let Some(subject) = &manifest.subject
            && !missing.is_empty()
            && deltas != Deltas::Only
            && !self.has_basis(&delta.base)
        {
            let (name, base) = (reference.familiar(), delta.base);
            log::warn!(
                "pull {name}: the delta's basis, image {base}, is not here; the layers are pulled instead"
            );
            let target = reference.at(subject.digest()?);
            let resolved = client.resolve(&target, &Engine::platform())?;
            if resolved.manifest.config.digest()? != delta.target_id() {
                let message = format!("{target}, the delta's subject, is another image");
                return Err(Error::new(Kind::Corrupt, message));
            }
            return self.pull_image(client, reference, &resolved, deltas, committed, report);
        }
        match &wanted.delta {
            None => {
                let (manifest, diff_ids) = (resolved.manifest_digest, &wanted.diff_ids);
                let target =
                    Target { client, reference, manifest, image: image_id, diff_ids, deltas };
                self.patch_missing(&target, &mut missing, committed, report)?;
                if !missing.is_empty() {
                    self.fetch_layers(reference, &missing, committed, report)?;
                }
            }
            Some(delta) => {
                self.patch_layers(client, reference, &missing, delta, committed, report)?
            }
        }
        // A delta's manifest says nothing of where the target's layers are.
        let manifest_bytes = wanted.delta.is_none().then_some(resolved.manifest_bytes.as_slice());
        self.store.commit_image(&wanted.config_bytes, manifest_bytes, &names)
    }
}

/// The image that a pull is to make: the one that was fetched, or the target of the delta that it is.
struct Wanted {
    config_bytes: Vec<u8>,
    diff_ids: Vec<Digest>,
    delta: Option<BalenaDelta>,
}

impl Wanted {
    fn read(config_bytes: Vec<u8>, reference: &Reference) -> Result<Wanted> {
        let config = ImageConfig::parse(&config_bytes, &format!("configuration of {reference}"))?;
        match balena::find(&config)? {
            None => Ok(Wanted { config_bytes, diff_ids: config.diff_ids()?, delta: None }),
            Some(delta) => Ok(Wanted {
                config_bytes: delta.target_config.clone().into_bytes(),
                diff_ids: delta.target()?.diff_ids()?,
                delta: Some(delta),
            }),
        }
    }

    fn check_layer_count(&self, found: usize, reference: &Reference) -> Result<()> {
        let wanted = self.diff_ids.len();
        if found == wanted {
            return Ok(());
        }
        let message =
            format!("manifest of {reference} has {found} layers, its configuration {wanted}");
        Err(Error::new(Kind::Corrupt, message))
    }
}

/// What the store keeps of an unpacked layer.
pub(super) fn layer_record(unpacked: &layer::Unpacked) -> LayerRecord {
    LayerRecord {
        version: 0,
        tar_bytes: unpacked.tar_bytes,
        file_bytes: unpacked.file_bytes,
        file_count: unpacked.file_count,
    }
}
