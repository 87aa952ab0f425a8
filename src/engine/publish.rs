//! `delta create`: the delta from one image to another as an artifact (`oci::artifact`), in a registry beside its target or
//! in a file for `load`; and `delta plan`, what each way from the one to the other costs.
//!
//! A native delta has a blob for each layer of the target that the basis has nowhere. Each is written to a file of a stage
//! first: its digest stands in documents that come before it. Then it is applied once: what is published makes the layer.

use std::io::{self, Write};
use std::path::PathBuf;

use fs_err::{File, OpenOptions};

use super::Engine;
use super::basis::Basis;
use super::payload::Payload;
use super::progress::{Event, Report};
use super::pull::Committed;
use crate::delta::Sequential;
use crate::delta::native;
use crate::delta::rsync::{self, Signature};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Context, Error, Kind, Result};
use crate::layer::gzip::GzipWriter;
use crate::layer::{Decoder, archive};
use crate::oci::archive::{INDEX, blob_path};
use crate::oci::artifact::{self, EMPTY, Format, Offer, empty_blob};
use crate::oci::manifest::{
    Descriptor, Document, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST,
    write_descriptor,
};
use crate::reference::Reference;
use crate::registry::{Client, Push};
use crate::store::{Image, Stage};
use crate::stream::Stream;

/// How registries compress layers: for what a delta in balena's format would weigh there.
const COMPRESSION_LEVEL: u8 = 6;

/// A delta that was published.
#[derive(Debug)]
pub struct PublishedDelta {
    /// The digest of its manifest.
    pub digest: Digest,
    /// What the layers weigh that it stands for, as the target's manifest says.
    pub layers_bytes: u64,
    /// What its own blobs weigh.
    pub delta_bytes: u64,
}

/// What the ways from one image to another cost. Bytes are those that travel.
#[derive(Debug)]
pub struct DeltaPlan {
    /// Layers of the target that the basis has.
    pub linked: usize,
    /// Layers that it has not.
    pub missing: usize,
    /// Those as they are; not compressed if the image was not pulled, for then nobody knows how they would be.
    pub layers_bytes: u64,
    /// The delta in balena's format, without the documents and the tars around it.
    pub balena_bytes: u64,
    /// The delta in our own.
    pub native_bytes: u64,
    /// What a device with the basis would fetch by an index of the target.
    pub index_bytes: u64,
}

/// The target's manifest.
pub(super) struct Subject {
    pub manifest: Manifest,
    bytes: Vec<u8>,
    pub descriptor: Descriptor,
}

/// From what to what, and where to.
struct Publication<'a> {
    old: Image,
    new: Image,
    /// The tag that the archive has for the new one.
    name: Option<Reference>,
    subject: Subject,
    push: Option<(Push<'a>, &'a Reference)>,
}

/// The blob of a native delta or of an index, and the file that it is in.
pub(super) struct Blob {
    pub descriptor: Descriptor,
    pub path: PathBuf,
}

impl Engine {
    /// Makes the delta from `old` to `new`, pushes it to `repository`, which has the target, and writes it to `out`, as far as
    /// these are given. On success the registry tells of it to whoever pulls the target.
    pub fn publish_delta(
        &self,
        old: &str,
        new: &str,
        format: Format,
        repository: Option<&Reference>,
        out: Option<&mut dyn Write>,
        report: Report,
    ) -> Result<PublishedDelta> {
        let work = self.store.work()?;
        let mut committed = Committed(Vec::new());
        let published = self.publish(old, new, format, repository, out, &mut committed, report);
        drop(work);
        self.store.collect_or_warn(&committed.0);
        published
    }

