//! Offers that gossip lost: two nodes that meet compare what they have.
//!
//! The one with the lesser id sends a summary, the other the list of where it differs, the first the records that the other lacks and the
//! names of those that it lacks itself. What a peer may have checked of it is bounded: each record costs a signature.

use std::collections::BTreeMap;

use fog_base::{NodeId, Now, TokenBucket};

use super::{Coordinator, Output};
use crate::{
    core::{offers::Difference, reject::Reject},
    wire::{MAX_RECORDS, OfferMessage},
};

/// Records of one peer that are checked: a second, and at once.
const RECORDS: (f64, f64) = (16.0, 512.0);
/// Summaries and lists of one peer that are answered: a second, and at once.
const QUESTIONS: (f64, f64) = (0.1, 4.0);
/// Peers of which that is remembered.
const MAX_PEERS: usize = 1_024;

/// What peers may still ask.
#[derive(Debug, Clone, Default)]
pub(super) struct Meetings(BTreeMap<NodeId, (TokenBucket, TokenBucket)>);

impl Meetings {
    fn of(&mut self, peer: NodeId, now: Now) -> Option<&mut (TokenBucket, TokenBucket)> {
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer) {
            return None;
        }
        let fresh = || {
            let bucket = |(rate, burst)| TokenBucket::new(rate, burst, now.mono);
            (bucket(RECORDS), bucket(QUESTIONS))
        };
        Some(self.0.entry(peer).or_insert_with(fresh))
    }

    /// A peer that is gone is forgotten; it is connected anew no more often than the node allows.
    pub(super) fn part(&mut self, peer: NodeId) {
        self.0.remove(&peer);
    }
}

impl Coordinator {
    /// Takes what a peer says of offers.
    pub fn handle_offers(&mut self, from: NodeId, message: OfferMessage, now: Now) -> Result<(), Reject> {
        let taken = self.on_offers(from, message, now);
        if let Err(reject) = &taken {
            self.push(Output::Drop(reject.drop_reason()));
        }
        self.after(now);
        taken
    }

    /// Begins to compare with a peer that is new here; the other one does, if its id is the lesser.
    pub(super) fn meet(&mut self, peer: NodeId) {
        if self.signer.me() < peer {
            self.offer_message(peer, OfferMessage::Summary(self.offers.summary()));
        }
    }

    fn on_offers(&mut self, from: NodeId, message: OfferMessage, now: Now) -> Result<(), Reject> {
        let (records_left, questions_left) = self.meetings.of(from, now).ok_or(Reject::Busy)?;
        match message {
            OfferMessage::Summary(summary) => {
                if !questions_left.try_take(now.mono) {
                    return Err(Reject::Busy);
                }
                let (buckets, places) = self.offers.differing(&summary);
                if !buckets.is_empty() {
                    self.offer_message(from, OfferMessage::List { buckets, places });
                }
            }
            OfferMessage::List { buckets, places } => {
                if !questions_left.try_take(now.mono) {
                    return Err(Reject::Busy);
                }
                let Difference { send, want } = self.offers.difference(&buckets, &places);
                self.send_records(from, send, want);
            }
            OfferMessage::Records { records, want } => {
                let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
                let allowed = records_left.take(count, now.mono) as usize;
                let answers = want.is_empty() || questions_left.try_take(now.mono);
                for record in records.iter().take(allowed) {
                    // One that is not taken says nothing of the others.
                    let _refused = self.on_offer(record, now);
                }
                if !answers || allowed < records.len() {
                    return Err(Reject::Busy);
                }
                let send = self.offers.records(&want);
                self.send_records(from, send, Vec::new());
            }
        }
        Ok(())
    }

    fn send_records(&mut self, to: NodeId, records: Vec<Vec<u8>>, want: Vec<NodeId>) {
        let mut want = Some(want).filter(|want| !want.is_empty());
        for part in records.chunks(MAX_RECORDS) {
            let want = want.take().unwrap_or_default();
            self.offer_message(to, OfferMessage::Records { records: part.to_vec(), want });
        }
        if let Some(want) = want {
            self.offer_message(to, OfferMessage::Records { records: Vec::new(), want });
        }
    }

    fn offer_message(&mut self, to: NodeId, message: OfferMessage) {
        self.push(Output::Offers { to, message });
    }
}
