//! Frame headers (RFC 8878, section 3.1.1.1).

use std::io;

use serde::{Deserialize, Serialize};

use super::MAX_WINDOW_BYTES;
use crate::error::{Error, Kind};
use crate::layer::input::Input;

/// The first word of a frame.
pub const MAGIC: u32 = 0xfd2f_b528;
/// The first word of a frame to be passed over, but for its lowest four bits (section 3.1.2).
pub const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// The most that a block decodes to, whatever the window.
const MAX_BLOCK_BYTES: u64 = 128 << 10;

const DESCRIPTOR_CHECKSUM: u8 = 1 << 2;
const DESCRIPTOR_RESERVED: u8 = 1 << 3;
const DESCRIPTOR_SINGLE_SEGMENT: u8 = 1 << 5;

/// What a frame says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// How far back matches may reach, as the header says.
    window_bytes: u64,
    /// What the frame decodes to, if it says so.
    pub content_bytes: Option<u64>,
    /// Whether a checksum of the content follows the last block.
    pub has_checksum: bool,
}

impl Frame {
    /// Reads the header behind the magic number.
    pub fn read(input: &mut Input) -> io::Result<Frame> {
        let descriptor = input.byte()?;
        if descriptor & DESCRIPTOR_RESERVED != 0 {
            return Err(input.error("reserved zstd frame header flag at"));
        }
        let single_segment = descriptor & DESCRIPTOR_SINGLE_SEGMENT != 0;
        let mut window_bytes = 0;
        if !single_segment {
            let byte = input.byte()?;
            let base = 1_u64 << (10 + (byte >> 3));
            window_bytes = base + base / 8 * u64::from(byte & 7);
        }
        let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let dictionary = number(input, dictionary_bytes)?;
        if dictionary != 0 {
            return Err(unsupported(input, &format!("zstd frame needs dictionary {dictionary}")));
        }
        let content_bytes = match (descriptor >> 6, single_segment) {
            (0, false) => None,
            (0, true) => Some(number(input, 1)?),
            (1, _) => Some(number(input, 2)? + 256),
            (2, _) => Some(number(input, 4)?),
            (_, _) => Some(number(input, 8)?),
        };
        if single_segment {
            window_bytes = content_bytes.unwrap_or(0);
        }
        let has_checksum = descriptor & DESCRIPTOR_CHECKSUM != 0;
        let frame = Frame { window_bytes, content_bytes, has_checksum };
        if frame.kept_bytes() > MAX_WINDOW_BYTES {
            let what = format!(
                "zstd frame needs a window of {window_bytes} bytes, the limit is {MAX_WINDOW_BYTES}"
            );
            return Err(unsupported(input, &what));
        }
        Ok(frame)
    }

    /// How much of the output has to be kept for matches.
    pub fn kept_bytes(&self) -> u64 {
        self.window_bytes.min(self.content_bytes.unwrap_or(u64::MAX))
    }

    /// The most that one block may hold, and may decode to.
    pub fn block_bytes(&self) -> usize {
        self.window_bytes.min(MAX_BLOCK_BYTES) as usize
    }
}

/// A little-endian number of so many bytes.
fn number(input: &mut Input, bytes: u32) -> io::Result<u64> {
    let mut value = 0;
    for index in 0..bytes {
        value |= u64::from(input.byte()?) << (8 * index);
    }
    Ok(value)
}

fn unsupported(input: &Input, what: &str) -> io::Error {
    let message = format!("{what}, at compressed byte {}", input.offset());
    Error::new(Kind::Unsupported, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Frame, String> {
        Frame::read(&mut Input::new(Box::new(bytes))).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_every_form() {
        for (bytes, window_bytes, content_bytes, has_checksum) in [
            (&[0x00, 0x00][..], 1 << 10, None, false),
            (&[0x04, 0x67], (1 << 19) * 15, None, true),
            (&[0x20, 5], 5, Some(5), false),
            (&[0x60, 1, 1], 513, Some(513), false),
            (&[0x80, 0x70, 1, 2, 3, 0], 1 << 24, Some(0x30201), false),
            (&[0xc0, 0xff, 1, 0, 0, 0, 0, 0, 0, 0], 15 << 38, Some(1), false),
            (&[0x03, 0x50, 0, 0, 0, 0], 1 << 20, None, false),
        ] {
            let frame = Frame { window_bytes, content_bytes, has_checksum };
            assert_eq!(read(bytes), Ok(frame), "{bytes:x?}");
            let short = read(&bytes[..bytes.len() - 1]).unwrap_err();
            assert!(short.contains("ends too early"), "{short}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_serve() {
        for (bytes, expected) in [
            (&[0x08, 0][..], "reserved zstd frame header flag at compressed byte 1"),
            (
                &[0x00, 0x69],
                "zstd frame needs a window of 9437184 bytes, the limit is 8388608, at compressed byte 2",
            ),
            (
                &[0xa0, 1, 0, 128, 0],
                "zstd frame needs a window of 8388609 bytes, the limit is 8388608, at compressed byte 5",
            ),
            (&[0x01, 0, 7], "zstd frame needs dictionary 7, at compressed byte 3"),
        ] {
            assert_eq!(read(bytes).unwrap_err(), expected);
        }
    }
}