    /// The same; what was `committed` on the way is of no use afterwards.
    #[allow(clippy::too_many_arguments)] // those of `publish_delta`, and one
    fn publish(
        &self,
        old: &str,
        new: &str,
        format: Format,
        repository: Option<&Reference>,
        out: Option<&mut dyn Write>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<PublishedDelta> {
        let (name, old) = (new, self.store.find_image(old)?);
        let new = self.store.find_image(name)?;
        let name = self.name_asked_by(name, &new)?;
        let client = Client::new(self.registry.clone())?;
        let subject = match repository {
            Some(repository) => self.subject_in(&client, repository, &new)?,
            None => self.subject_here(&new)?,
        };
        let push = repository.map(|repository| (Push::new(&client, repository), repository));
        let mut offer = Offer { artifact: old.id, format, basis: old.id, target: new.id, bytes: 0 };
        let work = Publication { old, new, name, subject, push };
        match format {
            Format::Native => self.publish_native(&work, &mut offer, out, report)?,
            Format::Balena => self.publish_balena(&work, &mut offer, out, committed, report)?,
            Format::Index => {
                let message = "an index is not made of a pair of images: `delta index`";
                return Err(Error::new(Kind::Invalid, message));
            }
        }
        let Publication { old, new, subject, .. } = work;
        let layers_bytes = bytes_of(&missing_layers(&old, &new)?, &new, &subject)?;
        Ok(PublishedDelta { digest: offer.artifact, layers_bytes, delta_bytes: offer.bytes })
    }

    fn publish_native(
        &self,
        work: &Publication,
        offer: &mut Offer,
        out: Option<&mut dyn Write>,
        report: Report,
    ) -> Result<()> {
        let Publication { old, new, name, subject, push } = work;
        let stage = self.store.stage()?;
        let blobs = self.make_blobs(old, new, &stage, report)?;
        let layers: Vec<Descriptor> = blobs.iter().map(|blob| blob.descriptor.clone()).collect();
        let (document, entry) = artifact::write(offer, &subject.descriptor, &empty_blob(), &layers);
        if let Some((push, _)) = push {
            push_blobs(push, &blobs)?;
            push.artifact(document.as_bytes(), &entry, &subject.descriptor.digest()?)?;
        }
        if let Some(out) = out {
            write_layout(new, name, subject, (&document, &entry), &blobs, out)?;
        }
        Ok(())
    }

    fn make_blobs(
        &self,
        old: &Image,
        new: &Image,
        stage: &Stage,
        report: Report,
    ) -> Result<Vec<Blob>> {
        if !cfg!(feature = "make-deltas") {
            let message = "this vaquita is built without what makes native deltas: build it with --features make-deltas, or \
                make one with --format balena";
            return Err(Error::new(Kind::Unsupported, message));
        }
        let mut basis = Basis::open(&self.store, old)?;
        report(Event::Fingerprinting { image: old.id.short() });
        let index = native::Index::of(&mut basis)?;
        let mut blobs = Vec::new();
        for diff_id in missing_layers(old, new)? {
            let layer = diff_id.short();
            report(Event::ComputingDelta { layer: layer.clone() });
            let path = stage.path().join(blobs.len().to_string());
            let descriptor = self.make_blob(&index, &mut basis, &diff_id, &path).map_err(|e| {
                Error::new(e.kind(), format!("delta to layer {diff_id}")).caused_by(e)
            })?;
            report(Event::DeltaDone { layer });
            blobs.push(Blob { descriptor, path });
        }
        Ok(blobs)
    }

    fn make_blob(
        &self,
        index: &native::Index,
        basis: &mut Basis,
        diff_id: &Digest,
        path: &PathBuf,
    ) -> Result<Descriptor> {
        let what = || "write a delta".to_string();
        let file = OpenOptions::new().write(true).create_new(true).open(path).context(what)?;
        let mut file = io::BufWriter::new(&file);
        let mut out = HashingWriter::new(&mut file as &mut dyn Write);
        native::make(index, basis, &mut self.layer_tar(diff_id)?, &mut out)?;
        let size_bytes = out.count_bytes();
        let digest = out.finish().0;
        file.flush().context(what)?;
        let mut nowhere = io::sink();
        let mut made = HashingWriter::new(&mut nowhere as &mut dyn Write);
        let delta = File::open(path).context(what)?;
        let mut delta = Decoder::plain(Box::new(delta), None);
        let payload = Payload::new(Format::Native, size_bytes);
        payload.apply(&mut delta, basis, &mut made, &mut |_| {})?;
        if made.finish().0 != *diff_id {
            let message = "what it makes has another diff ID: look for damage by `check --deep`";
            return Err(Error::new(Kind::Corrupt, message));
        }
        Ok(artifact::delta_blob(diff_id, digest, size_bytes))
    }

    /// balena's delta image, with the target's manifest for its subject. It does not stay here.
    fn publish_balena(
        &self,
        work: &Publication,
        offer: &mut Offer,
        out: Option<&mut dyn Write>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let Publication { old, new, subject, push, .. } = work;
        let made = self.create_delta_image(old, new, &[], committed, report)?;
        let image = self.store.image(&made.image)?;
        let published = (|| {
            offer.bytes = made.delta_bytes;
            if let Some((push, repository)) = push {
                let plan = self.plan_push(&image, repository)?;
                let pushed = self.push_layers(&plan, push, report)?;
                self.push_config(&image, &plan, push)?;
                let mut layers = plan.in_order(&pushed);
                layers.iter_mut().for_each(|layer| layer.media_type = OCI_LAYER_GZIP.into());
                let config = Descriptor::new(OCI_CONFIG, image.id, image.config_bytes.len() as u64);
                let (document, entry) =
                    artifact::write(offer, &subject.descriptor, &config, &layers);
                push.artifact(document.as_bytes(), &entry, &subject.descriptor.digest()?)?;
            }
            match out {
                Some(out) => self.save(&[image.id.to_string()], out),
                None => Ok(()),
            }
        })();
        published.and(self.store.remove_image(&image.id, &[], true))
    }

    /// What the repository has of the image: by the manifest that it was pulled by, by a name that it got there, or by the
    /// tag that was given.
    pub(super) fn subject_in(
        &self,
        client: &Client,
        repository: &Reference,
        image: &Image,
    ) -> Result<Subject> {
        let mut names = Vec::new();
        if let Some(bytes) = self.store.image_manifest(&image.id)? {
            names.push(repository.at(Digest::of(&bytes)));
        }
        for name in self.store.references_of(&image.id)? {
            if name.familiar_name() == repository.familiar_name() {
                names.push(name);
            }
        }
        names.push(repository.clone());
        let platform = image.config.platform().unwrap_or_else(Engine::platform);
        for name in names {
            match client.resolve(&name, &platform) {
                Ok(found) if found.manifest.config.digest()? == image.id => {
                    return Ok(Subject::of(found.manifest, found.manifest_bytes));
                }
                Ok(_) => {}
                Err(e) if e.kind() == Kind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let (id, name) = (image.id.short(), repository.familiar_name());
        let message = format!(
            "image {id} is not in {name}: push it there first, or say by which tag it is there: {name}:TAG"
        );
        Err(Error::new(Kind::NotFound, message))
    }

    /// The manifest that the image was pulled by, or else the one that `save` would write.
    fn subject_here(&self, image: &Image) -> Result<Subject> {
        let layer_count = image.config.diff_ids()?.len();
        if let Some((manifest, bytes)) = self.original_manifest(image, layer_count)? {
            return Ok(Subject::of(manifest, bytes));
        }
        let bytes = self.saved(self.store.image(&image.id)?)?.manifest.into_bytes();
        match Document::parse(&bytes, OCI_MANIFEST, "manifest")? {
            Document::Manifest(manifest) => Ok(Subject::of(manifest, bytes)),
            Document::Index(_) => Err(Error::new(Kind::Internal, "an index was written")),
        }
    }

    /// What each way from `old` to `new` costs.
    pub fn plan_delta(&self, old: &str, new: &str, report: Report) -> Result<DeltaPlan> {
        let _work = self.store.work()?;
        let (old, new) = (self.store.find_image(old)?, self.store.find_image(new)?);
        let missing = missing_layers(&old, &new)?;
        let subject = self.subject_here(&new)?;
        let stage = self.store.stage()?;
        let blobs = self.make_blobs(&old, &new, &stage, report)?;
        let mut basis = Basis::open(&self.store, &old)?;
        let index_bytes = self.plan_index(&mut basis, &missing, &stage, report)?;
        report(Event::Fingerprinting { image: old.id.short() });
        let signature = Signature::of(&mut Sequential::new(&mut basis))?;
        let mut nowhere = io::sink();
        let mut balena = HashingWriter::new(&mut nowhere as &mut dyn Write);
        for diff_id in &missing {
            let mut gzip = GzipWriter::new(&mut balena, COMPRESSION_LEVEL);
            rsync::diff(&signature, &mut self.layer_tar(diff_id)?, &mut gzip)?;
            gzip.finish().context(|| "compress a delta".into())?;
        }
        Ok(DeltaPlan {
            linked: new.config.diff_ids()?.iter().filter(|id| !missing.contains(id)).count(),
            missing: missing.len(),
            layers_bytes: bytes_of(&missing, &new, &subject)?,
            balena_bytes: balena.count_bytes(),
            native_bytes: blobs.iter().map(|blob| blob.descriptor.size).sum(),
            index_bytes,
        })
    }
}

/// Has the repository have the blobs, and the empty configuration.
pub(super) fn push_blobs(push: &Push, blobs: &[Blob]) -> Result<()> {
    let empty = || -> Result<Box<dyn Stream>> { Ok(Box::new(EMPTY)) };
    if !push.has_blob(&Digest::of(EMPTY))? {
        push.blob("the empty configuration", &empty)?;
    }
    for Blob { descriptor, path } in blobs {
        let open = || -> Result<Box<dyn Stream>> {
            Ok(Box::new(File::open(path).context(|| "read a delta".into())?))
        };
        if !push.has_blob(&descriptor.digest()?)? {
            push.blob(&format!("delta {}", descriptor.digest), &open)?;
        }
    }
    Ok(())
}

/// What the layers `missing` of `image` weigh, as its manifest has it.
pub(super) fn bytes_of(missing: &[Digest], image: &Image, subject: &Subject) -> Result<u64> {
    let mut bytes = 0_u64;
    for (diff_id, layer) in image.config.diff_ids()?.iter().zip(&subject.manifest.layers) {
        if missing.contains(diff_id) {
            bytes = bytes.saturating_add(layer.size);
        }
    }
    Ok(bytes)
}

impl Subject {
    fn of(manifest: Manifest, bytes: Vec<u8>) -> Subject {
        let media_type = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        Subject { manifest, bytes, descriptor }
    }
}

/// The layers of `new` that `old` has nowhere, each once, bottom first.
fn missing_layers(old: &Image, new: &Image) -> Result<Vec<Digest>> {
    let known = old.config.diff_ids()?;
    let mut missing = Vec::new();
    for diff_id in new.config.diff_ids()? {
        if !known.contains(&diff_id) && !missing.contains(&diff_id) {
            missing.push(diff_id);
        }
    }
    Ok(missing)
}

/// An OCI layout with a native delta, and of its target the manifest and the configuration: a device that has the basis
/// can `load` it. Documents come first, so that a reader of a pipe knows what each blob is.
fn write_layout(
    new: &Image,
    name: &Option<Reference>,
    subject: &Subject,
    (document, entry): (&str, &Descriptor),
    blobs: &[Blob],
    out: &mut dyn Write,
) -> Result<()> {
    let mut archive = archive::Writer::new(out);
    let mut target = subject.descriptor.clone();
    target.annotations = name.as_ref().map(super::save::name_annotations);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{},{}]}}"#,
        write_descriptor(&target),
        write_descriptor(entry)
    );
    let mut append =
        |path: &str, bytes: &[u8]| archive.append(path, bytes.len() as u64, &mut &*bytes);
    append("oci-layout", super::save::OCI_LAYOUT)?;
    append(INDEX, index.as_bytes())?;
    for blob in [&subject.bytes, &new.config_bytes, document.as_bytes(), EMPTY] {
        append(&blob_path(&Digest::of(blob)), blob)?;
    }
    for Blob { descriptor, path } in blobs {
        let mut file = File::open(path).context(|| "read a delta".into())?;
        archive.append(&blob_path(&descriptor.digest()?), descriptor.size, &mut file)?;
    }
    archive.finish()
}
