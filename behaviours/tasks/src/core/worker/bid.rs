//! Answering bids.

use std::sync::Arc;

use fog_base::{
    NodeId, Now,
    record::{SignedRecord, Verified},
};

use super::{MAX_OUTPUTS, Worker};
use crate::{
    core::worker::execution::{Execution, State},
    core::{
        mixed,
        pay::{self, Balances},
        reject::Reject,
        terms::Privacy,
        work::Work,
    },
    wire::{
        Refusal, ToCoordinator,
        record::{AGREEMENT, AgreementBody, BID, BidBody},
    },
};

/// Which part of its places a worker gives to those without a name.
const NAMELESS_PART: usize = 4;

impl<B: Balances> Worker<B> {
    pub(super) fn on_bid(&mut self, from: NodeId, record: SignedRecord, work: &[u8], now: Now) -> Result<(), Reject> {
        let bid: Verified<BidBody> = self.signer.open(record, &BID, from, now)?;
        let (hash, id) = (bid.record().hash(), bid.body().execution);
        if bid.body().worker != self.signer.me() || Work::id_of(work) != bid.body().work {
            return Err(Reject::Contradicts);
        }
        if let Some(known) = self.executions.get(&id) {
            if known.coordinator != from {
                return Err(Reject::Stranger);
            }
            if known.bid_hash == hash {
                let record = known.agreement.clone();
                self.send(from, ToCoordinator::Agreement(record));
                return Ok(());
            }
            // Its coordinator lost its memory of a bid that was never leased: the later one counts.
            if !matches!(known.state, State::Agreed { .. }) {
                self.refuse(from, id, Refusal::Conflict);
                return Ok(());
            }
            self.forget(id, now);
        }
        let body = bid.body();
        let (work, rate) = match self.consider(from, body, work, now) {
            Ok(taken) => taken,
            Err(reason) => {
                self.refuse(from, id, reason);
                return Ok(());
            }
        };
        let agreement = AgreementBody { execution: id, bid: hash, rate };
        let agreement = self.signer.sign(&AGREEMENT, body.offer_seq, now, &agreement)?;
        // This node does not pay itself.
        let reserved = if from == self.signer.me() { 0 } else { pay::price(work.limits.fuel, rate) };
        if reserved > 0 {
            self.balances.reserve(self.debtor(from), reserved, now.unix);
        }
        let nameless = self.nameless;
        let execution = Execution {
            coordinator: from,
            nameless,
            bid: body.clone(),
            bid_hash: hash,
            work: Arc::new(work),
            rate,
            agreement: agreement.clone(),
            reserved,
            lease: None,
            state: State::Gone,
            place: 0,
            log_bytes: 0,
        };
        self.executions.insert(id, execution);
        let wait = if nameless { mixed::AGREEMENT_WAIT } else { self.config.agreement_wait };
        self.enter(id, State::Agreed { until: now.mono + wait });
        self.send(from, ToCoordinator::Agreement(agreement));
        Ok(())
    }

    /// The work and its rate, or why not. Cheap questions first.
    fn consider(&self, from: NodeId, bid: &BidBody, work: &[u8], now: Now) -> Result<(Work, u64), Refusal> {
        let offer = self.offer();
        let full = self.executions.len() >= self.config.max_executions
            || self.waiting >= self.config.max_queued
            || self.held_bytes >= self.config.max_held_bytes
            || self.outputs.len() >= MAX_OUTPUTS;
        if !offer.eligible || offer.slots == 0 {
            return Err(Refusal::NotEligible);
        }
        if full || self.nameless && self.is_full_of_nameless() {
            return Err(Refusal::Busy);
        }
        // Who has no name does not say either which offer it read.
        let unsaid = bid.privacy == Privacy::Mixed && bid.offer_seq == 0;
        if !unsaid && !self.offering.stands_by(bid.offer_seq, now.unix) {
            return Err(Refusal::UnknownOffer);
        }
        if !offer.accepts.classes.contains(&bid.class) {
            return Err(Refusal::Class);
        }
        // The label says how it comes, except from this node itself.
        let comes_as_labelled = self.nameless == (bid.privacy == Privacy::Mixed) || from == self.signer.me();
        if !offer.accepts.privacy.contains(&bid.privacy) || !comes_as_labelled {
            return Err(Refusal::Privacy);
        }
        if !bid.features.iter().all(|feature| offer.features.contains(feature)) {
            return Err(Refusal::Features);
        }
        let work = Work::decode(work).map_err(|_| Refusal::BadWork)?;
        if work.limits.memory_bytes > offer.memory_bytes {
            return Err(Refusal::Memory);
        }
        if work.staged_bytes().saturating_add(work.limits.output_bytes) > offer.staging_bytes {
            return Err(Refusal::Staging);
        }
        let rate = offer.rate();
        if rate > bid.highest_rate {
            return Err(Refusal::Price);
        }
        if from != self.signer.me()
            && !self.balances.may_spend(self.debtor(from), pay::price(work.limits.fuel, rate), now.unix)
        {
            return Err(Refusal::Unpaid);
        }
        Ok((work, rate))
    }

    /// Those without a name are one: together they get a part of the places, as no one of them can be held to one.
    fn is_full_of_nameless(&self) -> bool {
        let nameless = || self.executions.values().filter(|execution| execution.nameless);
        nameless().count() >= self.config.max_executions / NAMELESS_PART
            || nameless().filter(|execution| execution.counts().0).count() >= self.config.max_queued / NAMELESS_PART
    }

    fn debtor(&self, from: NodeId) -> NodeId {
        if self.nameless { mixed::NOBODY } else { from }
    }
}
