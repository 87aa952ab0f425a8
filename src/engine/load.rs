//! Load: images from an archive, `docker save`'s or an OCI layout, read once from front to end.
//!
//! Layers may come before the documents that say which image they belong to, and nothing is put aside: each is unpacked
//! into a stage, which makes it a candidate under the diff ID that its bytes have. When the archive is read, and all that
//! its documents say of all images holds, the candidates that an image names are committed, then the images; the other
//! stages are dropped, as all are after an error. A layer whose name in the archive is the diff ID of one that is here is
//! only read through and compared.
//!
//! An OCI layout may list native deltas (`oci::artifact`), its documents before its blobs: each blob is applied as it comes,
//! and the layer that it makes is a candidate like any other. One that cannot be applied is passed over: the layer may be
//! in the archive as well.

use std::io::{self, Read};

use super::Engine;
use super::basis::Basis;
use super::examine::Examined;
use super::payload::Payload;
use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use crate::delta::ReadAt;
use crate::delta::balena::{self, BalenaDelta};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Context, Error, Kind, Result};
use crate::json::MAX_DOCUMENT_BYTES;
use crate::layer::archive::{self, Content, Member};
use crate::layer::{self, Decoder, LayerTar};
use crate::oci::archive::{ArchiveImage, Documents, blob_path, claimed_digest, missing};
use crate::oci::artifact::{self, Format, Offer};
use crate::oci::config::ImageConfig;
use crate::oci::manifest::{Descriptor, Document, Manifest, OCI_MANIFEST};
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::store::{LayerRecord, Stage};
use crate::stream::{Stream, read_at_most};
use crate::strings::Strings;

/// The most links in a row from one layer's path to another's.
const MAX_LINKS: usize = 8;

/// An image that was loaded, and the names that it got.
#[derive(Debug)]
pub struct Loaded {
    /// The image.
    pub image: Digest,
    /// The archive's names for it.
    pub names: Vec<Reference>,
    /// Whether the archive held a delta to an image that was here already.
    pub target_was_here: bool,
}

/// What was read of the archive.
#[derive(Default)]
pub(super) struct Contents {
    documents: Documents,
    /// Diff IDs by path, as text.
    layers: Strings,
    links: Strings,
    candidates: Vec<Candidate>,
    /// The native deltas that the index lists, from when the first blob comes.
    deltas: Option<Vec<(Offer, Manifest)>>,
    /// The basis of the last one that was applied.
    basis: Option<(Digest, Basis)>,
    /// Why the first one was not that could not be. It counts if the layer does not come in another way.
    pub delta_failure: Option<Error>,
    /// What native deltas make is examined, and nothing is kept.
    pub examined: Option<Examined>,
}

/// A layer that is not in the store, unpacked.
struct Candidate {
    diff_id: Digest,
    stage: Stage,
    record: LayerRecord,
}

/// An image of the archive about which everything holds.
struct Prepared<'a> {
    config_bytes: &'a [u8],
    diff_ids: Vec<Digest>,
    delta: Option<BalenaDelta>,
    names: Vec<Reference>,
}

impl Engine {
    /// Loads every image of the archive; of one for several platforms the one for `platform`, or without it, this machine's.
    /// On success they survive a power cut; on failure nothing new is left.
    pub fn load(
        &self,
        archive: &mut dyn Stream,
        platform: Option<&Platform>,
        report: Report,
    ) -> Result<Vec<Loaded>> {
        self.store.collect_or_warn(&[]);
        let work = self.store.work()?;
        let mut committed = Committed(Vec::new());
        let loaded = self.load_all(archive, platform, &mut committed, report);
        drop(work);
        // An archive does not get better when it is tried again.
        let loaded = loaded.map_err(|e| match e.kind() {
            Kind::Unavailable => e.with_kind(Kind::Invalid),
            _ => e,
        });
        self.keep_or_take_back(loaded, &committed)
    }

