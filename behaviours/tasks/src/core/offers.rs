//! The offers that this node knows: a bounded set, and how two nodes bring theirs together.
//!
//! Offers come by gossip, and some are lost. Peers that meet compare summaries: 256 buckets, each the XOR of the hashes of the records in
//! it. Where a bucket differs one side names the (worker, seq) of it, and the other answers with what is newer and asks for what it
//! lacks. Where all is equal that is 2 KiB.

use std::{collections::BTreeMap, time::Duration};

use fog_base::{
    DropReason, NetworkId, NodeId, UnixMillis,
    record::{RecordError, Verified},
};

use super::offer::{MIN_GAP, Offer, OfferError};

/// The most offers that are kept.
pub const MAX_OFFERS: usize = 4_096;
/// How many buckets a summary has.
pub const BUCKETS: usize = 256;

/// One known offer.
#[derive(Debug, Clone)]
pub struct Listed {
    record: Verified<Offer>,
    /// Whether a newcomer may not push it out.
    kept: bool,
    rank: u64,
}

impl Listed {
    /// What is offered.
    pub fn offer(&self) -> &Offer {
        self.record.body()
    }

    /// The sequence number, which a bid names.
    pub fn seq(&self) -> u64 {
        self.record.record().seq()
    }

    /// The record's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.record.record().as_bytes()
    }

    /// How old it is.
    pub fn age(&self, now: UnixMillis) -> Duration {
        now.since(self.record.record().not_before())
    }
}

/// What became of an offer that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// It is new, and worth passing on.
    New,
    /// It, or a later one of the same worker, is known.
    Known,
}

/// Why an offer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferReject {
    /// It is not one.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// Its worker makes offers faster than it may.
    #[error("two offers of one worker within five seconds")]
    TooOften,
    /// The set is full, and others are worth more.
    #[error("no room for more offers")]
    Full,
}

/// The XOR of the hashes of the records in each bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary(pub Vec<u64>);

/// One worker's place in a list.
pub type Seen = (NodeId, u64);

/// What a list of another node asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Records that the other lacks, as bytes.
    pub send: Vec<Vec<u8>>,
    /// Workers whose later or only offer the other has.
    pub want: Vec<NodeId>,
}

/// The known offers.
#[derive(Debug)]
pub struct Offers {
    network: NetworkId,
    seed: [u8; 32],
    max: usize,
    listed: BTreeMap<NodeId, Listed>,
}
