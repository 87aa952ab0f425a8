//! gzip streams (RFC 1952) on miniz_oxide's inflate and deflate cores, with bounded memory.

mod reader;
mod writer;

use std::io::{self, Read};

use crate::error::{Context, Error, Kind, Result};

pub use reader::{FREE_INFLATED_BYTES, GzipReader, MAX_INFLATE_RATIO};
pub use writer::GzipWriter;

/// The first bytes of the compressions that layers come in, and of those that are told by name.
const MAGICS: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz")];

/// The uncompressed bytes of `reader`, whose first bytes say whether it is gzip or not compressed at all.
///
/// Other compressions are refused by name. What looks like none of them is passed on as it is.
pub fn open_compressed<'a>(mut reader: Box<dyn Read + 'a>) -> Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    reader.by_ref().take(8).read_to_end(&mut head).context(|| "read compressed stream".into())?;
    let found = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name);
    let whole = Box::new(io::Cursor::new(head).chain(reader));
    match found {
        None => Ok(whole),
        Some("gzip") => Ok(Box::new(GzipReader::new(whole))),
        Some(name) => {
            let message = format!("read compressed stream: {name} compression is not supported");
            Err(Error::new(Kind::Unsupported, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = GzipWriter::new(&mut out, 6);
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
        out
    }

    fn read_all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        GzipReader::new(Box::new(bytes)).read_to_end(&mut out).map(|_| out)
    }

    /// Text-like and noise-like stretches from a xorshift generator.
    fn sample(seed: u32, count: usize) -> Vec<u8> {
        let mut state = seed;
        (0..count)
            .map(|i| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                if i / 5000 % 2 == 0 { b'a' + (state % 4) as u8 } else { state as u8 }
            })
            .collect()
    }

    #[test]
    fn reads_what_it_writes_and_several_members() {
        for count in [0, 1, 1000, 32768, 65536, 65537, 1_000_000] {
            let bytes = sample(7, count);
            let packed = gzipped(&bytes);
            assert_eq!(packed, gzipped(&bytes), "not deterministic");
            assert!(read_all(&packed).unwrap() == bytes, "{count} bytes");
            let twice = [&packed[..], &packed[..], &[0; 100]].concat();
            assert!(read_all(&twice).unwrap() == [&bytes[..], &bytes[..]].concat());
        }
    }

    #[test]
    fn reads_every_header_field() {
        let plain = gzipped(b"content");
        let mut fancy =
            b"\x1f\x8b\x08\x1e\x01\x02\x03\x04\x00\x03\x03\x00abcname\0comment\0".to_vec();
        let mut sum = crate::layer::crc::Crc::new();
        sum.update(&fancy);
        fancy.extend((sum.value() as u16).to_le_bytes());
        fancy.extend(&plain[10..]);
        assert_eq!(read_all(&fancy).unwrap(), b"content");
        let at = fancy.len() - plain.len() + 9;
        fancy[at] ^= 1;
        assert!(read_all(&fancy).unwrap_err().to_string().contains("header checksum"));
    }

    #[test]
    fn says_where_bad_input_is_bad() {
        let good = gzipped(&sample(1, 200_000));
        let last = good.len();
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] ^= byte;
            bad
        };
        for (bad, why) in [
            (
                good[..last - 1].to_vec(),
                format!("gzip stream ends too early at compressed byte {}", last - 1),
            ),
            (good[..5].to_vec(), "gzip stream ends too early at compressed byte 5".into()),
            (good[..20_000].to_vec(), "gzip stream ends too early at compressed byte 20000".into()),
            (
                with(last - 1, 1),
                format!("gzip member has the wrong length at compressed byte {last}"),
            ),
            (
                with(last - 8, 1),
                format!("gzip member has the wrong checksum at compressed byte {}", last - 4),
            ),
            (with(2, 1), "unknown gzip compression method 9".into()),
            (with(3, 0x80), "reserved gzip header flags".into()),
            (
                [&good[..], b"garbage"].concat(),
                format!("no gzip header at compressed byte {}", last + 1),
            ),
            (
                b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff".to_vec(),
                "gzip data is damaged near compressed byte".into(),
            ),
        ] {
            let error = read_all(&bad).unwrap_err().to_string();
            assert!(error.contains(&why), "{error:?} lacks {why:?}");
        }
    }

    #[test]
    fn tells_compressions_apart() {
        let packed = gzipped(b"content");
        for (bytes, expected) in [(&packed[..], &b"content"[..]), (b"plain", b"plain"), (b"", b"")]
        {
            let mut out = Vec::new();
            open_compressed(Box::new(bytes)).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, expected);
        }
        for (bytes, why) in
            [(&b"\x28\xb5\x2f\xfd.."[..], "zstd"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz")]
        {
            let error = open_compressed(Box::new(bytes)).err().unwrap();
            assert!(
                error.to_string().contains(why) && error.kind() == Kind::Unsupported,
                "{error}"
            );
        }
    }

    #[test]
    fn refuses_a_bomb() {
        let mut packed = Vec::new();
        let mut writer = GzipWriter::new(&mut packed, 9);
        let zeros = vec![0; 1 << 20];
        for _ in 0..300 {
            writer.write_all(&zeros).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = GzipReader::new(Box::new(&packed[..]));
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("inflates to more than 256 times its size"), "{error}");
    }
}
