//! A layer's blob as its uncompressed tar, verified, with states from which another process can go on.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::gzip::{GzipReader, GzipState};
use super::input::Input;
use super::room::Room;
use super::zstd::{self, ZstdReader, ZstdState};
use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Kind, Result};
use crate::stream::{Stream, read_at_most};

/// The first bytes of the compressions that layers come in, and of those that are told by name.
const MAGICS: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz")];

/// The uncompressed bytes of a stream that is gzip, zstd, or not compressed at all.
///
/// With a digest to expect, the end is an error unless the compressed bytes have it: whoever reads to the end has read
/// what was asked for.
pub struct Decoder<'a> {
    form: Form<'a>,
    expected: Option<Digest>,
    /// Uncompressed bytes handed out, all of them since the start of the stream.
    offset: u64,
}

enum Form<'a> {
    Plain(Input<'a>),
    Gzip(GzipReader<'a>),
    Zstd(Box<ZstdReader<'a>>),
}

/// Where a stream can be taken up again.
#[derive(Clone, Serialize, Deserialize)]
pub struct DecoderState {
    blob_offset: u64,
    hasher: Vec<u8>,
    tar_offset: u64,
    form: FormState,
}

#[derive(Clone, Serialize, Deserialize)]
enum FormState {
    Plain,
    Gzip(GzipState),
    Zstd(Box<ZstdState>),
}

impl DecoderState {
    /// The offset in the compressed stream at which to go on.
    pub fn blob_offset(&self) -> u64 {
        self.blob_offset
    }

    /// The offset in the uncompressed stream.
    pub fn tar_offset(&self) -> u64 {
        self.tar_offset
    }

    /// The same place in a stream that is not the tar but makes it, and has made so many bytes.
    pub fn having_made(self, tar_offset: u64) -> DecoderState {
        DecoderState { tar_offset, ..self }
    }

    /// How much memory the window takes that is needed to go on; what all decoders need is not counted.
    pub fn window_bytes(&self) -> u64 {
        match &self.form {
            FormState::Zstd(state) => state.window_bytes(),
            FormState::Plain | FormState::Gzip(_) => 0,
        }
    }

    /// How many of the last uncompressed bytes are needed to go on.
    pub fn history_bytes(&self) -> u64 {
        match &self.form {
            FormState::Plain => 0,
            FormState::Gzip(state) => state.history_bytes().min(self.tar_offset),
            FormState::Zstd(state) => state.history_bytes().min(self.tar_offset),
        }
    }
}

fn input<'a>(reader: Box<dyn Stream + 'a>, is_verified: bool) -> Input<'a> {
    match is_verified {
        true => Input::hashed(reader, 0, Hasher::new()),
        false => Input::new(reader),
    }
}

