//! zstd streams, read through and resumed.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod stream;

fuzz_target!(|bytes: &[u8]| stream::read(b"\x28\xb5\x2f\xfd", bytes));
