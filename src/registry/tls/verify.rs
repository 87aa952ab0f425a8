//! Signatures: ECDSA over P-256 and P-384, RSA with PKCS#1 v1.5 and PSS padding, as certificates and handshakes use
//! them (RFC 5758, RFC 8446 section 4.2.3).

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::{BoxedUint, RsaPublicKey};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::der;
use super::rsa::{is_signed_pkcs1, is_signed_pss};

/// The smallest RSA key accepted, in bits: shorter ones are within reach of an attacker.
const MIN_RSA_BITS: u32 = 2048;
/// The largest RSA key accepted, in bytes of its modulus: longer ones only cost time.
pub(super) const MAX_RSA_BYTES: usize = 1024;

/// What certificates may be signed with, and which algorithms serve a signature of the handshake.
pub(super) const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        ECDSA_P256_SHA256,
        ECDSA_P256_SHA384,
        ECDSA_P384_SHA256,
        ECDSA_P384_SHA384,
        PKCS1_SHA256,
        PKCS1_SHA384,
        PKCS1_SHA512,
        PSS_SHA256,
        PSS_SHA384,
        PSS_SHA512,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[ECDSA_P384_SHA384, ECDSA_P256_SHA384]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256, ECDSA_P384_SHA256]),
        (SignatureScheme::RSA_PSS_SHA512, &[PSS_SHA512]),
        (SignatureScheme::RSA_PSS_SHA384, &[PSS_SHA384]),
        (SignatureScheme::RSA_PSS_SHA256, &[PSS_SHA256]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[PKCS1_SHA512]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[PKCS1_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[PKCS1_SHA256]),
    ],
};

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

const ECDSA_P256_SHA256: Algorithm = &Scheme { key: Key::P256, hash: Hash::Sha256 };
const ECDSA_P256_SHA384: Algorithm = &Scheme { key: Key::P256, hash: Hash::Sha384 };
const ECDSA_P384_SHA256: Algorithm = &Scheme { key: Key::P384, hash: Hash::Sha256 };
const ECDSA_P384_SHA384: Algorithm = &Scheme { key: Key::P384, hash: Hash::Sha384 };
const PKCS1_SHA256: Algorithm = &Scheme { key: Key::RsaPkcs1, hash: Hash::Sha256 };
const PKCS1_SHA384: Algorithm = &Scheme { key: Key::RsaPkcs1, hash: Hash::Sha384 };
const PKCS1_SHA512: Algorithm = &Scheme { key: Key::RsaPkcs1, hash: Hash::Sha512 };
const PSS_SHA256: Algorithm = &Scheme { key: Key::RsaPss, hash: Hash::Sha256 };
const PSS_SHA384: Algorithm = &Scheme { key: Key::RsaPss, hash: Hash::Sha384 };
const PSS_SHA512: Algorithm = &Scheme { key: Key::RsaPss, hash: Hash::Sha512 };

#[derive(Debug)]
struct Scheme {
    key: Key,
    hash: Hash,
}

#[derive(Debug)]
enum Key {
    P256,
    P384,
    RsaPkcs1,
    RsaPss,
}

#[derive(Debug)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl SignatureVerificationAlgorithm for Scheme {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let hash = self.hash.of(message);
        let verified = match self.key {
            Key::P256 => p256(public_key, &hash, signature),
            Key::P384 => p384(public_key, &hash, signature),
            Key::RsaPkcs1 => rsa_key(public_key)
                .filter(|key| is_signed_pkcs1(key, &self.hash, &hash, signature))
                .map(drop),
            Key::RsaPss => rsa_key(public_key)
                .filter(|key| is_signed_pss(key, &self.hash, &hash, signature))
                .map(drop),
        };
        verified.ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.key {
            Key::P256 => alg_id::ECDSA_P256,
            Key::P384 => alg_id::ECDSA_P384,
            Key::RsaPkcs1 | Key::RsaPss => alg_id::RSA_ENCRYPTION,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match (&self.key, &self.hash) {
            (Key::P256 | Key::P384, Hash::Sha256) => alg_id::ECDSA_SHA256,
            (Key::P256 | Key::P384, Hash::Sha384) => alg_id::ECDSA_SHA384,
            (Key::P256 | Key::P384, Hash::Sha512) => alg_id::ECDSA_SHA512,
            (Key::RsaPkcs1, Hash::Sha256) => alg_id::RSA_PKCS1_SHA256,
            (Key::RsaPkcs1, Hash::Sha384) => alg_id::RSA_PKCS1_SHA384,
            (Key::RsaPkcs1, Hash::Sha512) => alg_id::RSA_PKCS1_SHA512,
            (Key::RsaPss, Hash::Sha256) => alg_id::RSA_PSS_SHA256,
            (Key::RsaPss, Hash::Sha384) => alg_id::RSA_PSS_SHA384,
            (Key::RsaPss, Hash::Sha512) => alg_id::RSA_PSS_SHA512,
        }
    }
}

