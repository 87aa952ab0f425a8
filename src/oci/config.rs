//! Image configurations (OCI image spec, config.md; Docker's `Image` v1.2 has the same fields and a few more).
//!
//! The raw bytes of a configuration are what an image ID is the digest of, so they are stored as they came and never
//! written again from these types.

use miniserde::{Deserialize, Serialize};

use super::manifest::MAX_LAYERS;
use super::platform::Platform;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::strings::Strings;

/// An image configuration, as far as the engine acts on it.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct ImageConfig {
    pub created: Option<String>,
    pub author: Option<String>,
    pub architecture: Option<String>,
    pub variant: Option<String>,
    pub os: Option<String>,
    pub config: Option<Execution>,
    pub rootfs: RootFs,
    pub history: Option<Vec<History>>,
}

/// What a container of the image starts with. Kept in Docker's spelling: `inspect` prints it as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Execution {
    #[serde(rename = "User")]
    pub user: Option<String>,
    #[serde(rename = "ExposedPorts")]
    pub exposed_ports: Option<Set>,
    #[serde(rename = "Env")]
    pub env: Option<Vec<String>>,
    #[serde(rename = "Entrypoint")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(rename = "Cmd")]
    pub cmd: Option<Vec<String>>,
    #[serde(rename = "Volumes")]
    pub volumes: Option<Set>,
    #[serde(rename = "WorkingDir")]
    pub working_dir: Option<String>,
    #[serde(rename = "Labels")]
    pub labels: Option<Strings>,
    #[serde(rename = "StopSignal")]
    pub stop_signal: Option<String>,
}

/// Names whose values, `{}` each, say nothing: how Go spells a set.
pub type Set = miniserde::json::Object;

/// The layers, bottom first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<String>,
}

/// How one step of the build came about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct History {
    pub created: Option<String>,
    pub created_by: Option<String>,
    pub comment: Option<String>,
    pub empty_layer: Option<bool>,
}

impl ImageConfig {
    /// Parses the raw bytes of a configuration; `what` names it in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<ImageConfig> {
        let config: ImageConfig = json::parse(bytes, what)?;
        if config.rootfs.diff_ids.len() > MAX_LAYERS {
            let count = config.rootfs.diff_ids.len();
            let message = format!("{what}: {count} layers, the limit is {MAX_LAYERS}");
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(config)
    }

    /// The digests of the uncompressed layers, bottom first.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        self.rootfs.diff_ids.iter().map(|text| Digest::parse(text)).collect()
    }

    /// The platform, where the configuration says one (balenaEngine's deltas do not).
    pub fn platform(&self) -> Option<Platform> {
        let os = self.os.as_deref().filter(|os| !os.is_empty())?;
        let architecture = self.architecture.as_deref().filter(|arch| !arch.is_empty())?;
        let variant = self.variant.clone().filter(|variant| !variant.is_empty());
        Some(Platform { os: os.into(), architecture: architecture.into(), variant })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nulls_and_missing_fields() {
        let text = r#"{"config":{"Env":null,"Labels":{"a":"b"},"Volumes":{"/v":{}}},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"empty_layer":true}]}"#;
        let config = ImageConfig::parse(text.as_bytes(), "x").unwrap();
        assert_eq!(config.label("a"), Some("b"));
        assert_eq!(config.platform(), None);
        assert!(config.diff_ids().unwrap().is_empty());
    }
}
