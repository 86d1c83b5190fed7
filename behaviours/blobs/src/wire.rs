//! The messages of a stream as bytes; layouts are in the README. Lengths are checked before anything is kept, fields when they
//! are read; nothing of what a message says is believed yet.

use crate::core::{
    blob::{BlobId, MAX_PIECES},
    slice::MAX_STEP_BYTES,
};

/// The protocol's name and version, for [`fog_base::NetworkId::protocol`].
pub const PROTOCOL: (&str, u32) = ("blobs", 1);

/// The bytes of a frame's length.
pub const PREFIX_BYTES: usize = 4;
const MAX_BITMAP_BYTES: usize = MAX_PIECES as usize / 8;
/// The longest message, without its prefix: a step with its type and the number of its request.
pub const MAX_MESSAGE_BYTES: usize = 1 + 8 + MAX_STEP_BYTES;

/// A request: the download that it belongs to, and its number there. Numbers rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Chosen by the node that asks; it tells the downloads on one stream apart.
    pub download: u32,
    /// Counts up from 0 for each download.
    pub number: u32,
}

/// What a node that fetches sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToSource {
    /// Tell what you have of this blob, and what you get later.
    Want(BlobId),
    /// No more news of this blob, and whatever is requested of it is cancelled.
    Forget(BlobId),
    /// Send these groups, in order.
    Request {
        /// Which request this is.
        id: RequestId,
        /// Of which blob.
        blob: BlobId,
        /// The first group.
        first: u32,
        /// How many, at least 1.
        count: u16,
    },
    /// Send nothing from group `end` on.
    Cut {
        /// Of which request.
        id: RequestId,
        /// The first group that is not wanted any more.
        end: u32,
    },
}

/// What a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Nothing, or it does not know the blob.
    Nothing,
    /// All of it; the size in bytes.
    All(u64),
    /// These pieces: the size in bytes, and the bits of a [`crate::Bitmap`].
    Some(u64, Vec<u8>),
}

/// Why a request ended before its last group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The source has too much to do: ask later.
    Busy,
    /// The source does not have that.
    Missing,
    /// The source's own copy is broken.
    Broken,
}

/// What a source sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSource {
    /// The answer to [`ToSource::Want`].
    Have(BlobId, Holding),
    /// This piece is there now.
    Gained(BlobId, u32),
    /// The next step of a request.
    Step(RequestId, Vec<u8>),
    /// Nothing more comes of this request.
    End(RequestId, Ending),
}

/// Bytes that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame of more than [`MAX_MESSAGE_BYTES`], or of none.
    #[error("a message of {0} bytes")]
    Length(usize),
    /// Not a message of this version.
    #[error("not a valid message")]
    Malformed,
}

/// One direction of a stream.
pub trait Message: Sized {
    /// The type and the body, without the prefix.
    fn write(&self, out: &mut Vec<u8>);
    /// From the type and the body.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// As a frame: a prefix of four bytes with the length of the rest, big-endian, and the message.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(&mut out);
        out
    }

    /// Adds the frame to `out`.
    fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; PREFIX_BYTES]);
        self.write(out);
        let len = u32::try_from(out.len() - start - PREFIX_BYTES).unwrap_or(u32::MAX).to_be_bytes();
        out.iter_mut().skip(start).zip(len).for_each(|(to, from)| *to = from);
    }

    /// The message at the start of `bytes`, and how many bytes it took; `None` if it is not all there. A caller that reads until
    /// this is `Some` never keeps more than [`PREFIX_BYTES`] and [`MAX_MESSAGE_BYTES`].
    fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len == 0 || len > MAX_MESSAGE_BYTES {
            return Err(WireError::Length(len));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let mut reader = Reader(body);
        let message = Self::read(&mut reader).filter(|_| reader.0.is_empty()).ok_or(WireError::Malformed)?;
        Ok(Some((message, PREFIX_BYTES + len)))
    }
}

/// Takes fields from the front.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn rest(&mut self, max: usize) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.0);
        (rest.len() <= max).then(|| rest.to_vec())
    }
    fn blob(&mut self) -> Option<BlobId> {
        self.array().map(BlobId)
    }
    fn id(&mut self) -> Option<RequestId> {
        Some(RequestId { download: self.u32()?, number: self.u32()? })
    }
}

