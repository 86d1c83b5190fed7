//! What this node would propose, and what it does ahead of that.

use std::{sync::Arc, time::Duration};

use fog_base::{Epoch, Now};

use super::{Council, Output};
use crate::core::{
    certificate::{
        chain::OVERTIME,
        judgement::{self, Objection},
        named_set::NamedSet,
        succession::{Certified, Successor},
    },
    lottery::Lottery,
    relay_set::RelaySet,
};

/// Tickets that are verified in one turn ahead of the cut-off, and how often: a hundred microseconds each.
const WARM_BATCH: usize = 32;
const WARM_INTERVAL: Duration = Duration::from_secs(1);

impl Council {
    /// Verifies some tickets before the cut-off, so that not all must be verified at it.
    pub(super) fn warm(&mut self, live: &RelaySet, next: Epoch, now: Now) {
        if now.mono < self.next_warm {
            return;
        }
        self.next_warm = now.mono + WARM_INTERVAL;
        let Some(beacon) = self.beacon(next) else { return };
        let (network, tickets) = (self.rules.network, &mut self.tickets);
        let lottery = Lottery { network: &network, epoch: next, beacon: &beacon };
        let cut_off = self.timetable.cut_off(next).0;
        let staked = live.covering(next, cut_off).filter(|d| self.rules.stakes.stake(&d.relay()) > 0);
        let fresh: Vec<_> = staked.filter(|d| !tickets.knows(&lottery, d)).take(WARM_BATCH).collect();
        for descriptor in &fresh {
            tickets.lot(&lottery, descriptor);
        }
        // Who may take part also depends on the tickets in the set before, which a node that joined has not looked at.
        let Some(parent) = self.certified.range(..next).next_back().map(|(_, parent)| parent) else { return };
        let lottery = Lottery { network: &network, epoch: parent.epoch(), beacon: &parent.state.beacon };
        let staked = parent.set.relays().iter().filter(|d| self.rules.stakes.stake(&d.relay()) > 0);
        let fresh: Vec<_> = staked.filter(|d| !tickets.knows(&lottery, d)).take(WARM_BATCH - fresh.len()).collect();
        for descriptor in fresh {
            tickets.lot(&lottery, descriptor);
        }
    }

    /// At the cut-off: what this node would propose.
    pub(super) fn state_own(&mut self, live: &RelaySet, next: Epoch, now: Now) {
        let Some(parent) = self.parent() else { return };
        let previous = self.certifier.tip().hash();
        if self.stated == Some((next, previous)) || self.certifier.tip().statement().epoch >= next {
            return;
        }
        self.stated = Some((next, previous));
        let set = live.covering(next, self.timetable.cut_off(next).0).cloned().collect();
        let set = Arc::new(NamedSet::new(set));
        self.hold(set.clone());
        match self.follow(parent.as_deref(), next, &set) {
            Ok(successor) => {
                let statement = judgement::state(next, previous, &set, &successor);
                if let Err(reject) = self.certifier.handle_own(statement, now) {
                    self.drops.count(reject.drop_reason());
                }
            }
            Err(why) => self.push(Output::Objected { epoch: next, why }),
        }
    }

    /// What follows from `set`, if a seat may propose it or vote for it. While the network file's relays serve, the first set has those of more
    /// than two thirds of its stake, as many as certify it: one without those who came after the cut-off would leave them without weight.
    pub(super) fn follow(
        &mut self,
        parent: Option<&Certified>,
        epoch: Epoch,
        set: &NamedSet,
    ) -> Result<Successor, Objection> {
        if parent.is_none() && epoch.0 <= self.since.0 + OVERTIME {
            let founders = self.certifier.tip().electorate();
            if !founders.is_quorum(self.rules.founders(founders, epoch, set, &mut self.tickets)) {
                return Err(Objection::FewFounders);
            }
        }
        self.rules.follow(parent, epoch, set, &mut self.tickets).map_err(|_| Objection::NoSeats)
    }
}