impl<'a> Decoder<'a> {
    /// Finds out by the first bytes of `reader` what it is. Compressions that are not supported are refused by name;
    /// what looks like none is passed on as it is.
    pub fn open(mut reader: Box<dyn Stream + 'a>, expected: Option<Digest>) -> Result<Decoder<'a>> {
        let mut head = Vec::new();
        read_at_most(&mut *reader, 8, &mut head).context(|| "read compressed stream".into())?;
        let found = match zstd::begins_with_skippable(&head) {
            true => Some("zstd"),
            false => {
                MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
            }
        };
        let whole = Box::new(io::Cursor::new(head).chain(reader));
        let input = input(whole, expected.is_some());
        let form = match found {
            None => Form::Plain(input),
            Some("gzip") => Form::Gzip(GzipReader::new(input)),
            Some("zstd") => Form::Zstd(Box::new(ZstdReader::new(input))),
            Some(name) => {
                let message =
                    format!("read compressed stream: {name} compression is not supported");
                return Err(Error::new(Kind::Unsupported, message));
            }
        };
        Ok(Decoder { form, expected, offset: 0 })
    }

    /// What is not compressed, whatever it looks like.
    pub fn plain(reader: Box<dyn Stream + 'a>, expected: Option<Digest>) -> Decoder<'a> {
        let form = Form::Plain(input(reader, expected.is_some()));
        Decoder { form, expected, offset: 0 }
    }

    /// Goes on where another decoder gave `state`: `reader` gives the compressed bytes from `blob_offset` on, and
    /// `history` is the end of what was decoded, `history_bytes` of it.
    pub fn resume(
        reader: Box<dyn Stream + 'a>,
        state: &DecoderState,
        history: Vec<u8>,
        expected: Digest,
    ) -> Result<Decoder<'a>> {
        let broken = || Error::new(Kind::Corrupt, "the state of a hash is damaged");
        let hasher = Hasher::from_state(&state.hasher).ok_or_else(broken)?;
        let input = Input::hashed(reader, state.blob_offset, hasher);
        let form = match &state.form {
            FormState::Plain => Form::Plain(input),
            FormState::Gzip(gzip) => Form::Gzip(GzipReader::resume(input, gzip, &history)),
            FormState::Zstd(zstd) => {
                Form::Zstd(Box::new(ZstdReader::resume(input, zstd, history)?))
            }
        };
        Ok(Decoder { form, expected: Some(expected), offset: state.tar_offset })
    }

    /// The same, with windows that are taken from `room`. That of a frame which is under way has been taken.
    pub fn within(mut self, room: Room<'a>) -> Decoder<'a> {
        if let Form::Zstd(reader) = &mut self.form {
            reader.set_room(room);
        }
        self
    }

    /// Where this stream can be taken up again, if it can be just here.
    pub fn state(&mut self) -> Option<DecoderState> {
        let form = match &mut self.form {
            Form::Plain(_) => FormState::Plain,
            Form::Gzip(reader) => FormState::Gzip(reader.state()?),
            Form::Zstd(reader) => FormState::Zstd(Box::new(reader.state()?)),
        };
        let tar_offset = self.offset;
        let input = self.input();
        let blob_offset = input.offset();
        Some(DecoderState { blob_offset, hasher: input.hasher()?.state(), tar_offset, form })
    }

    /// Uncompressed bytes handed out since the start of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Compressed bytes taken in since the start of the stream.
    pub fn blob_offset(&mut self) -> u64 {
        self.input().offset()
    }

    fn input(&mut self) -> &mut Input<'a> {
        match &mut self.form {
            Form::Plain(input) => input,
            Form::Gzip(reader) => reader.input(),
            Form::Zstd(reader) => reader.input(),
        }
    }

    fn verify(&mut self) -> io::Result<()> {
        let Some(expected) = self.expected else { return Ok(()) };
        let found = self.input().hasher().map(|hasher| hasher.clone().finish());
        if found == Some(expected) {
            return Ok(());
        }
        let found = found.map(|digest| digest.to_string()).unwrap_or_default();
        let message = format!("content of {expected} has the digest {found}");
        Err(Error::new(Kind::Corrupt, message).into())
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.form {
            Form::Gzip(reader) => reader.read(buffer)?,
            Form::Zstd(reader) => reader.read(buffer)?,
            Form::Plain(input) => {
                input.fill()?;
                let count = input.unread().len().min(buffer.len());
                buffer[..count].copy_from_slice(&input.unread()[..count]);
                input.consume(count);
                count
            }
        };
        self.offset += count as u64;
        if count == 0 && !buffer.is_empty() {
            self.verify()?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gzip::GzipWriter;
    use super::*;
    use std::io::Write;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = GzipWriter::new(&mut out, 6);
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap();
        out
    }

    #[test]
    fn tells_compressions_apart() {
        let packed = gzipped(b"content");
        // One raw block, behind a frame to be skipped or not.
        let zstd = b"\x28\xb5\x2f\xfd\x20\x07\x39\0\0content";
        let chunked = [b"\x5f\x2a\x4d\x18\x01\0\0\0x", &zstd[..]].concat();
        for (bytes, expected) in [
            (&packed[..], &b"content"[..]),
            (zstd, b"content"),
            (&chunked, b"content"),
            (b"plain", b"plain"),
            (b"", b""),
        ] {
            let mut out = Vec::new();
            Decoder::open(Box::new(bytes), None).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, expected);
        }
        for (bytes, why) in [(&b"BZh9"[..], "bzip2"), (b"\xfd7zXZ\0", "xz")] {
            let error = Decoder::open(Box::new(bytes), None).err().unwrap();
            assert!(
                error.to_string().contains(why) && error.kind() == Kind::Unsupported,
                "{error}"
            );
        }
    }

    #[test]
    fn verifies_and_goes_on_verifying_after_a_stop() {
        let noise = |i: u32| i.wrapping_mul(0x9e37_79b9).rotate_left(i % 31) as u8 & 63;
        let bytes: Vec<u8> = (0..400_000).map(noise).collect();
        for blob in [gzipped(&bytes), bytes.clone()] {
            let digest = Digest::of(&blob);
            let mut wrong = Decoder::open(Box::new(&blob[..]), Some(Digest::of(b"x"))).unwrap();
            let error = Error::io("x", io::copy(&mut wrong, &mut io::sink()).unwrap_err());
            assert!(error.kind() == Kind::Corrupt && error.to_string().contains("has the digest"));

            let mut decoder = Decoder::open(Box::new(&blob[..]), Some(digest)).unwrap();
            let (mut out, mut chunk, mut resumed) = (Vec::new(), vec![0; 60_000], 0);
            loop {
                let count = decoder.read(&mut chunk).unwrap();
                out.extend(&chunk[..count]);
                if count == 0 {
                    break;
                }
                let Some(state) = decoder.state() else { continue };
                let rest = Box::new(&blob[state.blob_offset() as usize..]);
                let history = out[out.len() - state.history_bytes() as usize..].to_vec();
                let mut again = Decoder::resume(rest, &state, history, digest).unwrap();
                let mut whole = out.clone();
                again.read_to_end(&mut whole).unwrap();
                assert!(whole == bytes);
                resumed += 1;
            }
            assert!(out == bytes && resumed > 2, "{resumed}");
        }
    }
}
