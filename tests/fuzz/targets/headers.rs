//! Header values of a registry's answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| vaquita::registry::read_header(text));