fn put_id(out: &mut Vec<u8>, id: RequestId) {
    out.extend(id.download.to_be_bytes());
    out.extend(id.number.to_be_bytes());
}

const WANT: u8 = 1;
const FORGET: u8 = 2;
const REQUEST: u8 = 3;
const CUT: u8 = 4;
const HAVE: u8 = 16;
const GAINED: u8 = 17;
const STEP: u8 = 18;
const END: u8 = 19;

impl Message for ToSource {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Want(blob) => {
                out.push(WANT);
                out.extend(blob.0);
            }
            Self::Forget(blob) => {
                out.push(FORGET);
                out.extend(blob.0);
            }
            Self::Request { id, blob, first, count } => {
                out.push(REQUEST);
                put_id(out, *id);
                out.extend(blob.0);
                out.extend(first.to_be_bytes());
                out.extend(count.to_be_bytes());
            }
            Self::Cut { id, end } => {
                out.push(CUT);
                put_id(out, *id);
                out.extend(end.to_be_bytes());
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.u8()? {
            WANT => reader.blob().map(Self::Want),
            FORGET => reader.blob().map(Self::Forget),
            REQUEST => {
                let (id, blob) = (reader.id()?, reader.blob()?);
                Some(Self::Request { id, blob, first: reader.u32()?, count: reader.u16().filter(|count| *count > 0)? })
            }
            CUT => Some(Self::Cut { id: reader.id()?, end: reader.u32()? }),
            _ => None,
        }
    }
}

impl Holding {
    const NOTHING: u8 = 0;
    const ALL: u8 = 1;
    const SOME: u8 = 2;

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(Self::NOTHING),
            Self::All(size) => {
                out.push(Self::ALL);
                out.extend(size.to_be_bytes());
            }
            Self::Some(size, bits) => {
                out.push(Self::SOME);
                out.extend(size.to_be_bytes());
                out.extend(bits);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.u8()? {
            Self::NOTHING => Some(Self::Nothing),
            Self::ALL => reader.u64().map(Self::All),
            Self::SOME => Some(Self::Some(reader.u64()?, reader.rest(MAX_BITMAP_BYTES)?)),
            _ => None,
        }
    }
}

impl Ending {
    fn number(self) -> u8 {
        match self {
            Self::Busy => 1,
            Self::Missing => 2,
            Self::Broken => 3,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Busy, Self::Missing, Self::Broken].into_iter().find(|ending| ending.number() == number)
    }
}

