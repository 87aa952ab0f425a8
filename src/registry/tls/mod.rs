//! The cryptography of TLS: RustCrypto's primitives behind rustls' traits, for a client.
//!
//! Nothing is computed here. TLS 1.3 and 1.2 with AES-GCM and ChaCha20-Poly1305, key exchange over X25519, P-256 and
//! P-384, certificates and signatures of ECDSA and RSA; what servers have offered for years and what is not broken.
//! Signatures of our own are for client certificates. No code that serves.

mod cipher;
mod der;
mod exchange;
mod hash;
mod random;
mod rsa;
mod sign;
mod suites;
mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

use crate::sys::host;

/// Everything that rustls computes with.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: suites::preferred(aes_is_fast()),
        kx_groups: exchange::GROUPS.to_vec(),
        signature_verification_algorithms: verify::ALGORITHMS,
        secure_random: &System,
        key_provider: &System,
    })
}

/// Whether the processor computes AES. Without that, ChaCha20 is several times as fast.
fn aes_is_fast() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The kernel's random numbers, and keys of client certificates.
#[derive(Debug)]
struct System;

impl SecureRandom for System {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        host::fill_random(bytes).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for System {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        let refusal = "not a key of RSA, P-256 or P-384";
        sign::load(&key).ok_or_else(|| rustls::Error::General(refusal.into()))
    }
}
