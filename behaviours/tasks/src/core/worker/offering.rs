//! Saying what this host offers: when it changes, not more often than every five seconds, and every two minutes anyway.

use std::time::Instant;

use fog_base::{Now, UnixMillis};

use super::{Output, Worker};
use crate::core::{
    offer::{self, Offer, Price},
    pay::Balances,
    terms::PPM,
};

#[derive(Debug, Clone)]
pub(super) struct Offering {
    /// What the host gives, without what of it is in use.
    capacity: Option<Offer>,
    published: Option<Offer>,
    seq: u64,
    earliest: Instant,
    refresh: Option<Instant>,
    /// It changed, and waits for `earliest`.
    waits: bool,
    /// What its uptime multiplies the price by.
    pub(super) uptime_ppm: u32,
}

impl Offering {
    pub(super) fn new(now: Now) -> Self {
        Self {
            capacity: None,
            published: None,
            seq: 0,
            earliest: now.mono,
            refresh: None,
            waits: false,
            uptime_ppm: PPM,
        }
    }

    pub(super) fn set(&mut self, capacity: Offer) {
        self.capacity = Some(capacity);
    }

    pub(super) fn is_eligible(&self) -> bool {
        self.capacity.as_ref().is_some_and(|capacity| capacity.eligible)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        if self.waits { Some(self.earliest) } else { self.refresh }
    }

    /// Whether a bid may refer to an offer of this number: published, and not older than its lifetime.
    pub(super) fn stands_by(&self, seq: u64, now: UnixMillis) -> bool {
        seq != 0 && seq <= self.seq && seq >= now.minus(offer::LIFETIME).0
    }
}

impl<B: Balances> Worker<B> {
    /// What is offered now.
    pub(super) fn offer(&self) -> Offer {
        let Some(capacity) = &self.offering.capacity else { return Offer::none() };
        let running = u16::try_from(self.running).unwrap_or(u16::MAX).min(capacity.slots);
        let ahead = self.running.saturating_sub(usize::from(capacity.slots));
        Offer {
            free: capacity.slots - running,
            queued: u32::try_from(self.waiting + ahead).unwrap_or(u32::MAX),
            eligible: capacity.eligible && !self.is_frozen(),
            price: Price { uptime_ppm: self.offering.uptime_ppm, ..capacity.price },
            ..capacity.clone()
        }
    }

    pub(super) fn publish(&mut self, now: Now) {
        if self.offering.capacity.is_none() {
            return;
        }
        let due = self.offering.refresh.is_none_or(|at| at <= now.mono);
        let offer = self.offer();
        let changed = self.offering.published.as_ref() != Some(&offer);
        self.offering.waits = changed && now.mono < self.offering.earliest;
        if self.offering.waits || !(changed || due) {
            return;
        }
        // Milliseconds grow over restarts too.
        let seq = now.unix.0.max(self.offering.seq + 1);
        let Ok(record) = offer.sign(self.signer.key(), self.signer.network(), seq, now.unix) else { return };
        self.offering.seq = seq;
        self.offering.published = Some(offer);
        self.offering.earliest = now.mono + offer::MIN_GAP;
        self.offering.refresh = Some(now.mono + offer::REFRESH);
        self.push(Output::Publish(record));
    }
}
