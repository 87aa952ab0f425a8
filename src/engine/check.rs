//! `check`: what the store finds wrong with its records and, if asked, what a comparison of every layer with its tar
//! finds; and the mending: set aside what cannot be read, fetch again what a registry has.

use std::os::fd::AsFd;

use super::pull::layer_record;
use super::{Engine, pipe};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::layer::{self, Compared};
use crate::oci::manifest::{Descriptor, Manifest, OCI_CONFIG};
use crate::reference::Reference;
use crate::registry::Client;
use crate::store::{Finding, Image, Remedy};
use crate::stream::Stream;

/// What to check, and whether to mend.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Rebuild every layer's tar and compare digest and tree.
    pub deep: bool,
    /// Set aside and fetch again.
    pub repair: bool,
}

/// What became of a finding.
#[derive(Debug)]
pub enum Outcome {
    /// It was not to be mended, or need not be.
    Told,
    /// What is damaged lies under `quarantine/`.
    SetAside,
    /// It was fetched again, and what was damaged lies under `quarantine/`.
    Fetched,
    /// It is as damaged as before; why.
    Failed(Error),
}

/// What a check came to.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct CheckSummary {
    pub images: usize,
    pub layers: usize,
    pub references: usize,
    pub containers: usize,
    /// Findings of damage that stand: 0 means that the store is whole.
    pub damaged: usize,
}

/// Takes findings as they are made.
pub type Tell<'a> = &'a mut dyn FnMut(&Finding, &Outcome);

impl Engine {
    /// Checks the store; each finding goes to `tell` with what became of it.
    pub fn check(&self, options: CheckOptions, tell: Tell) -> Result<CheckSummary> {
        // Held so that no layer goes while it is read. It would make a store where there is none.
        let work = match self.store.data_root().exists() {
            true => Some(self.store.work()?),
            false => None,
        };
        let checked = self.store.check()?;
        let mut damaged = 0;
        let mut settle = |finding: &Finding| {
            let outcome = match options.repair && finding.is_damage() {
                true => self.mend(finding),
                false => Outcome::Told,
            };
            let stands = matches!(outcome, Outcome::Told | Outcome::Failed(_));
            damaged += usize::from(stands && finding.is_damage());
            tell(finding, &outcome);
        };
        checked.findings.iter().for_each(&mut settle);
        if options.deep {
            let faulty = |id: &&Digest| {
                let remedy = Remedy::FetchLayer(**id);
                !checked.findings.iter().any(|finding| finding.remedy == remedy)
            };
            for diff_id in checked.layers.iter().filter(faulty) {
                self.compare(diff_id)?.iter().for_each(&mut settle);
            }
        }
        drop(work);
        if options.repair {
            self.store.collect_or_warn(&[]);
        }
        Ok(CheckSummary {
            images: checked.images,
            layers: checked.layers.len(),
            references: checked.references,
            containers: checked.containers,
            damaged,
        })
    }

    /// Compares a layer with its tar; at most one finding, of damage that one fetch mends.
    fn compare(&self, diff_id: &Digest) -> Result<Option<Finding>> {
        let object = format!("layer {diff_id}");
        let directory = self.store.open_layer(diff_id)?;
        let path = self.store.layer_path(diff_id);
        let (cause, remedy) = match layer::compare(directory.as_fd(), &object, diff_id) {
            Ok(Compared::Whole) => return Ok(None),
            Ok(Compared::Contents(why)) => (
                format!("its contents are right; its tree is not compared: {why}"),
                Remedy::Nothing,
            ),
            Err(e) if e.kind() == Kind::Unsupported => (e.to_string(), Remedy::Leave),
            Err(e) => (e.to_string(), Remedy::FetchLayer(*diff_id)),
        };
        Ok(Some(Finding { object, cause, path, remedy }))
    }

    fn mend(&self, finding: &Finding) -> Outcome {
        let set_aside = |result: Result<()>| result.map(|()| Outcome::SetAside);
        let outcome = match finding.remedy {
            Remedy::Nothing | Remedy::Collect | Remedy::Leave => Ok(Outcome::Told),
            Remedy::SetAside => set_aside(self.store.quarantine(&finding.path)),
            Remedy::RenewState => set_aside(self.store.renew_state(&finding.path)),
            Remedy::FetchImage(id) => self.fetch_image(&id).map(|()| Outcome::Fetched),
            Remedy::FetchLayer(diff_id) => self.mend_layer(&diff_id),
        };
        outcome.unwrap_or_else(Outcome::Failed)
    }

