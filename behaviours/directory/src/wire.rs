//! Requests and answers of the exchange as bytes; layouts are in the README.

use fog_base::{Epoch, codec, codec::CodecError, id::byte_array};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::core::{
    certificate::chain::MAX_LINK_LEN,
    descriptor::MAX_LEN,
    exchange::reconcile::{MAX_QUERY, MAX_REPLY},
};

/// The largest request: a message of reconciliation and its framing.
pub const MAX_REQUEST: usize = MAX_QUERY + 1024;
/// The largest answer: its content and the framing.
pub const MAX_RESPONSE: usize = MAX_CONTENT + 8 * 1024;
/// The most bytes of descriptors, links or state in one answer.
pub const MAX_CONTENT: usize = 120 * 1024;
/// The most hashes that are asked for at once, and so the most descriptors in one answer.
pub const MAX_BATCH: usize = 128;
/// The most links in one answer.
pub const MAX_LINKS: usize = 1024;

/// Which set is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The newest descriptors of all relays.
    Live,
    /// The set with this Merkle root.
    Root([u8; 32]),
}

/// What one peer asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Where do our sets differ?
    Reconcile {
        /// Which sets.
        scope: Scope,
        /// A message of negentropy, at most [`MAX_QUERY`] bytes.
        message: Vec<u8>,
    },
    /// Send me these.
    Get {
        /// The set that they are in.
        scope: Scope,
        /// At most [`MAX_BATCH`].
        hashes: Vec<[u8; 32]>,
    },
    /// Send me certificates.
    Links {
        /// Those of later epochs than this one.
        after: Epoch,
    },
    /// Send me a part of the state with this hash.
    State {
        /// Of all its bytes.
        hash: [u8; 32],
        /// Where the part begins.
        offset: u32,
    },
}

/// What the other one answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Reconcile`].
    Reconcile {
        /// The answering clock, Unix milliseconds.
        now_ms: u64,
        /// A message of negentropy, at most [`MAX_REPLY`] bytes.
        message: Vec<u8>,
    },
    /// To [`Request::Get`]: those that are known, in the order of the hashes.
    Records {
        /// Descriptors, as many as fit [`MAX_CONTENT`].
        records: Vec<Vec<u8>>,
        /// Whether others did not fit.
        more: bool,
    },
    /// To [`Request::Links`].
    Links {
        /// Oldest first, as many as fit [`MAX_CONTENT`].
        links: Vec<Vec<u8>>,
        /// Whether others did not fit.
        more: bool,
    },
    /// To [`Request::State`].
    State {
        /// The length of the whole state.
        total: u32,
        /// From the offset, at most [`MAX_CONTENT`].
        bytes: Vec<u8>,
    },
    /// The set or the state is not here.
    Unknown,
    /// Too many requests.
    Busy,
}

#[derive(Serialize, Deserialize)]
struct Hash(#[serde(with = "byte_array")] [u8; 32]);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum RequestForm {
    Reconcile { root: Option<Hash>, message: ByteBuf },
    Get { root: Option<Hash>, hashes: ByteBuf },
    Links { after: Epoch },
    State { hash: Hash, offset: u32 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum ResponseForm {
    Reconcile { now_ms: u64, message: ByteBuf },
    Records { records: Vec<ByteBuf>, more: bool },
    Links { links: Vec<ByteBuf>, more: bool },
    State { total: u32, bytes: ByteBuf },
    Unknown,
    Busy,
}

impl Scope {
    fn form(self) -> Option<Hash> {
        match self {
            Self::Live => None,
            Self::Root(root) => Some(Hash(root)),
        }
    }

    fn from_form(root: Option<Hash>) -> Self {
        root.map_or(Self::Live, |root| Self::Root(root.0))
    }
}

/// Hashes travel as one byte string: 32 bytes each.
fn join(hashes: &[[u8; 32]]) -> ByteBuf {
    ByteBuf::from(hashes.concat())
}

fn split(bytes: &[u8], max: usize) -> Result<Vec<[u8; 32]>, CodecError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() && hashes.len() <= max { Ok(hashes.to_vec()) } else { Err(CodecError::Invalid) }
}

fn wrap(parts: &[Vec<u8>]) -> Vec<ByteBuf> {
    parts.iter().map(|bytes| ByteBuf::from(bytes.clone())).collect()
}

/// At most `count` parts of at most `each` bytes, and of `MAX_CONTENT` bytes together.
fn unwrap(parts: Vec<ByteBuf>, count: usize, each: usize) -> Result<Vec<Vec<u8>>, CodecError> {
    let total: usize = parts.iter().map(|bytes| bytes.len()).sum();
    if parts.len() > count || total > MAX_CONTENT || parts.iter().any(|bytes| bytes.len() > each) {
        return Err(CodecError::Invalid);
    }
    Ok(parts.into_iter().map(ByteBuf::into_vec).collect())
}

fn bounded(bytes: ByteBuf, max: usize) -> Result<Vec<u8>, CodecError> {
    if bytes.len() <= max { Ok(bytes.into_vec()) } else { Err(CodecError::Invalid) }
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let form = match self {
            Self::Reconcile { scope, message } => {
                RequestForm::Reconcile { root: scope.form(), message: ByteBuf::from(message.clone()) }
            }
            Self::Get { scope, hashes } => RequestForm::Get { root: scope.form(), hashes: join(hashes) },
            Self::Links { after } => RequestForm::Links { after: *after },
            Self::State { hash, offset } => RequestForm::State { hash: Hash(*hash), offset: *offset },
        };
        codec::encode(&form, MAX_REQUEST)
    }

    /// From bytes, with every length checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match codec::decode(bytes, MAX_REQUEST)? {
            RequestForm::Reconcile { root, message } => {
                Self::Reconcile { scope: Scope::from_form(root), message: bounded(message, MAX_QUERY)? }
            }
            RequestForm::Get { root, hashes } => {
                Self::Get { scope: Scope::from_form(root), hashes: split(&hashes, MAX_BATCH)? }
            }
            RequestForm::Links { after } => Self::Links { after },
            RequestForm::State { hash, offset } => Self::State { hash: hash.0, offset },
        })
    }
}