    fn load_all(
        &self,
        archive: &mut dyn Stream,
        platform: Option<&Platform>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<Vec<Loaded>> {
        let mut contents = Contents::default();
        let mut plain = Decoder::open(Box::new(archive), None)?;
        archive::read(&mut plain, &mut |member, content| {
            self.read_member(member, content, &mut contents, report)
        })?;
        self.find_targets(&mut contents, committed)?;
        let mut candidates = std::mem::take(&mut contents.candidates);
        let images = contents.documents.images(platform, &Engine::platform())?;
        if images.is_empty() {
            return Err(Error::new(Kind::Invalid, "the archive holds no image"));
        }
        let failure = contents.delta_failure.take();
        let prepare = |image| contents.prepare(image, platform);
        let prepared = images.iter().map(prepare).collect::<Result<Vec<Prepared>>>();
        let prepared = prepared.map_err(|e| failure.unwrap_or(e))?;
        let mut load = |image| self.load_image(image, &mut candidates, committed, report);
        prepared.into_iter().map(&mut load).collect()
    }

    /// Keeps a document or a link, unpacks a layer, passes over anything else.
    pub(super) fn read_member(
        &self,
        member: &Member,
        content: &mut dyn Stream,
        contents: &mut Contents,
        report: Report,
    ) -> Result<()> {
        let path = &member.path;
        if let Some(target) = &member.link {
            contents.links.insert(path.clone(), resolve_link(path, target));
            return Ok(());
        }
        let what = || format!("read {path} of the archive");
        let head = archive::head(content).context(what)?;
        match archive::content_of(&head) {
            Content::Document => {
                let limit = MAX_DOCUMENT_BYTES.min(contents.documents.room_bytes()) + 1;
                let mut bytes = head.clone();
                let rest_bytes = limit.saturating_sub(head.len()) as u64;
                read_at_most(content, rest_bytes, &mut bytes).context(what)?;
                // Lists, manifests and configurations are smaller; what is attested about an image may not be.
                if bytes.len() > MAX_DOCUMENT_BYTES {
                    Ok(())
                } else {
                    contents.documents.keep(path, bytes)
                }
            }
            content_type => {
                if let Some((basis, diff_id)) = contents.delta_at(path)? {
                    let mut whole = head.as_slice().chain(content);
                    let delta = Decoder::plain(Box::new(&mut whole), None);
                    let payload = Payload::new(Format::Native, member.size_bytes);
                    let read = self.read_delta(payload, delta, basis, &diff_id, contents, report);
                    return match read {
                        Err(e) if e.kind() != Kind::NoSpace => {
                            contents.delta_failure.get_or_insert(e);
                            Ok(())
                        }
                        result => result,
                    };
                }
                if content_type == Content::Other || contents.examined.is_some() {
                    return Ok(());
                }
                let mut whole = head.as_slice().chain(content);
                let diff_id = self.read_layer(path, &mut whole, contents, report)?;
                contents.layers.insert(path.clone(), diff_id.to_string());
                Ok(())
            }
        }
    }

    /// Applies the native delta of a layer, unless the layer is known.
    fn read_delta(
        &self,
        payload: Payload,
        mut delta: Decoder,
        basis: Digest,
        diff_id: &Digest,
        contents: &mut Contents,
        report: Report,
    ) -> Result<()> {
        let layer = diff_id.short();
        if contents.examined.is_none() && self.is_known(diff_id, contents) {
            report(Event::LayerExists { layer });
            return Ok(());
        }
        let mut basis = match contents.basis.take() {
            Some(opened) if opened.0 == basis => opened,
            _ => (basis, self.open_basis(&basis, report)?),
        };
        if let Some(examined) = &mut contents.examined {
            let of = (basis.0, &mut basis.1 as &mut dyn ReadAt);
            examined.examine(&mut delta, payload.bytes, of, diff_id)?;
            contents.basis = Some(basis);
            return Ok(());
        }
        let (stage, record) =
            self.stage_patched_layer(&payload, &mut delta, &mut basis.1, diff_id)?;
        contents.basis = Some(basis);
        contents.candidates.push(Candidate { diff_id: *diff_id, stage, record });
        report(Event::LayerDone { layer });
        Ok(())
    }

    fn is_known(&self, diff_id: &Digest, contents: &Contents) -> bool {
        self.store.has_layer(diff_id)
            || contents.candidates.iter().any(|candidate| candidate.diff_id == *diff_id)
    }

    /// The layers of the targets of native deltas: the archive names them by their blobs, and has none of these.
    fn find_targets(&self, contents: &mut Contents, committed: &mut Committed) -> Result<()> {
        for (offer, artifact) in contents.deltas.take().unwrap_or_default() {
            let Some((manifest, diff_ids)) = contents.target_of(&offer, &artifact) else {
                continue;
            };
            for (blob, diff_id) in manifest.layers.iter().zip(diff_ids) {
                let path = blob_path(&blob.digest()?);
                let is_here =
                    self.is_known(&diff_id, contents) || self.bring_layer(&diff_id, committed)?;
                if is_here && contents.layers.get(&path).is_none() {
                    contents.layers.insert(path, diff_id.to_string());
                }
            }
        }
        Ok(())
    }

    fn read_layer(
        &self,
        path: &str,
        content: &mut dyn Stream,
        contents: &mut Contents,
        report: Report,
    ) -> Result<Digest> {
        let hinted = claimed_digest(path).filter(|id| self.store.has_layer(id));
        let mut tar = Decoder::open(Box::new(content), None)?;
        if let Some(diff_id) = hinted {
            let mut hashing = HashingWriter::new(io::sink());
            io::copy(&mut tar, &mut hashing)
                .context(|| format!("read layer {path} of the archive"))?;
            if hashing.finish().0 != diff_id {
                let message =
                    format!("layer {path} of the archive has not the digest that its name says");
                return Err(Error::new(Kind::Corrupt, message));
            }
            report(Event::LayerExists { layer: diff_id.short() });
            return Ok(diff_id);
        }
        let stage = self.store.stage()?;
        let unpacked = layer::unpack(&mut tar, stage.directory(), &format!("layer {path}"))?;
        let (diff_id, record) = (unpacked.diff_id, layer_record(&unpacked));
        if !self.is_known(&diff_id, contents) {
            contents.candidates.push(Candidate { diff_id, stage, record });
        }
        report(Event::LayerDone { layer: diff_id.short() });
        Ok(diff_id)
    }

    fn load_image(
        &self,
        image: Prepared,
        candidates: &mut Vec<Candidate>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<Loaded> {
        let is_here = |delta: &BalenaDelta| self.store.has_image(&delta.target_id());
        let target_was_here = image.delta.as_ref().is_some_and(is_here);
        let names: Vec<&Reference> = image.names.iter().collect();
        let id = match &image.delta {
            Some(delta) if target_was_here => {
                let id = delta.target_id();
                names.iter().try_for_each(|name| self.store.set_reference(name, &id))?;
                id
            }
            Some(delta) => {
                self.load_delta(delta, &image.diff_ids, candidates, committed, report)?;
                self.store.commit_image(delta.target_config.as_bytes(), None, &names)?
            }
            None => {
                self.commit_candidates(&image.diff_ids, candidates, committed)?;
                self.store.commit_image(image.config_bytes, None, &names)?
            }
        };
        Ok(Loaded { image: id, names: image.names, target_was_here })
    }

    fn commit_candidates(
        &self,
        diff_ids: &[Digest],
        candidates: &mut Vec<Candidate>,
        committed: &mut Committed,
    ) -> Result<()> {
        for diff_id in diff_ids {
            // Those that are no candidates are in the store.
            let Some(index) = candidates.iter().position(|c| c.diff_id == *diff_id) else {
                continue;
            };
            let Candidate { stage, record, .. } = candidates.swap_remove(index);
            self.store.commit_layer(stage, diff_id, record)?;
            committed.0.push(*diff_id);
        }
        Ok(())
    }

    /// Applies a delta whose layers are candidates: commits the target's layers.
    fn load_delta(
        &self,
        delta: &BalenaDelta,
        delta_layers: &[Digest],
        candidates: &[Candidate],
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let mut basis = self.open_basis(&delta.base, report)?;
        let diff_ids = delta.target()?.diff_ids()?;
        if diff_ids.len() != delta_layers.len() {
            let (have, want) = (delta_layers.len(), diff_ids.len());
            let message =
                format!("delta to {} has {have} layers, its target {want}", delta.target_id());
            return Err(Error::new(Kind::Corrupt, message));
        }
        for (delta_layer, diff_id) in delta_layers.iter().zip(&diff_ids) {
            if self.bring_layer(diff_id, committed)? {
                continue;
            }
            let mut tar = match candidates.iter().find(|c| c.diff_id == *delta_layer) {
                Some(Candidate { stage, .. }) => {
                    LayerTar::open(stage.directory(), &format!("layer {delta_layer}"))?
                }
                None => self.layer_tar(delta_layer)?,
            };
            let payload = Payload::new(Format::Balena, tar.size_bytes());
            let mut tar = Decoder::plain(Box::new(&mut tar), None);
            let (stage, record) =
                self.stage_patched_layer(&payload, &mut tar, &mut basis, diff_id)?;
            self.store.commit_layer(stage, diff_id, record)?;
            committed.0.push(*diff_id);
        }
        Ok(())
    }
}

impl Contents {
    /// Of an archive of which nothing is kept.
    pub(super) fn to_examine() -> Contents {
        Contents { examined: Some(Examined::default()), ..Contents::default() }
    }

    /// The basis of the native delta that is at `path`, and the layer that it makes.
    fn delta_at(&mut self, path: &str) -> Result<Option<(Digest, Digest)>> {
        let Some(blob) = claimed_digest(path) else { return Ok(None) };
        let blob = blob.to_string();
        if self.deltas.is_none() {
            self.deltas = Some(self.documents.deltas()?);
        }
        for (offer, artifact) in self.deltas.as_deref().unwrap_or_default() {
            if let Some(layer) = artifact.layers.iter().find(|layer| layer.digest == blob) {
                return Ok(artifact::layer_of(layer).map(|diff_id| (offer.basis, diff_id)));
            }
        }
        Ok(None)
    }

    /// A delta's target, its manifest and its diff IDs, if the archive has its documents.
    fn target_of(&self, offer: &Offer, artifact: &Manifest) -> Option<(Manifest, Vec<Digest>)> {
        let manifest = blob_path(&artifact.subject.as_ref()?.digest().ok()?);
        let manifest = self.documents.get(&manifest).ok()?;
        let config = self.documents.get(&blob_path(&offer.target)).ok()?;
        let diff_ids = ImageConfig::parse(config, "").ok()?.diff_ids().ok()?;
        match Document::parse(manifest, OCI_MANIFEST, "") {
            Ok(Document::Manifest(manifest)) => Some((manifest, diff_ids)),
            _ => None,
        }
    }

    /// Checks that all of the image is here and belongs together.
    fn prepare<'a>(
        &'a self,
        image: &ArchiveImage,
        platform: Option<&Platform>,
    ) -> Result<Prepared<'a>> {
        let config_bytes = self.documents.get(&image.config)?;
        let what = format!("{} of the archive", image.config);
        let config = ImageConfig::parse(config_bytes, &what)?;
        let layers = image.layers.iter().map(|path| self.layer(path));
        let layers: Vec<Digest> = layers.collect::<Result<_>>()?;
        let diff_ids = config.diff_ids()?;
        if diff_ids != layers {
            let message = format!("{}: the archive's layers have other diff IDs", image.config);
            return Err(Error::new(Kind::Corrupt, message));
        }
        let tags = image.repo_tags.iter().flatten();
        let names: Vec<Reference> =
            tags.map(|tag| Reference::parse_name(tag)).collect::<Result<_>>()?;
        if let (Some(wanted), Some(found)) = (platform, config.platform()) {
            let name = names.first().map_or_else(|| image.config.clone(), Reference::familiar);
            let found = Descriptor { platform: Some(found), ..Default::default() };
            wanted.choose(&[found], &name)?;
        }
        Ok(Prepared { config_bytes, diff_ids, delta: balena::find(&config)?, names })
    }

