//! Bundles: what a stranger needs to write to a device. The signed fallback key of an invite, or a one-time key that came through
//! mailbox or mixnet. Olm itself signs neither, so a bundle is signed by the device.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fog_base::{NetworkId, UnixMillis};
use serde::{Deserialize, Serialize};

use super::reject::Reject;
pub use crate::core::id::DeviceId;

/// Bytes of a bundle.
pub const BUNDLE: usize = 2 + 3 * 32 + 2 * 8 + 64;
const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"fog chat bundle v1\0";

/// How often the key of a bundle may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreKeyKind {
    /// By everybody who holds the invite, until it is replaced twice.
    Fallback = 0,
    /// Once.
    OneTime = 1,
}

/// A verified bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Whose it is.
    pub device: DeviceId,
    /// The device's Curve25519 identity key. A device has one in its life.
    pub identity: [u8; 32],
    /// The Curve25519 key that a session is started from.
    pub pre_key: [u8; 32],
    /// What kind of key that is.
    pub kind: PreKeyKind,
    /// A higher one replaces a lower one.
    pub seq: u64,
    /// Unix seconds, exclusive: then the device has destroyed the key.
    pub expires: u64,
}

impl Bundle {
    /// The bytes, signed by `key`, which must be the device's.
    pub fn sign(&self, network: &NetworkId, key: &SigningKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BUNDLE);
        bytes.extend_from_slice(&[VERSION, self.kind as u8]);
        bytes.extend_from_slice(&self.device.0);
        bytes.extend_from_slice(&self.identity);
        bytes.extend_from_slice(&self.pre_key);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        let signature = key.sign(&signed(network, &bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        bytes
    }

    /// The bundle in exactly these bytes, if its signature holds in `network` and it has not expired.
    pub fn verify(bytes: &[u8], network: &NetworkId, now: UnixMillis) -> Result<Self, Reject> {
        let (body, signature) = bytes.split_last_chunk::<64>().ok_or(Reject::Malformed)?;
        let bundle = Self::parse(body).ok_or(Reject::Malformed)?;
        VerifyingKey::from_bytes(&bundle.device.0)
            .and_then(|key| key.verify_strict(&signed(network, body), &Signature::from_bytes(signature)))
            .map_err(|_| Reject::BadSignature)?;
        if bundle.expires <= now.as_secs() { Err(Reject::Expired) } else { Ok(bundle) }
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let (&[version, kind], rest) = body.split_first_chunk::<2>()?;
        let (device, rest) = rest.split_first_chunk::<32>()?;
        let (identity, rest) = rest.split_first_chunk::<32>()?;
        let (pre_key, rest) = rest.split_first_chunk::<32>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let kind = match kind {
            0 => PreKeyKind::Fallback,
            1 => PreKeyKind::OneTime,
            _ => return None,
        };
        (version == VERSION && rest.is_empty()).then_some(Self {
            device: DeviceId(*device),
            identity: *identity,
            pre_key: *pre_key,
            kind,
            seq: u64::from_be_bytes(*seq),
            expires: u64::from_be_bytes(*expires),
        })
    }
}

fn signed(network: &NetworkId, body: &[u8]) -> Vec<u8> {
    [DOMAIN, &network.0, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 32]);

    fn sample() -> (Bundle, SigningKey) {
        let key = SigningKey::from_bytes(&[1; 32]);
        let device = DeviceId(key.verifying_key().to_bytes());
        (Bundle { device, identity: [2; 32], pre_key: [3; 32], kind: PreKeyKind::Fallback, seq: 4, expires: 5 }, key)
    }

    #[test]
    fn a_bundle_is_read_back_until_it_expires() {
        let (bundle, key) = sample();
        let bytes = bundle.sign(&NETWORK, &key);
        assert_eq!(bytes.len(), BUNDLE);
        assert_eq!(Bundle::verify(&bytes, &NETWORK, UnixMillis(4_999)), Ok(bundle));
        assert_eq!(Bundle::verify(&bytes, &NETWORK, UnixMillis(5_000)), Err(Reject::Expired));
    }

    #[test]
    fn no_byte_of_a_bundle_can_be_changed_and_no_other_network_takes_it() {
        let (bundle, key) = sample();
        let bytes = bundle.sign(&NETWORK, &key);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Bundle::verify(&bad, &NETWORK, UnixMillis(0)).is_err(), "byte {at}");
            assert!(Bundle::verify(&bytes[..at], &NETWORK, UnixMillis(0)).is_err(), "{at} bytes");
        }
        assert!(Bundle::verify(&[bytes.clone(), vec![0]].concat(), &NETWORK, UnixMillis(0)).is_err());
        assert_eq!(Bundle::verify(&bytes, &NetworkId([8; 32]), UnixMillis(0)), Err(Reject::BadSignature));
    }
}
