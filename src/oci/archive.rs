//! What an archive of images says of them: `manifest.json` of an archive that `docker save` makes (Docker image spec
//! v1.2, "Combined Image JSON + Filesystem Changeset Format"), and `index.json` of an OCI layout (image spec,
//! image-layout.md). Docker writes both into one archive since version 25.
//!
//! Both come down to the same: the paths of a configuration and of layers, and names. `manifest.json` is what Docker
//! goes by, so it does here, unless there is a choice between platforms, of which only the index knows.

use std::collections::HashMap;

use miniserde::{Deserialize, Serialize};

use super::artifact::{Format, Offer};
use super::manifest::{
    DOCKER_LIST, Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST, parse_index,
};
use super::platform::Platform;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::json;

/// The most that all JSON documents of one archive may take, in bytes.
pub const MAX_DOCUMENTS_BYTES: usize = 16 << 20;

/// How deep indexes may lie in indexes; real archives have one in another.
const MAX_INDEX_DEPTH: usize = 4;

/// Where an archive's list of images is, Docker's and OCI's.
pub const MANIFEST: &str = "manifest.json";
/// Images of one archive: each is held with its configuration until all are checked.
const MAX_IMAGES: usize = 500;
/// See `MANIFEST`.
pub const INDEX: &str = "index.json";
const WHAT_INDEX: &str = "index.json of the archive";