impl Hash {
    pub(super) fn of(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha384 => Sha384::digest(message).to_vec(),
            Hash::Sha512 => Sha512::digest(message).to_vec(),
        }
    }

    /// The last arc of its object identifier.
    pub(super) fn algorithm(&self) -> u8 {
        match self {
            Hash::Sha256 => 1,
            Hash::Sha384 => 2,
            Hash::Sha512 => 3,
        }
    }
}

fn p256(public_key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key).ok()?;
    let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
    key.verify_prehash(hash, &signature).ok()
}

fn p384(public_key: &[u8], hash: &[u8], signature: &[u8]) -> Option<()> {
    let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(public_key).ok()?;
    let signature = p384::ecdsa::Signature::from_der(signature).ok()?;
    key.verify_prehash(hash, &signature).ok()
}

/// The key, if its size is one that is accepted.
fn rsa_key(public_key: &[u8]) -> Option<RsaPublicKey> {
    let (modulus, exponent) = rsa_numbers(public_key)?;
    if modulus.len() > MAX_RSA_BYTES {
        return None;
    }
    let number = |bytes| BoxedUint::from_be_slice_vartime(bytes);
    let modulus = number(modulus);
    if modulus.bits() < MIN_RSA_BITS {
        return None;
    }
    RsaPublicKey::new(modulus, number(exponent)).ok()
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017, appendix A.1.1), in DER.
fn rsa_numbers(public_key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = der::element(public_key, der::SEQUENCE)?;
    let (modulus, more) = der::positive(content)?;
    let (exponent, end) = der::positive(more)?;
    (rest.is_empty() && end.is_empty()).then_some((modulus, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rsa_keys() {
        for (der, expected) in [
            (&[0x30, 6, 2, 1, 5, 2, 1, 3][..], Some((&[5][..], &[3][..]))),
            (&[0x30, 0x81, 7, 2, 2, 0, 0x85, 2, 1, 3], Some((&[0x85], &[3]))),
            (&[0x30, 6, 2, 1, 0x85, 2, 1, 3], None),
            (&[0x30, 6, 2, 1, 5, 2, 1, 3, 0], None),
            (&[0x30, 7, 2, 1, 5, 2, 1, 3, 0], None),
            (&[0x30, 6, 2, 1, 5, 2, 2, 3], None),
            (&[0x30, 5, 2, 0, 2, 1, 3], None),
            (&[0x30, 0x84, 0, 0, 0, 6, 2, 1, 5, 2, 1, 3], None),
            (&[0x31, 6, 2, 1, 5, 2, 1, 3], None),
            (&[0x30], None),
            (&[], None),
        ] {
            assert_eq!(rsa_numbers(der), expected, "{der:?}");
        }
    }

    #[test]
    fn refuses_keys_and_signatures_that_are_none() {
        let short_key =
            [[0x30, 0x81, 0x86, 2, 0x81, 0x80].as_slice(), &[0x7f; 128], &[2, 1, 3]].concat();
        for scheme in ALGORITHMS.all {
            for key in [&b""[..], &[0; 65], &[4; 65], &[4; 97], &short_key] {
                for signature in [&b""[..], &[0x30, 0], &[0x30, 6, 2, 1, 0, 2, 1, 0], &[1; 256]] {
                    assert!(scheme.verify_signature(key, b"x", signature).is_err(), "{scheme:?}");
                }
            }
        }
    }
}
