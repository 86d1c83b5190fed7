//! A message: a signed header and a body. [`Message`] is parsed and unverified; only [`Message::verify`] and
//! [`Message::sign`] yield a [`Verified`].

use ed25519_dalek::{Signer, SigningKey};
use fog_base::NetworkId;
use rand::Rng;

pub use super::signature::KeyCache;
use super::{
    id::{ConversationId, DeviceId, MessageId},
    reject::Reject,
    signature::Claim,
};
use crate::wire::{Header, MAX_MESSAGE, Reader, SALT, SIGNATURE};

const ID_CONTEXT: &str = "fog chat v1 message id";
const BODY_CONTEXT: &str = "fog chat v1 body";
const LABEL: &[u8; 20] = b"fog chat message v1\0";

/// What a message is. The order does not depend on it; numbers that this node does not know are kept and not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// What a person wrote.
    pub const TEXT: Self = Self(1);
    /// A signed operation on who is a member.
    pub const MEMBERSHIP: Self = Self(2);
    /// The manifest of a file.
    pub const FILE: Self = Self(4);
    /// What a room or group is about, from now on.
    pub const TOPIC: Self = Self(5);
}

/// A header and its signature: what fork proofs are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeader {
    id: MessageId,
    header: Header,
    signature: [u8; SIGNATURE],
    encoded: Vec<u8>,
}

impl SignedHeader {
    /// From exactly its bytes; verifies nothing.
    pub fn parse(bytes: &[u8], network: &NetworkId) -> Result<Self, Reject> {
        let (signed, rest) = Self::split(bytes, network)?;
        if rest.is_empty() { Ok(signed) } else { Err(Reject::Malformed) }
    }

    fn split<'a>(bytes: &'a [u8], network: &NetworkId) -> Result<(Self, &'a [u8]), Reject> {
        let mut reader = Reader::new(bytes);
        let header = Header::decode(&mut reader)?;
        let signature = reader.array()?;
        let rest = reader.rest();
        let encoded = bytes.get(..bytes.len() - rest.len()).ok_or(Reject::Malformed)?.to_vec();
        let unsigned = encoded.get(..encoded.len().saturating_sub(SIGNATURE)).ok_or(Reject::Malformed)?;
        let id = message_id(network, unsigned);
        Ok((Self { id, header, signature, encoded }, rest))
    }

    /// Checks the signature.
    pub fn verify(&self, keys: &mut KeyCache) -> Result<(), Reject> {
        if self.claim(keys)?.holds() { Ok(()) } else { Err(Reject::BadSignature) }
    }

    fn claim(&self, keys: &mut KeyCache) -> Result<Claim, Reject> {
        keys.claim(&self.header.author.0, &signed_bytes(self.id), &self.signature).ok_or(Reject::BadSignature)
    }

    /// The id of its message.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// What it says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Header and signature, as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }
}

fn message_id(network: &NetworkId, header: &[u8]) -> MessageId {
    let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
    hasher.update(&network.0).update(header);
    MessageId(*hasher.finalize().as_bytes())
}

fn signed_bytes(id: MessageId) -> [u8; 52] {
    let mut bytes = [0; 52];
    for (to, from) in bytes.iter_mut().zip(LABEL.iter().chain(&id.0)) {
        *to = *from;
    }
    bytes
}

/// The hash of a body under its salt.
pub fn body_hash(salt: &[u8; SALT], body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(BODY_CONTEXT);
    hasher.update(salt).update(body);
    *hasher.finalize().as_bytes()
}

/// A message as it came: parsed, and nothing believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    signed: SignedHeader,
    salt: [u8; SALT],
    body: Vec<u8>,
    /// Header and signature alone came: the body is not for this device.
    is_bare: bool,
}

/// What an author says in a new message about order: made by [`Dag::draft`](super::dag::Dag::draft).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Kind, time and body hash are not set yet.
    pub(crate) header: Header,
}

impl Draft {
    /// The author's number that the message will have.
    pub fn seq(&self) -> u32 {
        self.header.seq
    }

    /// The author.
    pub fn author(&self) -> DeviceId {
        self.header.author
    }
}

