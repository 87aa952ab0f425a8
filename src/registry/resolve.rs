//! From a reference to the manifest of one image for one platform, and small blobs whole.

use super::client::{Client, Question};
use super::failure;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::json::MAX_DOCUMENT_BYTES;
use crate::oci::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST,
};
use crate::oci::platform::Platform;
use crate::reference::Reference;

/// What a reference means on one platform.
#[derive(Debug)]
pub struct Resolved {
    /// The image's manifest.
    pub manifest: Manifest,
    /// The bytes that `manifest_digest` is the digest of.
    pub manifest_bytes: Vec<u8>,
    /// What the reference points at, an index or a manifest: what Docker shows in `RepoDigests`.
    pub digest: Digest,
    /// The digest of the image's own manifest; equal to `digest` where there is no index.
    pub manifest_digest: Digest,
}

/// A document and what it came as.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    content_type: String,
    digest: Digest,
}

impl Client {
    /// Asks the registry what `reference` is and, if it is an index, for the manifest that suits `platform` best.
    /// On success both documents have the digests that the reference, the registry and the index claim.
    ///
    /// `Kind::NotFound`: no such manifest, or none for the platform; `Corrupt`: a digest differs; `Unauthorized`,
    /// `Unavailable`: as the registry says.
    pub fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved> {
        let what = format!("manifest of {}", reference.familiar());
        let top = self.document(reference, &what)?;
        let entries = match Document::parse(&top.bytes, &top.content_type, &what)? {
            Document::Manifest(manifest) => return Ok(resolved(manifest, top.digest, top)),
            Document::Index(entries) => entries,
        };
        let entry = platform.choose(&entries, &format!("index of {}", reference.familiar()))?;
        let fetched = self.document(&reference.at(entry.digest()?), &what)?;
        match Document::parse(&fetched.bytes, &entry.media_type, &what)? {
            Document::Manifest(manifest) => Ok(resolved(manifest, top.digest, fetched)),
            Document::Index(_) => {
                let message = format!("{what}: an index within an index is not supported");
                Err(Error::new(Kind::Unsupported, message))
            }
        }
    }

    /// The whole of a blob of at most 4 MiB, such as a configuration; its bytes have its digest.
    pub fn small_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<Vec<u8>> {
        let digest = blob.digest()?;
        let doing = format!("get blob {digest} of {}", reference.familiar_name());
        if blob.size > MAX_DOCUMENT_BYTES as u64 {
            let message =
                format!("{doing}: {} bytes, the limit is {MAX_DOCUMENT_BYTES}", blob.size);
            return Err(Error::new(Kind::Invalid, message));
        }
        let path = format!("blobs/{digest}");
        let question = Question::get(reference, path, Vec::new(), doing.clone());
        self.persist(Some(digest), &mut |retry| {
            let answer = self.ask_once(&question, retry)?;
            let bytes = failure::read_limited(answer, MAX_DOCUMENT_BYTES as u64, &doing)?;
            check_digest(&bytes, digest, &doing, "is asked for")?;
            Ok(bytes)
        })
    }

    /// A manifest or index, verified against the reference's digest and the one the registry states.
    pub(super) fn document(&self, reference: &Reference, what: &str) -> Result<Fetched> {
        let accept = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let doing = format!("get {what}");
        let path = format!("manifests/{}", reference.manifest_key());
        let headers = vec![("accept", accept)];
        let question = Question::get(reference, path, headers, doing.clone());
        self.persist(None, &mut |retry| {
            let answer = self.ask_once(&question, retry)?;
            let content_type = answer.header("content-type").unwrap_or_default();
            let content_type =
                content_type.split(';').next().unwrap_or_default().trim().to_string();
            if content_type == "text/html" {
                let message =
                    format!("{doing}: {} answers with a web page: no registry", answer.origin);
                return Err(Error::new(Kind::Invalid, message));
            }
            // The registry may use another algorithm for its own statement, which then says nothing here.
            let stated = answer.header("docker-content-digest").map(Digest::parse);
            let bytes = failure::read_limited(answer, MAX_DOCUMENT_BYTES as u64, &doing)?;
            if let Some(wanted) = reference.digest() {
                check_digest(&bytes, wanted, &doing, "is asked for")?;
            }
            if let Some(Ok(stated)) = stated {
                check_digest(&bytes, stated, &doing, "the registry states")?;
            }
            let digest = Digest::of(&bytes);
            Ok(Fetched { bytes, content_type, digest })
        })
    }
}

fn resolved(manifest: Manifest, digest: Digest, fetched: Fetched) -> Resolved {
    let (manifest_bytes, manifest_digest) = (fetched.bytes, fetched.digest);
    Resolved { manifest, manifest_bytes, digest, manifest_digest }
}

fn check_digest(bytes: &[u8], wanted: Digest, doing: &str, whose: &str) -> Result<()> {
    let found = Digest::of(bytes);
    if found == wanted {
        return Ok(());
    }
    let message = format!("{doing}: its digest is {found}, {wanted} {whose}");
    Err(Error::new(Kind::Corrupt, message))
}
