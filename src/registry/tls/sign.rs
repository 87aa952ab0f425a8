//! Signatures of ours, for servers that want a client certificate: ECDSA over P-256 and P-384, RSA with PSS padding and,
//! for TLS 1.2 servers that know nothing newer, PKCS#1 v1.5. Keys as PKCS#8 (RFC 5958), PKCS#1 (RFC 8017, appendix A.1.2)
//! and SEC1 (RFC 5915) write them.

use std::fmt;
use std::sync::Arc;

use p256::ecdsa::signature::hazmat::PrehashSigner;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use super::der::{self, OCTET_STRING, SEQUENCE};
use super::rsa::PrivateKey;
use super::verify::Hash;

/// The secret halves; each wipes itself when dropped.
enum Key {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    Rsa(Box<PrivateKey>),
}

/// A key, ready to sign; `None` if it is malformed or of another kind.
pub(super) fn load(key: &PrivateKeyDer) -> Option<Arc<dyn SigningKey>> {
    let key = match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => elliptic(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => None,
    };
    Some(Arc::new(OwnKey(Arc::new(key?))))
}

/// What is inside says by its form what it is; the object identifier before it is not needed.
fn pkcs8(key: &[u8]) -> Option<Key> {
    let (content, _) = der::element(key, SEQUENCE)?;
    let (_version, content) = der::positive(content)?;
    let (_algorithm, content) = der::element(content, SEQUENCE)?;
    let (key, _) = der::element(content, OCTET_STRING)?;
    elliptic(key).or_else(|| rsa(key))
}

/// The curve follows from the length: no other of these lengths is in certificates for TLS.
fn elliptic(key: &[u8]) -> Option<Key> {
    let (content, _) = der::element(key, SEQUENCE)?;
    let (_version, content) = der::positive(content)?;
    let (scalar, _) = der::element(content, OCTET_STRING)?;
    match scalar.len() {
        32 => p256::ecdsa::SigningKey::from_slice(scalar).ok().map(Key::P256),
        48 => p384::ecdsa::SigningKey::from_slice(scalar).ok().map(Key::P384),
        _ => None,
    }
}

fn rsa(key: &[u8]) -> Option<Key> {
    PrivateKey::read(key).map(|key| Key::Rsa(Box::new(key)))
}

struct OwnKey(Arc<Key>);

impl SigningKey for OwnKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let able: &[SignatureScheme] = match &*self.0 {
            Key::P256(_) => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Key::P384(_) => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Key::Rsa(_) => &[
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PSS_SHA384,
                SignatureScheme::RSA_PSS_SHA512,
                SignatureScheme::RSA_PKCS1_SHA256,
                SignatureScheme::RSA_PKCS1_SHA384,
                SignatureScheme::RSA_PKCS1_SHA512,
            ],
        };
        let scheme = *able.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(OwnSigner { key: self.0.clone(), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match &*self.0 {
            Key::Rsa(_) => SignatureAlgorithm::RSA,
            Key::P256(_) | Key::P384(_) => SignatureAlgorithm::ECDSA,
        }
    }
}

struct OwnSigner {
    key: Arc<Key>,
    scheme: SignatureScheme,
}

impl Signer for OwnSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let hash = match self.scheme {
            SignatureScheme::ECDSA_NISTP384_SHA384
            | SignatureScheme::RSA_PSS_SHA384
            | SignatureScheme::RSA_PKCS1_SHA384 => Hash::Sha384,
            SignatureScheme::RSA_PSS_SHA512 | SignatureScheme::RSA_PKCS1_SHA512 => Hash::Sha512,
            _ => Hash::Sha256,
        };
        let digest = hash.of(message);
        let signature = match &*self.key {
            Key::P256(key) => {
                let signature: Option<p256::ecdsa::Signature> = key.sign_prehash(&digest).ok();
                signature.map(|signature| signature.to_der().as_bytes().to_vec())
            }
            Key::P384(key) => {
                let signature: Option<p384::ecdsa::Signature> = key.sign_prehash(&digest).ok();
                signature.map(|signature| signature.to_der().as_bytes().to_vec())
            }
            Key::Rsa(key) => match self.scheme {
                SignatureScheme::RSA_PSS_SHA256
                | SignatureScheme::RSA_PSS_SHA384
                | SignatureScheme::RSA_PSS_SHA512 => key.sign_pss(&hash, &digest),
                _ => key.sign_pkcs1(&hash, &digest),
            },
        };
        signature.ok_or_else(|| Error::General("sign with the client's key".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnKey")
    }
}

impl fmt::Debug for OwnSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnSigner")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_keys_that_are_none() {
        let scalar = |length: u8, digit: u8| {
            let key = [&[2, 1, 1, OCTET_STRING, length][..], &vec![digit; length.into()]].concat();
            [&[SEQUENCE, key.len() as u8][..], &key].concat()
        };
        assert!(elliptic(&scalar(32, 1)).is_some() && elliptic(&scalar(48, 1)).is_some());
        for der in [
            scalar(32, 0),
            scalar(32, 0xff),
            scalar(48, 0xff),
            scalar(66, 1),
            vec![SEQUENCE, 3, 2, 1, 0],
            vec![SEQUENCE],
            Vec::new(),
        ] {
            let found = [elliptic(&der), rsa(&der), pkcs8(&der)].map(|key| key.is_some());
            assert_eq!(found, [false; 3], "{der:?}");
        }
    }
}
