//! Load: images from a `docker save` archive, read once from front to end.
//!
//! Layers come before the manifest that says which image they belong to, so each is unpacked and committed under the
//! diff ID that its bytes have, and what no image refers to in the end is taken back. A layer whose name in the archive
//! is the diff ID of one that is here is only read through and compared.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::Engine;
use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use crate::delta::balena::{self, BalenaDelta};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Context, Error, Kind, Result};
use crate::json;
use crate::layer::{self, archive};
use crate::oci::archive::ArchiveImage;
use crate::oci::config::ImageConfig;
use crate::reference::Reference;

/// The most that all JSON documents of one archive may take, in bytes.
const MAX_DOCUMENTS_BYTES: usize = 16 << 20;

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

/// What was read of the archive so far.
#[derive(Default)]
struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    documents_bytes: usize,
    layers: BTreeMap<String, Digest>,
    links: BTreeMap<String, String>,
}

impl Engine {
    /// Loads every image of the archive. On success they survive a power cut.
    pub fn load(&self, archive: &mut dyn Read, report: Report) -> Result<Vec<Loaded>> {
        self.store.collect_or_warn(&[]);
        let work = self.store.work()?;
        let mut committed = Committed(Vec::new());
        let loaded = self.load_all(archive, &mut committed, report);
        drop(work);
        let loaded = loaded.map_err(|e| e.with_kind(Kind::Invalid));
        let loaded = self.keep_or_take_back(loaded, &committed)?;
        // Layers that no image has (those of deltas) go now; the others have an image that keeps them.
        self.store.collect_or_warn(&committed.0);
        Ok(loaded)
    }

    fn load_all(
        &self,
        archive: &mut dyn Read,
        committed: &mut Committed,
        report: Report,
    ) -> Result<Vec<Loaded>> {
        let mut contents = Contents::default();
        let mut plain = layer::Decoder::open(Box::new(archive), None)?;
        archive::read(&mut plain, &mut |member, content| match &member.link {
            Some(target) => {
                contents.links.insert(member.path.clone(), resolve_link(&member.path, target));
                Ok(())
            }
            None => self.read_member(&member.path, content, &mut contents, committed, report),
        })?;
        let Some(manifest) = contents.documents.get("manifest.json") else {
            let message = "the archive has no manifest.json: it is not one of `save`";
            return Err(Error::new(Kind::Invalid, message));
        };
        let images: Vec<ArchiveImage> = json::parse(manifest, "manifest.json of the archive")?;
        images.iter().map(|image| self.load_image(image, &contents, committed, report)).collect()
    }

    /// Keeps a document, commits a layer, skips an empty file.
    fn read_member(
        &self,
        path: &str,
        content: &mut dyn Read,
        contents: &mut Contents,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let mut first = [0; 1];
        let count = content.read(&mut first).context(|| format!("read {path} of the archive"))?;
        let mut whole = first[..count].chain(content);
        match first {
            _ if count == 0 => Ok(()),
            [b'{' | b'['] => contents.keep_document(path, &mut whole),
            _ if path.ends_with("/VERSION") || path == "VERSION" => Ok(()),
            _ => {
                let diff_id = self.read_layer(path, &mut whole, committed, report)?;
                contents.layers.insert(path.to_string(), diff_id);
                Ok(())
            }
        }
    }

