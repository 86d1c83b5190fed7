//! From the lease to the end of the run.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use fog_base::{
    NodeId, Now,
    record::{SignedRecord, Verified},
};

use super::{
    Output, RunEvent, Worker,
    execution::{Lease, State},
};
use crate::{
    core::{
        ids::ExecutionId,
        mixed,
        outcome::HostEnd,
        pay::Balances,
        reject::Reject,
        work::{Content, Work},
    },
    wire::{
        Failure, Refusal, Source, StageError, StreamKind, ToCoordinator,
        message::MAX_LOG,
        mixed::MAX_MIXED_OUTCOME,
        record::{LEASE, LeaseBody},
    },
};

/// The longest lease that is taken.
const LONGEST_LEASE: Duration = Duration::from_secs(600);
/// Nothing is staged, or waits for its turn, for longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Heartbeats come at least and at most so often.
const HEARTBEATS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// How soon after it has a lease a coordinator hears that work has begun.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(250);

impl<B: Balances> Worker<B> {
    pub(super) fn on_lease(&mut self, from: NodeId, record: SignedRecord, now: Now) -> Result<(), Reject> {
        let lease: Verified<LeaseBody> = self.signer.open(record, &LEASE, from, now)?;
        let body = lease.body();
        let id = body.execution;
        let Some(execution) = self.executions.get_mut(&id) else {
            self.refuse(from, id, Refusal::UnknownExecution);
            return Err(Reject::UnknownExecution);
        };
        if execution.coordinator != from {
            return Err(Reject::Stranger);
        }
        if body.agreement != execution.agreement.hash() {
            return Err(Reject::Contradicts);
        }
        if execution.lease.is_none_or(|held| body.seq > held.seq) {
            let (least, most) = HEARTBEATS;
            let heartbeat = Duration::from_millis(body.heartbeat_ms).clamp(least, most);
            let until = now.mono + Duration::from_millis(body.duration_ms).min(LONGEST_LEASE);
            execution.lease = Some(Lease { seq: body.seq, until, heartbeat });
            if let State::Agreed { .. } = execution.state {
                let wait = if execution.nameless { mixed::AGREEMENT_WAIT } else { self.config.agreement_wait };
                self.enter(id, State::Leased { until: now.mono + wait });
            }
            self.reschedule(id);
        }
        self.say_again(id, now);
        Ok(())
    }

    /// Answers a lease of an execution that has come further: the coordinator missed something, or was restarted.
    fn say_again(&mut self, id: ExecutionId, now: Now) {
        let Some(execution) = self.executions.get(&id) else { return };
        let to = execution.coordinator;
        match &execution.state {
            State::Committed(committed) => {
                let record = committed.record.clone();
                self.send(to, ToCoordinator::Commit(record));
            }
            State::Ended { failure, .. } => {
                let failure = *failure;
                self.send(to, ToCoordinator::Ended { execution: id, failure });
            }
            _ => self.beat_soon(to, now),
        }
    }

    /// The coordinator hears of its executions soon, and then regularly.
    fn beat_soon(&mut self, to: NodeId, now: Now) {
        let soon = now.mono + FIRST_HEARTBEAT;
        self.heartbeats.entry(to).and_modify(|at| *at = soon.min(*at)).or_insert(soon);
    }

    pub(super) fn on_stage(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        items: Vec<(Content, Source)>,
        now: Now,
    ) -> Result<(), Reject> {
        let Some(execution) = self.executions.get(&id) else {
            self.refuse(from, id, Refusal::UnknownExecution);
            return Err(Reject::UnknownExecution);
        };
        if execution.coordinator != from {
            return Err(Reject::Stranger);
        }
        match execution.state {
            State::Leased { .. } => {}
            State::Agreed { .. } => return Err(Reject::Contradicts),
            _ => return Ok(()),
        }
        // What is fetched from somebody shows who that is.
        let is_fetched = items.iter().any(|(_, source)| matches!(source, Source::Blob(_)));
        if !are_contents_of(&execution.work, &items) || execution.nameless && is_fetched {
            self.fail(id, Failure::Stage(StageError::Mismatch), now);
            return Err(Reject::Contradicts);
        }
        let until = now.mono + Duration::from_millis(execution.bid.staging_ms).min(LONGEST_WAIT);
        self.enter(id, State::Staging { until });
        self.beat_soon(from, now);
        self.push(Output::Stage { execution: id, items });
        Ok(())
    }

