//! The fetching of a set that is named by its root, from one peer after the other.
//!
//! Two steps: which hashes are in it, which is believed when they have that root; and the descriptors of those that are
//! not here. What one peer gave stays when the next one is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fog_base::{DropReason, EpochSchedule, NetworkId, NodeId, Now, UnixMillis, record::SignedRecord};

use super::{
    Step,
    archive::NamedSet,
    reconcile::{Found, list_all},
    session::MAX_ROUNDS,
};
use crate::{
    core::{
        certificate::merkle,
        descriptor::{Descriptor, Reject},
        relay_set::{RelaySet, Source},
    },
    wire::{MAX_BATCH, Request, Response, Scope},
};

type Hash = [u8; 32];

/// What is known of the set, from whichever peer.
#[derive(Debug)]
pub(super) struct SetJob {
    pub(super) root: Hash,
    relays: usize,
    candidates: Arc<NamedSet>,
    /// Its descriptors are verified as of this time: some may have ended since.
    at: UnixMillis,
    /// Its hashes, once they are known to have the root.
    members: Option<BTreeSet<Hash>>,
    /// Those descriptors that are not among the candidates.
    fetched: BTreeMap<Hash, Arc<Descriptor>>,
    attempt: Attempt,
}

/// What is under way at one peer.
#[derive(Debug, Default)]
struct Attempt {
    rounds: u32,
    found: Found,
    /// Compared with nothing: sums of hashes can be made to collide, a list cannot.
    is_listing: bool,
    asked: BTreeSet<Hash>,
}

impl SetJob {
    pub(super) fn new((root, relays, at): (Hash, u32, UnixMillis), candidates: Arc<NamedSet>) -> Self {
        let (relays, attempt) = (relays as usize, Attempt::default());
        Self { root, relays, candidates, at, members: None, fetched: BTreeMap::new(), attempt }
    }

    /// The set, if the candidates are it.
    pub(super) fn is_there(&self) -> Option<Arc<NamedSet>> {
        (self.candidates.root() == self.root && self.candidates.relays().len() == self.relays)
            .then(|| self.candidates.clone())
    }

    /// The first request to a peer.
    pub(super) fn start(&mut self) -> Step<Arc<NamedSet>> {
        self.attempt = Attempt::default();
        if self.members.is_some() {
            return self.fetch();
        }
        match self.candidates.items().split() {
            Ok(message) => self.ask(message),
            Err(_) => self.list(),
        }
    }

    pub(super) fn handle_response(
        &mut self,
        peer: NodeId,
        response: Response,
        (network, schedule): (&NetworkId, &EpochSchedule),
        set: &mut RelaySet,
        now: Now,
    ) -> Step<Arc<NamedSet>> {
        match response {
            Response::Reconcile { message, .. } if self.members.is_none() => self.reconcile(&message, set),
            Response::Records { records, more } if !self.attempt.asked.is_empty() => {
                for bytes in &records {
                    match self.take(peer, bytes, (network, schedule), set, now) {
                        Ok(()) => {}
                        Err(reject) if reject.is_misbehaviour() => return Step::Lied(reject.drop_reason()),
                        Err(reject) => return Step::Ended(Some(reject.drop_reason())),
                    }
                }
                // It has the set, so it has each of its descriptors.
                if records.is_empty() || (!more && !self.attempt.asked.is_empty()) {
                    return Step::Lied(DropReason::BadPayload);
                }
                self.absorb(set);
                self.fetch()
            }
            Response::Busy | Response::Unknown => Step::Ended(None),
            _ => Step::Lied(DropReason::Malformed),
        }
    }

    fn ask(&self, message: Vec<u8>) -> Step<Arc<NamedSet>> {
        Step::Ask(Request::Reconcile { scope: Scope::Root(self.root), message })
    }

    fn list(&mut self) -> Step<Arc<NamedSet>> {
        self.attempt = Attempt { is_listing: true, ..Attempt::default() };
        self.ask(list_all())
    }