/// The annotation with a full name (containerd, images/annotations.go).
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with a tag, or with a name (OCI image spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image of the archive; paths are those of its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveImage {
    /// The image's configuration.
    #[serde(rename = "Config")]
    pub config: String,
    /// The names that it was saved by.
    #[serde(rename = "RepoTags")]
    pub repo_tags: Option<Vec<String>>,
    /// The layers, bottom first.
    #[serde(rename = "Layers")]
    pub layers: Vec<String>,
}

/// The name that an entry of `index.json` was saved by; a bare tag is none.
fn name(entry: &Descriptor) -> Option<&str> {
    let reference = || entry.annotation(REF_NAME).filter(|name| name.contains([':', '/']));
    entry.annotation(IMAGE_NAME).or_else(reference)
}

/// Where an OCI layout has the blob of this digest.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest that a member's path claims for its content, `blobs/sha256/HEX`, `HEX.json` and `HEX.tar` or `HEX/layer.tar`
/// being what is written. Of a layer it may be the digest of the compressed or of the plain one.
pub fn claimed_digest(path: &str) -> Option<Digest> {
    let stem = |part: &str| Digest::from_hex(part.split_once('.').map_or(part, |(stem, _)| stem));
    path.split('/').find_map(stem)
}

/// The JSON documents of an archive, by their paths.
#[derive(Default)]
pub struct Documents {
    /// Where in `documents` the last one of a path is. Maps of this type are also used elsewhere: one more is 2 KB of code.
    by_path: HashMap<Vec<u8>, usize>,
    documents: Vec<Vec<u8>>,
    bytes: usize,
}

impl Documents {
    /// How much more may be kept, in bytes.
    pub fn room_bytes(&self) -> usize {
        MAX_DOCUMENTS_BYTES - self.bytes
    }

    /// Keeps a document; refused if there is no room for it, or if it has not the digest that its path claims.
    pub fn keep(&mut self, path: &str, bytes: Vec<u8>) -> Result<()> {
        if bytes.len() > self.room_bytes() {
            let message = format!(
                "the archive's JSON documents exceed {MAX_DOCUMENTS_BYTES} bytes at {path}"
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        // Old layouts have a directory for each layer, with a document that has another digest.
        let is_content = path.starts_with("blobs/") || !path.contains('/');
        if is_content && claimed_digest(path).is_some_and(|claimed| claimed != Digest::of(&bytes)) {
            let message = format!("{path} of the archive has not the digest that its name says");
            return Err(Error::new(Kind::Corrupt, message));
        }
        self.bytes += bytes.len();
        self.by_path.insert(path.into(), self.documents.len());
        self.documents.push(bytes);
        Ok(())
    }

    /// The document at `path`.
    pub fn get(&self, path: &str) -> Result<&[u8]> {
        self.find(path).ok_or_else(|| missing(path))
    }

    fn find(&self, path: &str) -> Option<&[u8]> {
        let number = *self.by_path.get(path.as_bytes())?;
        self.documents.get(number).map(Vec::as_slice)
    }

    /// The images of the archive. Where it offers a choice, the one for `platform`; without one asked for, `machine`'s, or
    /// the only one there is.
    pub fn images(
        &self,
        platform: Option<&Platform>,
        machine: &Platform,
    ) -> Result<Vec<ArchiveImage>> {
        let index = self.find(INDEX);
        let index = index.map(|bytes| parse_index(bytes, WHAT_INDEX)).transpose()?;
        let is_index = |entry: &Descriptor| [OCI_INDEX, DOCKER_LIST].contains(&&*entry.media_type);
        match (self.find(MANIFEST), index) {
            (Some(_), Some(index)) if platform.is_some() || index.iter().any(is_index) => {
                self.images_of(&index, platform, machine)
            }
            (Some(manifest), _) => {
                let images: Vec<ArchiveImage> =
                    json::parse(manifest, "manifest.json of the archive")?;
                if images.len() > MAX_IMAGES {
                    let message = format!(
                        "manifest.json of the archive: {} images, the limit is {MAX_IMAGES}",
                        images.len()
                    );
                    return Err(Error::new(Kind::Invalid, message));
                }
                Ok(images)
            }
            (None, Some(index)) => self.images_of(&index, platform, machine),
            (None, None) => {
                let message = "the archive has neither manifest.json nor index.json: it is not one of `save`, and no OCI layout";
                Err(Error::new(Kind::Invalid, message))
            }
        }
    }

    /// The native deltas that the index lists, and what each offers.
    pub fn deltas(&self) -> Result<Vec<(Offer, Manifest)>> {
        let Some(index) = self.find(INDEX) else { return Ok(Vec::new()) };
        let mut deltas = Vec::new();
        for offer in parse_index(index, WHAT_INDEX)?.iter().filter_map(Offer::read) {
            let path = blob_path(&offer.artifact);
            let is_native = offer.format == Format::Native;
            if let Some(bytes) = self.find(&path).filter(|_| is_native)
                && let Document::Manifest(manifest) = Document::parse(bytes, OCI_MANIFEST, &path)?
            {
                deltas.push((offer, manifest));
            }
        }
        Ok(deltas)
    }

    fn images_of(
        &self,
        index: &[Descriptor],
        platform: Option<&Platform>,
        machine: &Platform,
    ) -> Result<Vec<ArchiveImage>> {
        let mut images: Vec<ArchiveImage> = Vec::new();
        let mut done: Vec<Option<&str>> = Vec::new();
        // What is no image, but refers to one, is not chosen from.
        for entry in index.iter().filter(|entry| entry.artifact_type.is_none()) {
            let name = name(entry);
            // What goes by one name, or by none, and says its platforms is one image to choose from.
            let is_choice = |e: &&Descriptor| self::name(e) == name && e.platform.is_some();
            let alternatives: Vec<Descriptor> = match entry.platform {
                Some(_) if done.contains(&name) => continue,
                Some(_) => index.iter().filter(is_choice).cloned().collect(),
                None => vec![entry.clone()],
            };
            if entry.platform.is_some() {
                done.push(name);
            }
            let what = name.unwrap_or(WHAT_INDEX);
            let manifest = self.choose(alternatives, platform, machine, what, MAX_INDEX_DEPTH)?;
            add_image(&mut images, archive_image(&manifest)?, name);
        }
        Ok(images)
    }

    /// The manifest for the platform among `entries`, indexes among them looked into; those whose blobs are not in the archive
    /// (an engine saves what it has of an index) and attestations are passed over.
    fn choose(
        &self,
        mut entries: Vec<Descriptor>,
        platform: Option<&Platform>,
        machine: &Platform,
        what: &str,
        depth_left: usize,
    ) -> Result<Manifest> {
        let is_image = |e: &Descriptor| {
            let is_here = e.digest().is_ok_and(|d| self.find(&blob_path(&d)).is_some());
            is_here && e.platform.as_ref().is_none_or(|p| p.architecture != "unknown")
        };
        let all = entries.clone();
        entries.retain(is_image);
        let chosen = match (platform, &entries[..], &all[..]) {
            // A single one has its platform checked by its configuration, if one was asked for.
            (_, [only], _) if platform.is_none() || only.platform.is_none() => only,
            (_, [], [missed, ..]) => return Err(missing(&blob_path(&missed.digest()?))),
            _ => platform.unwrap_or(machine).choose(&entries, what)?,
        };
        let path = blob_path(&chosen.digest()?);
        let parsed = Document::parse(self.get(&path)?, &chosen.media_type, &path)?;
        match parsed {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) if depth_left == 0 => {
                let message = format!("{path}: indexes lie more than {MAX_INDEX_DEPTH} deep");
                Err(Error::new(Kind::Invalid, message))
            }
            Document::Index(inner) => self.choose(inner, platform, machine, what, depth_left - 1),
        }
    }
}

fn archive_image(manifest: &Manifest) -> Result<ArchiveImage> {
    let path = |descriptor: &Descriptor| Ok(blob_path(&descriptor.digest()?));
    Ok(ArchiveImage {
        config: path(&manifest.config)?,
        repo_tags: None,
        layers: manifest.layers.iter().map(path).collect::<Result<_>>()?,
    })
}

/// An image with several names has an entry for each.
fn add_image(images: &mut Vec<ArchiveImage>, image: ArchiveImage, name: Option<&str>) {
    let same = |known: &ArchiveImage| known.config == image.config && known.layers == image.layers;
    let index = images.iter().position(same).unwrap_or_else(|| {
        images.push(image);
        images.len() - 1
    });
    if let (Some(known), Some(name)) = (images.get_mut(index), name) {
        known.repo_tags.get_or_insert_default().push(name.to_string());
    }
}

/// The error for what a document names and the archive has not.
pub fn missing(path: &str) -> Error {
    Error::new(Kind::Invalid, format!("the archive names {path}, which is not in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents of an archive under construction.
    struct Archive(Documents);

    impl Archive {
        fn blob(&mut self, text: &str) -> Digest {
            let digest = Digest::of(text.as_bytes());
            self.0.keep(&blob_path(&digest), text.as_bytes().to_vec()).unwrap();
            digest
        }

        /// A manifest of an image; its configuration's digest is that of `name`.
        fn manifest(&mut self, name: &str) -> Digest {
            let config = Digest::of(name.as_bytes());
            self.blob(&format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"","digest":"{config}","size":1}},"layers":[]}}"#
            ))
        }

        fn index(&mut self, entries: &[String]) -> String {
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
        }

        /// The names of `manifest` that are chosen, each with its image's names.
        fn chosen(&self, platform: Option<&str>, names: &[&str]) -> Result<Vec<String>> {
            let platform = platform.map(|text| Platform::parse(text).unwrap());
            let machine = Platform::parse("linux/arm/v7").unwrap();
            let images = self.0.images(platform.as_ref(), &machine)?;
            let text = |image: &ArchiveImage| {
                let is_it = |n: &&&str| image.config == blob_path(&Digest::of(n.as_bytes()));
                let name = names.iter().find(is_it).copied().unwrap_or(&image.config);
                format!("{name}={}", image.repo_tags.clone().unwrap_or_default().join(","))
            };
            Ok(images.iter().map(text).collect())
        }
    }

    fn entry(digest: &Digest, media_type: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1{more}}}"#)
    }

    fn on(platform: &str) -> String {
        let (os, architecture) = platform.split_once('/').unwrap();
        format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
    }

    #[test]
    fn chooses_in_nested_indexes_what_is_there() {
        let mut archive = Archive(Documents::default());
        let (arm, amd) = (archive.manifest("arm"), archive.manifest("amd"));
        let absent = Digest::of(b"absent");
        let entries = [
            entry(&absent, OCI_MANIFEST, &on("linux/arm64")),
            entry(&amd, OCI_MANIFEST, &on("linux/amd64")),
            entry(&arm, OCI_MANIFEST, &on("linux/arm")),
            entry(&amd, OCI_MANIFEST, &on("unknown/unknown")),
        ];
        let inner = archive.index(&entries);
        let inner = archive.blob(&inner);
        let named = format!(r#","annotations":{{"{IMAGE_NAME}":"app:1"}}"#);
        let index = archive.index(&[entry(&inner, OCI_INDEX, &named)]);
        archive.0.keep(INDEX, index.into_bytes()).unwrap();
        let names = ["arm", "amd"];
        assert_eq!(archive.chosen(None, &names).unwrap(), ["arm=app:1"]);
        assert_eq!(archive.chosen(Some("linux/amd64"), &names).unwrap(), ["amd=app:1"]);
        let error = archive.chosen(Some("linux/riscv64"), &names).unwrap_err();
        let expected = "app:1 has no image for linux/riscv64; it has linux/amd64, linux/arm";
        assert_eq!(error.to_string(), expected);
        // Docker's own list does not know of the choice.
        archive.0.keep(MANIFEST, br#"[{"Config":"x","Layers":[]}]"#.to_vec()).unwrap();
        assert_eq!(archive.chosen(None, &names).unwrap(), ["arm=app:1"]);
    }

    #[test]
    fn takes_every_image_of_a_flat_index() {
        let mut archive = Archive(Documents::default());
        let (one, two) = (archive.manifest("one"), archive.manifest("two"));
        let named = |key: &str, name: &str| format!(r#","annotations":{{"{key}":"{name}"}}"#);
        let index = archive.index(&[
            entry(&one, OCI_MANIFEST, &named(REF_NAME, "app:1")),
            entry(&two, OCI_MANIFEST, &named(REF_NAME, "latest")),
            entry(&one, OCI_MANIFEST, &named(IMAGE_NAME, "app:2")),
        ]);
        archive.0.keep(INDEX, index.into_bytes()).unwrap();
        let names = ["one", "two"];
        assert_eq!(archive.chosen(None, &names).unwrap(), ["one=app:1,app:2", "two="]);
        // Where both lists say the same, Docker's is taken.
        archive.0.keep(MANIFEST, br#"[{"Config":"x","Layers":["y"]}]"#.to_vec()).unwrap();
        assert_eq!(archive.chosen(None, &names).unwrap(), ["x="]);
    }

    #[test]
    fn chooses_in_a_flat_index_of_platforms() {
        let mut archive = Archive(Documents::default());
        let (arm, amd) = (archive.manifest("arm"), archive.manifest("amd"));
        let index = archive.index(&[
            entry(&amd, OCI_MANIFEST, &on("linux/amd64")),
            entry(&arm, OCI_MANIFEST, &on("linux/arm")),
        ]);
        archive.0.keep(INDEX, index.into_bytes()).unwrap();
        assert_eq!(archive.chosen(None, &["arm", "amd"]).unwrap(), ["arm="]);
        assert_eq!(archive.chosen(Some("amd64"), &["arm", "amd"]).unwrap(), ["amd="]);
    }

    #[test]
    fn refuses_what_is_no_archive_of_images() {
        let documents = Documents::default();
        let machine = Platform::linux("arm64", None);
        let error = documents.images(None, &machine).unwrap_err();
        assert!(error.to_string().contains("neither manifest.json nor index.json"), "{error}");

        let mut archive = Archive(Documents::default());
        let mut digest = archive.manifest("deep");
        for _ in 0..=MAX_INDEX_DEPTH {
            let text = archive.index(&[entry(&digest, OCI_INDEX, "")]);
            digest = archive.blob(&text);
        }
        let index = archive.index(&[entry(&digest, OCI_INDEX, "")]);
        archive.0.keep(INDEX, index.into_bytes()).unwrap();
        let error = archive.chosen(None, &[]).unwrap_err();
        assert!(error.to_string().ends_with("indexes lie more than 4 deep"), "{error}");

        let absent = Digest::of(b"absent");
        let index = archive.index(&[entry(&absent, OCI_MANIFEST, "")]);
        archive.0.keep(INDEX, index.into_bytes()).unwrap();
        let error = archive.chosen(None, &[]).unwrap_err();
        assert_eq!(error.to_string(), missing(&blob_path(&absent)).to_string());
    }

    #[test]
    fn checks_digests_that_paths_claim_and_has_a_limit() {
        let mut documents = Documents::default();
        let wrong = Digest::of(b"other").hex();
        for path in [format!("blobs/sha256/{wrong}"), format!("{wrong}.json")] {
            let error = documents.keep(&path, b"{}".to_vec()).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{path}");
        }
        documents.keep(&format!("{wrong}/json"), b"{}".to_vec()).unwrap();
        let error = documents.keep("x", vec![b' '; MAX_DOCUMENTS_BYTES - 1]).unwrap_err();
        assert!(error.to_string().contains("exceed 16777216 bytes at x"), "{error}");
    }
}