    fn layer(&self, path: &str) -> Result<Digest> {
        let mut found = path;
        for _ in 0..MAX_LINKS {
            match (self.layers.get(found), self.links.get(found)) {
                (Some(diff_id), _) => return Digest::parse(diff_id),
                (None, Some(target)) => found = target,
                (None, None) => break,
            }
        }
        Err(missing(path))
    }
}

/// Older engines save a layer twice used as a link: `../<id>/layer.tar` beside `<id>/`. A leading slash means the
/// archive's root.
fn resolve_link(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_links_between_layers() {
        assert_eq!(resolve_link("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(resolve_link("a", "../../b"), "b");
        assert_eq!(resolve_link("a/layer.tar", "/b/layer.tar"), "b/layer.tar");
    }

    #[test]
    fn links_in_a_circle_lead_nowhere() {
        let links =
            [("a", "b"), ("b", "a")].map(|(l, t)| (l.into(), t.into())).into_iter().collect();
        let mut contents = Contents { links, ..Contents::default() };
        contents.layers.insert("d".into(), Digest::of(b"").to_string());
        contents.links.insert("c".into(), "d".into());
        assert_eq!(contents.layer("c").unwrap(), Digest::of(b""));
        assert!(contents.layer("a").unwrap_err().to_string().contains("names a, which"));
    }
}
