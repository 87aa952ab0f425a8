//! RSA signatures (RFC 8017): the paddings, both ways, for the primitives that the `rsa` crate computes. Its private one is
//! blinded and checked with the public exponent.
//!
//! That crate has paddings too, one copy for each hash, and a private key that computes by the primes, which is three times as
//! fast and, as a key may come without them, brings what finds them: 23 KB in all. This one has the private exponent alone.

use p256::elliptic_curve::bigint::modular::{BoxedMontyForm, BoxedMontyParams, MontyParams};
use p256::elliptic_curve::bigint::{NonZero, Odd};
use p256::elliptic_curve::zeroize::Zeroize;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BoxedUint, CrtValue, RsaPublicKey};

use super::der::{self, SEQUENCE};
use super::random::KernelRandom;
use super::verify::{Hash, MAX_RSA_BYTES};
use crate::sys::host;

/// Wipes itself when it is dropped.
pub(super) struct PrivateKey {
    public: RsaPublicKey,
    exponent: BoxedUint,
}

impl PrivateKey {
    /// Reads an `RSAPrivateKey` (appendix A.1.2); `None` if it is malformed. Whether its numbers belong together is seen when it
    /// signs.
    pub fn read(key: &[u8]) -> Option<PrivateKey> {
        let (content, _) = der::element(key, SEQUENCE)?;
        let (_version, content) = der::positive(content)?;
        let (modulus, content) = der::positive(content)?;
        let (public, content) = der::positive(content)?;
        let (private, _) = der::positive(content)?;
        if modulus.len() > MAX_RSA_BYTES {
            return None;
        }
        let number = |bytes| BoxedUint::from_be_slice_vartime(bytes);
        let public = RsaPublicKey::new(number(modulus), number(public)).ok()?;
        let exponent = BoxedUint::from_be_slice(private, public.n_bits_precision()).ok()?;
        Some(PrivateKey { public, exponent })
    }

    /// Signs by RSASSA-PSS (section 8.1), with a salt as long as the hash; `None` if the key cannot.
    pub fn sign_pss(&self, hash: &Hash, digest: &[u8]) -> Option<Vec<u8>> {
        let mut salt = vec![0; digest.len()];
        host::fill_random(&mut salt).ok()?;
        self.power(&encode_pss(hash, digest, &salt, self.public.n().bits() as usize - 1)?)
    }

    /// Signs by RSASSA-PKCS1-v1_5 (section 8.2); `None` if the key cannot.
    pub fn sign_pkcs1(&self, hash: &Hash, digest: &[u8]) -> Option<Vec<u8>> {
        self.power(&encode_pkcs1(hash, digest, self.public.size())?)
    }

    /// The private operation on an encoded message (RSASP1, section 5.2.1).
    fn power(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = BoxedUint::from_be_slice(message, self.public.n_bits_precision()).ok()?;
        let signature =
            rsa::hazmat::rsa_decrypt_and_check(self, Some(&mut KernelRandom), &message).ok()?;
        let bytes = signature.to_be_bytes();
        Some(bytes[bytes.len() - self.public.size()..].to_vec())
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.exponent.zeroize();
    }
}

impl PublicKeyParts for PrivateKey {
    fn n(&self) -> &NonZero<BoxedUint> {
        self.public.n()
    }

    fn e(&self) -> &BoxedUint {
        self.public.e()
    }

    fn n_params(&self) -> &BoxedMontyParams {
        self.public.n_params()
    }
}

/// What is not told is not needed.
impl PrivateKeyParts for PrivateKey {
    fn d(&self) -> &BoxedUint {
        &self.exponent
    }

    fn primes(&self) -> &[Odd<BoxedUint>] {
        &[]
    }

    fn p(&self) -> Option<&MontyParams<BoxedUint>> {
        None
    }

    fn q(&self) -> Option<&MontyParams<BoxedUint>> {
        None
    }

    fn dp(&self) -> Option<&BoxedUint> {
        None
    }

    fn dq(&self) -> Option<&BoxedUint> {
        None
    }

    fn qinv(&self) -> Option<&BoxedMontyForm> {
        None
    }

    fn crt_values(&self) -> Option<&[CrtValue]> {
        None
    }
}

/// Whether it is RSASSA-PKCS1-v1_5's signature of what has this digest (section 8.2.2).
pub(super) fn is_signed_pkcs1(
    key: &RsaPublicKey,
    hash: &Hash,
    digest: &[u8],
    signature: &[u8],
) -> bool {
    let message = public_power(key, signature);
    message.is_some() && message == encode_pkcs1(hash, digest, key.size())
}

/// Whether it is RSASSA-PSS's (section 8.1.2), with a salt as long as the hash (RFC 8446, section 4.2.3).
pub(super) fn is_signed_pss(
    key: &RsaPublicKey,
    hash: &Hash,
    digest: &[u8],
    signature: &[u8],
) -> bool {
    let bits = key.n().bits() as usize - 1;
    public_power(key, signature).is_some_and(|message| is_pss(hash, digest, &message, bits))
}

/// The public operation on a signature (RSAVP1, section 5.2.2), in as many bytes as the modulus has.
fn public_power(key: &RsaPublicKey, signature: &[u8]) -> Option<Vec<u8>> {
    let number = BoxedUint::from_be_slice(signature, key.n_bits_precision()).ok()?;
    if signature.len() != key.size() || number >= **key.n() {
        return None;
    }
    let message = rsa::hazmat::rsa_encrypt(key, &number).ok()?.to_be_bytes();
    Some(message[message.len() - key.size()..].to_vec())
}

