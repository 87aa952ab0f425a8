//! Push: image -> each layer, unless the registry has it or can mount it -> configuration -> manifest -> name.
//!
//! A layer is kept as files, not as the blob that it came as. So what the image was pulled by is asked for first, then
//! what our compressor made of the layer last time, in the repository itself and in those of the same registry that the
//! store knows images with this layer to be in. Only then is the layer's exact tar made again, compressed, always to the
//! same bytes, and uploaded as it is made. Where every blob turns out to be the original one, so is the manifest, byte
//! for byte: the digest stays.

use std::sync::{Mutex, PoisonError};

use super::Engine;
use super::lanes::{Lanes, locked};
use super::progress::{Event, Report};
use crate::digest::{Digest, VerifyingReader};
use crate::error::{Error, Kind, Result};
use crate::layer::gzip::Gzipped;
use crate::oci::manifest::{
    self, DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, Descriptor, Document, Manifest,
    OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST,
};
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Push};
use crate::store::Image;
use crate::stream::Stream;

/// The level that layers are compressed at: gzip's and docker's own.
const COMPRESSION_LEVEL: u8 = 6;
/// Layers that are pushed at the same time: one is compressed while another is sent. Each holds a chunk of 5 MiB; with
/// three the peak was 21 MiB.
const MAX_CONCURRENT_UPLOADS: usize = 2;
/// Repositories that are tried to mount one layer from.
const MAX_MOUNT_SOURCES: usize = 4;

/// What a push came to.
#[derive(Debug)]
pub struct Pushed {
    /// The digest of the manifest that the tag stands for at the registry now.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size_bytes: u64,
}

impl Engine {
    /// Pushes the image that `reference`, a tag, stands for, which must be for `platform` if there is one. On success the
    /// registry has confirmed all of it.
    pub fn push(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        report: Report,
    ) -> Result<Pushed> {
        self.begin_push(reference, report)?;
        let Some(id) = self.store.resolve(reference)? else {
            let message = format!("tag does not exist: {}", reference.familiar());
            return Err(Error::new(Kind::NotFound, message));
        };
        self.push_tag(&Client::new(self.registry.clone())?, reference, &id, platform, report)
    }

    /// Pushes every tag of the repository of `reference`, in the order of their names.
    pub fn push_all_tags(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        report: Report,
    ) -> Result<Vec<Pushed>> {
        let tags = self.begin_push(reference, report)?;
        let client = Client::new(self.registry.clone())?;
        let mut pushed = Vec::new();
        for (tag, id) in tags.iter().filter(|(reference, _)| reference.tag().is_some()) {
            pushed.push(self.push_tag(&client, tag, id, platform, report)?);
        }
        Ok(pushed)
    }

