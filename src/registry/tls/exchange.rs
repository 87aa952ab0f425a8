//! Key exchange: X25519 (RFC 7748), P-256 and P-384 (RFC 8422, RFC 8446 section 4.2.8).

use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret, X25519_BASEPOINT_BYTES, x25519};

use super::random::KernelRandom;
use crate::sys::host;

/// The groups offered, the preferred first; a key share is sent for that one.
pub(super) const GROUPS: &[&dyn SupportedKxGroup] = &[&Group::X25519, &Group::P256, &Group::P384];

#[derive(Clone, Copy, Debug)]
enum Group {
    X25519,
    P256,
    P384,
}

/// Our half, until the server's arrives. Each kind wipes itself when dropped.
enum Secret {
    X25519(StaticSecret),
    P256(p256::ecdh::EphemeralSecret),
    P384(p384::ecdh::EphemeralSecret),
}

struct Exchange {
    group: Group,
    secret: Secret,
    public_key: Vec<u8>,
}

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let failed = |_| Error::FailedToGetRandomBytes;
        let mut random = KernelRandom;
        let (secret, public_key) = match self {
            Group::X25519 => {
                let mut bytes = [0; 32];
                host::fill_random(&mut bytes).map_err(failed)?;
                // Not `PublicKey::from`: its way over Edwards points costs 28 KB.
                let public_key = x25519(bytes, X25519_BASEPOINT_BYTES).to_vec();
                (Secret::X25519(StaticSecret::from(bytes)), public_key)
            }
            Group::P256 => {
                let secret = p256::ecdh::EphemeralSecret::try_generate_from_rng(&mut random)
                    .map_err(failed)?;
                let public_key = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
                (Secret::P256(secret), public_key)
            }
            Group::P384 => {
                let secret = p384::ecdh::EphemeralSecret::try_generate_from_rng(&mut random)
                    .map_err(failed)?;
                let public_key = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
                (Secret::P384(secret), public_key)
            }
        };
        Ok(Box::new(Exchange { group: *self, secret, public_key }))
    }

    fn name(&self) -> NamedGroup {
        match self {
            Group::X25519 => NamedGroup::X25519,
            Group::P256 => NamedGroup::secp256r1,
            Group::P384 => NamedGroup::secp384r1,
        }
    }
}

/// The first byte of a point that is not compressed, the only form that TLS allows (RFC 8422, section 5.4.1).
const UNCOMPRESSED: u8 = 4;

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let bad = || Error::from(PeerMisbehaved::InvalidKeyShare);
        if !matches!(self.secret, Secret::X25519(_)) && theirs.first() != Some(&UNCOMPRESSED) {
            return Err(bad());
        }
        match self.secret {
            Secret::X25519(ours) => {
                let theirs = <[u8; 32]>::try_from(theirs).map_err(|_| bad())?;
                let shared = ours.diffie_hellman(&PublicKey::from(theirs));
                // RFC 8446, section 7.4.2: a shared secret of zeros means a point of small order.
                match shared.was_contributory() {
                    true => Ok(SharedSecret::from(&shared.as_bytes()[..])),
                    false => Err(bad()),
                }
            }
            Secret::P256(ours) => {
                let theirs = p256::PublicKey::from_sec1_bytes(theirs).map_err(|_| bad())?;
                let shared = ours.diffie_hellman(&theirs);
                Ok(SharedSecret::from(&shared.raw_secret_bytes()[..]))
            }
            Secret::P384(ours) => {
                let theirs = p384::PublicKey::from_sec1_bytes(theirs).map_err(|_| bad())?;
                let shared = ours.diffie_hellman(&theirs);
                Ok(SharedSecret::from(&shared.raw_secret_bytes()[..]))
            }
        }
    }

    fn pub_key(&self) -> &[u8] {
        &self.public_key
    }

    fn group(&self) -> NamedGroup {
        self.group.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        for (group, length) in [(Group::X25519, 32), (Group::P256, 65), (Group::P384, 97)] {
            let (ours, theirs) = (group.start().unwrap(), group.start().unwrap());
            let (our_key, their_key) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
            assert_eq!((our_key.len(), ours.group()), (length, group.name()));
            let (ours, theirs) = (ours.complete(&their_key), theirs.complete(&our_key));
            assert_eq!(ours.unwrap().secret_bytes(), theirs.unwrap().secret_bytes());
        }
    }

    #[test]
    fn refuses_bad_shares() {
        let off_curve = |length: usize| [vec![UNCOMPRESSED], vec![1; length - 1]].concat();
        let infinity = vec![0];
        let compressed = |group: Group, length: usize| {
            let key = group.start().unwrap().pub_key().to_vec();
            [vec![2 + (key[key.len() - 1] & 1)], key[1..length].to_vec()].concat()
        };
        for (group, share) in [
            (Group::X25519, vec![0; 32]),
            (Group::X25519, [vec![1], vec![0; 31]].concat()),
            (Group::X25519, vec![9; 31]),
            (Group::X25519, vec![]),
            (Group::P256, off_curve(65)),
            (Group::P256, infinity.clone()),
            (Group::P256, vec![]),
            (Group::P256, compressed(Group::P256, 33)),
            (Group::P384, off_curve(97)),
            (Group::P384, infinity),
            (Group::P384, compressed(Group::P384, 49)),
        ] {
            let error = group.start().unwrap().complete(&share).err();
            assert_eq!(error, Some(PeerMisbehaved::InvalidKeyShare.into()), "{group:?} {share:?}");
        }
    }
}
