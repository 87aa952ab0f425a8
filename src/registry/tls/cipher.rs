//! Records: AES-GCM and ChaCha20-Poly1305 around the payloads of TLS 1.3 (RFC 8446, section 5.2) and TLS 1.2
//! (AES-GCM: RFC 5288, section 3; ChaCha20-Poly1305: RFC 7905, section 2).

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter,
    MessageEncrypter, NONCE_LEN, Nonce, OutboundOpaqueMessage, OutboundPlainMessage,
    PrefixedPayload, Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
    make_tls12_aad, make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion};

const TAG_BYTES: usize = 16;
/// The part of the nonce that TLS 1.2 sends with each AES-GCM record.
const EXPLICIT_NONCE_BYTES: usize = 8;
/// The part of the nonce that both sides derive (TLS 1.2, AES-GCM).
const SALT_BYTES: usize = 4;
/// RFC 8446, section 5.1: the largest plaintext of a record.
const MAX_PLAINTEXT_BYTES: usize = 1 << 14;

/// An algorithm of a cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aead {
    Aes128,
    Aes256,
    ChaCha20,
}

impl Aead {
    fn key_bytes(self) -> usize {
        match self {
            Aead::Aes128 => 16,
            Aead::Aes256 | Aead::ChaCha20 => 32,
        }
    }

    fn keyed(self, key: &AeadKey) -> Keyed {
        // Cannot fail: rustls makes keys as long as `key_bytes` and `key_block_shape` say.
        const PROMISED: &str = "the key has the promised length";
        let key = key.as_ref();
        match self {
            Aead::Aes128 => {
                Keyed::Aes128(Box::new(Aes128Gcm::new_from_slice(key).expect(PROMISED)))
            }
            Aead::Aes256 => {
                Keyed::Aes256(Box::new(Aes256Gcm::new_from_slice(key).expect(PROMISED)))
            }
            Aead::ChaCha20 => {
                Keyed::ChaCha20(ChaCha20Poly1305::new_from_slice(key).expect(PROMISED))
            }
        }
    }

    fn secrets(self, key: AeadKey, iv: Iv) -> ConnectionTrafficSecrets {
        match self {
            Aead::Aes128 => ConnectionTrafficSecrets::Aes128Gcm { key, iv },
            Aead::Aes256 => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
            Aead::ChaCha20 => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        }
    }
}

/// An algorithm with its key. It wipes itself when dropped.
enum Keyed {
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha20(ChaCha20Poly1305),
}

impl Keyed {
    /// Encrypts `text` in place and returns its tag.
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], Error> {
        let (nonce, text) = (&nonce.into(), InOutBuf::from(text));
        let tag = match self {
            Keyed::Aes128(cipher) => cipher.encrypt_inout_detached(nonce, aad, text),
            Keyed::Aes256(cipher) => cipher.encrypt_inout_detached(nonce, aad, text),
            Keyed::ChaCha20(cipher) => cipher.encrypt_inout_detached(nonce, aad, text),
        };
        tag.map(Into::into).map_err(|_| Error::EncryptError)
    }

    /// Decrypts `text` in place if its tag, the last bytes, is right; returns the length without the tag.
    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> Result<usize, Error> {
        let failed = Error::DecryptError;
        let Some((text, tag)) = text.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(failed);
        };
        let (nonce, tag, length) = (&nonce.into(), &(*tag).into(), text.len());
        let text = InOutBuf::from(text);
        let opened = match self {
            Keyed::Aes128(cipher) => cipher.decrypt_inout_detached(nonce, aad, text, tag),
            Keyed::Aes256(cipher) => cipher.decrypt_inout_detached(nonce, aad, text, tag),
            Keyed::ChaCha20(cipher) => cipher.decrypt_inout_detached(nonce, aad, text, tag),
        };
        opened.map(|()| length).map_err(|_| failed)
    }
}

/// How records of one direction are protected.
struct Records {
    cipher: Keyed,
    iv: Iv,
    form: Form,
}

/// What a protected record looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// TLS 1.3: the content type is encrypted too, behind the text.
    Tls13,
    /// TLS 1.2, the nonce derived.
    Tls12,
    /// TLS 1.2, part of the nonce in front of the text.
    Tls12ExplicitNonce,
}

impl Form {
    fn prefix_bytes(self) -> usize {
        if self == Form::Tls12ExplicitNonce { EXPLICIT_NONCE_BYTES } else { 0 }
    }
}