    /// Fetches a layer again if an image has it. Where that fails its files stay, but the next pull will not take it for
    /// whole.
    fn mend_layer(&self, diff_id: &Digest) -> Result<Outcome> {
        let images = self.store.images()?;
        let has = |image: &&Image| image.config.diff_ids().is_ok_and(|ids| ids.contains(diff_id));
        let users: Vec<&Image> = images.iter().filter(has).collect();
        if users.is_empty() {
            self.store.quarantine(&self.store.layer_path(diff_id))?;
            return Ok(Outcome::SetAside);
        }
        let client = Client::new(self.registry.clone())?;
        let mut failure = no_registry(&format!("layer {diff_id}"));
        for image in users {
            for reference in self.store.references_of(&image.id)? {
                match self.fetch_layer(&client, &reference, image, diff_id) {
                    Ok(()) => return Ok(Outcome::Fetched),
                    Err(e) => failure = e,
                }
            }
        }
        self.store.mark_damaged(diff_id)?;
        Err(failure)
    }

    /// Fetches one layer of `image` and puts it in place of the one that is here.
    fn fetch_layer(
        &self,
        client: &Client,
        reference: &Reference,
        image: &Image,
        diff_id: &Digest,
    ) -> Result<()> {
        let manifest = self.manifest_of(client, reference, image)?;
        let descriptor = layer_of(&manifest, image, diff_id)?;
        let blob = client.blob(reference, descriptor, 0)?;
        let mut tar = layer::Decoder::open(blob, Some(descriptor.digest()?))?;
        pipe::join(|out| pipe::copy(&mut tar, out), |tar| self.restore_layer(tar, diff_id)).map_err(
            |e| Error::new(e.kind(), format!("fetch {diff_id} of {reference}")).caused_by(e),
        )
    }

    fn restore_layer(&self, tar: &mut dyn Stream, diff_id: &Digest) -> Result<()> {
        let stage = self.store.stage()?;
        let unpacked = layer::unpack(tar, stage.directory(), &format!("layer {diff_id}"))?;
        if unpacked.diff_id != *diff_id {
            let found = unpacked.diff_id;
            let message = format!("its content has the diff ID {found}");
            return Err(Error::new(Kind::Corrupt, message));
        }
        self.store.replace_layer(stage, diff_id, layer_record(&unpacked))
    }

    /// The manifest that the image was pulled by, or else the one that its name has in the registry, if it is this image's.
    fn manifest_of(
        &self,
        client: &Client,
        reference: &Reference,
        image: &Image,
    ) -> Result<Manifest> {
        // A damaged copy has a finding of its own; the registry's serves as well.
        if let Ok(Some(manifest)) = self.store.manifest(&image.id) {
            return Ok(manifest);
        }
        let platform = image.config.platform().unwrap_or_else(Engine::platform);
        let manifest = client.resolve(reference, &platform)?.manifest;
        match manifest.config.digest()? == image.id {
            true => Ok(manifest),
            false => {
                let message = format!("{} is another image in the registry", reference.familiar());
                Err(Error::new(Kind::NotFound, message))
            }
        }
    }

    /// Fetches a configuration by its digest and whatever layer of the image is missing.
    fn fetch_image(&self, id: &Digest) -> Result<()> {
        let client = Client::new(self.registry.clone())?;
        let mut failure = no_registry(&format!("image {id}"));
        // The manifest that was beside the configuration, if that alone is damaged.
        let manifest = self.store.manifest_bytes(id);
        for reference in self.store.references_of(id)? {
            match self.fetch_image_from(&client, &reference, id, manifest.as_deref()) {
                Ok(()) => return Ok(()),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    fn fetch_image_from(
        &self,
        client: &Client,
        reference: &Reference,
        id: &Digest,
        manifest: Option<&[u8]>,
    ) -> Result<()> {
        if !self.store.has_image(id) {
            let blob = Descriptor::new(OCI_CONFIG, *id, 0);
            let config_bytes = client.small_blob(reference, &blob)?;
            self.store.restore_image(&config_bytes, manifest)?;
        }
        let image = self.store.image(id)?;
        for diff_id in image.config.diff_ids()? {
            if !self.store.has_layer(&diff_id) {
                self.fetch_layer(client, reference, &image, &diff_id)?;
            }
        }
        Ok(())
    }
}

/// The blob of a layer; manifest and configuration have the layers in the same order.
fn layer_of<'a>(manifest: &'a Manifest, image: &Image, diff_id: &Digest) -> Result<&'a Descriptor> {
    let diff_ids = image.config.diff_ids()?;
    let index = diff_ids.iter().position(|id| id == diff_id);
    let found = index.and_then(|index| manifest.layers.get(index));
    found.filter(|_| manifest.layers.len() == diff_ids.len()).ok_or_else(|| {
        let message = format!("the manifest of image {} has another number of layers", image.id);
        Error::new(Kind::Corrupt, message)
    })
}

fn no_registry(object: &str) -> Error {
    let message = format!("fetch {object}: no name of an image says from where");
    Error::new(Kind::NotFound, message)
}
