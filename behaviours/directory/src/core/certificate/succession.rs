//! What a set makes of the one before it: its seats, its standings, who may take part next. Everybody computes the same, from public
//! data alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use fog_base::{Epoch, NetworkId, NodeId, relay::Role};

use super::{
    Hash,
    chain::Tip,
    electorate::{Elector, Electorate, ElectorateError, MAX_SEATS},
    named_set::NamedSet,
    quorum::Quorum,
    state::State,
};
use crate::core::{
    beacon::{Beacon, Before, CONTRIBUTORS},
    descriptor::Descriptor,
    lottery::{self, Entrant, Lot, Lottery, SEATS},
    seating::{Seat, Seating},
    standing::{self, LoopReport, Standings},
    weight::{Candidate, StakeTable, weigh},
};

/// Lotteries whose verified tickets are remembered: of the set that is made, of the last, and of one more.
const LOTTERIES: usize = 3;

/// What all nodes of a network must share.
#[derive(Debug)]
pub struct Rules {
    /// The network.
    pub network: NetworkId,
    /// Who has staked what.
    pub stakes: Box<dyn StakeTable>,
    /// Where beacons come from.
    pub beacon: Box<dyn Beacon>,
}

/// A certified set with everything that the next one follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Its statement and seats.
    pub tip: Tip,
    /// Who certified it.
    pub certificate: Quorum,
    /// With how much weight.
    pub signed: Signed,
    /// The set.
    pub set: Arc<NamedSet>,
    /// The rest.
    pub state: State,
}

/// What signed a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// How many seats.
    pub signatures: usize,
    /// Their weight.
    pub weight: u64,
    /// The weight of all seats that could have signed.
    pub total: u64,
}

impl Signed {
    /// Of a verified certificate and the electorate before it.
    pub fn new(certificate: &Quorum, electorate: &Electorate) -> Self {
        let signers =
            certificate.signatures.iter().zip(electorate.seats()).filter(|(signature, _)| signature.is_some());
        let (signatures, weight) = (signers.clone().count(), signers.map(|(_, seat)| seat.weight).sum());
        Self { signatures, weight, total: electorate.total() }
    }
}

/// What follows from a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Its seats.
    pub electorate: Electorate,
    /// Its state.
    pub state: State,
}

/// Tickets that were verified, so that each is verified once.
#[derive(Debug, Default)]
pub struct Tickets(BTreeMap<(Epoch, [u8; 32]), HashMap<Hash, Option<Lot>>>);

impl Tickets {
    /// The lot of a relay with a valid ticket.
    pub fn lot(&mut self, lottery: &Lottery<'_>, descriptor: &Descriptor) -> Option<Lot> {
        let key = (lottery.epoch, *lottery.beacon);
        if !self.0.contains_key(&key) && self.0.len() >= LOTTERIES {
            self.0.pop_first();
        }
        let verified = self.0.entry(key).or_default();
        *verified.entry(descriptor.hash()).or_insert_with(|| verify(lottery, descriptor))
    }

    /// Whether the ticket was looked at.
    pub fn knows(&self, lottery: &Lottery<'_>, descriptor: &Descriptor) -> bool {
        let verified = self.0.get(&(lottery.epoch, *lottery.beacon));
        verified.is_some_and(|verified| verified.contains_key(&descriptor.hash()))
    }
}

/// The lot of a relay with a valid ticket, computed anew.
pub fn verify(lottery: &Lottery<'_>, descriptor: &Descriptor) -> Option<Lot> {
    let ticket = descriptor.candidacy().ticket.as_ref()?;
    lottery::verify(descriptor.vrf_key(), &descriptor.relay(), lottery, ticket).ok()
}

impl Rules {
    /// The beacon of the set of `epoch` after `parent`; of the first one, if there is none.
    pub fn beacon(&self, epoch: Epoch, parent: Option<&Certified>) -> [u8; 32] {
        self.beacon.beacon(&self.network, epoch, parent.map(Certified::before).as_ref())
    }

    /// What follows from `set` as the set of `epoch` after `parent`. An error if nobody is seated.
    pub fn follow(
        &self,
        parent: Option<&Certified>,
        epoch: Epoch,
        set: &NamedSet,
        tickets: &mut Tickets,
    ) -> Result<Successor, ElectorateError> {
        let beacon = self.beacon(epoch, parent);
        let lottery = Lottery { network: &self.network, epoch, beacon: &beacon };
        let standings = parent.map_or_else(Standings::default, |parent| parent.standings_after(set));
        let candidates: Vec<_> = set.relays().iter().map(candidate).collect();
        let weights = weigh(&candidates, &*self.stakes, &standings);
        let (mut entrants, mut newcomers) = (Vec::new(), BTreeSet::new());
        for (descriptor, weight) in set.relays().iter().zip(weights) {
            let relay = descriptor.relay();
            if self.stakes.stake(&relay) == 0 {
                continue;
            }
            let Some(lot) = tickets.lot(&lottery, descriptor) else { continue };
            let is_known = parent.is_none_or(|parent| self.stood(parent, descriptor, tickets));
            if !is_known {
                newcomers.insert(relay);
            }
            let is_eligible = is_known && parent.is_none_or(|parent| !parent.state.newcomers.contains(&relay));
            let is_mix = descriptor.facts().roles.has(Role::Mix);
            entrants.push(Entrant { relay, lot, weight: if is_eligible { weight } else { 0 }, is_mix });
        }
        let seated = lottery::seat(&entrants, SEATS).into_iter().take(MAX_SEATS);
        let seats = seated.map(|seat| Elector { node: seat.relay, weight: seat.weight }).collect();
        Ok(Successor { electorate: Electorate::new(seats)?, state: State { beacon, newcomers, standings } })
    }

