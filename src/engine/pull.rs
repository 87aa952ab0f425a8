//! Pull: reference -> manifest -> configuration -> each missing layer -> image -> name.
//!
//! A layer's bytes go from the socket through SHA-256, inflate and the tar reader into files of a stage (`fetch`); it is
//! committed when both its digests are right. The image, then its names, are published last. A pull that fails for good
//! takes back the layers that it committed; one that lost the network leaves them, and the stages of those under way,
//! for the next try, unseen by any image.
//!
//! An image with balena's delta labels is pulled the same way, except that each layer's bytes are a patch against an
//! image that is here, and that the result is the target's image under the delta's name.

use std::io::Write;

use super::basis::Basis;
use super::progress::{Event, Report};
use super::{Engine, fetch, pipe};
use crate::delta::balena::{self, BalenaDelta};
use crate::delta::rsync;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::layer;
use crate::oci::config::ImageConfig;
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Resolved};
use crate::store::LayerRecord;
use crate::stream::Stream;

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
    /// Pulls `reference` for `platform`. On success the image survives a power cut.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
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
        let image = self.pull_image(&client, reference, &resolved, &mut committed, report);
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
        let wanted = Wanted::read(client.small_blob(reference, &manifest.config)?, reference)?;
        wanted.check_layer_count(manifest.layers.len(), reference)?;
        let mut missing = Vec::new();
        for (blob, diff_id) in manifest.layers.iter().zip(&wanted.diff_ids) {
            let layer = blob.digest()?.short();
            match self.store.has_layer(diff_id) {
                true => report(Event::LayerExists { layer }),
                false => missing.push(fetch::Wanted { blob, diff_id: *diff_id }),
            }
        }
        match &wanted.delta {
            None => self.fetch_layers(reference, &missing, committed, report)?,
            Some(delta) => {
                self.patch_layers(client, reference, &missing, delta, committed, report)?
            }
        }
        // A delta's manifest says nothing of where the target's layers are.
        let manifest_bytes = wanted.delta.is_none().then_some(resolved.manifest_bytes.as_slice());
        self.store.commit_image(&wanted.config_bytes, manifest_bytes, &names)
    }

    /// Fetches deltas, and makes and commits the layers, one after another: all read the same basis.
    fn patch_layers(
        &self,
        client: &Client,
        reference: &Reference,
        layers: &[fetch::Wanted],
        delta: &BalenaDelta,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        if layers.is_empty() {
            return Ok(());
        }
        let mut basis = self.open_delta(delta, report)?;
        for fetch::Wanted { blob, diff_id } in layers {
            let digest = blob.digest()?;
            report(Event::LayerStarted { layer: digest.short() });
            let stream = client.blob(reference, blob, 0)?;
            layer::Decoder::open(stream, Some(digest))
                .and_then(|mut tar| self.store_patched_layer(&mut tar, &mut basis, diff_id))
                .map_err(|e| {
                    Error::new(e.kind(), format!("pull layer {digest} of {reference}")).caused_by(e)
                })?;
            committed.0.push(*diff_id);
            report(Event::LayerDone { layer: digest.short() });
        }
        Ok(())
    }

    /// Unpacks an uncompressed tar and commits it as the layer `diff_id`, if that is what it is.
    pub(super) fn store_layer(&self, tar: &mut dyn Stream, diff_id: &Digest) -> Result<()> {
        let stage = self.store.stage()?;
        let unpacked = layer::unpack(tar, stage.directory(), &format!("layer {diff_id}"))?;
        if unpacked.diff_id != *diff_id {
            let found = unpacked.diff_id;
            let message = format!("layer {diff_id}: its content has the diff ID {found}");
            return Err(Error::new(Kind::Corrupt, message));
        }
        self.store.commit_layer(stage, diff_id, layer_record(&unpacked))
    }

    /// Patches the basis with what a delta layer's tar holds, and stores the result.
    pub(super) fn store_patched_layer(
        &self,
        delta_layer: &mut dyn Stream,
        basis: &mut Basis,
        diff_id: &Digest,
    ) -> Result<()> {
        let patch = |out: &mut dyn Write| match balena::layer::open(delta_layer)? {
            balena::layer::Layer::Shared => {
                let message =
                    format!("layer {diff_id} is shared with the delta's basis, which lacks it");
                Err(Error::new(Kind::Corrupt, message))
            }
            balena::layer::Layer::Delta(mut member) => {
                rsync::patch(basis, &mut member, out)?;
                member.finish()
            }
        };
        pipe::join(patch, |tar| self.store_layer(tar, diff_id))
    }

    /// Opens the image that a delta starts from.
    pub(super) fn open_delta(&self, delta: &BalenaDelta, report: Report) -> Result<Basis> {
        let base = self.store.image(&delta.base).map_err(|e| {
            let message = format!(
                "delta needs its basis, image {}, which is not here: pull that image first, or the full image",
                delta.base
            );
            if e.kind() == Kind::NotFound { Error::new(Kind::NotFound, message) } else { e }
        })?;
        report(Event::DeltaBasis { image: base.id.short() });
        self.basis(&base)
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