    /// The names that the store has in the repository; an error in docker's words if there are none.
    fn begin_push(
        &self,
        reference: &Reference,
        report: Report,
    ) -> Result<Vec<(Reference, Digest)>> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        report(Event::Pushing { name });
        let mut names = Vec::new();
        for record in self.store.references()? {
            let known = record.reference()?;
            if known.registry() == reference.registry()
                && known.repository() == reference.repository()
            {
                names.push((known, Digest::parse(&record.image)?));
            }
        }
        if names.is_empty() {
            let name = reference.familiar_name();
            let message = format!("An image does not exist locally with the tag: {name}");
            return Err(Error::new(Kind::NotFound, message));
        }
        Ok(names)
    }

    fn push_tag(
        &self,
        client: &Client,
        reference: &Reference,
        id: &Digest,
        platform: Option<&Platform>,
        report: Report,
    ) -> Result<Pushed> {
        // Held so that no layer goes while it is read.
        let _work = self.store.work()?;
        let image = self.store.image(id)?;
        check_platform(&image, reference, platform)?;
        let plan = self.plan_push(&image, reference)?;
        let push = Push::new(client, reference);
        let layers = self.push_layers(&plan, &push, report)?;
        self.push_config(&image, &plan, &push)?;
        let (media_type, document) = plan.manifest(&image, &layers);
        let digest = push.manifest(&media_type, &document)?;
        self.store.set_reference(&reference.at(digest), id)?;
        let pushed = Pushed { digest, size_bytes: document.len() as u64 };
        report(Event::Pushed {
            tag: reference.manifest_key(),
            digest: digest.to_string(),
            size_bytes: pushed.size_bytes,
        });
        Ok(pushed)
    }

    /// Pushes the layers, a few at a time and the uppermost first as docker does; gives their blobs in the plan's order.
    pub(super) fn push_layers(
        &self,
        plan: &Plan,
        push: &Push,
        report: Report,
    ) -> Result<Vec<Descriptor>> {
        for layer in &plan.layers {
            report(Event::LayerPreparing { layer: layer.diff_id.short() });
        }
        let blobs = Mutex::new(vec![Descriptor::default(); plan.layers.len()]);
        let lanes = Lanes::new();
        let push_one = |index: usize| {
            let Some(layer) = plan.layers.get(index) else { return Ok(()) };
            let (blob, event) = self.push_layer(layer, plan, push)?;
            lanes.teller.tell(event);
            if let Some(place) = locked(&blobs).get_mut(index) {
                *place = blob;
            }
            Ok(())
        };
        lanes.run(MAX_CONCURRENT_UPLOADS, plan.layers.len(), &push_one, report)?;
        Ok(blobs.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sees to it that the registry has the layer; gives its blob there and what there is to say of it.
    fn push_layer(
        &self,
        layer: &PlannedLayer,
        plan: &Plan,
        push: &Push,
    ) -> Result<(Descriptor, Event)> {
        let short = layer.diff_id.short();
        for blob in &layer.known_blobs {
            if push.has_blob(&blob.digest()?)? {
                return Ok((blob.clone(), Event::LayerAtRegistry { layer: short }));
            }
        }
        for blob in &layer.known_blobs {
            for from in &layer.sources {
                if push.mount_blob(&blob.digest()?, from)? {
                    let event = Event::LayerMounted { layer: short, from: from.clone() };
                    return Ok((blob.clone(), event));
                }
            }
        }
        let diff_id = layer.diff_id;
        let open = || -> Result<Box<dyn Stream>> {
            // Damage shows at the end, before the digest is told to the registry.
            let tar = VerifyingReader::new(self.layer_tar(&diff_id)?, diff_id);
            Ok(Box::new(Gzipped::new(Box::new(tar), COMPRESSION_LEVEL)))
        };
        let made = push.blob(&format!("layer {diff_id}"), &open)?;
        if self.store.layer_blob(&diff_id) != Some((made.digest, made.size_bytes)) {
            self.store.set_layer_blob(&diff_id, &made.digest, made.size_bytes)?;
        }
        let blob = plan.gzip_layer(made.digest, made.size_bytes);
        let known = layer.known_blobs.iter().find(|known| known.digest == blob.digest).cloned();
        Ok((known.unwrap_or(blob), Event::LayerPushed { layer: short }))
    }

    pub(super) fn push_config(&self, image: &Image, plan: &Plan, push: &Push) -> Result<()> {
        if push.has_blob(&image.id)? {
            return Ok(());
        }
        for from in &plan.config_sources {
            if push.mount_blob(&image.id, from)? {
                return Ok(());
            }
        }
        let open = || -> Result<Box<dyn Stream>> { Ok(Box::new(image.config_bytes.as_slice())) };
        push.blob(&format!("configuration {}", image.id), &open).map(drop)
    }
}

/// What is known before anything is asked.
pub(super) struct Plan {
    /// Each layer once, the uppermost first.
    layers: Vec<PlannedLayer>,
    /// The manifest that the image was pulled by, and its document.
    original: Option<(Manifest, Vec<u8>)>,
    /// Where the configuration may be mounted from.
    config_sources: Vec<String>,
    diff_ids: Vec<Digest>,
}

struct PlannedLayer {
    diff_id: Digest,
    /// What the registry may know the layer as: the original blob, then what was made here.
    known_blobs: Vec<Descriptor>,
    /// Repositories of the same registry that have, or had, an image with this layer.
    sources: Vec<String>,
}

/// An image that is known to be in repositories of the registry.
struct Elsewhere {
    image: Digest,
    diff_ids: Vec<Digest>,
    repositories: Vec<String>,
}

impl Engine {
    pub(super) fn plan_push(&self, image: &Image, reference: &Reference) -> Result<Plan> {
        let diff_ids = image.config.diff_ids()?;
        let original = self.original_manifest(image, diff_ids.len())?;
        let elsewhere = self.elsewhere(reference)?;
        let mut plan = Plan { layers: Vec::new(), original, config_sources: Vec::new(), diff_ids };
        plan.config_sources = sources(&elsewhere, |other| other.image == image.id);
        for (index, diff_id) in plan.diff_ids.iter().enumerate().rev() {
            if plan.layers.iter().any(|layer| layer.diff_id == *diff_id) {
                continue;
            }
            let original =
                plan.original.as_ref().and_then(|(manifest, _)| manifest.layers.get(index));
            let mut known_blobs: Vec<Descriptor> = original.into_iter().cloned().collect();
            if let Some((digest, size_bytes)) = self.store.layer_blob(diff_id) {
                known_blobs.push(plan.gzip_layer(digest, size_bytes));
            }
            let sources = sources(&elsewhere, |other| other.diff_ids.contains(diff_id));
            plan.layers.push(PlannedLayer { diff_id: *diff_id, known_blobs, sources });
        }
        Ok(plan)
    }

    /// The manifest that the image was pulled by, if it is one of this image.
    pub(super) fn original_manifest(
        &self,
        image: &Image,
        layer_count: usize,
    ) -> Result<Option<(Manifest, Vec<u8>)>> {
        let Some(bytes) = self.store.image_manifest(&image.id)? else { return Ok(None) };
        let what = format!("manifest of image {}", image.id.short());
        match Document::parse(&bytes, OCI_MANIFEST, &what) {
            Ok(Document::Manifest(manifest))
                if manifest.layers.len() == layer_count
                    && manifest.config.digest()? == image.id =>
            {
                Ok(Some((manifest, bytes)))
            }
            Ok(_) => {
                log::warn!("{what}: it is another image's, and is not used");
                Ok(None)
            }
            Err(e) => {
                log::warn!("{e}");
                Ok(None)
            }
        }
    }

    /// The images that other repositories of the registry had when they were pulled or pushed: they have a name there by
    /// digest.
    fn elsewhere(&self, reference: &Reference) -> Result<Vec<Elsewhere>> {
        let references = self.store.references()?;
        let mut found = Vec::new();
        for image in self.store.images()? {
            let id = image.id.to_string();
            let names = references.iter().filter(|record| record.image == id);
            let names = names.filter_map(|record| record.reference().ok());
            let repositories: Vec<String> = names
                .filter(|name| name.digest().is_some())
                .filter(|name| name.registry() == reference.registry())
                .filter(|name| name.repository() != reference.repository())
                .map(|name| name.repository().to_string())
                .collect();
            if !repositories.is_empty() {
                let diff_ids = image.config.diff_ids()?;
                found.push(Elsewhere { image: image.id, diff_ids, repositories });
            }
        }
        Ok(found)
    }
}

/// A tag stands for one image here, whatever the platform: another than was asked for is an error in docker's words.
fn check_platform(image: &Image, reference: &Reference, wanted: Option<&Platform>) -> Result<()> {
    let found = image.config.platform();
    match wanted {
        Some(wanted) if !found.as_ref().is_some_and(|found| wanted.accepts(found)) => {
            let found = found.map_or_else(|| "nil".into(), |found| found.to_string());
            let message = format!(
                "image with reference {} was found but does not match the specified platform: wanted {wanted}, actual: {found}",
                reference.familiar()
            );
            Err(Error::new(Kind::NotFound, message))
        }
        _ => Ok(()),
    }
}

/// The repositories with an image that `has` what is looked for, each once.
fn sources(elsewhere: &[Elsewhere], has: impl Fn(&Elsewhere) -> bool) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for repository in elsewhere.iter().filter(|other| has(other)).flat_map(|o| &o.repositories) {
        if !sources.contains(repository) && sources.len() < MAX_MOUNT_SOURCES {
            sources.push(repository.clone());
        }
    }
    sources
}

