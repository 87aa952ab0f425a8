//! Tars as layers: whatever they hold, nothing is made outside the stage, and what was accepted can be given back.
#![no_main]

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;
use vaquita::layer::{LayerTar, unpack};

mod scratch;

fuzz_target!(|tar: &[u8]| {
    let scratch = scratch::Scratch::new();
    let stage = scratch.stage();
    let unpacked = unpack(&mut &*tar, stage.as_fd(), "x");
    let names: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["stage"]);
    if unpacked.is_ok() {
        let mut again = Vec::new();
        let mut layer = LayerTar::open(stage.as_fd(), "x").expect("a layer that was unpacked");
        layer.read_to_end(&mut again).expect("a layer that was unpacked");
        assert!(again == tar, "it is given back differently");
    }
});
