//! Deltas as OCI artifacts (image spec 1.1, manifest.md, "Guidelines for Artifact Usage").
//!
//! A delta lies in the repository of its target, the image that it makes, and has the target's manifest for its subject: a
//! registry that is asked for the target tells of the delta. It is a manifest:
//!
//! ```text
//! mediaType     application/vnd.oci.image.manifest.v1+json
//! artifactType  application/vnd.vaquita.delta.v1
//! subject       the target's own manifest, never an index
//! config        native, index: `{}`, as application/vnd.oci.empty.v1+json; balena: the delta image's
//! layers        native: for each of the target's layers that the basis has nowhere, once, a blob of media type
//!               application/vnd.vaquita.delta.v1 with the annotation vnd.vaquita.delta.layer, the layer's diff ID; where
//!               there is no such layer, the `{}` again. balena: the delta image's, one for each layer of the target
//!               index: a blob for each layer of the target, once, with that annotation and vnd.vaquita.delta.head, the length of
//!               its head in decimal
//! annotations   vnd.vaquita.delta.version  1: what is written here
//!               vnd.vaquita.delta.format   native, balena or index
//!               vnd.vaquita.delta.basis    image ID of the basis: what must be here to use the delta; of an index, which needs none,
//!                                          the target's
//!               vnd.vaquita.delta.target   image ID of the target: what comes of it
//!               vnd.vaquita.delta.bytes    what its layers weigh together, in decimal
//! ```
//!
//! The annotations stand in lists of referrers as well, whether a registry keeps them or a pusher does, so that a delta is
//! chosen without a look at any. What is in a balena delta image: `crate::delta::balena`; it can be pulled by name, too.

use miniserde::json::{Array, Number, Object, Value};

use super::manifest::{self, Descriptor, OCI_INDEX, OCI_MANIFEST, annotations, parse_index};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::json;

/// The type of a delta, whatever its format, and of a blob of a native one.
pub const DELTA_TYPE: &str = "application/vnd.vaquita.delta.v1";
/// The type of `EMPTY` (image spec, manifest.md, "Guidance for an Empty Descriptor").
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// What stands where a manifest needs a blob and has nothing to say.
pub const EMPTY: &[u8] = b"{}";

const VERSION: &str = "1";
const KEY_VERSION: &str = "vnd.vaquita.delta.version";
const KEY_FORMAT: &str = "vnd.vaquita.delta.format";
const KEY_BASIS: &str = "vnd.vaquita.delta.basis";
const KEY_TARGET: &str = "vnd.vaquita.delta.target";
const KEY_BYTES: &str = "vnd.vaquita.delta.bytes";
const KEY_LAYER: &str = "vnd.vaquita.delta.layer";
const KEY_HEAD: &str = "vnd.vaquita.delta.head";

/// How the bytes of a delta are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// This engine's own.
    Native,
    /// balenaEngine's delta image.
    Balena,
    /// No delta from one image, but what a device that has any can fetch of the target by Range.
    Index,
}

impl Format {
    /// The format of this name.
    pub fn parse(name: &str) -> Option<Format> {
        [Format::Native, Format::Balena, Format::Index]
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// As people and annotations have it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::Balena => "balena",
            Format::Index => "index",
        }
    }
}

/// A delta, as a list of referrers tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The digest of the delta's manifest.
    pub artifact: Digest,
    /// How its blobs are to be read.
    pub format: Format,
    /// The image that it needs.
    pub basis: Digest,
    /// The image that it makes.
    pub target: Digest,
    /// What its blobs weigh together.
    pub bytes: u64,
}

impl Offer {
    /// What `entry` offers; `None` if it is no delta, or one that this engine does not know how to read.
    pub fn read(entry: &Descriptor) -> Option<Offer> {
        let digest = |key| Digest::parse(entry.annotation(key)?).ok();
        let is_delta = entry.artifact_type.as_deref() == Some(DELTA_TYPE)
            && entry.annotation(KEY_VERSION) == Some(VERSION);
        Some(Offer {
            artifact: entry.digest().ok().filter(|_| is_delta)?,
            format: Format::parse(entry.annotation(KEY_FORMAT)?)?,
            basis: digest(KEY_BASIS)?,
            target: digest(KEY_TARGET)?,
            bytes: entry.annotation(KEY_BYTES)?.parse().ok()?,
        })
    }
}

/// The native delta of one layer.
pub fn delta_blob(diff_id: &Digest, digest: Digest, size_bytes: u64) -> Descriptor {
    let annotations = annotations(&[(KEY_LAYER, &diff_id.to_string())]);
    let blob = Descriptor::new(DELTA_TYPE, digest, size_bytes);
    Descriptor { annotations: Some(annotations), ..blob }
}

