//! Forks: two messages of one author with one number. Their signed headers prove it to anybody.

use fog_base::NetworkId;

use crate::{
    core::{
        id::{ConversationId, DeviceId, MessageId},
        message::{KeyCache, SignedHeader},
        reject::Reject,
    },
    wire,
};

/// A fork whose two signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Where.
    pub conversation: ConversationId,
    /// Who.
    pub author: DeviceId,
    /// Under which number there are two messages.
    pub seq: u32,
    /// The two, the lower id first.
    pub ids: (MessageId, MessageId),
}

/// The proof that two signed headers make, as bytes. They need not be of one fork: [`verify`] says that.
pub fn prove(one: &SignedHeader, other: &SignedHeader) -> Vec<u8> {
    let (first, second) = if one.id() < other.id() { (one, other) } else { (other, one) };
    wire::encode_proof(first.as_bytes(), second.as_bytes())
}

/// Checks a proof by what is in it alone.
pub fn verify(bytes: &[u8], network: &NetworkId, keys: &mut KeyCache) -> Result<Fork, Reject> {
    let (first, second) = wire::decode_proof(bytes)?;
    let (first, second) = (SignedHeader::parse(first, network)?, SignedHeader::parse(second, network)?);
    let (a, b) = (first.header(), second.header());
    let is_fork = (a.conversation, a.author, a.seq) == (b.conversation, b.author, b.seq) && first.id() < second.id();
    if !is_fork {
        return Err(Reject::NoFork);
    }
    first.verify(keys)?;
    second.verify(keys)?;
    Ok(Fork { conversation: a.conversation, author: a.author, seq: a.seq, ids: (first.id(), second.id()) })
}
