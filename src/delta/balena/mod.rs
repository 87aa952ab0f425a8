//! balenaEngine's delta images: ordinary images whose layers are deltas and whose labels say from what to what.
//!
//! A delta image has as many layers as its target. A layer that target and base share, with all that lies below it, is
//! the empty tar; any other is a tar whose one member, `delta`, makes the target's uncompressed layer tar from the
//! concatenation of the base's (see `super::rsync`). Two labels in the image's configuration carry the rest: the ID of
//! the base, and the target's configuration as it is, byte for byte; so the result has the target's image ID and is
//! verified by the target's diff IDs. The formats are balenaEngine's (20.10.17 to 20.10.44), which documents none of
//! them; what is here was held against a delta image made by it.

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::oci::config::ImageConfig;

pub mod config;
pub mod layer;

/// The label with the image ID of the base.
pub const LABEL_BASE: &str = "io.resin.delta.base";
/// The label with the target's configuration.
pub const LABEL_CONFIG: &str = "io.resin.delta.config";

/// What the labels of a delta image say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalenaDelta {
    /// The image ID of the base.
    pub base: Digest,
    /// The target's configuration, byte for byte.
    pub target_config: String,
}

impl BalenaDelta {
    /// The image ID of the target: the digest of its configuration.
    pub fn target_id(&self) -> Digest {
        Digest::of(self.target_config.as_bytes())
    }

    /// The target's configuration, read.
    pub fn target(&self) -> Result<ImageConfig> {
        ImageConfig::parse(self.target_config.as_bytes(), &format!("label {LABEL_CONFIG}"))
    }
}

/// Says whether an image is a delta, by the labels of its configuration. `Some` means that both labels are well-formed
/// and that the image has a layer for each layer of its target; `Kind::Invalid` names the label that is not.
pub fn find(config: &ImageConfig) -> Result<Option<BalenaDelta>> {
    let (base, target_config) = match (config.label(LABEL_BASE), config.label(LABEL_CONFIG)) {
        (None, None) => return Ok(None),
        (Some(base), Some(target_config)) => (base, target_config),
        (Some(_), None) => return Err(lacks(LABEL_BASE, LABEL_CONFIG)),
        (None, Some(_)) => return Err(lacks(LABEL_CONFIG, LABEL_BASE)),
    };
    let base = Digest::parse(base).map_err(|cause| {
        Error::new(Kind::Invalid, format!("label {LABEL_BASE}")).caused_by(cause)
    })?;
    let delta = BalenaDelta { base, target_config: target_config.into() };
    let (has, needs) = (config.rootfs.diff_ids.len(), delta.target()?.rootfs.diff_ids.len());
    if has != needs {
        let message = format!("delta image has {has} layers, its target {needs}");
        return Err(Error::new(Kind::Invalid, message));
    }
    Ok(Some(delta))
}

fn lacks(has: &str, needs: &str) -> Error {
    Error::new(Kind::Invalid, format!("image has the label {has}, but not {needs}"))
}

/// How many layers, from the bottom, target and base share: those whose chain IDs are equal, which is to say all of
/// their diff IDs up to there. Only these are empty tars in a delta; the same layer higher up is not shared.
pub fn count_shared_layers(base: &[Digest], target: &[Digest]) -> usize {
    base.iter().zip(target).take_while(|(old, new)| old == new).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "sha256:b1876c36d55c7bc0da7ba6a62764a01eb230d7e12713d4ae07d175f383c04d8a";
    const TARGET: &str = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#;

    fn image(labels: &[(&str, &str)], layers: usize) -> ImageConfig {
        let text = r#"{"config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let mut image = ImageConfig::parse(text.as_bytes(), "x").unwrap();
        image.rootfs.diff_ids = vec![String::new(); layers];
        let labels = labels.iter().map(|&(name, value)| (name.into(), value.into()));
        image.config.as_mut().unwrap().labels = Some(labels.collect());
        image
    }

    #[test]
    fn finds_deltas_by_their_labels() {
        assert_eq!(find(&image(&[("a", "b")], 1)).unwrap(), None);
        let delta =
            find(&image(&[(LABEL_BASE, BASE), (LABEL_CONFIG, TARGET)], 1)).unwrap().unwrap();
        assert_eq!(delta.base.to_string(), BASE);
        assert_eq!(delta.target_config, TARGET);
        assert_eq!(delta.target_id(), Digest::of(TARGET.as_bytes()));
    }

    #[test]
    fn refuses_malformed_labels_by_name() {
        for (labels, why) in [
            (
                &[(LABEL_BASE, BASE)][..],
                "image has the label io.resin.delta.base, but not io.resin.delta.config",
            ),
            (
                &[(LABEL_CONFIG, TARGET)],
                "image has the label io.resin.delta.config, but not io.resin.delta.base",
            ),
            (
                &[(LABEL_BASE, "b187"), (LABEL_CONFIG, TARGET)],
                "label io.resin.delta.base: digest \"b187\" has no algorithm",
            ),
            (
                &[(LABEL_BASE, BASE), (LABEL_CONFIG, "{")],
                "parse label io.resin.delta.config: not valid JSON",
            ),
            (
                &[(LABEL_BASE, BASE), (LABEL_CONFIG, r#"{"delta.bin":1}"#)],
                "parse label io.resin.delta.config: a field is missing or has the wrong type",
            ),
        ] {
            let error = find(&image(labels, 1)).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, why));
        }
        let error = find(&image(&[(LABEL_BASE, BASE), (LABEL_CONFIG, TARGET)], 2)).unwrap_err();
        assert_eq!(error.to_string(), "delta image has 2 layers, its target 1");
    }

    #[test]
    fn shares_layers_from_the_bottom_only() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        for (base, target, shared) in [
            (&[][..], &[a][..], 0),
            (&[a, b], &[a, b, c], 2),
            (&[a, b, c], &[a, b], 2),
            (&[a, b, c], &[a, c], 1),
            (&[a, b, c], &[b, b, c], 0),
        ] {
            assert_eq!(count_shared_layers(base, target), shared);
        }
    }
}
