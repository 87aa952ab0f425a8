//! SHA-256 and SHA-384, plain and keyed, for transcripts and key derivation.

use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};
use rustls::crypto::hmac::{Hmac as KeyedHash, Key, Tag};
use sha2::{Digest, Sha256, Sha384};

/// A hash function of a cipher suite.
#[derive(Clone, Copy)]
pub(super) enum Sha {
    /// SHA-256
    Two56,
    /// SHA-384
    Three84,
}

#[derive(Clone)]
enum Running {
    Two56(Sha256),
    Three84(Sha384),
}

impl Sha {
    fn begin(self) -> Running {
        match self {
            Sha::Two56 => Running::Two56(Sha256::new()),
            Sha::Three84 => Running::Three84(Sha384::new()),
        }
    }

    fn length_bytes(self) -> usize {
        match self {
            Sha::Two56 => 32,
            Sha::Three84 => 48,
        }
    }
}

impl Running {
    fn take_in(&mut self, data: &[u8]) {
        match self {
            Running::Two56(state) => state.update(data),
            Running::Three84(state) => state.update(data),
        }
    }

    fn output(self) -> Output {
        match self {
            Running::Two56(state) => Output::new(&state.finalize()),
            Running::Three84(state) => Output::new(&state.finalize()),
        }
    }
}

impl Hash for Sha {
    fn start(&self) -> Box<dyn Context> {
        Box::new(self.begin())
    }

    fn hash(&self, data: &[u8]) -> Output {
        let mut running = self.begin();
        running.take_in(data);
        running.output()
    }

    fn output_len(&self) -> usize {
        self.length_bytes()
    }

    fn algorithm(&self) -> HashAlgorithm {
        match self {
            Sha::Two56 => HashAlgorithm::SHA256,
            Sha::Three84 => HashAlgorithm::SHA384,
        }
    }
}

impl Context for Running {
    fn fork_finish(&self) -> Output {
        self.clone().output()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(self.clone())
    }

    fn finish(self: Box<Self>) -> Output {
        self.output()
    }

    fn update(&mut self, data: &[u8]) {
        self.take_in(data);
    }
}

enum Keyed {
    Two56(Hmac<Sha256>),
    Three84(Hmac<Sha384>),
}

impl KeyedHash for Sha {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        // Cannot fail: HMAC takes keys of any length (RFC 2104, section 2).
        Box::new(match self {
            Sha::Two56 => Keyed::Two56(Hmac::new_from_slice(key).expect("HMAC takes any key")),
            Sha::Three84 => Keyed::Three84(Hmac::new_from_slice(key).expect("HMAC takes any key")),
        })
    }

    fn hash_output_len(&self) -> usize {
        self.length_bytes()
    }
}

impl Key for Keyed {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let parts = std::iter::once(&first).chain(middle).chain(std::iter::once(&last));
        match self {
            Keyed::Two56(state) => {
                let mut state = state.clone();
                parts.for_each(|part| state.update(part));
                Tag::new(&state.finalize().into_bytes())
            }
            Keyed::Three84(state) => {
                let mut state = state.clone();
                parts.for_each(|part| state.update(part));
                Tag::new(&state.finalize().into_bytes())
            }
        }
    }

    fn tag_len(&self) -> usize {
        match self {
            Keyed::Two56(_) => Sha::Two56.length_bytes(),
            Keyed::Three84(_) => Sha::Three84.length_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest as OurDigest;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn forks_and_finishes() {
        let mut context = Sha::Two56.start();
        context.update(b"a");
        assert_eq!(hex(context.fork_finish().as_ref()), OurDigest::of(b"a").hex());
        let mut fork = context.fork();
        fork.update(b"b");
        assert_eq!(hex(fork.finish().as_ref()), OurDigest::of(b"ab").hex());
        assert_eq!(hex(context.finish().as_ref()), OurDigest::of(b"a").hex());
        assert_eq!(hex(Sha::Two56.hash(b"a").as_ref()), OurDigest::of(b"a").hex());
    }

    /// RFC 4231, test case 2.
    #[test]
    fn signs_what_is_joined() {
        for (sha, expected) in [
            (Sha::Two56, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Sha::Three84,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
        ] {
            let key = sha.with_key(b"Jefe");
            let tag = key.sign_concat(b"what do ya ", &[b"want ", b"for "], b"nothing?");
            assert_eq!(hex(tag.as_ref()), expected);
            assert_eq!(key.tag_len(), tag.as_ref().len());
        }
    }
}
