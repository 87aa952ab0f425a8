//! A native delta, and the basis that it is applied to: a byte says how long that is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaquita::delta::native::apply;

mod bounded;

fuzz_target!(|bytes: &[u8]| {
    let Some((&blocks, rest)) = bytes.split_first() else { return };
    let (mut basis, mut delta) = rest.split_at(rest.len().min(usize::from(blocks) * 256));
    let _ = apply(&mut delta, &mut basis, &mut bounded::Bounded::new());
});
