//! A message: a signed header and a body. [`Message`] is parsed and unverified; only [`Message::verify`] and
//! [`Message::sign`] yield a [`Verified`].

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fog_base::NetworkId;

use super::{
    id::{ConversationId, DeviceId, MessageId},
    reject::Reject,
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

    /// Checks the signature with a key that was decoded before, if there is one.
    pub fn verify(&self, keys: &mut KeyCache) -> Result<(), Reject> {
        let key = keys.get(self.header.author)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&signed_bytes(self.id), &signature).map_err(|_| Reject::BadSignature)
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

/// Authors' keys in the form that checks signatures; making that form costs a tenth of a check.
#[derive(Debug, Default)]
pub struct KeyCache(std::collections::BTreeMap<DeviceId, VerifyingKey>);

impl KeyCache {
    const MAX: usize = 4_096;

    fn get(&mut self, author: DeviceId) -> Result<VerifyingKey, Reject> {
        if let Some(key) = self.0.get(&author) {
            return Ok(*key);
        }
        let key = VerifyingKey::from_bytes(&author.0).map_err(|_| Reject::BadSignature)?;
        // Strict checks refuse a weak key's signatures anyway.
        if key.is_weak() {
            return Err(Reject::BadSignature);
        }
        if self.0.len() >= Self::MAX {
            self.0.clear();
        }
        self.0.insert(author, key);
        Ok(key)
    }
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
        if self.header().conversation != *conversation {
            return Err(Reject::WrongConversation);
        }
        if self.is_bare || body_hash(&self.salt, &self.body) != self.header().body_hash {
            return Err(Reject::BadBody);
        }
        self.signed.verify(keys)?;
        Ok(Verified(self))
    }

    /// Checks the conversation and the signature of a bare message.
    pub fn verify_bare(self, conversation: &ConversationId, keys: &mut KeyCache) -> Result<Verified, Reject> {
        if self.header().conversation != *conversation {
            return Err(Reject::WrongConversation);
        }
        if !self.is_bare {
            return Err(Reject::Malformed);
        }
        self.signed.verify(keys)?;
        Ok(Verified(self))
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
