//! What paths are drawn from, and what peers are shown of the sets.

use std::sync::Arc;

use fog_base::{Epoch, NodeId};

use super::Council;
use crate::core::{
    certificate::{
        Hash,
        chain::OVERTIME,
        electorate::{Elector, Electorate},
        named_set::NamedSet,
        succession::{self, Certified, Seats},
    },
    exchange::archive::Archive,
    lottery::{Lot, Lottery},
    relay_set::RelaySet,
    snapshot::Snapshot,
};

/// What an epoch's paths are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Its certified set.
    Certified,
    /// The last certified set, so many epochs beyond its own.
    Overtime(u32),
    /// No set of this epoch or an earlier one was ever certified: the relays of the network file that are here.
    Genesis,
    /// Nothing yet: what is certified is being fetched.
    Joining,
    /// Nothing: the last certified set is too old.
    Stopped {
        /// Whose set it was; 0 if nothing was ever certified.
        last: Epoch,
    },
}

/// The check of a seat from public data alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatProof {
    /// Whether the relay's descriptor is under the certified root, its ticket is its key's for the set's beacon, and the seats
    /// that follow from the sets by the rules are those that were certified.
    pub is_valid: bool,
    /// The lot, if the ticket is valid.
    pub lot: Option<Lot>,
    /// Its seat's weight and layer, if it has one.
    pub seat: Option<(u64, Option<u8>)>,
}

impl Council {
    /// What serves in `epoch`.
    pub fn serving(&self, epoch: Epoch) -> Serving {
        if self.certified.contains_key(&epoch) {
            return Serving::Certified;
        }
        let last = self.certified.range(..epoch).next_back().map(|(last, _)| *last);
        match last {
            Some(last) if epoch.0 - last.0 <= OVERTIME => Serving::Overtime(epoch.0 - last.0),
            _ if self.incomplete.is_some() => Serving::Joining,
            Some(last) => Serving::Stopped { last },
            None if !self.has_heard => Serving::Joining,
            None if self.is_before_first(epoch) && epoch.0 <= self.since.0 + OVERTIME => Serving::Genesis,
            None => Serving::Stopped { last: self.certifier.tip().statement().epoch },
        }
    }

    /// The relays of `epoch`; none where nothing serves.
    pub fn snapshot(&self, epoch: Epoch, live: &RelaySet) -> Snapshot {
        let base = self.certified.range(..=epoch).next_back().map(|(_, certified)| certified);
        match (self.serving(epoch), base) {
            (Serving::Certified, Some(base)) => match self.built.get(&epoch) {
                Some(built) => built.clone(),
                None => Snapshot::certified(epoch, (base.set.root(), true), base.set.relays(), &base.seats()),
            },
            (Serving::Overtime(_), Some(base)) => {
                let live = live.covering(epoch, u64::MAX).filter(|live| base.set.find(&live.relay()).is_some());
                let relays: Vec<_> = live.cloned().collect();
                Snapshot::certified(epoch, (base.set.root(), false), &relays, &base.seats())
            }
            (Serving::Genesis, _) => {
                let stakes = self.genesis.iter().map(|(relay, stake)| (*relay, (*stake, None)));
                Snapshot::new(epoch, live.covering(epoch, u64::MAX).cloned().collect(), &Seats::new(stakes))
            }
            _ => Snapshot::new(epoch, Vec::new(), &Seats::default()),
        }
    }

    /// The certified set of `epoch`, if it is here.
    pub fn certified(&self, epoch: Epoch) -> Option<&Arc<Certified>> {
        self.certified.get(&epoch)
    }

    /// The epoch of the last certified set that is known, whole or not.
    pub fn last_certified(&self) -> Epoch {
        self.certifier.tip().statement().epoch
    }

    /// The stake of `relay`.
    pub fn stake(&self, relay: &NodeId) -> u64 {
        self.rules.stakes.stake(relay)
    }

    /// Checks the ticket and the seat of `relay` in the certified set of `epoch`; `None` if the set is not here or the relay is not in
    /// it. The seats are computed anew where the set before is here too.
    pub fn verify_seat(&mut self, relay: &NodeId, epoch: Epoch) -> Option<SeatProof> {
        let certified = self.certified.get(&epoch)?.clone();
        let descriptor = certified.set.find(relay)?;
        let statement = certified.tip.statement();
        let is_in_set = certified
            .set
            .proof(relay)
            .is_some_and(|proof| proof.verify(&statement.root, statement.relays, &descriptor.hash()));
        let lottery = Lottery { network: &self.rules.network, epoch, beacon: &certified.state.beacon };
        let lot = succession::verify(&lottery, descriptor);
        let before = self.certified.values().find(|before| before.tip.hash() == statement.previous).cloned();
        let follows = before.is_none_or(|before| {
            let successor = self.rules.follow(Some(&before), epoch, &certified.set, &mut self.tickets);
            successor.is_ok_and(|s| s.electorate == *certified.tip.electorate() && s.state == certified.state)
        });
        let seat = certified.seats().of(relay);
        Some(SeatProof { is_valid: is_in_set && lot.is_some() && follows, lot, seat })
    }

    /// The relays of the network file as electorate.
    pub(super) fn genesis_electorate(&self) -> Option<Electorate> {
        let seats = self.genesis.iter().map(|(node, weight)| Elector { node: *node, weight: *weight });
        Electorate::new(seats.collect()).ok()
    }
}

impl Archive for Council {
    fn set(&self, root: &Hash) -> Option<Arc<NamedSet>> {
        let whole = self.certified.values().chain(self.rings.sources()).map(|certified| &certified.set);
        self.candidates.iter().chain(whole).find(|set| set.root() == *root).cloned()
    }

    fn links(&self, after: Epoch, max_bytes: usize) -> (Vec<Vec<u8>>, bool) {
        let (mut links, more) = self.links.after(after, max_bytes);
        // The newest may hold a signature of ours whose record is not on the disk yet.
        if (self.unrecorded > 0 || self.is_mute) && !more {
            links.pop();
        }
        (links, more)
    }

    fn state(&self, hash: &Hash, offset: u32, max: usize) -> Option<(u32, Vec<u8>)> {
        let mut whole = self.certified.values().chain(self.rings.sources());
        let certified = whole.find(|certified| certified.tip.statement().state == *hash)?;
        let bytes = certified.state.to_bytes();
        let part = bytes.get(usize::try_from(offset).ok()?..)?;
        Some((u32::try_from(bytes.len()).ok()?, part.get(..max).unwrap_or(part).to_vec()))
    }
}
