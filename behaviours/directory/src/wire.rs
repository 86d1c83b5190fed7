//! Requests and answers of the exchange as bytes; layouts are in the README.

use fog_base::{codec, codec::CodecError, id::byte_array};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::core::descriptor::MAX_LEN;

/// The largest request: 64 hashes and their framing.
pub const MAX_REQUEST: usize = 4 * 1024;
/// The largest answer: 64 descriptors of the largest size and their framing.
pub const MAX_RESPONSE: usize = 128 * 1024;
/// The most hashes in one list.
pub const MAX_PAGE: usize = 1024;
/// The most descriptors in one answer.
pub const MAX_BATCH: usize = 64;

/// What one peer asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What do you have that I may not?
    List {
        /// Of the set of the one who asks.
        digest: [u8; 32],
        /// Where the last page ended.
        after: Option<[u8; 32]>,
    },
    /// Send me these.
    Get {
        /// At most [`MAX_BATCH`].
        hashes: Vec<[u8; 32]>,
    },
}

/// What the other one answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::List`].
    List {
        /// The answering clock, Unix milliseconds.
        now_ms: u64,
        /// Of the set of the one who answers.
        digest: [u8; 32],
        /// Sorted; at most [`MAX_PAGE`].
        hashes: Vec<[u8; 32]>,
        /// Whether there is another page.
        more: bool,
    },
    /// To [`Request::Get`]: those that are known.
    Records {
        /// Descriptors.
        records: Vec<Vec<u8>>,
    },
    /// Too many requests.
    Busy,
}

#[derive(Serialize, Deserialize)]
struct Hash(#[serde(with = "byte_array")] [u8; 32]);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum RequestForm {
    List { digest: Hash, after: Option<Hash> },
    Get { hashes: ByteBuf },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum ResponseForm {
    List { now_ms: u64, digest: Hash, hashes: ByteBuf, more: bool },
    Records { records: Vec<ByteBuf> },
    Busy,
}

/// Hashes travel as one byte string: 32 bytes each.
fn join(hashes: &[[u8; 32]]) -> ByteBuf {
    ByteBuf::from(hashes.concat())
}

fn split(bytes: &[u8], max: usize) -> Result<Vec<[u8; 32]>, CodecError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() && hashes.len() <= max { Ok(hashes.to_vec()) } else { Err(CodecError::Invalid) }
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let form = match self {
            Self::List { digest, after } => RequestForm::List { digest: Hash(*digest), after: after.map(Hash) },
            Self::Get { hashes } => RequestForm::Get { hashes: join(hashes) },
        };
        codec::encode(&form, MAX_REQUEST)
    }

    /// From bytes, with every length checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match codec::decode(bytes, MAX_REQUEST)? {
            RequestForm::List { digest, after } => Self::List { digest: digest.0, after: after.map(|hash| hash.0) },
            RequestForm::Get { hashes } => Self::Get { hashes: split(&hashes, MAX_BATCH)? },
        })
    }
}

impl Response {
    /// As bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let form = match self {
            Self::List { now_ms, digest, hashes, more } => {
                ResponseForm::List { now_ms: *now_ms, digest: Hash(*digest), hashes: join(hashes), more: *more }
            }
            Self::Records { records } => {
                ResponseForm::Records { records: records.iter().map(|bytes| ByteBuf::from(bytes.clone())).collect() }
            }
            Self::Busy => ResponseForm::Busy,
        };
        codec::encode(&form, MAX_RESPONSE)
    }

    /// From bytes, with every length checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match codec::decode(bytes, MAX_RESPONSE)? {
            ResponseForm::List { now_ms, digest, hashes, more } => {
                Self::List { now_ms, digest: digest.0, hashes: split(&hashes, MAX_PAGE)?, more }
            }
            ResponseForm::Records { records } => {
                if records.len() > MAX_BATCH || records.iter().any(|bytes| bytes.len() > MAX_LEN) {
                    return Err(CodecError::Invalid);
                }
                Self::Records { records: records.into_iter().map(ByteBuf::into_vec).collect() }
            }
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
            Request::List { digest: [1; 32], after: None },
            Request::List { digest: [1; 32], after: Some([2; 32]) },
            Request::Get { hashes: vec![[0xff; 32]; MAX_BATCH] },
        ];
        for request in requests {
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        let responses = [
            Response::List { now_ms: u64::MAX, digest: [1; 32], hashes: vec![[3; 32]; MAX_PAGE], more: true },
            Response::Records { records: vec![vec![7; MAX_LEN]; MAX_BATCH] },
            Response::Busy,
        ];
        for response in responses {
            assert_eq!(Response::decode(&response.encode().unwrap()), Ok(response));
        }
    }

    #[test]
    fn more_than_the_caps_is_refused() {
        let hashes = Request::Get { hashes: vec![[1; 32]; MAX_BATCH + 1] }.encode().unwrap();
        assert_eq!(Request::decode(&hashes), Err(CodecError::Invalid));
        let records = Response::Records { records: vec![vec![1]; MAX_BATCH + 1] }.encode().unwrap();
        assert_eq!(Response::decode(&records), Err(CodecError::Invalid));
        let record = Response::Records { records: vec![vec![1; MAX_LEN + 1]] }.encode().unwrap();
        assert_eq!(Response::decode(&record), Err(CodecError::Invalid));
        let odd = codec::encode(&RequestForm::Get { hashes: ByteBuf::from(vec![0; 33]) }, 100).unwrap();
        assert_eq!(Request::decode(&odd), Err(CodecError::Invalid));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _outcomes = (Request::decode(&bytes), Response::decode(&bytes));
        }
    }
}
