//! What this node saw of others by its loops: counted here, and signed in its descriptor while it has a seat. What follows from
//! everybody's reports is in `standing.rs`.

use std::collections::{BTreeMap, BTreeSet};

use fog_base::{Epoch, NodeId};

use super::{
    certificate::electorate::{Electorate, MAX_SEATS},
    standing::{LoopCount, LoopReport, MEMORY, MIN_LOOPS},
};

const HEADER: usize = 4;
/// The most relays that are counted: as many as a set has at most. In a large network a relay is seated in a few epochs only, and
/// what was seen of it in earlier ones still counts.
const MAX_RELAYS: usize = 10_000;

/// How the loops through one seat fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopEntry {
    /// The seat's rank in the electorate.
    pub rank: u16,
    /// Loops that came back in time.
    pub delivered: u8,
    /// Loops that did not.
    pub lost: u8,
}

/// A seat's report on the other seats, as it stands in its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedLoops {
    /// The set whose seats the ranks name.
    epoch: Epoch,
    entries: Vec<LoopEntry>,
}

impl SignedLoops {
    /// From entries in the order of their ranks, at most 360, none on no loops or more than 64.
    pub fn new(epoch: Epoch, entries: Vec<LoopEntry>) -> Option<Self> {
        let is_sorted = entries.iter().map(|entry| entry.rank).is_sorted_by(|a, b| a < b);
        let counts = |entry: &LoopEntry| u32::from(entry.delivered) + u32::from(entry.lost);
        let is_valid = entries.len() <= MAX_SEATS && entries.iter().all(|entry| (1..=MEMORY).contains(&counts(entry)));
        (is_sorted && is_valid).then_some(Self { epoch, entries })
    }

    /// As bytes: the epoch, and for each seat its rank (u16) and the two counts (a byte each).
    pub fn to_bytes(&self) -> Vec<u8> {
        let entry = |entry: &LoopEntry| {
            let [high, low] = entry.rank.to_be_bytes();
            [high, low, entry.delivered, entry.lost]
        };
        self.epoch.0.to_be_bytes().into_iter().chain(self.entries.iter().flat_map(entry)).collect()
    }

    /// From bytes, all of them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk::<HEADER>()?;
        let (entries, rest) = rest.as_chunks::<4>();
        let entry = |[high, low, delivered, lost]: &[u8; 4]| LoopEntry {
            rank: u16::from_be_bytes([*high, *low]),
            delivered: *delivered,
            lost: *lost,
        };
        if !rest.is_empty() {
            return None;
        }
        Self::new(Epoch(u32::from_be_bytes(*epoch)), entries.iter().map(entry).collect())
    }

    /// What `reporter` says of the seats of `electorate`, which is that of `epoch`; nothing, if it speaks of another one.
    pub fn reports<'a>(
        &'a self,
        reporter: NodeId,
        (epoch, electorate): (Epoch, &'a Electorate),
    ) -> impl Iterator<Item = LoopReport> + 'a {
        let entries = if epoch == self.epoch { self.entries.as_slice() } else { &[] };
        entries.iter().filter_map(move |entry| {
            let relay = electorate.seats().get(usize::from(entry.rank))?.node;
            let (delivered, lost) = (entry.delivered.into(), entry.lost.into());
            Some(LoopReport { relay, reporter, delivered, lost })
        })
    }
}

/// This node's own counts.
#[derive(Debug, Default)]
pub struct LoopBook {
    counts: BTreeMap<NodeId, LoopCount>,
    /// Relays through which a loop ended since the last report.
    fresh: BTreeSet<NodeId>,
}

impl LoopBook {
    /// A loop through `hops` has come back in time, or has not.
    pub fn record(&mut self, hops: &[NodeId], is_delivered: bool) {
        for relay in hops {
            if self.counts.len() >= MAX_RELAYS && !self.counts.contains_key(relay) {
                continue;
            }
            self.counts.entry(*relay).or_default().record(is_delivered);
            self.fresh.insert(*relay);
        }
    }

    /// What is signed about the seats of an electorate.
    pub fn report(&self, reporter: NodeId, (epoch, electorate): (Epoch, &Electorate)) -> Option<SignedLoops> {
        electorate.rank(reporter)?;
        let entries = electorate.seats().iter().zip(0..).filter_map(|(seat, rank)| {
            let count = self.counts.get(&seat.node).filter(|_| self.fresh.contains(&seat.node))?;
            let LoopReport { delivered, lost, .. } = count.report(reporter, seat.node);
            let entry = LoopEntry { rank, delivered: delivered.try_into().ok()?, lost: lost.try_into().ok()? };
            (seat.node != reporter && delivered + lost >= MIN_LOOPS).then_some(entry)
        });
        SignedLoops::new(epoch, entries.collect())
    }

    /// A new set is certified: what was reported is not fresh any more; the relays for which `is_fallen` holds are counted anew when
    /// they are back, and those that `is_seated` does not name are forgotten if there is no room.
    pub fn handle_set(&mut self, is_fallen: impl Fn(&NodeId) -> bool, is_seated: impl Fn(&NodeId) -> bool) {
        self.fresh.clear();
        let is_full = self.counts.len() >= MAX_RELAYS;
        self.counts.retain(|relay, _| !is_fallen(relay) && (!is_full || is_seated(relay)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::certificate::electorate::Elector;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn electorate() -> Electorate {
        Electorate::new([3, 1, 2].map(|n| Elector { node: node(n), weight: 5 }).to_vec()).unwrap()
    }

    #[test]
    fn a_seat_reports_on_the_others_that_it_measured_lately_and_often_enough() {
        let (mut book, electorate) = (LoopBook::default(), electorate());
        for n in 0..20 {
            book.record(&[node(1), node(2)], n % 10 != 0);
        }
        book.record(&[node(3)], true);
        let report = book.report(node(1), (Epoch(7), &electorate)).unwrap();
        let told: Vec<_> = report.reports(node(1), (Epoch(7), &electorate)).collect();
        assert_eq!(told, [LoopReport { relay: node(2), reporter: node(1), delivered: 18, lost: 2 }]);
        assert_eq!(report.reports(node(1), (Epoch(8), &electorate)).count(), 0);
        assert_eq!(book.report(node(9), (Epoch(7), &electorate)), None, "without a seat nothing is reported");
        book.handle_set(|_| false, |_| true);
        assert_eq!(book.report(node(1), (Epoch(8), &electorate)).unwrap().entries, []);
        book.record(&[node(2)], true);
        assert_eq!(book.report(node(1), (Epoch(8), &electorate)).unwrap().entries.len(), 1);
        book.handle_set(|relay| *relay == node(2), |_| true);
        book.record(&[node(2)], true);
        assert_eq!(book.report(node(1), (Epoch(8), &electorate)).unwrap().entries, [], "it begins anew after a fall");
    }

    #[test]
    fn memory_is_bounded() {
        let mut book = LoopBook::default();
        for n in 0..=MAX_RELAYS as u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            book.record(&[NodeId(id)], true);
        }
        assert_eq!(book.counts.len(), MAX_RELAYS);
        book.handle_set(|_| false, |_| false);
        assert!(book.counts.is_empty() && book.fresh.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn bytes_are_read_back_or_refused(bytes in proptest::collection::vec(0u8..4, 0..40)) {
            if let Some(read) = SignedLoops::from_bytes(&bytes) {
                proptest::prop_assert_eq!(read.to_bytes(), bytes);
            }
        }
    }
}
