//! gzip streams, read through and resumed.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod stream;

fuzz_target!(|bytes: &[u8]| stream::read(b"\x1f\x8b\x08", bytes));