    fn read_layer(
        &self,
        path: &str,
        content: &mut dyn Read,
        committed: &mut Committed,
        report: Report,
    ) -> Result<Digest> {
        let hinted =
            path.split('/').find_map(Digest::from_hex).filter(|id| self.store.has_layer(id));
        let mut tar = layer::Decoder::open(Box::new(content), None)?;
        let what = || format!("read layer {path} of the archive");
        if let Some(diff_id) = hinted {
            let mut hashing = HashingWriter::new(io::sink());
            io::copy(&mut tar, &mut hashing).context(what)?;
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
        let diff_id = unpacked.diff_id;
        if !self.store.has_layer(&diff_id) {
            committed.0.push(diff_id);
        }
        self.store.commit_layer(stage, &diff_id, layer_record(&unpacked))?;
        report(Event::LayerDone { layer: diff_id.short() });
        Ok(diff_id)
    }

    fn load_image(
        &self,
        image: &ArchiveImage,
        contents: &Contents,
        committed: &mut Committed,
        report: Report,
    ) -> Result<Loaded> {
        let config_bytes = contents.document(&image.config)?;
        let config = ImageConfig::parse(config_bytes, &format!("{} of the archive", image.config))?;
        let layers: Vec<Digest> =
            image.layers.iter().map(|path| contents.layer(path)).collect::<Result<_>>()?;
        if config.diff_ids()? != layers {
            let message = format!("{}: the archive's layers have other diff IDs", image.config);
            return Err(Error::new(Kind::Corrupt, message));
        }
        let delta = balena::find(&config)?;
        let target_was_here = delta.as_ref().is_some_and(|d| self.store.has_image(&d.target_id()));
        let id = match &delta {
            Some(delta) => self.load_delta(delta, &layers, committed, report)?,
            None => self.store.commit_image(config_bytes, None)?,
        };
        let mut names = Vec::new();
        for tag in image.repo_tags.iter().flatten() {
            let reference = Reference::parse(tag)?;
            self.store.set_reference(&reference, &id)?;
            names.push(reference);
        }
        Ok(Loaded { image: id, names, target_was_here })
    }

    /// Applies a delta whose layers were just committed as they are, and gives the target's ID.
    fn load_delta(
        &self,
        delta: &BalenaDelta,
        delta_layers: &[Digest],
        committed: &mut Committed,
        report: Report,
    ) -> Result<Digest> {
        if self.store.has_image(&delta.target_id()) {
            return Ok(delta.target_id());
        }
        let mut basis = self.open_delta(delta, report)?;
        let diff_ids = delta.target()?.diff_ids()?;
        if diff_ids.len() != delta_layers.len() {
            let (have, want) = (delta_layers.len(), diff_ids.len());
            let message =
                format!("delta to {} has {have} layers, its target {want}", delta.target_id());
            return Err(Error::new(Kind::Corrupt, message));
        }
        for (delta_layer, diff_id) in delta_layers.iter().zip(&diff_ids) {
            if self.store.has_layer(diff_id) {
                continue;
            }
            let mut tar = self.layer_tar(delta_layer)?;
            self.store_patched_layer(&mut tar, &mut basis, diff_id)?;
            committed.0.push(*diff_id);
        }
        self.store.commit_image(delta.target_config.as_bytes(), None)
    }
}

impl Contents {
    fn keep_document(&mut self, path: &str, content: &mut dyn Read) -> Result<()> {
        let mut bytes = Vec::new();
        let room = MAX_DOCUMENTS_BYTES - self.documents_bytes;
        let mut limited = content.take(room as u64 + 1);
        limited.read_to_end(&mut bytes).context(|| format!("read {path} of the archive"))?;
        if bytes.len() > room {
            let message = format!(
                "the archive's JSON documents exceed {MAX_DOCUMENTS_BYTES} bytes at {path}"
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        self.documents_bytes += bytes.len();
        self.documents.insert(path.to_string(), bytes);
        Ok(())
    }

    fn document(&self, path: &str) -> Result<&[u8]> {
        self.documents.get(path).map(Vec::as_slice).ok_or_else(|| missing(path))
    }

    fn layer(&self, path: &str) -> Result<Digest> {
        let path = self.links.get(path).map_or(path, String::as_str);
        self.layers.get(path).copied().ok_or_else(|| missing(path))
    }
}

fn missing(path: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!("manifest.json of the archive names {path}, which is not in it"),
    )
}

/// Older engines save a layer twice used as a link: `../<id>/layer.tar` beside `<id>/`.
fn resolve_link(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
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
    }
}
