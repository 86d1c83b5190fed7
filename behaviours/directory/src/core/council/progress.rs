//! What follows when something that was lacking is here: a set becomes the last certified one, or is judged.

use std::{collections::BTreeSet, sync::Arc};

use fog_base::{Epoch, NodeId, Now};

use super::{Awaited, Council, Incomplete, KEPT, Output};
use crate::core::{
    certificate::{
        Statement,
        chain::Link,
        judgement,
        named_set::NamedSet,
        state::State,
        succession::{Certified, Signed, Successor},
    },
    snapshot::Snapshot,
    standing::THRESHOLD,
};

impl Council {
    /// The last link's set and state are both here.
    pub(super) fn complete(&mut self, now: Now) -> bool {
        let Some(incomplete) = &self.incomplete else { return false };
        let statement = *incomplete.tip.statement();
        let Some(set) = self.candidate(&statement) else { return false };
        if incomplete.state.is_none() {
            // Out of the set before, if that is here: nobody else may have kept it.
            let state = self.state_of(&statement, &set);
            if let Some(incomplete) = &mut self.incomplete {
                incomplete.state = state;
            }
        }
        let Some(Incomplete { tip, certificate, signed, state: Some(state) }) =
            self.incomplete.take_if(|incomplete| incomplete.state.is_some())
        else {
            return false;
        };
        self.install(Certified { tip, certificate, signed, set, state }, now);
        true
    }

    fn state_of(&mut self, statement: &Statement, set: &NamedSet) -> Option<State> {
        let parent = self.certified.values().find(|parent| parent.tip.hash() == statement.previous).cloned()?;
        let successor = self.rules.follow(Some(&parent), statement.epoch, set, &mut self.tickets).ok()?;
        (successor.state.hash() == statement.state).then_some(successor.state)
    }

    /// A statement was certified here, and its set is here: its seats are computed.
    pub(super) fn succeed(&mut self, now: Now) -> bool {
        let Some(certificate) = self.awaited.as_ref().filter(|awaited| !awaited.needs_link).map(|a| &a.certificate)
        else {
            return false;
        };
        let (certificate, statement) = (certificate.clone(), certificate.statement);
        let Some(parent) = self.parent() else {
            self.awaited = Some(Awaited { certificate, needs_link: true });
            return true;
        };
        let Some(set) = self.candidate(&statement) else { return false };
        let successor = self.rules.follow(parent.as_deref(), statement.epoch, &set, &mut self.tickets);
        let fits = |successor: &Successor| {
            successor.electorate.commitment() == statement.electorate && successor.state.hash() == statement.state
        };
        let signed = Signed::new(&certificate, self.certifier.tip().electorate());
        self.awaited = None;
        match successor {
            Ok(successor) if fits(&successor) => {
                let Successor { electorate, state } = successor;
                if let Err(reject) = self.certifier.handle_electorate(electorate, now) {
                    self.drops.count(reject.drop_reason());
                    return true;
                }
                let tip = self.certifier.tip().clone();
                self.install(Certified { tip, certificate, signed, set, state }, now);
            }
            // Two thirds of the seats see other seats than we do: theirs count, and a peer tells which they are.
            _ => self.awaited = Some(Awaited { certificate, needs_link: true }),
        }
        true
    }

    /// A proposed set is here: is it fit to be voted for?
    pub(super) fn judge(&mut self, now: Now) -> bool {
        let previous = self.certifier.tip().hash();
        self.judging.retain(|statement| statement.previous == previous);
        let Some(parent) = self.parent() else { return false };
        let Some((at, set)) =
            self.judging.iter().enumerate().find_map(|(at, statement)| Some((at, self.candidate(statement)?)))
        else {
            return false;
        };
        let Some(statement) = self.judging.remove(at) else { return false };
        let successor = self.follow(parent.as_deref(), statement.epoch, &set);
        let witnessed = self.witnessed.as_ref().filter(|(of, _)| *of == statement.epoch);
        let nobody = BTreeSet::new();
        let witnessed = witnessed.map_or(&nobody, |(_, witnessed)| witnessed);
        let objection = match successor {
            Ok(successor) => judgement::judge(&statement, &set, &successor, witnessed, &self.timetable).err(),
            Err(why) => Some(why),
        };
        if let Some(why) = objection {
            self.push(Output::Objected { epoch: statement.epoch, why });
        }
        self.certifier.handle_judged(&statement, objection.is_none(), now);
        true
    }

    fn install(&mut self, certified: Certified, now: Now) {
        let (epoch, certified) = (certified.epoch(), Arc::new(certified));
        if !self.links.has(epoch) {
            let link =
                Link { certificate: certified.certificate.clone(), electorate: certified.tip.electorate().clone() };
            self.keep_link(epoch, link.to_bytes());
        }
        let (set, state) = (certified.set.to_bytes(), certified.state.to_bytes());
        let snapshot =
            Snapshot::certified(epoch, (certified.set.root(), true), certified.set.relays(), &certified.seats());
        self.built.insert(epoch, snapshot);
        self.certified.insert(epoch, certified.clone());
        // Before the oldest goes: a ring may follow from it.
        self.turn_rings(now);
        if self.certified.len() > KEPT {
            self.certified.pop_first();
        }
        self.built.retain(|epoch, _| self.certified.contains_key(epoch));
        let forget = self.forget_after(epoch);
        self.push(Output::KeepSet { epoch, set, state, forget });
        let is_fallen = |relay: &NodeId| certified.state.standings.of(relay) < THRESHOLD;
        self.book.handle_set(is_fallen, |relay| certified.tip.electorate().rank(*relay).is_some());
        self.push(Output::Changed);
    }

    pub(super) fn keep_link(&mut self, epoch: Epoch, bytes: Vec<u8>) {
        self.links.insert(epoch, bytes.clone());
        self.push(Output::KeepLink { epoch, bytes });
    }
}
