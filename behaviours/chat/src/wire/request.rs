//! What peers ask each other: one leading byte for the kind, then its layout. Decoding believes nothing and never panics.

use super::{MAX_MESSAGES_BYTES, RangesAnswer, Reader, put_count, put_short};
use crate::core::{
    envelope::MAX_ENVELOPE,
    id::MessageId,
    reconcile::{Hello, Lists, Messages},
    reject::Reject,
    tag::Tag,
};

/// The longest request or response.
pub const MAX_REQUEST: usize = 512 * 1024;
/// The most ids in a fetch.
pub const MAX_FETCH: usize = 256;
/// The most envelopes in one [`Request::Carried`].
pub const MAX_CARRIED_AT_ONCE: usize = 16;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// 1: which conversations do we share, and where do they differ.
    Hello(Hello),
    /// 3: send what is not in these lists.
    Lists(Lists),
    /// 5: send these messages.
    Fetch {
        /// Fresh and random.
        salt: [u8; 32],
        /// The conversation under that salt.
        token: Tag,
        /// Which.
        ids: Vec<MessageId>,
    },
    /// 6: what the other side said that it lacks.
    Push {
        /// Fresh and random.
        salt: [u8; 32],
        /// The messages; the token is under that salt.
        messages: Messages,
    },
    /// 7: an envelope for this node.
    Envelope(Vec<u8>),
    /// 8: envelopes for whoever can open them.
    Carried(Vec<Vec<u8>>),
    /// 9: the asking device's card; the answer is the other one's.
    Card(Vec<u8>),
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// 2, to a hello.
    Ranges(RangesAnswer),
    /// 4, to lists and fetches.
    Messages(Messages),
    /// 9, to a card.
    Card(Vec<u8>),
    /// 10, to pushes and envelopes: how many were taken.
    Taken(u16),
}

impl Request {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => hello.encode(),
            Self::Lists(lists) => lists.encode(),
            Self::Fetch { salt, token, ids } => {
                let mut bytes = [&[5], &salt[..], token].concat();
                put_count(&mut bytes, ids.len());
                ids.iter().for_each(|id| bytes.extend_from_slice(&id.0));
                bytes
            }
            Self::Push { salt, messages } => [&[6], &salt[..], &messages.encode()].concat(),
            Self::Envelope(envelope) => [&[7], &envelope[..]].concat(),
            Self::Carried(envelopes) => {
                let mut bytes = vec![8];
                put_count(&mut bytes, envelopes.len());
                envelopes.iter().for_each(|envelope| put_short(&mut bytes, envelope));
                bytes
            }
            Self::Card(card) => [&[9], &card[..]].concat(),
        }
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > MAX_REQUEST {
            return Err(Reject::Malformed);
        }
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => Hello::decode(bytes).map(Self::Hello),
            3 => Lists::decode(bytes).map(Self::Lists),
            5 => {
                let (salt, token) = (reader.array()?, reader.array()?);
                let n = reader.count(MAX_FETCH)?;
                let ids = (0..n).map(|_| reader.array().map(MessageId)).collect::<Result<_, _>>()?;
                reader.end()?;
                Ok(Self::Fetch { salt, token, ids })
            }
            6 => Ok(Self::Push { salt: reader.array()?, messages: Messages::decode(reader.rest())? }),
            7 => Some(reader.rest().to_vec())
                .filter(|envelope| envelope.len() <= MAX_ENVELOPE)
                .map(Self::Envelope)
                .ok_or(Reject::Malformed),
            8 => {
                let n = reader.count(MAX_CARRIED_AT_ONCE)?;
                let mut envelopes = Vec::new();
                for _ in 0..n {
                    let length = reader.count(MAX_ENVELOPE)?;
                    envelopes.push(reader.bytes(length)?.to_vec());
                }
                reader.end()?;
                Ok(Self::Carried(envelopes))
            }
            9 => Ok(Self::Card(reader.rest().to_vec())),
            _ => Err(Reject::UnknownVersion),
        }
    }
}

impl Response {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ranges(ranges) => ranges.encode(),
            Self::Messages(messages) => messages.encode(),
            Self::Card(card) => [&[9], &card[..]].concat(),
            Self::Taken(n) => [&[10], &n.to_be_bytes()[..]].concat(),
        }
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            2 => RangesAnswer::decode(bytes).map(Self::Ranges),
            4 if bytes.len() <= MAX_MESSAGES_BYTES => Messages::decode(bytes).map(Self::Messages),
            9 => Ok(Self::Card(reader.rest().to_vec())),
            10 => {
                let n = reader.u16()?;
                reader.end()?;
                Ok(Self::Taken(n))
            }
            _ => Err(Reject::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn garbage_never_panics_and_what_is_read_is_written_back(kind in 0u8..12, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[kind], &bytes[..]].concat();
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes.clone());
            }
            if let Ok(response) = Response::decode(&bytes) {
                prop_assert_eq!(response.encode(), bytes);
            }
        }

        #[test]
        fn a_fetch_and_what_is_carried_read_back(ids in prop::collection::vec(any::<[u8; 32]>(), 0..5), sizes in prop::collection::vec(0usize..600, 0..5)) {
            let fetch = Request::Fetch { salt: [1; 32], token: [2; 16], ids: ids.into_iter().map(MessageId).collect() };
            prop_assert_eq!(Request::decode(&fetch.encode()), Ok(fetch));
            let carried = Request::Carried(sizes.into_iter().map(|n| vec![7; n]).collect());
            prop_assert_eq!(Request::decode(&carried.encode()), Ok(carried));
        }
    }
}
