//! Manifests, indexes and image configurations, as a registry may answer them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaquita::oci::config::ImageConfig;
use vaquita::oci::manifest::{Document, OCI_INDEX, OCI_MANIFEST};
use vaquita::oci::platform::Platform;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = ImageConfig::parse(bytes, "config") {
        let _ = config.diff_ids();
        let _ = vaquita::delta::balena::find(&config);
        config.platform();
    }
    for content_type in [OCI_MANIFEST, OCI_INDEX] {
        match Document::parse(bytes, content_type, "document") {
            Ok(Document::Manifest(manifest)) => {
                manifest.layers.iter().for_each(|layer| drop(layer.digest()));
            }
            Ok(Document::Index(entries)) => {
                let _ = Platform::linux("arm", Some("v7")).choose(&entries, "index");
            }
            Err(_) => {}
        }
    }
});