    fn reconcile(&mut self, message: &[u8], set: &RelaySet) -> Step<Arc<NamedSet>> {
        self.attempt.rounds += 1;
        let Attempt { rounds, found, is_listing, .. } = &mut self.attempt;
        let nothing;
        let items = if *is_listing {
            nothing = super::reconcile::Items::new(std::iter::empty());
            &nothing
        } else {
            self.candidates.items()
        };
        let Ok(next) = items.step(message, found) else { return Step::Lied(DropReason::Malformed) };
        if found.theirs.len() > self.relays {
            return Step::Lied(DropReason::BadPayload);
        }
        match next {
            Some(_) if *rounds >= MAX_ROUNDS => Step::Ended(Some(DropReason::BadPayload)),
            Some(message) => self.ask(message),
            None => self.judge(set),
        }
    }

    /// Whether the hashes that were found have the root. If not, a list shows whether the peer lied.
    fn judge(&mut self, set: &RelaySet) -> Step<Arc<NamedSet>> {
        let Found { ours, theirs: mut members } = std::mem::take(&mut self.attempt.found);
        if !self.attempt.is_listing {
            members.extend(self.candidates.hashes().filter(|hash| !ours.contains(hash)));
        }
        let sorted: Vec<_> = members.iter().copied().collect();
        if members.len() == self.relays && merkle::root(&sorted) == self.root {
            self.members = Some(members);
            self.absorb(set);
            return self.fetch();
        }
        if self.attempt.is_listing { Step::Lied(DropReason::BadPayload) } else { self.list() }
    }

    /// Takes what came into the live set in the meantime.
    fn absorb(&mut self, set: &RelaySet) {
        for hash in self.missing().collect::<Vec<_>>() {
            if let Some(descriptor) = set.by_hash(&hash) {
                self.fetched.insert(hash, descriptor.clone());
            }
        }
    }

    fn missing(&self) -> impl Iterator<Item = Hash> {
        let is_here = |hash: &Hash| self.fetched.contains_key(hash) || self.candidates.by_hash(hash).is_some();
        self.members.iter().flatten().copied().filter(move |hash| !is_here(hash))
    }

    fn fetch(&mut self) -> Step<Arc<NamedSet>> {
        let hashes: Vec<_> = self.missing().take(MAX_BATCH).collect();
        if !hashes.is_empty() {
            self.attempt.asked = hashes.iter().copied().collect();
            return Step::Ask(Request::Get { scope: Scope::Root(self.root), hashes });
        }
        let find = |hash: &Hash| self.fetched.get(hash).or_else(|| self.candidates.by_hash(hash)).cloned();
        let set = NamedSet::new(self.members.iter().flatten().filter_map(find).collect());
        // Two descriptors of one relay are no set, whatever root they have.
        if set.root() == self.root { Step::Done(Arc::new(set)) } else { Step::Lied(DropReason::BadPayload) }
    }

    /// Verifies one descriptor, which is offered to the live set as well: what that refuses as outdated may still be in
    /// this set.
    fn take(
        &mut self,
        peer: NodeId,
        bytes: &[u8],
        (network, schedule): (&NetworkId, &EpochSchedule),
        set: &mut RelaySet,
        now: Now,
    ) -> Result<(), Reject> {
        let record = SignedRecord::parse(bytes)?;
        let hash = record.hash();
        if !self.attempt.asked.remove(&hash) {
            return Err(Reject::Malformed);
        }
        let descriptor = match set.handle_descriptor(bytes, Source::Exchange(peer), now) {
            Err(reject) if reject.is_misbehaviour() => return Err(reject),
            // The live set has just verified it.
            _ => match set.by_hash(&hash) {
                Some(descriptor) => descriptor.clone(),
                None => Arc::new(Descriptor::verify(record, network, schedule, self.at)?),
            },
        };
        self.fetched.insert(hash, descriptor);
        Ok(())
    }
}
