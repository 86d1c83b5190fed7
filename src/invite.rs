//! Invites: what a person gives to another so that messages can reach them.
//!
//! A signed record of kind 2 (fog-base README) whose body is the CBOR of the struct `Body` below: the key that messages are sealed for,
//! addresses to dial, mailboxes that keep messages while the node is away, and the chat device's card (fog-chat README), if the node ran when
//! the invite was made. As text: `fog1` and the record's bytes in lower-case base32
//! (RFC 4648) without padding. The record is bound to its network, so an invite of another network is refused.

use std::{fmt, time::Duration};

use data_encoding::BASE32_NOPAD;
use fog_base::{
    Network, NodeId, UnixMillis,
    id::byte_array,
    record::{Kind, RecordError, SignedRecord, Validity, Verified},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::{Deserialize, Serialize};

use crate::keys::Keys;

/// The kind of record that an invite is.
pub const KIND: Kind = Kind { number: 2, version: 1, max_body: 3072, max_lifetime: Duration::from_secs(366 * 86_400) };
/// How long a new invite is valid, unless its maker says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// Addresses in an invite at most.
pub const MAX_ADDRESSES: usize = 8;
/// Bytes of one address's text at most.
pub const MAX_ADDRESS: usize = 160;
/// Mailboxes in an invite at most.
pub const MAX_MAILBOXES: usize = 3;
/// Bytes of a card at most.
pub const MAX_CARD: usize = 1024;

const PREFIX: &str = "fog1";
const MAX_TEXT: usize = 5632;

/// Why a text is not an invite that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not an invite at all.
    #[error("not an invite: it starts with `{PREFIX}` and is copied whole")]
    Malformed,
    /// Signed for another network, or changed on its way.
    #[error("the invite is for another network, or was changed on its way")]
    BadSignature,
    /// Its time is over.
    #[error("the invite has expired")]
    Expired,
    /// Its time has not come: one of the clocks is wrong.
    #[error("the invite is not valid yet: a clock is wrong, here or where it was made")]
    TooEarly,
    /// An address in it cannot be one.
    #[error("the invite has an address that cannot be used")]
    BadAddress,
    /// More or longer parts than an invite holds.
    #[error(
        "an invite holds at most {MAX_ADDRESSES} addresses of {MAX_ADDRESS} bytes, {MAX_MAILBOXES} mailboxes and a card of {MAX_CARD} bytes"
    )]
    TooLarge,
}

/// Where a message waits while its recipient is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mailbox {
    /// The relay that keeps it.
    pub relay: NodeId,
    /// The slot there; it names nobody.
    #[serde(with = "byte_array")]
    pub slot: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(with = "byte_array")]
    seal_key: [u8; 32],
    addresses: Vec<String>,
    mailboxes: Vec<Mailbox>,
    #[serde(with = "serde_bytes")]
    card: Vec<u8>,
}

/// An invite whose signature and time were right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Who made it.
    pub node: NodeId,
    /// The X25519 key that messages are sealed for.
    pub seal_key: [u8; 32],
    /// Where to dial, without the peer id at the end.
    pub addresses: Vec<Multiaddr>,
    /// Where messages wait while the node is away.
    pub mailboxes: Vec<Mailbox>,
    /// The card of its chat device; empty if the node did not run.
    pub card: Vec<u8>,
    /// When it ends.
    pub expires: UnixMillis,
    text: String,
}

impl Invite {
    /// Signs an invite to the node of `keys`. Addresses may end with the node's own peer id, which is left out.
    pub fn create(
        keys: &Keys,
        network: &Network,
        addresses: &[Multiaddr],
        mailboxes: &[Mailbox],
        card: &[u8],
        now: UnixMillis,
        lifetime: Duration,
    ) -> Result<Self, InviteError> {
        let addresses: Vec<_> = addresses.iter().map(bare).collect();
        let body = Body {
            seal_key: keys.seal_public(),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
            mailboxes: mailboxes.to_vec(),
            card: card.to_vec(),
        };
        check_sizes(&body)?;
        let validity = Validity { seq: now.0, not_before: now, lifetime };
        let record = SignedRecord::sign(&KIND, &network.id, keys.identity(), validity, &body)
            .map_err(|_| InviteError::TooLarge)?;
        Ok(Self {
            node: record.signer(),
            seal_key: body.seal_key,
            addresses,
            mailboxes: body.mailboxes,
            card: body.card,
            expires: record.expires(),
            text: format!("{PREFIX}{}", BASE32_NOPAD.encode(record.as_bytes()).to_ascii_lowercase()),
        })
    }

