//! Manifests and image indexes, both Docker's (schema 2, list v2) and OCI's: the same fields under other media types.

use miniserde::Deserialize;

use super::platform::Platform;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::strings::Strings;

/// Docker's single-platform manifest (distribution, "Image Manifest V 2, Schema 2").
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// OCI image manifest (image spec, manifest.md).
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index (image spec, image-index.md).
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// OCI image configuration (image spec, config.md).
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's gzip-compressed layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// OCI's gzip-compressed layer (image spec, layer.md).
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The most layers accepted in one image; overlayfs itself takes 500 lower directories.
pub const MAX_LAYERS: usize = 500;
/// The most entries accepted in one index.
pub const MAX_INDEX_ENTRIES: usize = 10_000;

/// Names a blob (OCI image spec, descriptor.md).
#[derive(Clone, Debug, Default, Deserialize)]
#[allow(missing_docs)] // the spec's field names say it
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(rename = "artifactType")]
    pub artifact_type: Option<String>,
    pub annotations: Option<Annotations>,
}

/// What is said of a blob or a manifest beside what it is (OCI image spec, annotations.md).
pub type Annotations = Strings;

/// Annotations with these values.
pub fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    let mut annotations = Annotations::new();
    for (key, value) in pairs {
        annotations.insert(key.to_string(), value.to_string());
    }
    annotations
}

impl Descriptor {
    /// Of a blob of which nothing more is to be said.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        let (media_type, digest) = (media_type.to_string(), digest.to_string());
        Descriptor { media_type, digest, size, ..Default::default() }
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The digest, checked.
    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
    }
}

/// A single-platform manifest.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Manifest {
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    #[serde(rename = "mediaType")]
    pub media_type: Option<String>,
    #[serde(rename = "artifactType")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    pub subject: Option<Descriptor>,
}

/// The document of a manifest of `media_type`: the same bytes for the same blobs. `more` is fields behind them, a comma
/// before each.
pub fn write(media_type: &str, config: &Descriptor, layers: &[Descriptor], more: &str) -> String {
    let layers: Vec<String> = layers.iter().map(write_descriptor).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":{},"config":{},"layers":[{}]{more}}}"#,
        json::quote_as_go(media_type),
        write_descriptor(config),
        layers.join(",")
    )
}

/// A descriptor without its platform.
pub fn write_descriptor(blob: &Descriptor) -> String {
    let Descriptor { media_type, digest, size, .. } = blob;
    let (media_type, digest) = (json::quote_as_go(media_type), json::quote_as_go(digest));
    let mut text = format!(r#"{{"mediaType":{media_type},"size":{size},"digest":{digest}"#);
    if let Some(artifact_type) = &blob.artifact_type {
        text.push_str(&format!(r#","artifactType":{}"#, json::quote_as_go(artifact_type)));
    }
    if let Some(annotations) = &blob.annotations {
        text.push_str(&format!(r#","annotations":{}"#, json::to_string(annotations)));
    }
    text.push('}');
    text
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// Tells what a manifest document is.
#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
}

/// What a reference resolved to.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a few in a run, and never many at a time
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// One image for each of several platforms.
    Index(Vec<Descriptor>),
}

impl Document {
    /// Parses a manifest or an index. `content_type` is what the registry answered and decides only where the document
    /// itself does not say what it is; `what` names it in errors.
    pub fn parse(bytes: &[u8], content_type: &str, what: &str) -> Result<Document> {
        let probe: Probe = json::parse(bytes, what)?;
        if probe.schema_version != Some(2) {
            let version = probe.schema_version.map_or("no".to_string(), |v| v.to_string());
            let message = format!("{what}: schema version {version} is not supported, only 2");
            return Err(Error::new(Kind::Unsupported, message));
        }
        match probe.media_type.as_deref().unwrap_or(content_type) {
            DOCKER_MANIFEST | OCI_MANIFEST => parse_manifest(bytes, what).map(Document::Manifest),
            DOCKER_LIST | OCI_INDEX => parse_index(bytes, what).map(Document::Index),
            other => {
                let message = format!(
                    "{what}: media type {other:?} is neither an image manifest nor an index"
                );
                Err(Error::new(Kind::Unsupported, message))
            }
        }
    }
}

fn parse_manifest(bytes: &[u8], what: &str) -> Result<Manifest> {
    let manifest: Manifest = json::parse(bytes, what)?;
    if manifest.layers.len() > MAX_LAYERS {
        let message =
            format!("{what}: {} layers, the limit is {MAX_LAYERS}", manifest.layers.len());
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(manifest)
}

/// Parses an index, whatever it says it is: that of a layout need not say.
pub fn parse_index(bytes: &[u8], what: &str) -> Result<Vec<Descriptor>> {
    let index: Index = json::parse(bytes, what)?;
    if index.manifests.len() > MAX_INDEX_ENTRIES {
        let count = index.manifests.len();
        let message = format!("{what}: {count} entries, the limit is {MAX_INDEX_ENTRIES}");
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(index.manifests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(extra: &str) -> String {
        let descriptor = format!(r#"{{"mediaType":"m","digest":"{}","size":1}}"#, Digest::of(b""));
        format!(r#"{{"schemaVersion":2,{extra}"config":{descriptor},"layers":[{descriptor}]}}"#)
    }

    #[test]
    fn takes_the_type_from_the_document_first() {
        let named = manifest(&format!(r#""mediaType":"{OCI_MANIFEST}","#));
        for (text, content_type) in
            [(named.as_str(), "text/plain"), (&manifest(""), DOCKER_MANIFEST)]
        {
            let Ok(Document::Manifest(m)) = Document::parse(text.as_bytes(), content_type, "x")
            else {
                panic!("not a manifest: {text}")
            };
            assert_eq!(m.layers[0].digest().unwrap(), Digest::of(b""));
        }
    }

    #[test]
    fn writes_what_it_parses() {
        let blob = |media_type: &str, bytes: &[u8]| {
            Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
        };
        let (config, layer) = (blob(OCI_CONFIG, b"{}"), blob("application/x.\"<>+zstd", b"layer"));
        let text = write(OCI_MANIFEST, &config, &[layer.clone(), config.clone()], "");
        let Ok(Document::Manifest(read)) = Document::parse(text.as_bytes(), "", "x") else {
            panic!("not a manifest: {text}")
        };
        assert_eq!(read.media_type.as_deref(), Some(OCI_MANIFEST));
        assert_eq!((read.config.digest, read.config.size), (config.digest, 2));
        assert_eq!(read.layers.len(), 2);
        assert_eq!(read.layers[0].media_type, layer.media_type);
    }

    #[test]
    fn refuses_what_is_no_image() {
        let text = r#"{"schemaVersion":1,"name":"x"}"#;
        let error = Document::parse(text.as_bytes(), OCI_MANIFEST, "manifest of x").unwrap_err();
        assert_eq!(error.to_string(), "manifest of x: schema version 1 is not supported, only 2");
        let error = Document::parse(manifest("").as_bytes(), "text/html", "x").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        let entry = r#"{"mediaType":"","digest":"","size":0}"#;
        let many =
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; 10_001].join(","));
        let error = Document::parse(many.as_bytes(), OCI_INDEX, "x").unwrap_err();
        assert_eq!(error.to_string(), "x: 10001 entries, the limit is 10000");
    }
}
