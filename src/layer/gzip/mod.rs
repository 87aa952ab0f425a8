//! gzip streams (RFC 1952) on miniz_oxide's inflate and deflate cores, with bounded memory.

mod reader;
mod writer;

pub use reader::{FREE_INFLATED_BYTES, GzipReader, GzipState, MAX_INFLATE_RATIO};
pub use writer::{GzipWriter, Gzipped};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::input::Input;
    use std::io::{self, Read, Write};

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = GzipWriter::new(&mut out, 6);
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
        out
    }

    fn read_all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        GzipReader::new(Input::new(Box::new(bytes))).read_to_end(&mut out).map(|_| out)
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
        let mut sum = crate::crc::Crc::new();
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
                format!("compressed stream ends too early at compressed byte {}", last - 1),
            ),
            (good[..5].to_vec(), "compressed stream ends too early at compressed byte 5".into()),
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
    fn goes_on_from_every_block_boundary() {
        let bytes = sample(3, 1_000_000);
        let packed = [gzipped(&bytes), gzipped(b"more")].concat();
        let mut reader = GzipReader::new(Input::new(Box::new(&packed[..])));
        let (mut out, mut chunk, mut resumed) = (Vec::new(), [0; 5000], 0);
        loop {
            let count = reader.read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            out.extend(&chunk[..count]);
            let Some(state) = reader.state() else { continue };
            assert_eq!(state.total_bytes(), out.len() as u64);
            let history = &out[out.len() - state.history_bytes() as usize..];
            let input = Input::new(Box::new(&packed[reader.input().offset() as usize..]));
            let mut rest = Vec::new();
            GzipReader::resume(input, &state, history).read_to_end(&mut rest).unwrap();
            assert!([&out[..], &rest[..]].concat() == [&bytes[..], b"more"].concat());
            resumed += 1;
        }
        assert!(resumed > 5, "{resumed}");
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
        let mut reader = GzipReader::new(Input::new(Box::new(&packed[..])));
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("inflates to more than 256 times its size"), "{error}");
    }
}
