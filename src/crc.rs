//! CRC-32 as gzip uses it (RFC 1952, section 8), eight bytes a step; the header record is guarded by it too.
//!
//! The 8 KiB of tables are computed when a checksum is begun: that takes some microseconds, and the binary does not
//! carry them.

/// A running CRC-32.
pub struct Crc {
    tables: Box<[[u32; 256]; 8]>,
    state: u32,
}

/// The generator polynomial, bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;

impl Crc {
    /// The checksum of no bytes.
    #[allow(clippy::new_without_default)] // a default checksum says less than a new one
    pub fn new() -> Crc {
        let mut tables = Box::new([[0_u32; 256]; 8]);
        for byte in 0..256_usize {
            tables[0][byte] = (0..8).fold(byte as u32, |value, _| {
                if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 }
            });
        }
        for step in 1..8 {
            for byte in 0..256 {
                let before = tables[step - 1][byte];
                tables[step][byte] = before >> 8 ^ tables[0][(before & 255) as usize];
            }
        }
        Crc { tables, state: !0 }
    }

    /// Goes on from the checksum `value` of the bytes before.
    pub fn resumed(value: u32) -> Crc {
        Crc { state: !value, ..Crc::new() }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let tables = &*self.tables;
        let at = |table: usize, value: u32| tables[table][(value & 255) as usize];
        let mut state = self.state;
        let (eights, rest) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in eights {
            let low = state ^ u32::from_le_bytes([a, b, c, d]);
            let high = u32::from_le_bytes([e, f, g, h]);
            state = at(7, low) ^ at(6, low >> 8) ^ at(5, low >> 16) ^ at(4, low >> 24);
            state ^= at(3, high) ^ at(2, high >> 8) ^ at(1, high >> 16) ^ at(0, high >> 24);
        }
        for &byte in rest {
            state = state >> 8 ^ at(0, state ^ u32::from(byte));
        }
        self.state = state;
    }

    /// The checksum of what was taken in.
    pub fn value(&self) -> u32 {
        !self.state
    }

    /// Begins again, with the tables kept.
    pub fn restart(&mut self) {
        self.state = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_check_values() {
        let mut crc = Crc::new();
        for (text, value) in [
            (&b"123456789"[..], 0xcbf4_3926),
            (b"", 0),
            (b"The quick brown fox jumps over the lazy dog", 0x414f_a339),
        ] {
            crc.restart();
            crc.update(&text[..text.len() / 3]);
            crc.update(&text[text.len() / 3..]);
            assert_eq!(crc.value(), value);
        }
    }
}
