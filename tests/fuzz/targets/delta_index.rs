//! The index of a layer: a blob, of which the first two bytes say how long its head is; as it is, and with a head whose check is
//! right. What a device with nothing, or with the blob itself for a tar, makes of it stays within what the head said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaquita::delta::index::{Have, Layer, Span, apply, bytes_of};
use vaquita::digest::Digest;

fn run(blob: &[u8], head: usize, basis: &[u8]) -> Option<()> {
    let part = |span: &Span| blob.get(span.start as usize..span.end as usize).map(<[u8]>::to_vec);
    let (start, mut have) = (blob.len() - head, Have::default());
    have.add(&mut &*basis, basis.len() as u64, 0).unwrap();
    let mut layer = Layer::read(&blob[start..], blob.len() as u64).ok()?;
    let details = layer.missing_details(&have).ok()?;
    assert!(bytes_of(&details) <= blob.len() as u64);
    layer.take_details(details.iter().map(|span| part(span).unwrap()).collect::<Vec<_>>().concat());
    let pieces = layer.missing_pieces(&have).ok()?;
    assert!(bytes_of(&pieces) <= blob.len() as u64);
    let mut out = Vec::new();
    let mut fetch = |span: Span, buffer: &mut [u8]| {
        buffer.copy_from_slice(&part(&span).unwrap());
        Ok(())
    };
    let applied = apply(&layer, &have, &mut &*basis, &mut fetch, &mut out);
    assert!(out.len() as u64 <= layer.tar_bytes);
    applied.is_ok().then(|| assert_eq!(out.len() as u64, layer.tar_bytes))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, blob)) = bytes.split_first_chunk::<2>() else { return };
    let head = usize::from(u16::from_le_bytes(*size)).min(blob.len());
    run(blob, head, &[]);
    let mut blob = blob.to_vec();
    let start = blob.len() - head;
    if let Some((check, rest)) = blob[start..].get_mut(8..).and_then(|rest| rest.split_at_mut_checked(8)) {
        check.copy_from_slice(&Digest::of(rest).as_bytes()[..8]);
        run(&blob, head, &[]);
        run(&blob, head, &blob.clone());
    }
});
