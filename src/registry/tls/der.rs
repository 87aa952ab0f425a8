//! The little of DER (X.690) that keys are written in.

/// The type of an element: a sequence of others.
pub(super) const SEQUENCE: u8 = 0x30;
/// An integer.
pub(super) const INTEGER: u8 = 0x02;
/// Bytes.
pub(super) const OCTET_STRING: u8 = 0x04;

/// The content of the element of type `tag` that `der` starts with, and what follows it (X.690, section 10.1).
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        0x81..=0x82 => {
            let (bytes, der) = der.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), der)
        }
        _ => return None,
    };
    (found == tag).then(|| der.split_at_checked(length))?
}

/// The digits of the integer, not negative, that `der` starts with, without the zero that only says so; and what follows.
pub(super) fn positive(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, rest) = element(der, INTEGER)?;
    match digits {
        [0, digits @ ..] => Some((digits, rest)),
        [first, ..] if *first < 0x80 => Some((digits, rest)),
        _ => None,
    }
}