impl Plan {
    /// Docker's types, unless the image came with OCI's.
    fn is_oci(&self) -> bool {
        let manifest = self.original.as_ref().map(|(manifest, _)| manifest);
        manifest.is_some_and(|m| m.media_type.as_deref().unwrap_or(OCI_MANIFEST) == OCI_MANIFEST)
    }

    fn gzip_layer(&self, digest: Digest, size_bytes: u64) -> Descriptor {
        let media_type = if self.is_oci() { OCI_LAYER_GZIP } else { DOCKER_LAYER_GZIP };
        Descriptor::new(media_type, digest, size_bytes)
    }

    /// What was pushed, in the order of the image's layers.
    pub(super) fn in_order(&self, pushed: &[Descriptor]) -> Vec<Descriptor> {
        let place =
            |diff_id: &Digest| self.layers.iter().position(|layer| layer.diff_id == *diff_id);
        self.diff_ids.iter().filter_map(|id| pushed.get(place(id)?).cloned()).collect()
    }

    /// The manifest's type and document: the original one if that names just these blobs.
    fn manifest(&self, image: &Image, pushed: &[Descriptor]) -> (String, Vec<u8>) {
        let layers = self.in_order(pushed);
        let (manifest_type, config_type) = match self.is_oci() {
            true => (OCI_MANIFEST, OCI_CONFIG),
            false => (DOCKER_MANIFEST, DOCKER_CONFIG),
        };
        if let Some((original, bytes)) = &self.original {
            let same = |(a, b): (&Descriptor, &Descriptor)| a.digest == b.digest;
            if original.layers.iter().zip(&layers).all(same) {
                return (manifest_type.into(), bytes.clone());
            }
        }
        let config = Descriptor::new(config_type, image.id, image.config_bytes.len() as u64);
        let document = manifest::write(manifest_type, &config, &layers, "");
        (manifest_type.into(), document.into_bytes())
    }
}
