//! What travels through the mixnet: requests of a coordinator that is known by a key alone, and pieces of the answers to them.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use fog_base::{NetworkId, NodeId};

use super::{
    bytes::{Reader, WireError, Writer},
    message::{MAX_MESSAGE, Message, ToWorker},
};

/// The most messages in one request.
pub const MAX_TOGETHER: usize = 8;
/// The longest request: what it says, its key, its signature.
pub const MAX_REQUEST: usize = MAX_MESSAGE + 256;
/// What of an answer is in one piece.
pub const PIECE: usize = 2_031;
/// The most pieces of one answer.
pub const MAX_PIECES: usize = 32;
/// The longest outcome that is revealed to a coordinator without a name, encoded, in bytes.
pub const MAX_MIXED_OUTCOME: usize = 63 * 1024;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"fog mixed task v1\0";
const SIGNATURE: usize = 64;

/// What a coordinator says to a worker through the mixnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The key that stands for it in one execution.
    pub coordinator: NodeId,
    /// What it says, in this order.
    pub messages: Vec<ToWorker>,
}

fn signed(network: &NetworkId, worker: NodeId, bytes: &[u8]) -> Vec<u8> {
    [LABEL, &network.0, &worker.0, bytes].concat()
}

impl Request {
    /// The bytes for `worker`, signed with the execution's key.
    pub fn sign(messages: &[ToWorker], key: &SigningKey, network: &NetworkId, worker: NodeId) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION).put(key.verifying_key().as_bytes());
        out.u8(u8::try_from(messages.len()).unwrap_or(u8::MAX));
        for message in messages {
            out.bytes(&Message::ToWorker(message.clone()).encode());
        }
        let signature = key.sign(&signed(network, worker, &out.0)).to_bytes();
        out.put(&signature);
        out.0
    }

    /// What a worker reads: nothing of it unless the key that it names signed all of it for this worker.
    pub fn open(bytes: &[u8], network: &NetworkId, worker: NodeId) -> Result<Self, WireError> {
        if bytes.len() > MAX_REQUEST {
            return Err(WireError::TooLong);
        }
        let (said, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(WireError::Malformed)?;
        let mut read = Reader(said);
        if read.u8()? != VERSION {
            return Err(WireError::Malformed);
        }
        let coordinator = NodeId(read.array()?);
        let key = VerifyingKey::from_bytes(&coordinator.0).map_err(|_| WireError::Malformed)?;
        key.verify_strict(&signed(network, worker, said), &Signature::from_bytes(signature))
            .map_err(|_| WireError::Malformed)?;
        let count = usize::from(read.u8()?);
        if count > MAX_TOGETHER {
            return Err(WireError::TooLong);
        }
        let message = |_| match Message::decode(read.bytes(MAX_MESSAGE)?)? {
            Message::ToWorker(message) => Ok(message),
            Message::ToCoordinator(_) | Message::Offers(_) => Err(WireError::Malformed),
        };
        let messages = (0..count).map(message).collect::<Result<_, _>>()?;
        read.end()?;
        Ok(Self { coordinator, messages })
    }
}

/// A part of an answer, as one reply block takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Which answer: the first 8 bytes of its BLAKE3, so that one that is said again adds to what is there of it.
    pub answer: u64,
    /// The length of the whole.
    pub length: u32,
    /// Which piece.
    pub index: u8,
    /// Its bytes.
    pub data: &'a [u8],
}

