//! The cipher suites: which algorithms go together, and in which order they are offered.

use rustls::crypto::tls12::PrfUsingHmac;
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{CipherSuiteCommon, KeyExchangeAlgorithm};
use rustls::{
    CipherSuite, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
};

use super::cipher::Aead;
use super::hash::Sha;

/// Records that one AES-GCM key may protect (RFC 8446, section 5.5); ChaCha20-Poly1305 has no limit in practice.
const AES_GCM_RECORDS: u64 = 1 << 24;

const ECDSA: &[SignatureScheme] =
    &[SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// TLS 1.3 first; within a version the cipher that this machine is fast at.
pub(super) fn preferred(aes_is_fast: bool) -> Vec<SupportedCipherSuite> {
    let order = match aes_is_fast {
        true => [Aead::Aes256, Aead::Aes128, Aead::ChaCha20],
        false => [Aead::ChaCha20, Aead::Aes128, Aead::Aes256],
    };
    let mut suites = Vec::new();
    for is_tls13 in [true, false] {
        for cipher in order {
            let fits = |(aead, suite): &&(Aead, SupportedCipherSuite)| {
                *aead == cipher && suite.tls13().is_some() == is_tls13
            };
            suites.extend(ALL.iter().filter(fits).map(|(_, suite)| *suite));
        }
    }
    suites
}

const ALL: &[(Aead, SupportedCipherSuite)] = &[
    (Aead::Aes128, SupportedCipherSuite::Tls13(&TLS13_AES_128)),
    (Aead::Aes256, SupportedCipherSuite::Tls13(&TLS13_AES_256)),
    (Aead::ChaCha20, SupportedCipherSuite::Tls13(&TLS13_CHACHA20)),
    (Aead::Aes128, SupportedCipherSuite::Tls12(&ECDSA_AES_128)),
    (Aead::Aes256, SupportedCipherSuite::Tls12(&ECDSA_AES_256)),
    (Aead::ChaCha20, SupportedCipherSuite::Tls12(&ECDSA_CHACHA20)),
    (Aead::Aes128, SupportedCipherSuite::Tls12(&RSA_AES_128)),
    (Aead::Aes256, SupportedCipherSuite::Tls12(&RSA_AES_256)),
    (Aead::ChaCha20, SupportedCipherSuite::Tls12(&RSA_CHACHA20)),
];

static TLS13_AES_128: Tls13CipherSuite =
    tls13(CipherSuite::TLS13_AES_128_GCM_SHA256, &Aead::Aes128, &Sha::Two56);
static TLS13_AES_256: Tls13CipherSuite =
    tls13(CipherSuite::TLS13_AES_256_GCM_SHA384, &Aead::Aes256, &Sha::Three84);
static TLS13_CHACHA20: Tls13CipherSuite =
    tls13(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, &Aead::ChaCha20, &Sha::Two56);

static ECDSA_AES_128: Tls12CipherSuite =
    tls12(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ECDSA, &Aead::Aes128, &Sha::Two56);
static ECDSA_AES_256: Tls12CipherSuite = tls12(
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ECDSA,
    &Aead::Aes256,
    &Sha::Three84,
);
static ECDSA_CHACHA20: Tls12CipherSuite = tls12(
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ECDSA,
    &Aead::ChaCha20,
    &Sha::Two56,
);
static RSA_AES_128: Tls12CipherSuite =
    tls12(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, RSA, &Aead::Aes128, &Sha::Two56);
static RSA_AES_256: Tls12CipherSuite =
    tls12(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, RSA, &Aead::Aes256, &Sha::Three84);
static RSA_CHACHA20: Tls12CipherSuite = tls12(
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    RSA,
    &Aead::ChaCha20,
    &Sha::Two56,
);

const fn common(suite: CipherSuite, aead: &Aead, sha: &'static Sha) -> CipherSuiteCommon {
    let confidentiality_limit = match aead {
        Aead::ChaCha20 => u64::MAX,
        Aead::Aes128 | Aead::Aes256 => AES_GCM_RECORDS,
    };
    CipherSuiteCommon { suite, hash_provider: sha, confidentiality_limit }
}

const fn tls13(suite: CipherSuite, aead: &'static Aead, sha: &'static Sha) -> Tls13CipherSuite {
    Tls13CipherSuite {
        common: common(suite, aead, sha),
        hkdf_provider: match sha {
            Sha::Two56 => &HkdfUsingHmac(&Sha::Two56),
            Sha::Three84 => &HkdfUsingHmac(&Sha::Three84),
        },
        aead_alg: aead,
        quic: None,
    }
}

const fn tls12(
    suite: CipherSuite,
    sign: &'static [SignatureScheme],
    aead: &'static Aead,
    sha: &'static Sha,
) -> Tls12CipherSuite {
    Tls12CipherSuite {
        common: common(suite, aead, sha),
        prf_provider: match sha {
            Sha::Two56 => &PrfUsingHmac(&Sha::Two56),
            Sha::Three84 => &PrfUsingHmac(&Sha::Three84),
        },
        kx: KeyExchangeAlgorithm::ECDHE,
        sign,
        aead_alg: aead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_the_machine_is_fast_at() {
        let names = |aes_is_fast| {
            let suites = preferred(aes_is_fast);
            let name = |s: &SupportedCipherSuite| format!("{:?}", s.suite());
            suites.iter().map(name).collect::<Vec<_>>()
        };
        let (slow, fast) = (names(false), names(true));
        assert_eq!((slow.len(), fast.len()), (ALL.len(), ALL.len()));
        assert_eq!(slow[0], "TLS13_CHACHA20_POLY1305_SHA256");
        assert_eq!(slow[3], "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
        assert_eq!(fast[0], "TLS13_AES_256_GCM_SHA384");
        assert_eq!(fast[8], "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256");
    }
}