impl Response {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let form = match self {
            Self::Reconcile { now_ms, message } => {
                ResponseForm::Reconcile { now_ms: *now_ms, message: ByteBuf::from(message.clone()) }
            }
            Self::Records { records, more } => ResponseForm::Records { records: wrap(records), more: *more },
            Self::Links { links, more } => ResponseForm::Links { links: wrap(links), more: *more },
            Self::State { total, bytes } => ResponseForm::State { total: *total, bytes: ByteBuf::from(bytes.clone()) },
            Self::Unknown => ResponseForm::Unknown,
            Self::Busy => ResponseForm::Busy,
        };
        codec::encode(&form, MAX_RESPONSE)
    }

    /// From bytes, with every length checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match codec::decode(bytes, MAX_RESPONSE)? {
            ResponseForm::Reconcile { now_ms, message } => {
                Self::Reconcile { now_ms, message: bounded(message, MAX_REPLY)? }
            }
            ResponseForm::Records { records, more } => {
                Self::Records { records: unwrap(records, MAX_BATCH, MAX_LEN)?, more }
            }
            ResponseForm::Links { links, more } => Self::Links { links: unwrap(links, MAX_LINKS, MAX_LINK_LEN)?, more },
            ResponseForm::State { total, bytes } => Self::State { total, bytes: bounded(bytes, MAX_CONTENT)? },
            ResponseForm::Unknown => Self::Unknown,
            ResponseForm::Busy => Self::Busy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_messages_fit_their_caps_and_read_back() {
        let requests = [
            Request::Reconcile { scope: Scope::Live, message: vec![0xff; MAX_QUERY] },
            Request::Reconcile { scope: Scope::Root([0xff; 32]), message: vec![0xff; MAX_QUERY] },
            Request::Get { scope: Scope::Live, hashes: vec![] },
            Request::Get { scope: Scope::Root([0xff; 32]), hashes: vec![[0xff; 32]; MAX_BATCH] },
            Request::Links { after: Epoch(u32::MAX) },
            Request::State { hash: [0xff; 32], offset: u32::MAX },
        ];
        for request in requests {
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        let each = MAX_LEN.min(MAX_CONTENT / MAX_BATCH);
        let responses = [
            Response::Reconcile { now_ms: u64::MAX, message: vec![3; MAX_REPLY] },
            Response::Records { records: vec![vec![7; each]; MAX_BATCH], more: true },
            Response::Records { records: vec![vec![7; MAX_LEN]; MAX_BATCH.min(MAX_CONTENT / MAX_LEN)], more: true },
            Response::Links { links: vec![vec![7; MAX_CONTENT / MAX_LINKS]; MAX_LINKS], more: true },
            Response::Links { links: vec![vec![7; MAX_LINK_LEN]; MAX_CONTENT / MAX_LINK_LEN], more: false },
            Response::State { total: u32::MAX, bytes: vec![7; MAX_CONTENT] },
            Response::Unknown,
            Response::Busy,
        ];
        for response in responses {
            assert_eq!(Response::decode(&response.encode().unwrap()), Ok(response));
        }
    }

    #[test]
    fn more_than_the_caps_is_refused() {
        let requests = [
            Request::Reconcile { scope: Scope::Live, message: vec![0; MAX_QUERY + 1] },
            Request::Get { scope: Scope::Live, hashes: vec![[1; 32]; MAX_BATCH + 1] },
        ];
        for request in requests {
            assert_eq!(Request::decode(&request.encode().unwrap()), Err(CodecError::Invalid));
        }
        let responses = [
            Response::Reconcile { now_ms: 0, message: vec![0; MAX_REPLY + 1] },
            Response::Records { records: vec![vec![1]; MAX_BATCH + 1], more: false },
            Response::Records { records: vec![vec![1; MAX_LEN + 1]], more: false },
            Response::Links { links: vec![vec![1]; MAX_LINKS + 1], more: false },
            Response::Links { links: vec![vec![1; MAX_LINK_LEN + 1]], more: false },
            Response::Links { links: vec![vec![1; MAX_CONTENT / 10 + 1]; 10], more: false },
            Response::State { total: 0, bytes: vec![1; MAX_CONTENT + 1] },
        ];
        for response in responses {
            assert_eq!(Response::decode(&response.encode().unwrap()), Err(CodecError::Invalid));
        }
        let odd = codec::encode(&RequestForm::Get { root: None, hashes: ByteBuf::from(vec![0; 33]) }, 100).unwrap();
        assert_eq!(Request::decode(&odd), Err(CodecError::Invalid));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _outcomes = (Request::decode(&bytes), Response::decode(&bytes));
        }
    }
}