/// The index of one layer, which ends in a head of `head_bytes`.
pub fn index_blob(
    diff_id: &Digest,
    digest: Digest,
    size_bytes: u64,
    head_bytes: u64,
) -> Descriptor {
    let (layer, head) = (diff_id.to_string(), head_bytes.to_string());
    let annotations = annotations(&[(KEY_LAYER, &layer), (KEY_HEAD, &head)]);
    let blob = Descriptor::new(DELTA_TYPE, digest, size_bytes);
    Descriptor { annotations: Some(annotations), ..blob }
}

/// The length of an index's head; `None` if that is more than the index.
pub fn head_of(blob: &Descriptor) -> Option<u64> {
    blob.annotation(KEY_HEAD)?.parse().ok().filter(|&bytes| bytes <= blob.size)
}

/// The layer that a blob of a native delta or an index makes.
pub fn layer_of(blob: &Descriptor) -> Option<Digest> {
    Digest::parse(blob.annotation(KEY_LAYER)?).ok()
}

/// `EMPTY` as a blob.
pub fn empty_blob() -> Descriptor {
    Descriptor::new(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64)
}

/// The document of a delta, and what a list of referrers says of it. `offer` says all but the digest, which it gets here.
pub fn write(
    offer: &mut Offer,
    subject: &Descriptor,
    config: &Descriptor,
    layers: &[Descriptor],
) -> (String, Descriptor) {
    offer.bytes = layers.iter().map(|layer| layer.size).sum();
    let empty = empty_blob();
    let layers = if layers.is_empty() { std::slice::from_ref(&empty) } else { layers };
    let annotations = annotations(&[
        (KEY_VERSION, VERSION),
        (KEY_FORMAT, offer.format.name()),
        (KEY_BASIS, &offer.basis.to_string()),
        (KEY_TARGET, &offer.target.to_string()),
        (KEY_BYTES, &offer.bytes.to_string()),
    ]);
    let more = format!(
        r#","subject":{},"artifactType":"{DELTA_TYPE}","annotations":{}"#,
        manifest::write_descriptor(subject),
        json::to_string(&annotations)
    );
    let document = manifest::write(OCI_MANIFEST, config, layers, &more);
    offer.artifact = Digest::of(document.as_bytes());
    let entry = Descriptor {
        artifact_type: Some(DELTA_TYPE.into()),
        annotations: Some(annotations),
        ..Descriptor::new(OCI_MANIFEST, offer.artifact, document.len() as u64)
    };
    (document, entry)
}

