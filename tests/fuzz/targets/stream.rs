//! A compressed stream of any kind, and the promise that a resumed one goes on as if it had never stopped.

use std::io::Read;

use vaquita::digest::Digest;
use vaquita::layer::{Decoder, DecoderState};

/// Where looking on would find nothing new.
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// Reads `magic` and `bytes`, and again from a place that the first byte chooses.
pub fn read(magic: &[u8], bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let bytes = [magic, bytes].concat();
    let digest = Digest::of(&bytes);
    let Ok(mut decoder) = Decoder::open(Box::new(&bytes[..]), Some(digest)) else { return };
    let mut places: Vec<DecoderState> = Vec::new();
    let (mut out, mut chunk) = (Vec::new(), vec![0; 40_000]);
    let ended = loop {
        match decoder.read(&mut chunk) {
            Ok(0) => break true,
            Ok(_) if out.len() > MAX_OUTPUT_BYTES => return,
            Ok(count) => out.extend(&chunk[..count]),
            Err(_) => break false,
        }
        places.extend(decoder.state());
    };
    if places.is_empty() {
        return;
    }
    let state = &places[usize::from(choice) % places.len()];
    let made = state.tar_offset() as usize;
    let history = out[made - state.history_bytes() as usize..made].to_vec();
    let rest = Box::new(&bytes[state.blob_offset() as usize..]);
    let mut resumed = Decoder::resume(rest, state, history, digest).expect("a state of its own");
    let mut again = Vec::new();
    assert_eq!(resumed.read_to_end(&mut again).is_ok(), ended);
    let out = &out[made..];
    // What an error keeps from being handed out depends on where buffers end.
    let count = if ended { out.len().max(again.len()) } else { out.len().min(again.len()) };
    assert!(out.get(..count).is_some() && out.get(..count) == again.get(..count));
}