impl Message for FromSource {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Have(blob, holding) => {
                out.push(HAVE);
                out.extend(blob.0);
                holding.write(out);
            }
            Self::Gained(blob, piece) => {
                out.push(GAINED);
                out.extend(blob.0);
                out.extend(piece.to_be_bytes());
            }
            Self::Step(id, bytes) => {
                out.push(STEP);
                put_id(out, *id);
                out.extend_from_slice(bytes);
            }
            Self::End(id, ending) => {
                out.push(END);
                put_id(out, *id);
                out.push(ending.number());
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.u8()? {
            HAVE => Some(Self::Have(reader.blob()?, Holding::read(reader)?)),
            GAINED => Some(Self::Gained(reader.blob()?, reader.u32()?)),
            STEP => Some(Self::Step(reader.id()?, reader.rest(MAX_STEP_BYTES)?)),
            END => Some(Self::End(reader.id()?, Ending::from_number(reader.u8()?)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn blob() -> impl Strategy<Value = BlobId> {
        any::<[u8; 32]>().prop_map(BlobId)
    }
    fn id() -> impl Strategy<Value = RequestId> {
        any::<(u32, u32)>().prop_map(|(download, number)| RequestId { download, number })
    }
    fn to_source() -> impl Strategy<Value = ToSource> {
        prop_oneof![
            blob().prop_map(ToSource::Want),
            blob().prop_map(ToSource::Forget),
            (id(), blob(), any::<u32>(), 1u16..).prop_map(|(id, blob, first, count)| ToSource::Request {
                id,
                blob,
                first,
                count
            }),
            (id(), any::<u32>()).prop_map(|(id, end)| ToSource::Cut { id, end }),
        ]
    }
    fn from_source() -> impl Strategy<Value = FromSource> {
        let bytes = |max| prop::collection::vec(any::<u8>(), 0..=max);
        let holding = prop_oneof![
            Just(Holding::Nothing),
            any::<u64>().prop_map(Holding::All),
            (any::<u64>(), bytes(100)).prop_map(|(size, bits)| Holding::Some(size, bits)),
        ];
        let ending = prop::sample::select(vec![Ending::Busy, Ending::Missing, Ending::Broken]);
        prop_oneof![
            (blob(), holding).prop_map(|(blob, holding)| FromSource::Have(blob, holding)),
            (blob(), any::<u32>()).prop_map(|(blob, piece)| FromSource::Gained(blob, piece)),
            (id(), bytes(300)).prop_map(|(id, bytes)| FromSource::Step(id, bytes)),
            (id(), ending).prop_map(|(id, ending)| FromSource::End(id, ending)),
        ]
    }

    fn round_trip<M: Message + Debug + PartialEq>(message: M, more: &[u8]) {
        let frame = message.encode();
        for cut in [0, 3, 4, frame.len() - 1] {
            assert_eq!(M::decode(&frame[..cut]), Ok(None));
        }
        assert_eq!(M::decode(&[&frame, more].concat()), Ok(Some((message, frame.len()))));
    }

    proptest! {
        #[test]
        fn messages_survive_the_round_trip(one in to_source(), other in from_source(), more in prop::collection::vec(any::<u8>(), 0..20)) {
            round_trip(one, &more);
            round_trip(other, &more);
        }

        #[test]
        fn a_byte_more_or_less_inside_a_frame_is_refused(message in to_source()) {
            let body = message.encode()[PREFIX_BYTES..].to_vec();
            for body in [&body[..body.len() - 1], &[&body[..], &[0]].concat()] {
                let frame = [&(body.len() as u32).to_be_bytes(), body].concat();
                prop_assert!(ToSource::decode(&frame).is_err());
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0u32..200) {
            for bytes in [bytes.clone(), [&len.to_be_bytes(), &bytes[..]].concat()] {
                let _one = ToSource::decode(&bytes);
                let _other = FromSource::decode(&bytes);
            }
        }
    }

    #[test]
    fn the_layouts_are_those_of_the_readme() {
        let id = RequestId { download: 0x0102_0304, number: 5 };
        let request = ToSource::Request { id, blob: BlobId([0xaa; 32]), first: 0x0a0b, count: 64 };
        let expected =
            [&[0, 0, 0, 47, 3, 1, 2, 3, 4, 0, 0, 0, 5], &[0xaa; 32][..], &[0, 0, 0x0a, 0x0b, 0, 64]].concat();
        assert_eq!(request.encode(), expected);
        let end = FromSource::End(id, Ending::Missing);
        assert_eq!(end.encode(), [0, 0, 0, 10, 19, 1, 2, 3, 4, 0, 0, 0, 5, 2]);
        let have = FromSource::Have(BlobId([0xbb; 32]), Holding::Some(9, vec![0xff]));
        let expected = [&[0, 0, 0, 43, 16], &[0xbb; 32][..], &[2, 0, 0, 0, 0, 0, 0, 0, 9, 0xff]].concat();
        assert_eq!(have.encode(), expected);
    }

    #[test]
    fn a_claimed_length_is_refused_before_it_is_read() {
        assert_eq!(FromSource::decode(&[0xff; 4]), Err(WireError::Length(0xffff_ffff)));
        assert_eq!(FromSource::decode(&[0; 4]), Err(WireError::Length(0)));
        let longest = FromSource::Step(RequestId { download: 0, number: 0 }, vec![0; MAX_STEP_BYTES]).encode();
        assert_eq!(longest.len(), PREFIX_BYTES + MAX_MESSAGE_BYTES);
        assert!(FromSource::decode(&longest).is_ok_and(|found| found.is_some()));
        let bits = vec![0; MAX_BITMAP_BYTES + 1];
        let frame = FromSource::Have(BlobId([0; 32]), Holding::Some(0, bits)).encode();
        assert_eq!(FromSource::decode(&frame), Err(WireError::Malformed));
    }
}
