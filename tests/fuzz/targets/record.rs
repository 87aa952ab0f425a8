//! Header records: the file as it is, and as the part of one that a checkpoint speaks of.
#![no_main]

use std::fs::{self, File};

use libfuzzer_sys::fuzz_target;
use vaquita::layer::record::{RecordReader, RecordState};

mod scratch;

fn walk(record: &RecordReader) {
    let (mut offset, mut frames) = (0, 0);
    while let Ok(frame) = record.frame(offset) {
        let mut at = 0;
        while let Ok(Some((_, next))) = frame.item(at) {
            assert!(next > at);
            at = next;
        }
        frames += 1;
        if frames > 100 {
            return;
        }
        offset = offset.saturating_add(1 << 16);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let scratch = scratch::Scratch::new();
    let path = scratch.0.join("record");
    let Some((&split, bytes)) = bytes.split_first() else { return };
    let (state, file) = bytes.split_at((usize::from(split) * 4).min(bytes.len()));
    fs::write(&path, file).unwrap();
    if let Ok(record) = RecordReader::open(File::open(&path).unwrap(), "x") {
        walk(&record);
    }
    if let Ok(state) = postcard::from_bytes::<RecordState>(state)
        && let Ok(record) = RecordReader::partial(File::open(&path).unwrap(), &state, "x")
    {
        walk(&record);
    }
});
