//! One reading of one peer's live set: where it differs from ours, and then what is missing here, a batch at a time.

use std::collections::{BTreeSet, VecDeque};

use fog_base::{DropReason, NodeId, Now, record::SignedRecord};

use super::{
    Step,
    reconcile::{Found, Items, is_settled},
};
use crate::{
    core::relay_set::{RelaySet, Source, Verdict},
    wire::{MAX_BATCH, Request, Response, Scope},
};

/// Answers of reconciliation after which a session ends: 10,000 hashes from nothing take six, any difference of that many
/// fewer than twelve.
pub(super) const MAX_ROUNDS: u32 = 24;
/// A peer's set changes while it is read, so a few of its hashes may be gone. Not more than half of so many or more.
const MIN_UNSERVED: usize = 16;

#[derive(Debug)]
enum Stage {
    Reconciling { sent: Now },
    Fetching { asked: BTreeSet<[u8; 32]> },
}

/// The session.
#[derive(Debug)]
pub(super) struct Session {
    peer: NodeId,
    stage: Stage,
    rounds: u32,
    found: Found,
    missing: VecDeque<[u8; 32]>,
    served: usize,
    unserved: usize,
    /// Whether it brought something new.
    pub(super) is_useful: bool,
    /// Whether the sets were found to differ.
    pub(super) is_different: bool,
}

impl Session {
    /// Begins to read `peer`'s set, and its first request.
    pub(super) fn start(peer: NodeId, live: &Items, now: Now) -> (Self, Request) {
        let session = Self {
            peer,
            stage: Stage::Reconciling { sent: now },
            rounds: 0,
            found: Found::default(),
            missing: VecDeque::new(),
            served: 0,
            unserved: 0,
            is_useful: false,
            is_different: false,
        };
        (session, Request::Reconcile { scope: Scope::Live, message: live.opening() })
    }

    /// When the first request was sent: its answer shows a clock.
    pub(super) fn clock_asked(&self) -> Option<Now> {
        match self.stage {
            Stage::Reconciling { sent } if self.rounds == 0 => Some(sent),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn remembers(&self) -> usize {
        self.found.theirs.len() + self.missing.len()
    }

    pub(super) fn handle_response(
        &mut self,
        response: Response,
        live: &Items,
        set: &mut RelaySet,
        now: Now,
    ) -> Step<()> {
        match (&mut self.stage, response) {
            (Stage::Reconciling { .. }, Response::Reconcile { message, .. }) => {
                self.reconcile(&message, live, set, now)
            }
            (Stage::Fetching { asked }, Response::Records { records, more }) => {
                let asked = std::mem::take(asked);
                self.take(asked, &records, more, set, now)
            }
            (_, Response::Busy) => Step::Ended(None),
            _ => Step::Lied(DropReason::Malformed),
        }
    }

    fn reconcile(&mut self, message: &[u8], live: &Items, set: &mut RelaySet, now: Now) -> Step<()> {
        self.rounds += 1;
        self.is_different |= !is_settled(message);
        match live.step(message, &mut self.found) {
            Err(_) => Step::Lied(DropReason::Malformed),
            Ok(Some(_)) if self.rounds >= MAX_ROUNDS => Step::Ended(Some(DropReason::BadPayload)),
            Ok(Some(message)) if self.found.theirs.len() < set.capacity() => {
                self.stage = Stage::Reconciling { sent: now };
                Step::Ask(Request::Reconcile { scope: Scope::Live, message })
            }
            Ok(_) => {
                let theirs = std::mem::take(&mut self.found).theirs;
                self.missing = theirs.into_iter().take(set.capacity()).collect();
                self.fetch(set, now)
            }
        }
    }

    fn fetch(&mut self, set: &mut RelaySet, now: Now) -> Step<()> {
        self.missing.retain(|hash| set.by_hash(hash).is_none());
        let quota = set.quota(self.peer, now.mono) as usize;
        let batch = self.missing.len().min(MAX_BATCH).min(quota);
        // Without quota the session ends, and a later one goes on where the sets still differ.
        if batch == 0 {
            return Step::Done(());
        }
        let hashes: Vec<_> = self.missing.drain(..batch).collect();
        self.stage = Stage::Fetching { asked: hashes.iter().copied().collect() };
        Step::Ask(Request::Get { scope: Scope::Live, hashes })
    }

    fn take(
        &mut self,
        mut asked: BTreeSet<[u8; 32]>,
        records: &[Vec<u8>],
        more: bool,
        set: &mut RelaySet,
        now: Now,
    ) -> Step<()> {
        for bytes in records {
            if !SignedRecord::parse(bytes).is_ok_and(|record| asked.remove(&record.hash())) {
                return Step::Lied(DropReason::Malformed);
            }
            match set.handle_descriptor(bytes, Source::Exchange(self.peer), now) {
                Ok(Verdict::New) => self.is_useful = true,
                Err(reject) if reject.is_misbehaviour() => return Step::Lied(reject.drop_reason()),
                Ok(Verdict::Known) | Err(_) => {}
            }
        }
        self.served += records.len();
        if more {
            if records.is_empty() {
                return Step::Lied(DropReason::Malformed);
            }
            self.missing.extend(asked);
        } else {
            self.unserved += asked.len();
        }
        if self.unserved >= MIN_UNSERVED && self.unserved > self.served {
            return Step::Lied(DropReason::BadPayload);
        }
        self.fetch(set, now)
    }
}
