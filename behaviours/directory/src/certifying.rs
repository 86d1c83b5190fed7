//! The council in the swarm: what it wants goes to the exchange and to the node, and back.

use std::sync::Arc;

use fog_base::{NodeId, Now};

use crate::{
    behaviour::{Behaviour, clock},
    core::{
        certificate::{judgement::Objection, named_set::NamedSet, timetable::Timetable},
        council::{Council, Output},
        relay_set::Acceptance,
    },
    event::Event,
};

/// Peers with whom the live set is compared before the cut-off.
const RECONCILED: usize = 3;

impl Behaviour {
    /// This node's part in the certified sets; `None` in an open network.
    pub fn council(&self) -> Option<&Council> {
        self.council.as_ref()
    }

    /// As [`Behaviour::council`], to verify a seat.
    pub fn council_mut(&mut self) -> Option<&mut Council> {
        self.council.as_mut()
    }

    /// Takes a gossip message about certified sets, and says what to do with it.
    pub fn handle_certificate(&mut self, bytes: &[u8]) -> Acceptance {
        let now = clock();
        self.council.as_mut().map_or(Acceptance::Ignore, |council| council.handle_gossip(bytes, now))
    }

    /// What [`Event::Record`] asked for is on the disk, or cannot be written.
    pub fn recorded(&mut self, is_kept: bool) {
        if let Some(council) = &mut self.council {
            council.handle_recorded(is_kept);
        }
    }

    /// A loop of ours through `hops` has come back in time, or has not.
    pub fn handle_loop(&mut self, hops: &[NodeId], is_delivered: bool) {
        if let Some(council) = &mut self.council {
            council.handle_loop(hops, is_delivered);
        }
    }

    pub(crate) fn tell_council(&mut self, tell: impl FnOnce(&mut Council, Now)) {
        if let Some(council) = &mut self.council {
            tell(council, clock());
        }
    }

    /// What is due, and the lottery of the next set for our descriptor.
    pub(crate) fn hold_council(&mut self, now: Now) {
        let Some(council) = &mut self.council else { return };
        if council.poll_timeout().is_some_and(|due| due <= now.mono) {
            council.handle_timeout(&self.set, now);
        }
        let next = self.schedule.at(now.unix).next();
        self.publisher.set_lottery(council.beacon(next).map(|beacon| (next, beacon)), now);
    }

    pub(crate) fn poll_council(&mut self) -> Option<Event> {
        loop {
            return Some(match self.council.as_mut()?.poll_output()? {
                Output::Record { record, set } => Event::Record { record, set },
                Output::SignedTwice(relay) => Event::SignedTwice { relay },
                Output::Broadcast(bytes) => Event::Broadcast(bytes),
                Output::KeepLink { epoch, bytes } => Event::KeepLink { epoch, bytes },
                Output::KeepSet { epoch, set, state, forget } => Event::KeepSet { epoch, set, state, forget },
                Output::Reconcile => {
                    self.exchange.meet(RECONCILED, &mut self.set, clock());
                    continue;
                }
                Output::Wants => {
                    self.order(clock());
                    continue;
                }
                Output::WantLinks { after } => {
                    self.exchange.want_links(after, clock());
                    continue;
                }
                Output::Changed => Event::Changed,
                Output::Objected { epoch, why: why @ Objection::FewFounders } => {
                    tracing::info!(epoch = epoch.0, %why, "the network begins an epoch later");
                    continue;
                }
                Output::Objected { epoch, why } => {
                    tracing::debug!(epoch = epoch.0, %why, "a set is not voted for");
                    continue;
                }
                Output::Misbehaved(peer) => Event::Misbehaved { peer },
            });
        }
    }

    /// Orders from peers what the council lacks, and nothing else.
    fn order(&mut self, now: Now) {
        let Some(council) = &self.council else { return };
        let wants = council.wants().clone();
        match wants.set {
            Some((root, relays, epoch)) => {
                let cut_off = Timetable::new(self.schedule).cut_off(epoch);
                let candidates = Arc::new(NamedSet::new(self.set.covering(epoch, cut_off.0).cloned().collect()));
                self.exchange.want_set((root, relays, cut_off), None, candidates, now);
            }
            None => self.exchange.cancel_set(),
        }
        match wants.state {
            Some(hash) => self.exchange.want_state(hash, now),
            None => self.exchange.cancel_state(),
        }
    }
}
