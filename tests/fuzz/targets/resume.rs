//! States of decoders, as a damaged checkpoint may hold them: real ones with bytes changed.
#![no_main]

use std::io::{Read, Write};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vaquita::digest::Digest;
use vaquita::layer::gzip::GzipWriter;
use vaquita::layer::{Decoder, DecoderState};

/// The text in one of three forms, and the encoded state of a place in its middle.
struct Stream {
    blob: Vec<u8>,
    state: Vec<u8>,
}

/// Lines of 10 bytes; `text.zst` is made of the same by `zstd -3 --zstd=wlog=15`.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..30_000_u32)
        .flat_map(|i| {
            format!("{:08x}{}\n", (i % 2000).wrapping_mul(2_654_435_761), i % 7).into_bytes()
        })
        .collect()
});

static STREAMS: LazyLock<Vec<Stream>> = LazyLock::new(|| {
    let mut gzip = Vec::new();
    let mut writer = GzipWriter::new(&mut gzip, 6);
    writer.write_all(&TEXT).unwrap();
    writer.finish().unwrap();
    let zstd = include_bytes!("../text.zst").to_vec();
    [gzip, zstd, TEXT.clone()].map(stream).into()
});

fn stream(blob: Vec<u8>) -> Stream {
    let mut decoder = Decoder::open(Box::new(&blob[..]), Some(Digest::of(&blob))).unwrap();
    let mut chunk = vec![0; 20_000];
    loop {
        assert_ne!(decoder.read(&mut chunk).unwrap(), 0, "no state in the middle");
        if decoder.offset() > 100_000
            && let Some(state) = decoder.state()
        {
            let state = postcard::to_allocvec(&state).unwrap();
            return Stream { state, blob: blob.clone() };
        }
    }
}

fuzz_target!(|edits: &[u8]| {
    let Some((&choice, edits)) = edits.split_first() else { return };
    let stream = &STREAMS[usize::from(choice) % STREAMS.len()];
    let mut state = stream.state.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % state.len();
        state[at] = edit[2];
    }
    let Ok(state) = postcard::from_bytes::<DecoderState>(&state) else { return };
    let need = state.history_bytes() as usize;
    assert!(need <= 8 << 20);
    let history: Vec<u8> = TEXT.iter().cycle().take(need.min(1 << 20)).copied().collect();
    let rest = Box::new(stream.blob.get(state.blob_offset() as usize..).unwrap_or_default());
    let resumed = Decoder::resume(rest, &state, history, Digest::of(&stream.blob));
    let Ok(mut resumed) = resumed else { return };
    let _ = std::io::copy(&mut resumed.by_ref().take(1 << 20), &mut std::io::sink());
    let _ = resumed.state();
});
