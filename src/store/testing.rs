//! A small store for the unit tests of this module.

use std::fs;

use super::{LayerRecord, Store};
use crate::digest::Digest;

/// A store with one image of one empty layer, and with a layer that no image has; gives the IDs of image and layer.
pub fn store_with_an_image(name: &str) -> (Store, Digest, Digest) {
    let root = std::env::temp_dir().join(format!("vaquita-store-{}-{name}", std::process::id()));
    let store = Store::open(&root.join("data"), &root.join("run")).unwrap();
    let _work = store.work().unwrap();
    let diff_id = Digest::of(b"layer");
    let record = LayerRecord { version: 0, tar_bytes: 0, file_bytes: 0, file_count: 0 };
    store.commit_layer(store.stage().unwrap(), &diff_id, record.clone()).unwrap();
    store.commit_layer(store.stage().unwrap(), &Digest::of(b"other"), record).unwrap();
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let image = store.commit_image(config.as_bytes(), None, &[]).unwrap();
    (store, image, diff_id)
}

/// Removes the store and its directory.
pub fn clean_up(store: &Store) {
    fs::remove_dir_all(store.data_root().parent().unwrap()).unwrap();
}
