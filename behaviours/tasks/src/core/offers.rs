//! The offers that this node knows: a bounded set, and how two nodes bring theirs together.
//!
//! Offers come by gossip, and some are lost. Peers that meet compare summaries: 256 buckets, each the XOR of the hashes of the records in
//! it. Where a bucket differs one side names the (worker, seq) of it, and the other answers with what is newer and asks for what it
//! lacks. Where all is equal that is 2 KiB.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fog_base::{
    DropReason, NetworkId, NodeId, UnixMillis,
    record::{RecordError, SignedRecord, Verified},
};

use super::offer::{MIN_GAP, Offer, OfferError};

/// The most offers that are kept.
pub const MAX_OFFERS: usize = 4_096;
/// How many buckets a summary has.
pub const BUCKETS: usize = 256;

/// The most workers that one list names: all of them.
pub const MAX_LIST: usize = MAX_OFFERS;

/// One known offer.
#[derive(Debug, Clone)]
pub struct Listed {
    record: Verified<Offer>,
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
    New(NodeId),
    /// It, or a later one of the same worker, is known.
    Known,
}

/// Why an offer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferReject {
    /// It is not one.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// Its worker made it too soon after the last.
    #[error("two offers of one worker within five seconds")]
    TooOften,
    /// The set is full, and chance left it out.
    #[error("no room for more offers")]
    Full,
}

impl OfferReject {
    /// Under which reason it is counted.
    pub fn drop_reason(&self) -> DropReason {
        match self {
            Self::Offer(OfferError::Record(RecordError::BadSignature)) => DropReason::BadMac,
            Self::Offer(OfferError::Record(RecordError::WrongKind(..))) => DropReason::UnknownVersion,
            Self::Offer(OfferError::Record(RecordError::Expired | RecordError::TooEarly)) => DropReason::Expired,
            Self::Offer(_) => DropReason::Malformed,
            Self::TooOften => DropReason::RateLimited,
            Self::Full => DropReason::QueueFull,
        }
    }
}

/// The XOR of the hashes of the records in each of [`BUCKETS`] buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary(pub Vec<u64>);

/// A worker and the seq of its offer.
pub type Place = (NodeId, u64);

/// What another node's list asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Records that it lacks or has older, as bytes.
    pub send: Vec<Vec<u8>>,
    /// Workers whose later or only offer it has.
    pub want: Vec<NodeId>,
}

/// The known offers.
#[derive(Debug, Clone)]
pub struct Offers {
    network: NetworkId,
    seed: [u8; 32],
    max: usize,
    listed: BTreeMap<NodeId, Listed>,
    /// The same by rank: who goes first where there are too many.
    ranks: BTreeSet<(u64, NodeId)>,
    /// The same by when they expire.
    expiries: BTreeSet<(UnixMillis, NodeId)>,
}

impl Offers {
    /// None yet, and at most `max`. `seed` is secret: it decides which strangers' offers stay where there are too many, so that nobody can
    /// make keys that push others out.
    pub fn new(network: NetworkId, seed: [u8; 32], max: usize) -> Self {
        Self { network, seed, max, listed: BTreeMap::new(), ranks: BTreeSet::new(), expiries: BTreeSet::new() }
    }