    /// How much of the weight of `founders`, the relays of the network file, stands in `set`, the first one, with valid tickets.
    pub fn founders(&self, founders: &Electorate, epoch: Epoch, set: &NamedSet, tickets: &mut Tickets) -> u128 {
        let beacon = self.beacon(epoch, None);
        let lottery = Lottery { network: &self.network, epoch, beacon: &beacon };
        let mut enters = |seat: &&Elector| set.find(&seat.node).is_some_and(|d| tickets.lot(&lottery, d).is_some());
        founders.seats().iter().filter(|seat| enters(seat)).map(|seat| u128::from(seat.weight)).sum()
    }

    /// Whether the relay stood in `parent` with the same VRF key and a valid ticket: then its key was fixed before the beacon of the
    /// next set could be foreseen.
    fn stood(&self, parent: &Certified, descriptor: &Descriptor, tickets: &mut Tickets) -> bool {
        let Some(before) = parent.set.find(&descriptor.relay()) else { return false };
        let lottery =
            Lottery { network: &self.network, epoch: parent.tip.statement().epoch, beacon: &parent.state.beacon };
        before.vrf_key() == descriptor.vrf_key() && tickets.lot(&lottery, before).is_some()
    }
}

fn candidate(descriptor: &Arc<Descriptor>) -> Candidate {
    Candidate { relay: descriptor.relay(), family: descriptor.facts().family, nets: descriptor.nets() }
}

impl Certified {
    /// The epoch of the set.
    pub fn epoch(&self) -> Epoch {
        self.tip.statement().epoch
    }

    /// What the next beacon follows from.
    fn before(&self) -> Before {
        let lowest = self.tip.electorate().seats().iter().take(CONTRIBUTORS);
        let output = |seat: &Elector| Some(self.set.find(&seat.node)?.candidacy().ticket.as_ref()?.output);
        Before { beacon: self.state.beacon, outputs: lowest.filter_map(output).collect() }
    }

    /// The standings of the set `next` that follows.
    fn standings_after(&self, next: &NamedSet) -> Standings {
        let electorate = self.tip.electorate();
        let family = |relay: &NodeId| self.set.find(relay).and_then(|descriptor| descriptor.facts().family);
        let seat =
            |seat: &Elector| standing::Seat { relay: seat.node, weight: seat.weight, family: family(&seat.node) };
        let seats: Vec<_> = electorate.seats().iter().map(seat).collect();
        let reports: Vec<LoopReport> = next
            .relays()
            .iter()
            .filter_map(|descriptor| Some((descriptor.relay(), descriptor.candidacy().loops.as_ref()?)))
            .flat_map(|(reporter, loops)| loops.reports(reporter, (self.epoch(), electorate)))
            .collect();
        self.state.standings.after(&seats, &reports, |relay| next.find(relay).is_some())
    }

    /// The seats as the snapshot has them.
    pub fn seats(&self) -> Seats {
        let electors = self.tip.electorate().seats();
        let is_mix = |seat: &Elector| self.set.find(&seat.node).is_some_and(|d| d.facts().roles.has(Role::Mix));
        let layers = lottery::deal(electors.iter().map(is_mix));
        Seats::new(electors.iter().zip(layers).map(|(seat, layer)| (seat.node, (seat.weight, layer))))
    }
}

/// Weights and layers of certified seats. A relay of the set without a seat weighs nothing: it may be the last hop of a path, and no
/// other.
#[derive(Debug, Clone, Default)]
pub struct Seats(HashMap<NodeId, (u64, Option<u8>)>);

impl Seats {
    /// From the weight and layer of each seat.
    pub fn new(seats: impl IntoIterator<Item = (NodeId, (u64, Option<u8>))>) -> Self {
        Self(seats.into_iter().collect())
    }

    /// Weight and layer of a seat.
    pub fn of(&self, relay: &NodeId) -> Option<(u64, Option<u8>)> {
        self.0.get(relay).copied()
    }
}

impl Seating for Seats {
    fn seat(&self, _epoch: Epoch, relays: &[Arc<Descriptor>]) -> Vec<Seat> {
        let seat = |descriptor: &Arc<Descriptor>| {
            let (weight, layer) = self.0.get(&descriptor.relay()).copied().unwrap_or((0, None));
            Seat { descriptor: descriptor.clone(), weight, layer }
        };
        relays.iter().map(seat).collect()
    }
}

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;
