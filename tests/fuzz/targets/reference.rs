//! References: what is accepted can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaquita::reference::Reference;

fuzz_target!(|text: &str| {
    let Ok(reference) = Reference::parse(text) else { return };
    reference.manifest_key();
    reference.familiar();
    let again = Reference::parse(&reference.to_string());
    assert_eq!(again.ok(), Some(reference), "of {text:?}");
});
