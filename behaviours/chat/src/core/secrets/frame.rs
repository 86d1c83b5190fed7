//! Frames: what stands inside an Olm message. Olm has no associated data, so what a message is bound to is written inside and checked.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind |
//! | 2 | 1 | 1 if a bundle of the sender follows, else 0 |
//! | 3 | 1 | number of acknowledged ids, n ≤ 32 |
//! | 4 | 32 | sender |
//! | 36 | 32 | recipient |
//! | 68 | 4 | generation of the session |
//! | 72 | 16 | id |
//! | 88 | 16 n | acknowledged ids |
//! | 88 + 16 n | 0 or 178 | bundle |
//! | … | rest | body |

use fog_base::MessageId;
use zeroize::Zeroizing;

use super::{
    bundle::{BUNDLE, DeviceId},
    reject::Reject,
};

/// Longest body of a frame.
pub const MAX_BODY: usize = 14 * 1024;
/// Ids that one frame acknowledges.
pub const MAX_ACKS: usize = 32;
/// Longest frame.
pub(super) const MAX_FRAME: usize = HEADER + 16 * MAX_ACKS + BUNDLE + MAX_BODY;
const HEADER: usize = 88;
const VERSION: u8 = 1;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of the conversation.
    Data = 0,
    /// Acknowledgements alone; itself never acknowledged.
    Ack = 1,
    /// "I could not read you": the first message of a session that replaces a broken one.
    Heal = 2,
    /// The key of a group session.
    GroupKey = 3,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Data, Self::Ack, Self::Heal, Self::GroupKey].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A frame, to be sealed or just opened.
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) from: DeviceId,
    pub(super) to: DeviceId,
    pub(super) generation: u32,
    pub(super) id: MessageId,
    pub(super) acks: Vec<MessageId>,
    pub(super) bundle: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let acks = self.acks.get(..MAX_ACKS).unwrap_or(&self.acks);
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER + 16 * acks.len() + BUNDLE + self.body.len()));
        bytes.extend_from_slice(&[VERSION, self.kind as u8, u8::from(self.bundle.is_some()), acks.len() as u8]);
        bytes.extend_from_slice(&self.from.0);
        bytes.extend_from_slice(&self.to.0);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.id.0);
        for id in acks {
            bytes.extend_from_slice(&id.0);
        }
        bytes.extend_from_slice(self.bundle.unwrap_or_default());
        bytes.extend_from_slice(self.body);
        bytes
    }

    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Reject> {
        Self::split(bytes).filter(|frame| frame.body.len() <= MAX_BODY).ok_or(Reject::Malformed)
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, kind, bundle, acks], rest) = bytes.split_first_chunk::<4>()?;
        let (from, rest) = rest.split_first_chunk::<32>()?;
        let (to, rest) = rest.split_first_chunk::<32>()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let kind = Kind::of(kind)?;
        let acks = usize::from(acks);
        if version != VERSION || bundle > 1 || acks > MAX_ACKS {
            return None;
        }
        let (ids, rest) = rest.split_at_checked(16 * acks)?;
        let (ids, _) = ids.as_chunks::<16>();
        let (bundle, body) = if bundle == 1 { rest.split_at_checked(BUNDLE)? } else { (&[][..], rest) };
        Some(Self {
            kind,
            from: DeviceId(*from),
            to: DeviceId(*to),
            generation: u32::from_be_bytes(*generation),
            id: MessageId(*id),
            acks: ids.iter().map(|id| MessageId(*id)).collect(),
            bundle: (!bundle.is_empty()).then_some(bundle),
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_read_back(
            body in prop::collection::vec(any::<u8>(), 0..300), acks in prop::collection::vec(any::<[u8; 16]>(), 0..=MAX_ACKS),
            generation in any::<u32>(), with_bundle in any::<bool>(),
        ) {
            let bundle = [9; BUNDLE];
            let frame = Frame {
                kind: Kind::Data,
                from: DeviceId([1; 32]),
                to: DeviceId([2; 32]),
                generation,
                id: MessageId([3; 16]),
                acks: acks.into_iter().map(MessageId).collect(),
                bundle: with_bundle.then_some(&bundle[..]),
                body: &body,
            };
            let bytes = frame.encode();
            let back = Frame::parse(&bytes).unwrap();
            prop_assert_eq!((back.generation, back.id, &back.acks), (generation, frame.id, &frame.acks));
            prop_assert_eq!((back.bundle, back.body), (frame.bundle, frame.body));
            prop_assert_eq!((back.from, back.to), (frame.from, frame.to));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _outcome = Frame::parse(&bytes);
        }
    }

    #[test]
    fn truncated_and_oversized_frames_are_refused() {
        let body = vec![0; MAX_BODY + 1];
        let mut frame = Frame {
            kind: Kind::Ack,
            from: DeviceId([1; 32]),
            to: DeviceId([2; 32]),
            generation: 0,
            id: MessageId([3; 16]),
            acks: vec![MessageId([4; 16])],
            bundle: None,
            body: b"",
        };
        let bytes = frame.encode();
        for at in 0..bytes.len() {
            assert!(Frame::parse(&bytes[..at]).is_err(), "{at} bytes");
        }
        frame.body = &body;
        assert!(Frame::parse(&frame.encode()).is_err());
    }
}
