//! What travels through the mixnet for the level `mixed`, and the parts in which an introduction point and a service pass it on.

use super::Reader;
use crate::core::handshake::KEM_CIPHERTEXT;

/// Bytes of an answer by one reply block.
pub const PIECE: usize = 2047;
/// How much of them is the answer's own.
pub const PIECE_DATA: usize = PIECE - 7;
/// Bytes of a part on a circuit, but the last.
pub const PART: usize = 30 * 1024;
/// Parts of one request or answer.
pub const MAX_PARTS: u8 = 10;
/// The largest answer, with all that is around it.
pub const MAX_LENGTH: usize = 130 * PIECE_DATA;
/// The largest request, sealed.
pub const MAX_SEALED: usize = 65 * 1024 + 16;

const FETCH: u8 = 1;
const REQUEST: u8 = 2;
const MORE: u8 = 3;
const DATA: u8 = 0;

/// A request, sealed for an introduction point's keys.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRequest {
    /// Which service.
    pub auth_key: [u8; 32],
    /// The client's X25519 key.
    pub x: [u8; 32],
    /// To the service's ML-KEM key.
    pub ciphertext: [u8; KEM_CIPHERTEXT],
    /// What is asked, sealed.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedRequest").field("sealed", &self.sealed.len()).finish_non_exhaustive()
    }
}

impl SealedRequest {
    /// As it travels on the service's circuit, in parts.
    pub fn encode(&self) -> Vec<u8> {
        [self.auth_key.as_slice(), &self.x, &self.ciphertext, &self.sealed].concat()
    }

    /// `None` if it is none, or too long.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (auth_key, x, ciphertext) = (reader.array()?, reader.array()?, reader.array()?);
        let sealed = reader.0.to_vec();
        (sealed.len() <= MAX_SEALED).then_some(Self { auth_key, x, ciphertext, sealed })
    }
}

/// What a client asks of a relay through the mixnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The descriptor of a blinded key.
    Fetch([u8; 32]),
    /// To pass a request on to a service.
    Request {
        /// By which the client speaks of it later.
        id: [u8; 16],
        /// The request.
        request: Box<SealedRequest>,
    },
    /// The pieces of the answer that the client has not.
    More {
        /// The request.
        id: [u8; 16],
        /// A bit for each piece that is not wanted, the first in the lowest bit of the first byte.
        has: Vec<u8>,
    },
}

impl Ask {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Fetch(key) => [&[FETCH], key.as_slice()].concat(),
            Self::Request { id, request } => [&[REQUEST], id.as_slice(), &request.encode()].concat(),
            Self::More { id, has } => [&[MORE], id.as_slice(), has].concat(),
        }
    }

    /// `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            FETCH => {
                let key = reader.array()?;
                reader.end(Self::Fetch(key))
            }
            REQUEST => {
                let id = reader.array()?;
                Some(Self::Request { id, request: Box::new(SealedRequest::decode(reader.0)?) })
            }
            MORE => {
                let id = reader.array()?;
                let has = reader.0.to_vec();
                (has.len() <= (MAX_LENGTH / PIECE_DATA).div_ceil(8)).then_some(Self::More { id, has })
            }
            _ => None,
        }
    }
}

/// Why a relay passes nothing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// It knows no such key, descriptor or request.
    Unknown,
    /// It, or the service's circuit, takes no more at present.
    Limited,
    /// The service's circuit ended before the answer came.
    Gone,
}

const DENIALS: [Denial; 3] = [Denial::Unknown, Denial::Limited, Denial::Gone];

/// What comes back by one reply block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A piece of an answer.
    Data {
        /// Which one.
        index: u16,
        /// Bytes of the whole answer.
        length: u32,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// There is no answer.
    Denied(Denial),
}

/// How many pieces an answer of so many bytes has.
pub fn pieces(length: usize) -> usize {
    length.div_ceil(PIECE_DATA).max(1)
}

impl Piece {
    /// Piece `index` of an answer.
    pub fn of(answer: &[u8], index: u16) -> Option<Self> {
        let data = answer.chunks(PIECE_DATA).nth(index.into())?.to_vec();
        Some(Self::Data { index, length: u32::try_from(answer.len()).ok()?, data })
    }

    /// As it travels, without the zeros at the end.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Data { index, length, data } => {
                [&[DATA], index.to_be_bytes().as_slice(), &length.to_be_bytes(), data].concat()
            }
            Self::Denied(denial) => vec![1 + *denial as u8],
        }
    }

    /// `None` if it is none: another length, or numbers that contradict each other.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PIECE {
            return None;
        }
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        if kind != DATA {
            let denial = *DENIALS.get(usize::from(kind) - 1)?;
            return reader.only_zeros().then_some(Self::Denied(denial));
        }
        let (index, length) = (reader.u16()?, reader.u32()?);
        let whole = usize::try_from(length).ok().filter(|whole| (1..=MAX_LENGTH).contains(whole))?;
        let rest = whole.checked_sub(usize::from(index) * PIECE_DATA).filter(|rest| *rest > 0)?;
        let data = reader.slice(rest.min(PIECE_DATA))?.to_vec();
        reader.only_zeros().then_some(Self::Data { index, length, data })
    }
}

