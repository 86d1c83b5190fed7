//! One execution, as its worker sees it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{NodeId, record::SignedRecord};

use crate::{
    core::{
        mixed,
        outcome::{Outcome, ResultHash},
        pay,
        timers::Resend,
        work::Work,
    },
    wire::{Failure, Phase, Source, record::BidBody},
};

#[derive(Debug, Clone)]
pub(super) struct Execution {
    pub(super) coordinator: NodeId,
    /// Its coordinator is a key, and came through the mixnet.
    pub(super) nameless: bool,
    pub(super) bid: BidBody,
    pub(super) bid_hash: [u8; 32],
    pub(super) work: Arc<Work>,
    pub(super) rate: u64,
    pub(super) agreement: SignedRecord,
    /// What of its coordinator's credit is set aside for it.
    pub(super) reserved: u64,
    pub(super) lease: Option<Lease>,
    pub(super) state: State,
    /// Its place in the queue, by when it was staged.
    pub(super) place: u64,
    pub(super) log_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) seq: u64,
    pub(super) until: Instant,
    pub(super) heartbeat: Duration,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// Waits for its lease.
    Agreed { until: Instant },
    /// Leased; waits to be told where its contents are.
    Leased { until: Instant },
    /// Its contents are fetched.
    Staging { until: Instant },
    /// Waits for a slot.
    Queued { until: Instant },
    /// Handed to the node, which has not begun.
    Starting { until: Instant },
    /// Runs. `left` of its time counts from `since`; it stands still where that is `None`.
    Running { left: Duration, since: Option<Instant> },
    /// Has a result.
    Committed(Box<Committed>),
    /// Will have none.
    Ended { failure: Failure, resend: Resend, until: Instant },
    /// Paid, or not to be paid: this was the answer to its voucher.
    Closed { voucher: [u8; 32], acknowledged: SignedRecord, until: Instant },
    /// About to be forgotten.
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) result: ResultHash,
    pub(super) nonce: [u8; 32],
    pub(super) fuel: u64,
    pub(super) outcome: Arc<Outcome>,
    /// Bytes of its output.
    pub(super) bytes: usize,
    pub(super) record: SignedRecord,
    /// `None` once its coordinator asked for the result.
    pub(super) resend: Option<Resend>,
    pub(super) shared: Option<Source>,
    /// The blob is being made.
    pub(super) sharing: bool,
    pub(super) until: Instant,
}

/// Beyond the time that a run may take, before the node is told to stop what should have stopped by itself.
fn backstop(wall: Duration) -> Duration {
    wall + wall / 10 + Duration::from_secs(2)
}

impl Execution {
    /// Whose account pays for it.
    pub(super) fn debtor(&self) -> NodeId {
        if self.nameless { mixed::NOBODY } else { self.coordinator }
    }

    /// Something is said of it for the first time now.
    pub(super) fn resend(&self, now: Instant) -> Resend {
        if self.nameless { Resend::paced(now, mixed::RESEND) } else { Resend::new(now) }
    }

    /// Whether it may still get a result.
    pub(super) fn is_open(&self) -> bool {
        let closed =
            matches!(self.state, State::Committed(_) | State::Ended { .. } | State::Closed { .. } | State::Gone);
        !closed
    }

    /// Whether it waits for a slot, whether it runs, and the bytes of its result.
    pub(super) fn counts(&self) -> (bool, bool, usize) {
        match &self.state {
            State::Agreed { .. } | State::Leased { .. } | State::Staging { .. } | State::Queued { .. } => {
                (true, false, 0)
            }
            State::Starting { .. } | State::Running { .. } => (false, true, 0),
            State::Committed(committed) => (false, false, committed.bytes),
            State::Ended { .. } | State::Closed { .. } | State::Gone => (false, false, 0),
        }
    }

    /// What a coordinator without a name got, or may have got, and did not pay for: nobody can be held to it, so it counts for all of them.
    pub(super) fn given_away(&self) -> u64 {
        match &self.state {
            _ if !self.nameless => 0,
            State::Committed(committed) => pay::price(committed.fuel, self.rate),
            State::Starting { .. } | State::Running { .. } => self.reserved,
            _ => 0,
        }
    }

    /// What is told of it while it has no result.
    pub(super) fn phase(&self, frozen: bool) -> Option<Phase> {
        let phase = match self.state {
            State::Staging { .. } => Phase::Staging,
            State::Queued { .. } | State::Starting { .. } => Phase::Queued,
            State::Running { .. } => Phase::Running,
            _ => return None,
        };
        Some(if frozen { Phase::Frozen } else { phase })
    }

    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.lease.map(|lease| lease.heartbeat)
    }

    /// The time that the run may take.
    pub(super) fn wall(&self) -> Duration {
        Duration::from_millis(self.bid.running_ms)
    }

    pub(super) fn begin(&mut self, now: Instant, frozen: bool) {
        self.state = State::Running { left: backstop(self.wall()), since: (!frozen).then_some(now) };
    }

    /// The host stands still from now on.
    pub(super) fn freeze(&mut self, now: Instant) {
        if let State::Running { left, since } = &mut self.state {
            *left =
                left.saturating_sub(since.take().map_or(Duration::ZERO, |from| now.saturating_duration_since(from)));
        }
    }

    /// The host goes on, having stood still for `stood`, which takes no time of staging, queueing or running.
    pub(super) fn thaw(&mut self, now: Instant, stood: Duration) {
        match &mut self.state {
            State::Running { since, .. } => *since = Some(now),
            State::Staging { until } | State::Queued { until } | State::Starting { until } => *until += stood,
            _ => {}
        }
    }

    /// When its lease ends while that matters.
    pub(super) fn lease_end(&self) -> Option<Instant> {
        self.lease.filter(|_| self.is_open()).map(|lease| lease.until)
    }

    /// When its state ends.
    pub(super) fn state_end(&self, frozen: bool) -> Option<Instant> {
        match &self.state {
            State::Agreed { until } | State::Leased { until } | State::Closed { until, .. } => Some(*until),
            State::Ended { until, .. } => Some(*until),
            // A host that stands still does not run out of time: its coordinator decides how long that is good enough.
            State::Staging { until } | State::Queued { until } | State::Starting { until } => {
                (!frozen).then_some(*until)
            }
            State::Running { left, since } => since.map(|since| since + *left),
            State::Committed(committed) => Some(committed.until),
            State::Gone => None,
        }
    }

    /// Whether what was said last is to be said again now.
    pub(super) fn repeats(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Ended { resend, .. } => resend.is_due(now),
            State::Committed(committed) => committed.resend.as_mut().is_some_and(|resend| resend.is_due(now)),
            _ => false,
        }
    }

    /// When something is to be done about it.
    pub(super) fn due(&self, frozen: bool) -> Option<Instant> {
        let resend = match &self.state {
            State::Ended { resend, .. } => Some(resend.at),
            State::Committed(committed) => committed.resend.map(|resend| resend.at),
            _ => None,
        };
        [self.lease_end(), self.state_end(frozen), resend].into_iter().flatten().min()
    }
}
