//! What an introduction says to the service: where the client waits, its proof of work, and the beginning of its first stream.

use fog_base::NodeId;

use super::{bytes::Reader, kdf::TAG, pow::Work};
use crate::wire::COOKIE;

/// Bytes of a request before it is sealed.
pub const PLAINTEXT: usize = 704;
/// Bytes of a sealed request.
pub const SEALED: usize = PLAINTEXT + TAG;
/// Bytes of the first stream that fit.
pub const MAX_EARLY: usize = PLAINTEXT - 99;

const VERSION: u8 = 1;

/// The stream that a client wants at once.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstStream {
    /// The service's port.
    pub port: u16,
    /// Its first bytes, at most [`MAX_EARLY`].
    pub early: Vec<u8>,
}

impl std::fmt::Debug for FirstStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstStream").field("port", &self.port).field("early", &self.early.len()).finish()
    }
}

/// What is sealed in an introduction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the rendezvous point knows the client by.
    pub cookie: [u8; COOKIE],
    /// The rendezvous point.
    pub rendezvous: NodeId,
    /// The proof of work, if one was made.
    pub work: Option<Work>,
    /// The first stream, unless this is a probe or a circuit opened ahead.
    pub stream: Option<FirstStream>,
}

impl Request {
    /// 704 bytes. Of the early data the first [`MAX_EARLY`] bytes.
    pub fn encode(&self) -> [u8; PLAINTEXT] {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.cookie);
        out.extend_from_slice(&self.rendezvous.0);
        out.push(u8::from(self.work.is_some()));
        out.extend_from_slice(&self.work.map_or([0; Work::BYTES], |work| work.encode()));
        out.push(u8::from(self.stream.is_some()));
        let (port, early) = self.stream.as_ref().map_or((0, [].as_slice()), |stream| (stream.port, &stream.early));
        let early = early.get(..early.len().min(MAX_EARLY)).unwrap_or_default();
        out.extend_from_slice(&port.to_be_bytes());
        out.extend_from_slice(&u16::try_from(early.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(early);
        let mut plaintext = [0; PLAINTEXT];
        plaintext.iter_mut().zip(out).for_each(|(to, from)| *to = from);
        plaintext
    }

    /// `None` if it is none: another version, a length out of range, bytes that are not zero where zeros belong.
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        let mut reader = Reader(plaintext);
        if plaintext.len() != PLAINTEXT || reader.u8()? != VERSION {
            return None;
        }
        let cookie = reader.array()?;
        let rendezvous = NodeId(reader.array()?);
        let has_work = flag(reader.u8()?)?;
        let work: [u8; Work::BYTES] = reader.array()?;
        let has_stream = flag(reader.u8()?)?;
        let (port, length) = (reader.u16()?, reader.u16()?);
        let early = reader.slice(length.into())?.to_vec();
        let nothing = (has_work || work == [0; Work::BYTES]) && (has_stream || (port == 0 && early.is_empty()));
        if !nothing || !reader.only_zeros() {
            return None;
        }
        let work = if has_work { Some(Work::decode(&work)?) } else { None };
        Some(Self { cookie, rendezvous, work, stream: has_stream.then_some(FirstStream { port, early }) })
    }
}

fn flag(byte: u8) -> Option<bool> {
    (byte < 2).then_some(byte == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_version_a_long_length_and_bytes_in_the_padding_are_refused() {
        let request = Request { cookie: [1; 20], rendezvous: NodeId([2; 32]), work: None, stream: None };
        let good = request.encode();
        assert_eq!(Request::decode(&good), Some(request));
        assert_eq!(Request::decode(&good[1..]), None);
        for (at, byte) in [(0, 2), (53, 1), (54, 1), (93, 1), (94, 2), (96, 1), (98, 1), (97, 3), (703, 1)] {
            let mut bad = good;
            bad[at] ^= byte;
            assert_eq!(Request::decode(&bad), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn a_request_survives_the_round_trip(
            cookie: [u8; 20], relay: [u8; 32], work: Option<[u8; 40]>, port: u16,
            early in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=MAX_EARLY)),
        ) {
            let request = Request {
                cookie,
                rendezvous: NodeId(relay),
                work: work.and_then(|work| Work::decode(&work)),
                stream: early.map(|early| FirstStream { port, early }),
            };
            prop_assert_eq!(Request::decode(&request.encode()), Some(request));
        }

        #[test]
        fn anything_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), PLAINTEXT)) {
            let _ = Request::decode(&bytes);
        }
    }
}