/// The name of an answer.
pub fn name(answer: &[u8]) -> u64 {
    blake3::hash(answer).as_bytes().first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// The pieces of an answer; `None` if it is too long for any.
pub fn pieces(answer: &[u8]) -> Option<Vec<Vec<u8>>> {
    let length = u32::try_from(answer.len()).ok().filter(|_| answer.len() <= MAX_PIECES * PIECE)?;
    let piece = |(index, data): (usize, &[u8])| {
        let mut out = Writer::default();
        // At most 32 pieces.
        out.u64(name(answer)).u32(length).u8(index as u8).put(data);
        out.0
    };
    Some(answer.chunks(PIECE).enumerate().map(piece).collect())
}

impl<'a> Piece<'a> {
    /// Reads one; zeros may stand behind it, for a reply block brings more than a piece.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut read = Reader(bytes);
        let (answer, length, index) = (read.u64()?, read.u32()?, read.u8()?);
        let start = usize::from(index) * PIECE;
        let rest = (length as usize).checked_sub(start).filter(|rest| *rest > 0).ok_or(WireError::Malformed)?;
        let (data, padding) = read.0.split_at_checked(rest.min(PIECE)).ok_or(WireError::Malformed)?;
        let is_sound = length as usize <= MAX_PIECES * PIECE && padding.iter().all(|byte| *byte == 0);
        if is_sound { Ok(Self { answer, length, index, data }) } else { Err(WireError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::ids::ExecutionId;

    /// Answer, length and index of a piece.
    const HEADER: usize = 13;
    const NETWORK: NetworkId = NetworkId([5; 32]);

    #[test]
    fn a_request_is_read_by_its_worker_alone_and_only_whole() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let worker = NodeId([1; 32]);
        let messages = vec![
            ToWorker::Cancel(ExecutionId([1; 16])),
            ToWorker::Reveal { execution: ExecutionId([2; 16]), want_output: true },
        ];
        let bytes = Request::sign(&messages, &key, &NETWORK, worker);
        let coordinator = NodeId(key.verifying_key().to_bytes());
        assert_eq!(Request::open(&bytes, &NETWORK, worker), Ok(Request { coordinator, messages }));
        assert!(Request::open(&bytes, &NETWORK, NodeId([2; 32])).is_err());
        assert!(Request::open(&bytes, &NetworkId([6; 32]), worker).is_err());
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Request::open(&other, &NETWORK, worker).is_err(), "{at}");
            assert!(Request::open(&bytes[..at], &NETWORK, worker).is_err(), "{at}");
        }
        let many = vec![ToWorker::Cancel(ExecutionId([1; 16])); MAX_TOGETHER + 1];
        let many = Request::sign(&many, &key, &NETWORK, worker);
        assert_eq!(Request::open(&many, &NETWORK, worker), Err(WireError::TooLong));
    }

    proptest! {
        #[test]
        fn pieces_make_the_answer_again(answer in proptest::collection::vec(any::<u8>(), 1..3 * PIECE)) {
            let all = pieces(&answer).unwrap();
            let mut padded = all.clone();
            padded.iter_mut().for_each(|piece| piece.resize(HEADER + PIECE + 3, 0));
            let read: Vec<_> = padded.iter().map(|piece| Piece::read(piece).unwrap()).collect();
            prop_assert!(all.iter().zip(&read).all(|(piece, read)| Piece::read(piece) == Ok(*read)));
            let with_more = padded.iter().map(|piece| [piece.as_slice(), &[1]].concat());
            prop_assert!(with_more.into_iter().all(|piece| Piece::read(&piece).is_err()));
            let short = all.iter().map(|piece| Piece::read(&piece[..piece.len() - 1]));
            prop_assert!(short.into_iter().all(|piece| piece.is_err()));
            prop_assert!(read.iter().all(|piece| piece.answer == name(&answer)));
            prop_assert_eq!(read.iter().flat_map(|piece| piece.data).copied().collect::<Vec<_>>(), answer);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(piece) = Piece::read(&bytes) {
                prop_assert!(piece.data.len() <= PIECE && usize::from(piece.index) < MAX_PIECES);
            }
            prop_assert!(Request::open(&bytes, &NETWORK, NodeId([1; 32])).is_err());
        }
    }

    #[test]
    fn what_is_too_long_has_no_pieces() {
        assert!(pieces(&vec![0; MAX_PIECES * PIECE]).is_some_and(|all| all.len() == MAX_PIECES));
        assert!(pieces(&vec![0; MAX_PIECES * PIECE + 1]).is_none());
    }
}
