//! Cards: what another device must know to write to this one.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 178 | bundle of the fallback key, which names the device |
//! | 179 | 32 | node |
//! | 211 | 32 | the node's key for sealed packets |
//! | 243 | 1 | length of the name, 1 to 64 |
//! | 244 | | name, UTF-8 |
//! | … | 1 | number of mailboxes, 0 to 3 |
//! | … | 64 each | relay (32), slot (32) |
//! | … | 64 | Ed25519 signature of the device, strictly verified, of `"fog chat card v1" ‖ 00 ‖ network id ‖ all before` |
//!
//! The node signs nothing here: whoever takes a card believes that the device is at this node where the card came over that node's own
//! link, or inside its signed invite.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fog_base::{NetworkId, NodeId, UnixMillis};

use super::text::clean_name;
use crate::{
    core::{
        id::DeviceId,
        reject::Reject,
        secrets::bundle::{BUNDLE, Bundle, PreKeyKind},
    },
    wire::Reader,
};

/// The longest card.
pub const MAX_CARD: usize = 1 + BUNDLE + 64 + 1 + MAX_NAME + 1 + MAX_MAILBOXES * 64 + 64;
/// The longest name, in bytes of UTF-8.
pub const MAX_NAME: usize = 64;
/// The most mailboxes.
pub const MAX_MAILBOXES: usize = 3;
const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"fog chat card v1\0";

/// A card whose signatures hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The device.
    pub device: DeviceId,
    /// The node that it is reached at.
    pub node: NodeId,
    /// How its person wants to be called; cleaned.
    pub name: String,
    /// Its fallback key.
    pub bundle: Bundle,
    /// The node's key for sealed packets.
    pub seal_key: [u8; 32],
    /// Relay and slot of each mailbox.
    pub mailboxes: Vec<(NodeId, [u8; 32])>,
    encoded: Vec<u8>,
}

/// What a device says of itself in a card.
pub(super) struct Claims<'a> {
    pub(super) bundle: &'a [u8],
    pub(super) node: NodeId,
    pub(super) name: &'a str,
    pub(super) seal_key: [u8; 32],
    pub(super) mailboxes: &'a [(NodeId, [u8; 32])],
}

impl Card {
    /// Signs a card; the bundle must be the own one.
    pub(super) fn sign(
        network: &NetworkId,
        key: &SigningKey,
        claims: &Claims<'_>,
        now: UnixMillis,
    ) -> Result<Self, Reject> {
        let name = clean_name(claims.name);
        let mailboxes = claims.mailboxes.get(..MAX_MAILBOXES).unwrap_or(claims.mailboxes);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(claims.bundle);
        bytes.extend_from_slice(&claims.node.0);
        bytes.extend_from_slice(&claims.seal_key);
        bytes.push(u8::try_from(name.len()).map_err(|_| Reject::Malformed)?);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(u8::try_from(mailboxes.len()).map_err(|_| Reject::Malformed)?);
        for (relay, slot) in mailboxes {
            bytes.extend_from_slice(&relay.0);
            bytes.extend_from_slice(slot);
        }
        let signature = key.sign(&signed(network, &bytes)).to_bytes();
        bytes.extend_from_slice(&signature);
        Self::from_bytes(network, &bytes, now)
    }

    /// As bytes, at most [`MAX_CARD`].
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encoded.clone()
    }

    /// From exactly its bytes; both signatures and the expiry of the bundle are checked.
    pub fn from_bytes(network: &NetworkId, bytes: &[u8], now: UnixMillis) -> Result<Self, Reject> {
        let (body, signature) = bytes.split_last_chunk::<64>().ok_or(Reject::Malformed)?;
        let mut reader = Reader::new(body);
        if reader.u8()? != VERSION {
            return Err(Reject::UnknownVersion);
        }
        let bundle = reader.bytes(BUNDLE)?;
        let (node, seal_key) = (NodeId(reader.array()?), reader.array()?);
        let length = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.bytes(length)?).map_err(|_| Reject::Malformed)?;
        let count = usize::from(reader.u8()?);
        if length > MAX_NAME || count > MAX_MAILBOXES {
            return Err(Reject::Malformed);
        }
        let mailboxes =
            (0..count).map(|_| Ok((NodeId(reader.array()?), reader.array()?))).collect::<Result<_, Reject>>()?;
        reader.end()?;
        let bundle = Bundle::verify(bundle, network, now).map_err(Reject::from)?;
        if bundle.kind != PreKeyKind::Fallback {
            return Err(Reject::Malformed);
        }
        VerifyingKey::from_bytes(&bundle.device.0)
            .and_then(|key| key.verify_strict(&signed(network, body), &Signature::from_bytes(signature)))
            .map_err(|_| Reject::BadSignature)?;
        let name = clean_name(name);
        Ok(Self { device: bundle.device, node, name, bundle, seal_key, mailboxes, encoded: bytes.to_vec() })
    }

    /// The bytes of the bundle.
    pub(super) fn bundle_bytes(&self) -> &[u8] {
        self.encoded.get(1..=BUNDLE).unwrap_or_default()
    }
}

fn signed(network: &NetworkId, body: &[u8]) -> Vec<u8> {
    [DOMAIN, &network.0, body].concat()
}
