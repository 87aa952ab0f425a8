//! Base64 (RFC 4648): how credentials travel in headers and lie in files. Pure text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// In the alphabet of section 4, padded.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = (group >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { ALPHABET[digit].into() } else { '=' });
        }
    }
    text
}

/// From either alphabet (sections 4 and 5), padded or not; `None` if it is neither.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let (mut bytes, mut group, mut bits) = (Vec::new(), 0_u32, 0);
    if text.len() % 4 == 1 {
        return None;
    }
    for byte in text.bytes() {
        let byte = match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        group = group << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_decodes_as_rfc_4648_section_10() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
            ("\u{3fb}\u{ff}", "z7vDvw=="),
            ("\u{3fb}\u{3fb}~~", "z7vPu35+"),
        ] {
            assert_eq!(encode(text.as_bytes()), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(text.as_bytes()), "{encoded}");
            let for_urls = encoded.replace('+', "-").replace('/', "_");
            let bare = for_urls.trim_end_matches('=');
            assert_eq!(decode(bare).as_deref(), Some(text.as_bytes()), "{bare}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["Z", "Zm9vY", "Zm 9", "Zm9v\n", "Zg==Zg==", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