/// EMSA-PSS-VERIFY (section 9.1.2) of a message that has `bits` bits, behind zeros.
fn is_pss(hash: &Hash, digest: &[u8], message: &[u8], bits: usize) -> bool {
    let length = bits.div_ceil(8);
    let Some((zeros, message)) = message.split_at_checked(message.len() - length) else {
        return false;
    };
    let Some(block_bytes) = length.checked_sub(digest.len() + 1) else { return false };
    let (block, rest) = message.split_at(block_bytes);
    let unused = 8 * length - bits;
    let (Some(salt_start), [seed @ .., 0xbc]) = (block_bytes.checked_sub(digest.len()), rest)
    else {
        return false;
    };
    if zeros.iter().any(|&byte| byte != 0) || block[0] & !(0xff >> unused) != 0 {
        return false;
    }
    let mut block = block.to_vec();
    mask(hash, seed, &mut block);
    block[0] &= 0xff >> unused;
    let (padding, salt) = block.split_at(salt_start);
    let is_padding = matches!(padding, [zeros @ .., 1] if zeros.iter().all(|&byte| byte == 0));
    is_padding && hash.of(&[&[0; 8], digest, salt].concat()) == seed
}

/// EMSA-PSS-ENCODE (section 9.1.1) for `bits` bits; `None` if they are too few.
fn encode_pss(hash: &Hash, digest: &[u8], salt: &[u8], bits: usize) -> Option<Vec<u8>> {
    let length = bits.div_ceil(8);
    let seed = hash.of(&[&[0; 8], digest, salt].concat());
    let mut block = vec![0; length.checked_sub(seed.len() + salt.len() + 2)?];
    block.push(1);
    block.extend_from_slice(salt);
    mask(hash, &seed, &mut block);
    block[0] &= 0xff >> (8 * length - bits);
    block.extend_from_slice(&seed);
    block.push(0xbc);
    Some(block)
}

/// Masks `block` with MGF1 (appendix B.2.1).
fn mask(hash: &Hash, seed: &[u8], block: &mut [u8]) {
    for (counter, chunk) in block.chunks_mut(seed.len()).enumerate() {
        let mask = hash.of(&[seed, &(counter as u32).to_be_bytes()].concat());
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// EMSA-PKCS1-v1_5-ENCODE (section 9.2) for `length` bytes; `None` if they are too few.
fn encode_pkcs1(hash: &Hash, digest: &[u8], length: usize) -> Option<Vec<u8>> {
    let (algorithm, bytes) = (hash.algorithm(), digest.len() as u8);
    // A DigestInfo: 2.16.840.1.101.3.4.2.x and no parameters, then the digest.
    let head = [0x30, 17 + bytes, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, algorithm];
    let info = [&head[..], &[5, 0, 4, bytes], digest].concat();
    let padding = length.checked_sub(info.len() + 3).filter(|&count| count >= 8)?;
    Some([&[0, 1][..], &vec![0xff; padding], &[0], &info].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

    fn prefix(hash: &Hash) -> Vec<u8> {
        let encoded = encode_pkcs1(hash, &hash.of(b""), 256).unwrap();
        let start = encoded.iter().position(|&byte| byte == 0x30).unwrap();
        encoded[start..start + 19].to_vec()
    }

    #[test]
    fn names_hashes_as_the_standard_does() {
        // RFC 8017, section 9.2, note 1.
        for (hash, expected) in HASHES.iter().zip([
            "3031300d060960864801650304020105000420",
            "3041300d060960864801650304020205000430",
            "3051300d060960864801650304020305000440",
        ]) {
            let found: String = prefix(hash).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected);
        }
        assert!(encode_pkcs1(&Hash::Sha512, &[0; 64], 93).is_none());
        assert_eq!(encode_pkcs1(&Hash::Sha512, &[0; 64], 94).unwrap().len(), 94);
    }

    #[test]
    fn pads_to_the_bits_that_there_are() {
        for hash in &HASHES {
            let digest = hash.of(b"message");
            for bits in [2047, 2048, 2041, 2049, 1040] {
                let encoded = encode_pss(hash, &digest, &digest, bits).unwrap();
                assert_eq!(encoded.len(), bits.div_ceil(8));
                assert_eq!(encoded.last(), Some(&0xbc));
                let unused = encoded.len() * 8 - bits;
                assert!(unused == 0 || encoded[0] >> (8 - unused) == 0, "{bits}");
                let message = [&vec![0; 300 - encoded.len()][..], &encoded].concat();
                assert!(is_pss(hash, &digest, &message, bits));
                for at in 0..message.len() {
                    let mut damaged = message.clone();
                    damaged[at] ^= if at % 2 == 0 { 0x80 } else { 1 };
                    assert!(!is_pss(hash, &digest, &damaged, bits), "{bits}: byte {at}");
                }
                assert!(!is_pss(hash, &hash.of(b"another"), &message, bits));
            }
            assert!(encode_pss(hash, &digest, &digest, 8 * (2 * digest.len() + 1)).is_none());
        }
    }

    #[test]
    fn refuses_keys_that_are_none() {
        let composite = [&[SEQUENCE, 18][..], &[2, 1, 0], &[2, 1, 15].repeat(5)].concat();
        for der in [&composite[..], &[SEQUENCE, 3, 2, 1, 0], &[SEQUENCE], &[]] {
            assert!(PrivateKey::read(der).is_none(), "{der:?}");
        }
    }
}