impl Message {
    /// From bytes; verifies nothing. Bytes that end with the signature are a bare message.
    pub fn parse(bytes: &[u8], network: &NetworkId) -> Result<Self, Reject> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Reject::Malformed);
        }
        let (signed, rest) = SignedHeader::split(bytes, network)?;
        if rest.is_empty() {
            return Ok(Self { signed, salt: [0; SALT], body: Vec::new(), is_bare: true });
        }
        let mut reader = Reader::new(rest);
        let salt = reader.array()?;
        Ok(Self { signed, salt, body: reader.rest().to_vec(), is_bare: false })
    }

    /// Signs a draft. `salt` is random; an error is a body that is too long, or a key that is not the draft's author's.
    pub fn sign(
        draft: Draft,
        network: &NetworkId,
        key: &SigningKey,
        kind: Kind,
        sent_at: u64,
        salt: [u8; SALT],
        body: &[u8],
    ) -> Result<Verified, Reject> {
        let header = Header { kind: kind.0, sent_at, body_hash: body_hash(&salt, body), ..draft.header };
        let mut encoded = header.encode();
        let is_own = header.author.0 == key.verifying_key().to_bytes();
        if !is_own || encoded.len() + SIGNATURE + SALT + body.len() > MAX_MESSAGE {
            return Err(Reject::Malformed);
        }
        let id = message_id(network, &encoded);
        let signature = key.sign(&signed_bytes(id)).to_bytes();
        encoded.extend_from_slice(&signature);
        let signed = SignedHeader { id, header, signature, encoded };
        Ok(Verified(Self { signed, salt, body: body.to_vec(), is_bare: false }))
    }

    /// Checks the conversation, the body and the signature, in this order (cheap first).
    pub fn verify(self, conversation: &ConversationId, keys: &mut KeyCache) -> Result<Verified, Reject> {
        self.claim(conversation, keys)?.verify()
    }

    /// Checks the conversation and the body; the signature is yet to be checked.
    pub fn claim(self, conversation: &ConversationId, keys: &mut KeyCache) -> Result<Claimed, Reject> {
        self.check_conversation(conversation)?;
        if self.is_bare || body_hash(&self.salt, &self.body) != self.header().body_hash {
            return Err(Reject::BadBody);
        }
        let claim = self.signed.claim(keys)?;
        Ok(Claimed { message: self, claim, outer: None })
    }

    /// [`Message::claim`] of a bare message.
    pub fn claim_bare(self, conversation: &ConversationId, keys: &mut KeyCache) -> Result<Claimed, Reject> {
        self.check_conversation(conversation)?;
        if !self.is_bare {
            return Err(Reject::Malformed);
        }
        let claim = self.signed.claim(keys)?;
        Ok(Claimed { message: self, claim, outer: None })
    }

    fn check_conversation(&self, conversation: &ConversationId) -> Result<(), Reject> {
        if self.header().conversation == *conversation { Ok(()) } else { Err(Reject::WrongConversation) }
    }

    /// Whether it came without its body.
    pub fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// The same without its body: what the order needs.
    pub(crate) fn without_body(self) -> Self {
        Self { body: Vec::new(), ..self }
    }

    /// From this node's own store, where only verified messages are.
    pub fn trusted(self) -> Verified {
        Verified(self)
    }

    /// Its id.
    pub fn id(&self) -> MessageId {
        self.signed.id
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.signed.header
    }
}

/// A message whose body and conversation are right, and whose signature is yet to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    message: Message,
    claim: Claim,
    outer: Option<Claim>,
}

impl Claimed {
    /// Has another signature checked with its own.
    pub fn within(self, outer: Claim) -> Self {
        Self { outer: Some(outer), ..self }
    }

    /// Checks it alone.
    pub fn verify(self) -> Result<Verified, Reject> {
        if self.claims().all(|claim| claim.holds()) { Ok(Verified(self.message)) } else { Err(Reject::BadSignature) }
    }

    /// Checks many in a fraction of the time, and if they are not all true each of them alone.
    pub fn verify_all(claimed: Vec<Self>, rng: &mut impl Rng) -> Vec<Result<Verified, Reject>> {
        let claims: Vec<_> = claimed.iter().flat_map(Self::claims).copied().collect();
        if Claim::all_hold(&claims, rng) {
            return claimed.into_iter().map(|claimed| Ok(Verified(claimed.message))).collect();
        }
        claimed.into_iter().map(Self::verify).collect()
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        [&self.claim].into_iter().chain(&self.outer)
    }
}

/// A message whose body, signature and conversation are right. Its clock is another matter: [`Dag`](super::dag::Dag) checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Message);

impl Verified {
    /// Its id.
    pub fn id(&self) -> MessageId {
        self.0.signed.id
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.0.signed.header
    }

    /// Header and signature.
    pub fn signed_header(&self) -> &SignedHeader {
        &self.0.signed
    }

    /// What it says.
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// Whether it came without its body.
    pub fn is_bare(&self) -> bool {
        self.0.is_bare
    }

    /// It as it was parsed.
    pub(crate) fn message(&self) -> &Message {
        &self.0
    }

    /// The whole message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        if self.0.is_bare {
            return self.0.signed.encoded.clone();
        }
        [self.0.signed.as_bytes(), &self.0.salt, &self.0.body].concat()
    }

    /// The length of [`Verified::encode`].
    pub fn len_bytes(&self) -> usize {
        self.0.signed.encoded.len() + SALT + self.0.body.len()
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