    /// Whether a text looks like an invite: then [`Self::parse`] says what is wrong with it.
    pub fn is_invite(text: &str) -> bool {
        text.trim().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    /// Reads and verifies a text.
    pub fn parse(text: &str, network: &Network, now: UnixMillis) -> Result<Self, InviteError> {
        let text = text.trim().to_ascii_lowercase();
        let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_TEXT).ok_or(InviteError::Malformed)?;
        let bytes = BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).map_err(|_| InviteError::Malformed)?;
        let record = SignedRecord::parse(&bytes).map_err(|_| InviteError::Malformed)?;
        let verified: Verified<Body> = record.verify(&KIND, &network.id, now).map_err(|error| match error {
            RecordError::BadSignature => InviteError::BadSignature,
            RecordError::Expired => InviteError::Expired,
            RecordError::TooEarly => InviteError::TooEarly,
            RecordError::TooLarge => InviteError::TooLarge,
            RecordError::Malformed | RecordError::WrongKind(..) | RecordError::BadBody => InviteError::Malformed,
        })?;
        let body = verified.body();
        check_sizes(body)?;
        let addresses: Result<Vec<Multiaddr>, _> = body.addresses.iter().map(|address| address.parse()).collect();
        let addresses = addresses.map_err(|_| InviteError::BadAddress)?;
        if addresses.iter().any(|address| *address != bare(address) || address.is_empty()) {
            return Err(InviteError::BadAddress);
        }
        Ok(Self {
            node: verified.signer(),
            seal_key: body.seal_key,
            addresses,
            mailboxes: body.mailboxes.clone(),
            card: body.card.clone(),
            expires: verified.record().expires(),
            text,
        })
    }
}

/// An invite prints as the text that people pass on.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn check_sizes(body: &Body) -> Result<(), InviteError> {
    let fits = body.addresses.len() <= MAX_ADDRESSES
        && body.addresses.iter().all(|address| address.len() <= MAX_ADDRESS)
        && body.mailboxes.len() <= MAX_MAILBOXES
        && body.card.len() <= MAX_CARD;
    if fits { Ok(()) } else { Err(InviteError::TooLarge) }
}

/// Without the peer id at the end: the record's key says who answers there.
fn bare(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    // Through a relay the address ends with `/p2p-circuit` and perhaps our own id; the relay's id before it stays.
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use fog_base::NetworkId;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn largest(keys: &Keys) -> Invite {
        let address: Multiaddr = "/ip6/2001:db8:1111:2222:3333:4444:5555:6666/udp/65535/quic-v1".parse().unwrap();
        let mailboxes = [1, 2, 3].map(|n| Mailbox { relay: NodeId([n; 32]), slot: [n; 32] });
        Invite::create(keys, &Network::lan(), &vec![address; MAX_ADDRESSES], &mailboxes, &[7; MAX_CARD], NOW, LIFETIME)
            .unwrap()
    }

    #[test]
    fn an_invite_reads_back_from_its_text() {
        let keys = Keys::generate().unwrap();
        let invite = largest(&keys);
        let text = invite.to_string();
        assert!(text.starts_with("fog1") && text.len() <= MAX_TEXT, "{}", text.len());
        assert_eq!(Invite::parse(&text, &Network::lan(), NOW), Ok(invite.clone()));
        assert_eq!(Invite::parse(&format!("  {}\n", text.to_uppercase()), &Network::lan(), NOW), Ok(invite.clone()));
        assert!(Invite::is_invite(&text) && !Invite::is_invite("12D3Koo"));
        assert_eq!((invite.node, invite.seal_key), (keys.node_id(), keys.seal_public()));
    }

    #[test]
    fn our_own_id_at_the_end_of_an_address_is_left_out() {
        let keys = Keys::generate().unwrap();
        let with_id: Multiaddr = format!("/ip4/10.0.0.1/tcp/4001/p2p/{}", keys.node_id()).parse().unwrap();
        let invite = Invite::create(&keys, &Network::lan(), &[with_id], &[], &[], NOW, LIFETIME).unwrap();
        assert_eq!(invite.addresses, ["/ip4/10.0.0.1/tcp/4001".parse().unwrap()]);
    }

    #[test]
    fn changed_expired_foreign_and_torn_invites_are_refused() {
        let text = largest(&Keys::generate().unwrap()).to_string();
        let parse = |text: &str, now| Invite::parse(text, &Network::lan(), now);
        let other = Network { id: NetworkId([9; 32]), ..Network::lan() };
        assert_eq!(Invite::parse(&text, &other, NOW), Err(InviteError::BadSignature));
        assert_eq!(parse(&text, NOW.plus(LIFETIME)), Err(InviteError::Expired));
        assert_eq!(parse(&text, NOW.minus(Duration::from_secs(3600))), Err(InviteError::TooEarly));
        for at in 4..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            assert!(parse(&String::from_utf8(changed).unwrap(), NOW).is_err(), "at {at}");
            assert!(parse(&text[..at], NOW).is_err(), "cut at {at}");
        }
        for garbage in ["", "fog1", "fog1!!!", "hello", "fog1é", &format!("fog1{}", "a".repeat(100_000))] {
            assert_eq!(parse(garbage, NOW), Err(InviteError::Malformed), "{garbage:.20}");
        }
    }

    #[test]
    fn more_than_an_invite_holds_is_refused() {
        let keys = Keys::generate().unwrap();
        let address: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        let made = Invite::create(&keys, &Network::lan(), &vec![address; MAX_ADDRESSES + 1], &[], &[], NOW, LIFETIME);
        assert_eq!(made, Err(InviteError::TooLarge));
    }
}
