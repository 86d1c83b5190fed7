//! How two nodes bring their offers together: a summary, a list of where it differs, and the records.

use fog_base::NodeId;

use super::bytes::{Reader, WireError, Writer};
use crate::core::offers::{BUCKETS, MAX_OFFERS, Place, Summary};

/// The most records in one message.
pub const MAX_RECORDS: usize = 64;
/// The longest offer, with its envelope, in bytes.
const MAX_OFFER: usize = 2_048 + 256;

/// About offers, between any two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferMessage {
    /// What the sender has, in [`BUCKETS`] numbers.
    Summary(Summary),
    /// What the sender has in the buckets that differ.
    List {
        /// Which buckets.
        buckets: Vec<u8>,
        /// Workers and the sequence numbers of their offers.
        places: Vec<Place>,
    },
    /// Offers that the receiver lacks, and workers whose offers the sender lacks.
    Records {
        /// At most [`MAX_RECORDS`].
        records: Vec<Vec<u8>>,
        /// Of whom the sender wants the offers.
        want: Vec<NodeId>,
    },
}

impl OfferMessage {
    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Self::Summary(Summary(buckets)) => {
                out.u8(128);
                for bucket in buckets {
                    out.u64(*bucket);
                }
            }
            Self::List { buckets, places } => {
                out.u8(129).count(buckets.len()).put(buckets).count(places.len());
                for (worker, seq) in places {
                    out.put(&worker.0).u64(*seq);
                }
            }
            Self::Records { records, want } => {
                out.u8(130).count(records.len());
                for record in records {
                    out.bytes(record);
                }
                out.count(want.len());
                for worker in want {
                    out.put(&worker.0);
                }
            }
        }
    }

    pub(super) fn read(tag: u8, read: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match tag {
            128 => Self::Summary(Summary((0..BUCKETS).map(|_| read.u64()).collect::<Result<_, _>>()?)),
            129 => {
                let buckets = (0..read.count(BUCKETS)?).map(|_| read.u8()).collect::<Result<_, _>>()?;
                let mut places = Vec::new();
                for _ in 0..read.count(MAX_OFFERS)? {
                    places.push((NodeId(read.array()?), read.u64()?));
                }
                Self::List { buckets, places }
            }
            130 => {
                let records = (0..read.count(MAX_RECORDS)?).map(|_| read.bytes(MAX_OFFER).map(<[u8]>::to_vec));
                let records = records.collect::<Result<_, _>>()?;
                let want = (0..read.count(MAX_OFFERS)?).map(|_| read.array().map(NodeId)).collect::<Result<_, _>>()?;
                Self::Records { records, want }
            }
            _ => return Err(WireError::Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Message;

    #[test]
    fn each_is_read_as_it_was_written() {
        for message in [
            OfferMessage::Summary(Summary((0..BUCKETS as u64).collect())),
            OfferMessage::List { buckets: vec![1, 255], places: vec![(NodeId([7; 32]), 9)] },
            OfferMessage::Records { records: vec![vec![1, 2], vec![]], want: vec![NodeId([1; 32])] },
        ] {
            let message = Message::Offers(message);
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_read_and_never_more(tag in 128u8..=131, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [&[tag][..], &bytes].concat();
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