    /// Takes an offer that came. `known` says whether a worker has proved something: those go last where there are too many.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        known: impl Fn(NodeId) -> bool,
        now: UnixMillis,
    ) -> Result<Accept, OfferReject> {
        let (worker, seq) = claimed(bytes)?;
        if self.listed.get(&worker).is_some_and(|listed| listed.seq() >= seq) {
            return Ok(Accept::Known);
        }
        let record = Offer::verify(bytes, &self.network, now)?;
        let rank = if known(worker) { u64::MAX } else { self.rank(worker) };
        match self.listed.get(&worker) {
            Some(listed) => {
                // Times are whole seconds, so four may be five.
                let gap = record.record().not_before().since(listed.record.record().not_before());
                if gap + Duration::from_secs(1) < MIN_GAP {
                    return Err(OfferReject::TooOften);
                }
            }
            None => self.make_room((rank, worker), now)?,
        }
        self.remove(worker);
        self.ranks.insert((rank, worker));
        self.expiries.insert((record.record().expires(), worker));
        self.listed.insert(worker, Listed { record, rank });
        Ok(Accept::New(worker))
    }

    /// The offer of `worker`, if it is still valid.
    pub fn get(&self, worker: NodeId, now: UnixMillis) -> Option<&Listed> {
        self.listed.get(&worker).filter(|listed| listed.record.record().expires() > now)
    }

    /// All that are valid, by worker.
    pub fn iter(&self, now: UnixMillis) -> impl Iterator<Item = (NodeId, &Listed)> {
        let valid = self.listed.iter().filter(move |(_, listed)| listed.record.record().expires() > now);
        valid.map(|(worker, listed)| (*worker, listed))
    }

    /// Forgets those that expired, and says whose they were.
    pub fn expire(&mut self, now: UnixMillis) -> Vec<NodeId> {
        let over = self.expiries.iter().take_while(|(at, _)| *at <= now);
        let over: Vec<NodeId> = over.map(|(_, worker)| *worker).collect();
        over.iter().for_each(|worker| self.remove(*worker));
        over
    }

    /// When [`Offers::expire`] has something to do.
    pub fn next_expiry(&self) -> Option<UnixMillis> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// What is compared first.
    pub fn summary(&self) -> Summary {
        let mut buckets = vec![0; BUCKETS];
        for (worker, listed) in &self.listed {
            let hash = place_hash((*worker, listed.seq()));
            if let Some(bucket) = buckets.get_mut(usize::from(bucket_of(*worker))) {
                *bucket ^= hash;
            }
        }
        Summary(buckets)
    }

    /// This node's list of the buckets in which `other` differs; empty where all is equal, or `other` is no summary.
    pub fn differing(&self, other: &Summary) -> (Vec<u8>, Vec<Place>) {
        let Summary(mine) = self.summary();
        if other.0.len() != BUCKETS {
            return (Vec::new(), Vec::new());
        }
        let pairs = (0..=u8::MAX).zip(mine.iter().zip(&other.0));
        let buckets: BTreeSet<u8> =
            pairs.filter(|(_, (mine, other))| mine != other).map(|(bucket, _)| bucket).collect();
        let places = self.listed.iter().filter(|(worker, _)| buckets.contains(&bucket_of(**worker)));
        let places = places.map(|(worker, listed)| (*worker, listed.seq())).collect();
        (buckets.into_iter().collect(), places)
    }

    /// What to send to, and to ask of, a node that has `places` in `buckets`.
    pub fn difference(&self, buckets: &[u8], places: &[Place]) -> Difference {
        let theirs: BTreeMap<NodeId, u64> = places.iter().copied().collect();
        let asked = self.listed.iter().filter(|(worker, _)| buckets.contains(&bucket_of(**worker)));
        let newer = asked.filter(|(worker, listed)| theirs.get(worker).is_none_or(|seq| *seq < listed.seq()));
        let send = newer.map(|(_, listed)| listed.bytes().to_vec()).collect();
        let lacking = |worker: &NodeId, seq: u64| self.listed.get(worker).is_none_or(|listed| listed.seq() < seq);
        let want = theirs.iter().filter(|(worker, seq)| lacking(worker, **seq)).map(|(worker, _)| *worker).collect();
        Difference { send, want }
    }

    /// The records of `workers` that are known.
    pub fn records(&self, workers: &[NodeId]) -> Vec<Vec<u8>> {
        workers.iter().filter_map(|worker| self.listed.get(worker)).map(|listed| listed.bytes().to_vec()).collect()
    }

    fn make_room(&mut self, new: (u64, NodeId), now: UnixMillis) -> Result<(), OfferReject> {
        if self.listed.len() < self.max || !self.expire(now).is_empty() {
            return Ok(());
        }
        match self.ranks.first().copied() {
            Some(first) if first < new => {
                self.remove(first.1);
                Ok(())
            }
            _ => Err(OfferReject::Full),
        }
    }

    fn remove(&mut self, worker: NodeId) {
        if let Some(listed) = self.listed.remove(&worker) {
            self.ranks.remove(&(listed.rank, worker));
            self.expiries.remove(&(listed.record.record().expires(), worker));
        }
    }

    /// Below that of everybody who is known.
    fn rank(&self, worker: NodeId) -> u64 {
        let hash = blake3::keyed_hash(&self.seed, &worker.0);
        first_u64(hash.as_bytes()) >> 1
    }
}

/// Who an offer says it is from, before anything is verified: a repeated one, the usual case of gossip, costs no signature.
fn claimed(bytes: &[u8]) -> Result<Place, OfferReject> {
    let record = SignedRecord::parse(bytes).map_err(OfferError::from)?;
    Ok((record.signer(), record.seq()))
}

fn bucket_of(worker: NodeId) -> u8 {
    // A key is uniform, but whoever makes many can choose it; then one list is longer.
    worker.0.first().copied().unwrap_or_default()
}

fn place_hash((worker, seq): Place) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("fog offer place v1");
    hasher.update(&worker.0);
    hasher.update(&seq.to_be_bytes());
    first_u64(hasher.finalize().as_bytes())
}

fn first_u64(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "offers_tests.rs"]
mod tests;
