//! One execution, as the coordinator sees it.

use std::time::Instant;

use fog_base::{NodeId, UnixMillis, record::SignedRecord};

use super::view::ReplicaView;
use crate::{
    core::{ids::ExecutionId, outcome::ResultHash, pay::Verdict, terms::Class, timers::Resend, verify::Voter},
    wire::{Phase, Source},
};

#[derive(Debug, Clone)]
pub(super) struct Execution {
    pub(super) id: ExecutionId,
    pub(super) worker: NodeId,
    /// Its worker knows a key of this execution alone, and is spoken to through the mixnet.
    pub(super) nameless: bool,
    pub(super) voter: Voter,
    pub(super) bid: Option<SignedRecord>,
    pub(super) highest_rate: u64,
    pub(super) staging_ms: u64,
    pub(super) queueing_ms: u64,
    pub(super) running_ms: u64,
    pub(super) class: Class,
    pub(super) agreement: Option<SignedRecord>,
    pub(super) agreed_at: Option<UnixMillis>,
    pub(super) rate: u64,
    pub(super) lease: Option<SignedRecord>,
    pub(super) lease_seq: u64,
    pub(super) leased: Instant,
    pub(super) renew: Instant,
    /// When it was last heard of.
    pub(super) heard: Instant,
    pub(super) phase: Phase,
    /// Since when its contents are under way; `None` once they are there, and after a restart.
    pub(super) staging: Option<Instant>,
    /// Since when it is in its phase.
    pub(super) since: Instant,
    pub(super) state: State,
    /// What it revealed.
    pub(super) shown: Option<(ResultHash, u64)>,
    pub(super) output: Option<Source>,
    /// Its output was asked for, and was not what it says.
    pub(super) no_output: bool,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// Waits for an agreement.
    Bidding(Resend),
    /// Waits to hear that the lease arrived.
    Leasing(Resend),
    /// Heartbeats come.
    Active,
    /// Committed to this.
    Committed([u8; 32]),
    /// Waits for the result.
    Revealing { commit: [u8; 32], resend: Resend, want: bool },
    /// The result is there.
    Revealed,
    /// Waits for the acknowledgement.
    Paying { voucher: Box<SignedRecord>, verdict: Verdict, paid: u64, resend: Resend },
    /// Nothing more comes of it.
    Closed { why: &'static str, paid: Option<u64> },
}

/// Why an execution was closed whose worker did not begin, while another one was idle.
pub(super) const MOVED: &str = "moved";

impl Execution {
    /// Whether another worker was asked instead, for no fault of this one's.
    pub(super) fn is_moved(&self) -> bool {
        matches!(self.state, State::Closed { why: MOVED, .. })
    }

    /// Whether it may still matter to its task.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.state, State::Paying { .. } | State::Closed { .. })
    }

    /// Whether it takes a place at its worker.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Bidding(_) | State::Leasing(_) | State::Active)
    }

    pub(super) fn is_leased(&self) -> bool {
        self.is_live() && !matches!(self.state, State::Bidding(_))
    }

    pub(super) fn paid(&self) -> Option<u64> {
        match self.state {
            State::Paying { paid, .. } => Some(paid),
            State::Closed { paid, .. } => paid,
            _ => None,
        }
    }

    pub(super) fn view(&self) -> ReplicaView {
        let state = match &self.state {
            State::Bidding(_) => "bidding",
            State::Leasing(_) => "leased",
            State::Active => self.phase.name(),
            State::Committed(_) | State::Revealing { .. } => "committed",
            State::Revealed => "revealed",
            State::Paying { verdict, .. } => verdict.name(),
            State::Closed { why, .. } => why,
        };
        ReplicaView {
            execution: self.id,
            worker: self.worker,
            state,
            fuel: self.shown.map(|(_, fuel)| fuel),
            result: self.shown.map(|(result, _)| result),
            rate: (self.rate > 0).then_some(self.rate),
            paid: self.paid(),
        }
    }
}