impl MessageEncrypter for Records {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let nonce = Nonce::new(&self.iv, sequence).0;
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        let prefix = self.form.prefix_bytes();
        payload.extend_from_slice(&nonce[NONCE_LEN - prefix..]);
        payload.extend_from_chunks(&message.payload);
        let text_length = message.payload.len();
        let (typ, version, tag);
        if self.form == Form::Tls13 {
            payload.extend_from_slice(&[message.typ.into()]);
            (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
            tag = self.cipher.seal(nonce, &make_tls13_aad(length), payload.as_mut())?;
        } else {
            (typ, version) = (message.typ, message.version);
            let aad = make_tls12_aad(sequence, typ, version, text_length);
            // Cannot fail: the prefix was written above.
            tag = self.cipher.seal(nonce, &aad, &mut payload.as_mut()[prefix..])?;
        }
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(typ, version, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        let inner_type = usize::from(self.form == Form::Tls13);
        self.form.prefix_bytes() + length + inner_type + TAG_BYTES
    }
}

impl MessageDecrypter for Records {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let prefix = self.form.prefix_bytes();
        let Some(text_length) = payload.len().checked_sub(prefix + TAG_BYTES) else {
            return Err(Error::DecryptError);
        };
        if self.form == Form::Tls13 {
            let aad = make_tls13_aad(payload.len());
            let nonce = Nonce::new(&self.iv, sequence).0;
            let length = self.cipher.open(nonce, &aad, payload)?;
            payload.truncate(length);
            return message.into_tls13_unpadded_message();
        }
        let aad = make_tls12_aad(sequence, message.typ, message.version, text_length);
        let mut nonce = Nonce::new(&self.iv, sequence).0;
        let (explicit, text) = payload.split_at_mut(prefix);
        if self.form == Form::Tls12ExplicitNonce {
            nonce[..SALT_BYTES].copy_from_slice(&self.iv.as_ref()[..SALT_BYTES]);
            nonce[SALT_BYTES..].copy_from_slice(explicit);
        }
        self.cipher.open(nonce, &aad, text)?;
        if text_length > MAX_PLAINTEXT_BYTES {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(message.into_plain_message_range(prefix..prefix + text_length))
    }
}

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Records { cipher: self.keyed(&key), iv, form: Form::Tls13 })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Records { cipher: self.keyed(&key), iv, form: Form::Tls13 })
    }

    fn key_len(&self) -> usize {
        self.key_bytes()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok(self.secrets(key, iv))
    }
}

impl Aead {
    /// The derived part of the nonce and what goes before each record, as one: RFC 5288 lets the sender choose the
    /// explicit part, and XOR with the sequence number never repeats one.
    fn records_12(self, key: &AeadKey, derived: &[u8], explicit: &[u8]) -> Records {
        let mut iv = [0; NONCE_LEN];
        let parts = derived.iter().chain(explicit);
        iv.iter_mut().zip(parts).for_each(|(byte, part)| *byte = *part);
        let form = match self {
            Aead::ChaCha20 => Form::Tls12,
            _ => Form::Tls12ExplicitNonce,
        };
        Records { cipher: self.keyed(key), iv: Iv::new(iv), form }
    }
}

impl Tls12AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(self.records_12(&key, iv, extra))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        Box::new(self.records_12(&key, iv, &[]))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        let (fixed_iv_len, explicit_nonce_len) = match self {
            Aead::ChaCha20 => (NONCE_LEN, 0),
            _ => (SALT_BYTES, EXPLICIT_NONCE_BYTES),
        };
        KeyBlockShape { enc_key_len: self.key_bytes(), fixed_iv_len, explicit_nonce_len }
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        let records = self.records_12(&key, iv, explicit);
        Ok(self.secrets(key, records.iv))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Aead; 3] = [Aead::Aes128, Aead::Aes256, Aead::ChaCha20];

    /// Seals `text` under TLS 1.3 or 1.2, changes the record by `spoil`, and opens it at `sequence`.
    fn through(
        aead: Aead,
        version: u8,
        spoil: impl Fn(&mut Vec<u8>),
        sequence: u64,
    ) -> Result<Vec<u8>, Error> {
        let key = || AeadKey::from([7; 32]);
        // Only `rustls` can make shorter keys; AES-128 takes its own from the handshake tests against real servers.
        let iv = [3; NONCE_LEN];
        let (mut sealer, mut opener) = match version {
            13 => (
                Tls13AeadAlgorithm::encrypter(&aead, key(), Iv::new(iv)),
                Tls13AeadAlgorithm::decrypter(&aead, key(), Iv::new(iv)),
            ),
            _ => {
                let split = aead.key_block_shape().fixed_iv_len;
                (
                    Tls12AeadAlgorithm::encrypter(&aead, key(), &iv[..split], &iv[split..]),
                    Tls12AeadAlgorithm::decrypter(&aead, key(), &iv[..split]),
                )
            }
        };
        let chunks = [b"te".as_slice(), b"xt"];
        let plain = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: ProtocolVersion::TLSv1_2,
            payload: rustls::crypto::cipher::OutboundChunks::new(&chunks),
        };
        let length = sealer.encrypted_payload_len(4);
        let sealed = sealer.encrypt(plain, 5).unwrap();
        let (typ, version) = (sealed.typ, sealed.version);
        let mut bytes = sealed.payload.as_ref().to_vec();
        assert_eq!(bytes.len(), length);
        spoil(&mut bytes);
        let opened =
            opener.decrypt(InboundOpaqueMessage::new(typ, version, &mut bytes), sequence)?;
        assert_eq!(opened.typ, ContentType::Handshake);
        Ok(opened.payload.to_vec())
    }

    #[test]
    fn opens_only_what_was_sealed() {
        for aead in ALL.into_iter().filter(|aead| aead.key_bytes() == 32) {
            for version in [12, 13] {
                let tried = |spoil: &dyn Fn(&mut Vec<u8>), sequence| {
                    through(aead, version, spoil, sequence)
                };
                assert_eq!(tried(&|_| {}, 5), Ok(b"text".to_vec()), "{aead:?} {version}");
                let refused = Err(Error::DecryptError);
                assert_eq!(tried(&|_| {}, 6), refused, "replayed");
                for at in 0..4 + TAG_BYTES {
                    assert_eq!(tried(&|bytes| bytes[at] ^= 1, 5), refused, "byte {at}");
                }
                for length in 0..4 + TAG_BYTES {
                    assert_eq!(
                        tried(&|bytes| bytes.truncate(length), 5),
                        refused,
                        "{length} bytes"
                    );
                }
            }
        }
    }
}