/// A part of a request or of an answer, between introduction point and service.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// The introduction point's number for it.
    pub exchange: u64,
    /// Which part; they come in order.
    pub index: u8,
    /// How many there are, 1 to [`MAX_PARTS`].
    pub count: u8,
    /// [`PART`] bytes, or fewer in the last.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { exchange, index, count, bytes } = self;
        write!(f, "Part({exchange}, {index}/{count}, {} bytes)", bytes.len())
    }
}

impl Part {
    /// All parts of `bytes`.
    pub fn split(exchange: u64, bytes: &[u8]) -> Vec<Self> {
        let count = u8::try_from(bytes.chunks(PART).len()).unwrap_or(u8::MAX);
        let part = |(index, bytes): (u8, &[u8])| Self { exchange, index, count, bytes: bytes.to_vec() };
        (0..count).zip(bytes.chunks(PART)).map(part).collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [self.exchange.to_be_bytes().as_slice(), &[self.index, self.count], &self.bytes].concat()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (exchange, index, count) = (reader.u64()?, reader.u8()?, reader.u8()?);
        let bytes = reader.slice(reader.0.len())?.to_vec();
        let is_last = index.checked_add(1)? == count;
        let fits = if is_last { (1..=PART).contains(&bytes.len()) } else { bytes.len() == PART };
        (index < count && count <= MAX_PARTS && fits).then_some(Self { exchange, index, count, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Message;

    fn padded(piece: &Piece) -> Vec<u8> {
        let mut bytes = piece.encode();
        bytes.resize(PIECE, 0);
        bytes
    }

    #[test]
    fn pieces_that_contradict_themselves_are_none() {
        let piece = padded(&Piece::of(&[7; PIECE_DATA + 5], 1).unwrap());
        assert!(Piece::decode(&piece).is_some());
        // Kind, index, length, padding.
        for (at, byte) in [(0, 4), (2, 2), (1, 1), (3, 1), (PIECE - 1, 1)] {
            let mut bad = piece.clone();
            bad[at] = byte;
            assert_eq!(Piece::decode(&bad), None, "{at}");
        }
        assert_eq!(Piece::decode(&piece[1..]), None);
        for denial in DENIALS {
            assert_eq!(Piece::decode(&padded(&Piece::Denied(denial))), Some(Piece::Denied(denial)));
        }
    }

    #[test]
    fn parts_in_a_wrong_place_or_of_a_wrong_size_are_none() {
        let all = Part::split(9, &vec![1; 2 * PART + 1]);
        assert_eq!(all.iter().map(|part| part.bytes.len()).collect::<Vec<_>>(), [PART, PART, 1]);
        let decode = |part: &Part| {
            let (command, body) = Message::MixedRequest(part.clone()).encode();
            Message::decode(command, &body)
        };
        assert!(all.iter().all(|part| decode(part) == Some(Message::MixedRequest(part.clone()))));
        let bad = [
            Part { index: 3, ..all[2].clone() },
            Part { count: 11, ..all[0].clone() },
            Part { bytes: vec![1; PART - 1], ..all[0].clone() },
            Part { bytes: Vec::new(), ..all[2].clone() },
            Part { bytes: vec![1; PART + 1], ..all[2].clone() },
        ];
        assert!(bad.iter().all(|part| decode(part).is_none()));
    }

    proptest! {
        #[test]
        fn an_answer_is_made_of_its_pieces(answer in proptest::collection::vec(any::<u8>(), 1..9000)) {
            let mut whole = Vec::new();
            for index in 0..pieces(answer.len()) {
                match Piece::decode(&padded(&Piece::of(&answer, index as u16).unwrap())) {
                    Some(Piece::Data { length, data, .. }) => {
                        prop_assert_eq!(length as usize, answer.len());
                        whole.extend(data);
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(Piece::of(&answer, pieces(answer.len()) as u16), None);
            prop_assert_eq!(whole, answer);
        }

        #[test]
        fn what_is_read_is_written_the_same(kind in 0u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..2100)) {
            let bytes = [&[kind], bytes.as_slice()].concat();
            if let Some(ask) = Ask::decode(&bytes) {
                prop_assert_eq!(ask.encode(), bytes.clone());
            }
            let _ = Piece::decode(&bytes);
            for command in [73, 74] {
                if let Some(message) = Message::decode(command, &bytes) {
                    prop_assert_eq!(message.encode(), (command, bytes.clone()));
                }
            }
        }
    }
}
