//! `manifest.json` of an archive that `docker save` makes (Docker image spec v1.2, "Combined Image JSON + Filesystem
//! Changeset Format").

use miniserde::{Deserialize, Serialize};

/// One image of the archive; paths are those of its members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArchiveImage {
    /// The image's configuration.
    #[serde(rename = "Config")]
    pub config: String,
    /// The names that it was saved by.
    #[serde(rename = "RepoTags")]
    pub repo_tags: Option<Vec<String>>,
    /// The uncompressed layers, bottom first.
    #[serde(rename = "Layers")]
    pub layers: Vec<String>,
}
