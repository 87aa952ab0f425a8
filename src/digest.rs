//! Content digests: `sha256:` and 64 hex digits (OCI image spec, descriptor.md, "Digests").
//!
//! SHA-256 alone is accepted: it is what every registry serves and what image IDs and diff IDs are made of.

use std::fmt;
use std::io::{self, Read, Write};

use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState;

use crate::error::{Error, Kind, Result};

/// A SHA-256 digest. `Display` and `parse` use the `sha256:<hex>` form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Parses `sha256:<64 lower-case hex digits>`; anything else is `Kind::Invalid`.
    pub fn parse(text: &str) -> Result<Digest> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(Error::new(Kind::Invalid, format!("digest {text:?} has no algorithm")));
        };
        if algorithm != "sha256" {
            let message = format!("digest algorithm {algorithm:?} is not supported, only sha256");
            return Err(Error::new(Kind::Invalid, message));
        }
        Digest::from_hex(hex).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("digest {text:?} does not have 64 lower-case hex digits"),
            )
        })
    }

    /// The digest written as 64 lower-case hex digits, or `None`.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        let (pairs, _) = hex.as_chunks();
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(high)? << 4 | nibble(low)?;
        }
        Some(Digest(bytes))
    }

    /// 64 lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The 32 bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex digits, as people are shown.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The most blocks that a state may have gone through; with the rest of one they are under 2^64 bits (FIPS 180-4,
/// section 5.1.1).
const MAX_BLOCKS: u64 = (1 << 55) - 2;

/// A running SHA-256.
#[derive(Clone)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// The state before the first byte.
    #[allow(clippy::new_without_default)] // a default hasher says less than a new one
    pub fn new() -> Hasher {
        Hasher(sha2::Sha256::new())
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What has to be kept to go on from here in another process: some 100 bytes.
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// The hasher that gave `state`; `None` if none did.
    pub fn from_state(state: &[u8]) -> Option<Hasher> {
        // Behind eight words, the count of blocks: sha2 computes bits of it without a check.
        let blocks = u64::from_le_bytes(*state.get(32..)?.first_chunk()?);
        if blocks > MAX_BLOCKS {
            return None;
        }
        let state = state.try_into().ok()?;
        sha2::Sha256::deserialize(&state).ok().map(Hasher)
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// A reader that gives an error instead of its end unless all that passed has the expected digest. Whoever reads it to
/// the end has read what was asked for.
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Hasher,
    expected: Digest,
}

impl<R: Read> VerifyingReader<R> {
    /// Reads `inner`, whose content should have the digest `expected`.
    pub fn new(inner: R, expected: Digest) -> Self {
        VerifyingReader { inner, hasher: Hasher::new(), expected }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if count == 0 && !buffer.is_empty() {
            let found = self.hasher.clone().finish();
            if found != self.expected {
                let message = format!("content of {} has the digest {found}", self.expected);
                return Err(Error::new(Kind::Corrupt, message).into());
            }
        }
        Ok(count)
    }
}

/// A writer that hashes and counts what passes through it.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    count_bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes everything that is written to `inner` from now on.
    pub fn new(inner: W) -> Self {
        HashingWriter { inner, hasher: Hasher::new(), count_bytes: 0 }
    }

    /// Bytes written so far.
    pub fn count_bytes(&self) -> u64 {
        self.count_bytes
    }

    /// The digest of what was written, and the writer back.
    pub fn finish(self) -> (Digest, W) {
        (self.hasher.finish(), self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_what_it_prints() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn goes_on_from_a_state() {
        let mut hasher = Hasher::new();
        hasher.update(&[7; 100]);
        let state = hasher.state();
        let mut resumed = Hasher::from_state(&state).unwrap();
        resumed.update(&[8; 100]);
        assert_eq!(resumed.finish(), Digest::of(&[[7; 100], [8; 100]].concat()));
        assert!(Hasher::from_state(&state[1..]).is_none());
    }

    #[test]
    fn refuses_a_state_of_more_than_can_be() {
        let mut hasher = Hasher::new();
        hasher.update(&[7; 200]);
        let mut state = hasher.state();
        assert_eq!(state[32..40], 3_u64.to_le_bytes(), "not the count of blocks");
        state[32..40].copy_from_slice(&MAX_BLOCKS.to_le_bytes());
        Hasher::from_state(&state).unwrap().finish();
        state[39] = 1;
        assert!(Hasher::from_state(&state).is_none());
    }

    #[test]
    fn verifies_at_the_end() {
        let mut text = String::new();
        VerifyingReader::new(&b"abc"[..], Digest::of(b"abc")).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        let error = VerifyingReader::new(&b"abd"[..], Digest::of(b"abc"))
            .read_to_string(&mut text)
            .unwrap_err();
        assert_eq!(Error::io("x", error).kind(), Kind::Corrupt);
    }

    #[test]
    fn refuses_by_name() {
        for (text, why) in [
            ("e3b0", "has no algorithm"),
            ("sha512:00", "\"sha512\" is not supported"),
            ("sha256:00", "64 lower-case hex digits"),
            (&EMPTY.replace('e', "E"), "64 lower-case hex digits"),
            (&EMPTY.replace("e3", "é"), "64 lower-case hex digits"),
        ] {
            let error = Digest::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
