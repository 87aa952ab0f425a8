//! Records of the store: any file in the place of each.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use vaquita::store::Store;

mod scratch;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let scratch = scratch::Scratch::new();
    let data = scratch.0.join("data");
    let (directory, name) = match choice % 6 {
        0 => (format!("images/{ID}"), "config.json"),
        1 => (format!("images/{ID}"), "manifest.json"),
        2 => (format!("layers/{ID}"), "layer.json"),
        3 => ("references".to_string(), ID),
        4 => (format!("containers/{ID}"), "container.json"),
        _ => (format!("containers/{ID}"), "state.json"),
    };
    for name in ["layers", "images", "references", "containers", "stages", "quarantine"] {
        fs::create_dir_all(data.join(name)).unwrap();
    }
    fs::write(data.join("version"), "vaquita-store 1\n").unwrap();
    fs::create_dir_all(data.join(&directory)).unwrap();
    fs::write(data.join(&directory).join(name), bytes).unwrap();
    let store = Store::open(&data, &scratch.0.join("run")).unwrap();
    let _ = store.check();
    let _ = store.images();
    let _ = store.references();
    let _ = store.containers();
    let _ = store.find_image("01234567");
    let _ = store.collect(&[]);
});
