//! What our own compressor made of a layer: so that a second push asks a registry for it instead of compressing again.
//!
//! It lies beside the layer as `blob.json` and goes with it. It is a hint: an engine whose compressor makes other bytes
//! replaces it, and one that cannot be read is as good as none.

use miniserde::{Deserialize, Serialize};

use super::{Store, record};
use crate::digest::Digest;
use crate::error::Result;

const NAME: &str = "blob.json";

#[derive(Serialize, Deserialize)]
struct BlobRecord {
    version: u32,
    digest: String,
    size_bytes: u64,
}

impl Store {
    /// The digest and the size in bytes that the layer had when it was last compressed here.
    pub fn layer_blob(&self, diff_id: &Digest) -> Option<(Digest, u64)> {
        let found = record::read::<BlobRecord>(&self.layer_path(diff_id).join(NAME));
        let found = found.unwrap_or_else(|e| {
            log::warn!("{e}");
            None
        })?;
        Some((Digest::parse(&found.digest).ok()?, found.size_bytes))
    }

    /// Remembers what the layer was compressed to; on success that survives a power cut.
    pub fn set_layer_blob(&self, diff_id: &Digest, blob: &Digest, size_bytes: u64) -> Result<()> {
        let _publish = self.publish()?;
        let new = BlobRecord { version: record::VERSION, digest: blob.to_string(), size_bytes };
        record::write(&self.layer_path(diff_id), NAME, &new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{clean_up, store_with_an_image};
    use super::*;

    #[test]
    fn remembers_what_can_be_read() {
        let (store, _, layer) = store_with_an_image("blob");
        assert_eq!(store.layer_blob(&layer), None);
        for size_bytes in [1, u64::MAX] {
            store.set_layer_blob(&layer, &Digest::of(b"blob"), size_bytes).unwrap();
            assert_eq!(store.layer_blob(&layer), Some((Digest::of(b"blob"), size_bytes)));
        }
        for damaged in ["", "{", r#"{"version":2,"digest":"x","size_bytes":1}"#] {
            std::fs::write(store.layer_path(&layer).join(NAME), damaged).unwrap();
            assert_eq!(store.layer_blob(&layer), None);
        }
        clean_up(&store);
    }
}
