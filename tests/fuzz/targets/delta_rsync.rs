//! A delta in librsync's format, as in balena's delta images, and the basis that it is applied to: a byte says how long that is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaquita::delta::rsync::patch;

mod bounded;

fuzz_target!(|bytes: &[u8]| {
    let Some((&blocks, rest)) = bytes.split_first() else { return };
    let (mut basis, mut delta) = rest.split_at(rest.len().min(usize::from(blocks) * 256));
    let _ = patch(&mut basis, &mut delta, &mut bounded::Bounded::new());
});