    pub(super) fn on_staged(&mut self, id: ExecutionId, staged: Result<(), StageError>, now: Now) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let State::Staging { .. } = execution.state else { return };
        if let Err(error) = staged {
            self.fail(id, Failure::Stage(error), now);
            return;
        }
        execution.place = self.next_place;
        self.next_place += 1;
        let (class, place) = (execution.bid.class, execution.place);
        let until = now.mono + Duration::from_millis(execution.bid.queueing_ms).min(LONGEST_WAIT);
        self.enter(id, State::Queued { until });
        self.queue.insert((Reverse(class), place, id));
    }

    /// Hands out runs while there are slots.
    pub(super) fn start_runs(&mut self, now: Now) {
        let slots = usize::from(self.offer().slots);
        let most = if slots == 0 { 0 } else { slots + self.config.run_ahead };
        while !self.is_frozen() && self.running < most {
            let Some((_, _, id)) = self.queue.pop_first() else { return };
            let Some(execution) = self.executions.get(&id) else { continue };
            let (work, wall) = (execution.work.clone(), execution.wall());
            let until = execution.state_end(false).unwrap_or(now.mono);
            self.enter(id, State::Starting { until });
            self.push(Output::Run { execution: id, work, wall });
        }
    }

    pub(super) fn on_run(&mut self, id: ExecutionId, event: RunEvent, now: Now) {
        let frozen = self.is_frozen();
        let Some(execution) = self.executions.get_mut(&id) else { return };
        if !matches!(execution.state, State::Starting { .. } | State::Running { .. }) {
            return;
        }
        match event {
            RunEvent::Started => {
                if let State::Starting { .. } = execution.state {
                    execution.begin(now.mono, frozen);
                    self.reschedule(id);
                }
            }
            RunEvent::Log(stream, bytes) => self.log(id, stream, &bytes),
            RunEvent::Done(outcome) => match (outcome.hash(), outcome.ending) {
                (Some(_), _) if execution.nameless && outcome.to_bytes().len() > MAX_MIXED_OUTCOME => {
                    self.end(id, Failure::TooLarge, now);
                }
                (Some(result), _) => self.commit(id, result, outcome, now),
                (None, crate::Ending::Host(end)) => self.end(id, Failure::Host(end), now),
                (None, _) => {}
            },
        }
    }

    fn log(&mut self, id: ExecutionId, stream: StreamKind, bytes: &[u8]) {
        // Through the mixnet no text comes ahead of the result.
        let Some(execution) = self.executions.get_mut(&id).filter(|execution| !execution.nameless) else { return };
        let room = self.config.max_log_bytes.saturating_sub(execution.log_bytes);
        let taken = bytes.get(..room).unwrap_or(bytes);
        execution.log_bytes += taken.len();
        let to = execution.coordinator;
        if taken.len() < bytes.len() || self.outputs.len() >= super::MAX_OUTPUTS {
            self.push(Output::Drop(fog_base::DropReason::QueueFull));
        }
        if self.outputs.len() < super::MAX_OUTPUTS {
            for piece in taken.chunks(MAX_LOG) {
                self.send(to, ToCoordinator::Log { execution: id, stream, bytes: piece.to_vec() });
            }
        }
    }

    /// An execution that the node is busy with will have no result.
    pub(super) fn fail(&mut self, id: ExecutionId, failure: Failure, now: Now) {
        let busy = self.executions.get(&id).is_some_and(|execution| {
            matches!(execution.state, State::Staging { .. } | State::Starting { .. } | State::Running { .. })
        });
        if busy {
            self.push(Output::Stop(id));
        }
        self.end(id, failure, now);
    }

    /// An execution will have no result: its coordinator is told until it says that it heard.
    fn end(&mut self, id: ExecutionId, failure: Failure, now: Now) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let to = execution.coordinator;
        let (leased, resend) = (execution.lease.is_some(), execution.resend(now.mono));
        if !leased {
            self.forget(id, now);
            self.send(to, ToCoordinator::Ended { execution: id, failure });
            return;
        }
        // That a run was too long, too deep or too hard to compile, its lease not renewed or its output too large, is no failure of this host's.
        let is_its_own = matches!(
            failure,
            Failure::LeaseExpired
                | Failure::TooLarge
                | Failure::Host(HostEnd::Deadline | HostEnd::StackOverflow | HostEnd::Compile)
        );
        let unpaid = if is_its_own { execution.given_away() } else { 0 };
        self.give_away(unpaid, now);
        self.push(Output::Release(id));
        let until = now.mono + self.config.closed_hold;
        self.enter(id, State::Ended { failure, resend, until });
        if let Some(execution) = self.executions.get_mut(&id) {
            let reserved = std::mem::take(&mut execution.reserved);
            if reserved > 0 {
                self.balances.release(execution.debtor(), reserved, now.unix);
            }
        }
        self.send(to, ToCoordinator::Ended { execution: id, failure });
    }

    pub(super) fn on_cancel(&mut self, from: NodeId, id: ExecutionId, now: Now) -> Result<(), Reject> {
        let execution = self.executions.get(&id).ok_or(Reject::UnknownExecution)?;
        if execution.coordinator != from {
            return Err(Reject::Stranger);
        }
        match execution.state {
            State::Closed { .. } => return Ok(()),
            State::Staging { .. } | State::Starting { .. } | State::Running { .. } => {
                self.push(Output::Stop(id));
                self.push(Output::Release(id));
            }
            State::Queued { .. } | State::Committed(_) => self.push(Output::Release(id)),
            _ => {}
        }
        self.forget(id, now);
        Ok(())
    }

    /// Something about this execution is due.
    pub(super) fn on_due(&mut self, id: ExecutionId, now: Now) {
        let frozen = self.is_frozen();
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let over = |end: Option<std::time::Instant>| end.is_some_and(|end| end <= now.mono);
        let (lease_over, state_over) = (over(execution.lease_end()), over(execution.state_end(frozen)));
        let to = execution.coordinator;
        let again = !state_over && execution.repeats(now.mono);
        match &execution.state {
            State::Agreed { .. } | State::Closed { .. } | State::Ended { .. } if state_over => self.forget(id, now),
            State::Committed(_) if state_over => {
                self.push(Output::Release(id));
                self.forget(id, now);
            }
            State::Ended { failure, .. } if again => {
                let failure = *failure;
                self.send(to, ToCoordinator::Ended { execution: id, failure });
            }
            State::Committed(committed) if again => {
                let record = committed.record.clone();
                self.send(to, ToCoordinator::Commit(record));
            }
            _ if lease_over => self.fail(id, Failure::LeaseExpired, now),
            State::Leased { .. } | State::Staging { .. } if state_over => self.fail(id, Failure::StagingTime, now),
            State::Queued { .. } | State::Starting { .. } if state_over => self.fail(id, Failure::QueueingTime, now),
            State::Running { .. } if state_over => self.fail(id, Failure::Host(HostEnd::Deadline), now),
            _ => {}
        }
        self.reschedule(id);
    }
}

/// Whether `items` are all contents of `work`, each once, and inline ones what their names say.
fn are_contents_of(work: &Work, items: &[(Content, Source)]) -> bool {
    let named: BTreeSet<Content> = items.iter().map(|(content, _)| *content).collect();
    let inline = |(content, source): &(Content, Source)| match source {
        Source::Inline(bytes) => content.is(bytes),
        Source::Blob(_) => true,
    };
    named.len() == items.len() && named == work.contents() && items.iter().all(inline)
}