/// A list of referrers, an index, with one more; `None` if it names that already. What others wrote stays as it is; a delta
/// of the same format from the same basis gives way. `what` names the list in errors.
pub fn list_with(list: Option<&[u8]>, entry: &Descriptor, what: &str) -> Result<Option<String>> {
    let new = json::object(vec![
        ("schemaVersion", Value::Number(Number::U64(2))),
        ("mediaType", json::text(OCI_INDEX)),
        ("manifests", Value::Array(Array::new())),
    ]);
    let mut index: Object = list.map_or(Ok(new), |bytes| json::parse(bytes, what))?;
    let known = list.map_or(Ok(Vec::new()), |bytes| parse_index(bytes, what))?;
    if known.iter().any(|other| other.digest == entry.digest) {
        return Ok(None);
    }
    let Some(Value::Array(entries)) = index.get_mut("manifests") else {
        return Err(Error::new(Kind::Invalid, format!("{what}: it has no list of manifests")));
    };
    let kind = |entry: &Descriptor| Offer::read(entry).map(|offer| (offer.format, offer.basis));
    let gives_way = |other: &Descriptor| kind(other).is_some() && kind(other) == kind(entry);
    let mut stays = known.iter().map(|other| !gives_way(other));
    entries.retain(|_| stays.next().unwrap_or(true));
    entries.push(json::parse(manifest::write_descriptor(entry).as_bytes(), what)?);
    Ok(Some(json::to_string(&index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::manifest::{Document, Manifest};

    fn offer(basis: &[u8], format: Format) -> Offer {
        let (basis, target) = (Digest::of(basis), Digest::of(b"target"));
        Offer { artifact: Digest::of(b""), format, basis, target, bytes: 0 }
    }

    fn written(basis: &[u8], format: Format, layers: &[Descriptor]) -> (String, Descriptor, Offer) {
        let subject = Descriptor::new(OCI_MANIFEST, Digest::of(b"manifest"), 8);
        let mut offer = offer(basis, format);
        let (document, entry) = write(&mut offer, &subject, &empty_blob(), layers);
        (document, entry, offer)
    }

    fn parsed(document: &str) -> Manifest {
        match Document::parse(document.as_bytes(), "", "x") {
            Ok(Document::Manifest(manifest)) => manifest,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn writes_a_delta() {
        let blob = delta_blob(&Digest::of(b"layer"), Digest::of(b"delta"), 5);
        let (document, entry, offer) = written(b"basis", Format::Native, &[blob]);
        let [basis, target, layer, delta, subject, empty] =
            [&b"basis"[..], b"target", b"layer", b"delta", b"manifest", b"{}"].map(Digest::of);
        let expected = format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""config":{{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"{empty}"}},"#,
                r#""layers":[{{"mediaType":"application/vnd.vaquita.delta.v1","size":5,"digest":"{delta}","#,
                r#""annotations":{{"vnd.vaquita.delta.layer":"{layer}"}}}}],"#,
                r#""subject":{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":8,"#,
                r#""digest":"{subject}"}},"artifactType":"application/vnd.vaquita.delta.v1","#,
                r#""annotations":{{"vnd.vaquita.delta.basis":"{basis}","vnd.vaquita.delta.bytes":"5","#,
                r#""vnd.vaquita.delta.format":"native","vnd.vaquita.delta.target":"{target}","#,
                r#""vnd.vaquita.delta.version":"1"}}}}"#
            ),
            empty = empty,
            delta = delta,
            layer = layer,
            subject = subject,
            basis = basis,
            target = target
        );
        assert_eq!(document, expected);
        assert_eq!(Offer::read(&entry), Some(offer));
        let manifest = parsed(&document);
        assert_eq!(manifest.artifact_type.as_deref(), Some(DELTA_TYPE));
        assert_eq!(manifest.subject.unwrap().digest().unwrap(), subject);
        assert_eq!(layer_of(&manifest.layers[0]), Some(layer));
    }

    #[test]
    fn an_image_of_known_layers_still_has_a_delta() {
        let (document, entry, offer) = written(b"basis", Format::Native, &[]);
        assert_eq!((parsed(&document).layers.len(), offer.bytes), (1, 0));
        assert_eq!(Offer::read(&entry), Some(offer));
    }

    #[test]
    fn passes_over_what_is_no_delta_that_it_knows() {
        let (_, entry, _) = written(b"basis", Format::Balena, &[]);
        for (key, value) in [
            (KEY_VERSION, "2"),
            (KEY_FORMAT, "xdelta"),
            (KEY_BASIS, "b187"),
            (KEY_TARGET, ""),
            (KEY_BYTES, "-1"),
            (KEY_BYTES, "99999999999999999999"),
        ] {
            let mut other = entry.clone();
            other.annotations.as_mut().unwrap().insert(key.into(), value.into());
            assert_eq!(Offer::read(&other), None, "{key} {value}");
            let others = entry.annotations.as_ref().unwrap().iter().filter(|pair| pair.0 != key);
            other.annotations =
                Some(others.map(|(key, value)| (key.into(), value.into())).collect());
            assert_eq!(Offer::read(&other), None, "no {key}");
        }
        let signature = Descriptor { artifact_type: Some("x".into()), ..entry.clone() };
        assert_eq!(Offer::read(&signature), None);
        assert_eq!(Offer::read(&Descriptor { annotations: None, ..entry }), None);
    }

    #[test]
    fn adds_to_a_list_what_it_lacks() {
        let (_, first, _) = written(b"basis", Format::Native, &[]);
        let list = list_with(None, &first, "x").unwrap().unwrap();
        assert_eq!(list_with(Some(list.as_bytes()), &first, "x").unwrap(), None);

        let theirs = r#"{"mediaType":"m","digest":"d","size":1,"data":"e30=","x":{"y":[1,-2]}}"#;
        let list = list.replace("[{", &format!("[{theirs},{{"));
        let blob = delta_blob(&Digest::of(b"layer"), Digest::of(b"delta"), 5);
        let (_, newer, _) = written(b"basis", Format::Native, &[blob]);
        let (_, balena, _) = written(b"basis", Format::Balena, &[]);
        let (_, other, _) = written(b"other", Format::Native, &[]);
        let mut list = list;
        for entry in [&newer, &balena, &other] {
            list = list_with(Some(list.as_bytes()), entry, "x").unwrap().unwrap();
        }
        assert!(
            list.contains(r#""data":"e30=""#) && list.contains(r#""x":{"y":[1,-2]}"#),
            "{list}"
        );
        let Ok(Document::Index(entries)) = Document::parse(list.as_bytes(), "", "x") else {
            panic!("no index: {list}")
        };
        let digests: Vec<&str> = entries.iter().map(|entry| entry.digest.as_str()).collect();
        assert_eq!(digests, ["d", &newer.digest, &balena.digest, &other.digest]);
        assert_eq!(Offer::read(&entries[1]), Offer::read(&newer));
    }

    #[test]
    fn a_list_that_it_cannot_read_stays() {
        let (_, entry, _) = written(b"basis", Format::Native, &[]);
        for list in ["", "[]", "{}", r#"{"manifests":{}}"#, r#"{"manifests":[{}]}"#] {
            let error = list_with(Some(list.as_bytes()), &entry, "list x").unwrap_err();
            assert!(error.to_string().starts_with("parse list x: "), "{list}: {error}");
        }
    }
}
