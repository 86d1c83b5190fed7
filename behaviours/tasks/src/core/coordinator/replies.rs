//! What workers say.

use std::time::Duration;

use fog_base::{
    NodeId, Now,
    record::{SignedRecord, Verified},
};

use super::{
    Coordinator, Output, TaskEvent,
    execution::State,
    mixed::resend,
    task::Task,
    view::{End, Failed},
    workers::Took,
};
use crate::{
    core::{
        ids::ExecutionId,
        outcome::{HostEnd, ResultHash},
        pay::{ACKNOWLEDGED, Acknowledged, VOUCHER, Voucher},
        reject::Reject,
    },
    wire::{
        Failure, Phase, Refusal, Source, StageError, ToCoordinator, ToWorker,
        record::{AGREEMENT, AgreementBody, COMMIT, CommitBody, LEASE, LeaseBody, commitment},
    },
};

/// What a worker shows.
struct Shown {
    result: ResultHash,
    nonce: [u8; 32],
    fuel: u64,
    output: Option<Source>,
}

impl Coordinator {
    pub(super) fn on_message(&mut self, from: NodeId, message: ToCoordinator, now: Now) -> Result<(), Reject> {
        match message {
            ToCoordinator::Agreement(record) => {
                let agreement: Verified<AgreementBody> = self.signer.open(record, &AGREEMENT, from, now)?;
                let id = agreement.body().execution;
                self.on(from, id, now, |me, task, at| me.on_agreement(task, at, &agreement, now))
            }
            ToCoordinator::Refused { execution, reason } => {
                self.on(from, execution, now, |me, task, at| me.on_refused(task, at, reason, now))
            }
            ToCoordinator::Heartbeat(phases) => self.on_heartbeat(from, &phases, now),
            ToCoordinator::Log { execution, stream, bytes } => self.on(from, execution, now, |me, task, at| {
                // Text of one replica is enough.
                let first = task.executions.iter().position(|it| matches!(it.state, State::Active));
                if first == Some(at) && task.check.is_none() && me.outputs.len() < super::MAX_OUTPUTS {
                    me.push(Output::Event(task.id, TaskEvent::Log { worker: from, stream, bytes }));
                }
                Ok(())
            }),
            ToCoordinator::Commit(record) => {
                let commit: Verified<CommitBody> = self.signer.open(record, &COMMIT, from, now)?;
                let CommitBody { execution, hash } = *commit.body();
                let taken = self.on(from, execution, now, |me, task, at| me.on_commit(task, at, hash, now));
                if let Err(Reject::UnknownExecution) = taken {
                    // It was given up: the worker need not keep its result.
                    self.tell(from, execution, ToWorker::Cancel(execution));
                }
                taken
            }
            ToCoordinator::Ended { execution, failure } => {
                // In any case the worker hears that it was heard.
                self.tell(from, execution, ToWorker::Cancel(execution));
                self.on(from, execution, now, |me, task, at| me.on_ended(task, at, failure, now))
            }
            ToCoordinator::Revealed { execution, result, nonce, fuel, output } => {
                let shown = Shown { result, nonce, fuel, output };
                self.on(from, execution, now, |me, task, at| me.on_revealed(task, at, shown, now))
            }
            ToCoordinator::Acknowledged { execution, record } => {
                let acknowledged: Verified<Acknowledged> = self.signer.open(record, &ACKNOWLEDGED, from, now)?;
                self.on(from, execution, now, |me, task, at| me.on_acknowledged(task, at, &acknowledged, now))
            }
        }
    }

    /// Calls `then` with the task and the place of the execution that `from` speaks of, and then does what follows for the task.
    fn on(
        &mut self,
        from: NodeId,
        id: ExecutionId,
        now: Now,
        then: impl FnOnce(&mut Self, &mut Task, usize) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let task = *self.executions.get(&id).ok_or(Reject::UnknownExecution)?;
        let mut taken = Err(Reject::UnknownExecution);
        self.with(task, now, |me, task| {
            let found = task.find(id).and_then(|at| task.executions.get(at).map(|it| (at, it)));
            taken = match found {
                None => Err(Reject::UnknownExecution),
                Some((_, it)) if !me.is_heard(it) => Err(Reject::UnknownExecution),
                Some((_, it)) if it.worker != from => Err(Reject::Stranger),
                Some((at, _)) => then(me, task, at),
            };
        });
        taken
    }

    fn on_agreement(
        &mut self,
        task: &mut Task,
        at: usize,
        agreement: &Verified<AgreementBody>,
        now: Now,
    ) -> Result<(), Reject> {
        let body = agreement.body();
        let Some(execution) = task.executions.get_mut(at) else { return Ok(()) };
        if !matches!(execution.state, State::Bidding(_)) {
            return Err(if execution.is_live() { Reject::Repeated } else { Reject::UnknownExecution });
        }
        let bid = execution.bid.as_ref().map(SignedRecord::hash);
        if bid != Some(body.bid) || body.rate > execution.highest_rate {
            self.lose(task, at, "bad_agreement", true, now);
            return Err(Reject::Contradicts);
        }
        execution.rate = body.rate;
        execution.agreement = Some(agreement.record().clone());
        execution.agreed_at = Some(now.unix);
        execution.bid = None;
        execution.leased = now.mono;
        execution.staging = Some(now.mono);
        execution.heard = now.mono;
        execution.state = State::Leasing(resend(execution.nameless, now.mono));
        // Known before it is leased, so that a restart finds it again.
        let rows = task.state_row().into_iter().collect();
        self.push(Output::Persist(rows));
        self.lease(task, at, now);
        self.tell_state(task);
        Ok(())
    }

    /// Leases, or renews.
    pub(super) fn lease(&mut self, task: &mut Task, at: usize, now: Now) {
        let Some(execution) = task.executions.get_mut(at) else { return };
        let Some(agreement) = &execution.agreement else { return };
        // Over restarts it grows with the time, of which a worker that does not know this node need not see the milliseconds.
        let least = if execution.nameless { now.unix.as_secs() } else { now.unix.0 };
        execution.lease_seq = execution.lease_seq.saturating_add(1).max(least);
        let (lasts, renewed) = self.lease_of(execution);
        execution.renew = now.mono + renewed;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let body = LeaseBody {
            execution: execution.id,
            agreement: agreement.hash(),
            seq: execution.lease_seq,
            duration_ms: millis(lasts),
            heartbeat_ms: millis(self.heartbeat_of(execution)),
        };
        let signer = self.signer_of(execution.nameless, execution.id);
        let Ok(record) = signer.sign(&LEASE, execution.lease_seq, now, &body) else { return };
        execution.lease = Some(record);
        self.send_lease(task, at);
    }

    /// Says a lease, and where the contents are if the worker may not have heard it yet.
    pub(super) fn send_lease(&mut self, task: &Task, at: usize) {
        let Some(execution) = task.executions.get(at) else { return };
        if let Some(record) = execution.lease.clone() {
            self.push(execution.say(ToWorker::Lease(record)));
        }
        if let (State::Leasing(_), Some(content)) = (&execution.state, &task.content) {
            let items = content.sources.clone();
            self.push(execution.say(ToWorker::Stage { execution: execution.id, items }));
        }
    }

    fn on_refused(&mut self, task: &mut Task, at: usize, reason: Refusal, now: Now) -> Result<(), Reject> {
        let Some(execution) = task.executions.get_mut(at) else { return Ok(()) };
        match (&execution.state, reason) {
            (State::Bidding(_), reason) => {
                task.waits_for = Some(format!("a worker refused: {}", reason.name()));
                self.lose(task, at, reason.name(), false, now);
            }
            // The worker does not remember a voucher's execution: the account's next voucher has its sum.
            (State::Paying { paid, .. }, Refusal::UnknownExecution) => {
                let paid = Some(*paid);
                execution.state = State::Closed { why: "paid", paid };
            }
            (State::Closed { .. }, _) => return Err(Reject::UnknownExecution),
            (State::Revealed, _) => return Err(Reject::Repeated),
            (_, Refusal::UnknownExecution) => {
                self.workers.emptied(execution.worker);
                self.lose(task, at, "forgotten", true, now);
            }
            _ => return Err(Reject::Contradicts),
        }
        Ok(())
    }

    fn on_heartbeat(&mut self, from: NodeId, phases: &[(ExecutionId, Phase)], now: Now) -> Result<(), Reject> {
        let mut unknown = false;
        for (id, phase) in phases {
            let beat = self.on(from, *id, now, |me, task, at| {
                let Some(execution) = task.executions.get_mut(at).filter(|execution| execution.is_leased()) else {
                    return Err(Reject::UnknownExecution);
                };
                execution.heard = now.mono;
                if let State::Leasing(_) = execution.state {
                    execution.state = State::Active;
                    execution.since = now.mono;
                    execution.phase = *phase;
                }
                if execution.phase != *phase {
                    execution.phase = *phase;
                    execution.since = now.mono;
                }
                match phase {
                    Phase::Staging => {}
                    // It tells nothing of how long that took.
                    Phase::Frozen => execution.staging = None,
                    Phase::Queued | Phase::Running if execution.staging.is_some() => {
                        me.on_staged(task, at, Took::About, now);
                    }
                    Phase::Queued | Phase::Running => {}
                }
                me.tell_state(task);
                Ok(())
            });
            if let Err(Reject::UnknownExecution) = beat {
                unknown = true;
                self.tell(from, *id, ToWorker::Cancel(*id));
            }
        }
        if unknown { Err(Reject::UnknownExecution) } else { Ok(()) }
    }

    /// A worker has all contents of an execution; `took` says what the time since the lease tells of that.
    fn on_staged(&mut self, task: &mut Task, at: usize, took: fn(Duration) -> Took, now: Now) {
        let (Some(content), Some(execution)) = (&task.content, task.executions.get_mut(at)) else { return };
        // Through the mixnet that says how long messages take, not bytes.
        let since = execution.staging.take().filter(|_| !execution.nameless);
        let took = since.map_or(Took::Unknown, |since| took(now.mono.saturating_duration_since(since)));
        self.workers.staged(execution.worker, content.work.contents().into_iter(), took);
    }

    fn on_commit(&mut self, task: &mut Task, at: usize, hash: [u8; 32], now: Now) -> Result<(), Reject> {
        let Some(execution) = task.executions.get_mut(at) else { return Ok(()) };
        match &execution.state {
            State::Leasing(_) | State::Active => {}
            State::Committed(known) | State::Revealing { commit: known, .. } => {
                return Err(if *known == hash { Reject::Repeated } else { Reject::Contradicts });
            }
            State::Revealed => return Err(Reject::Repeated),
            State::Bidding(_) => return Err(Reject::Contradicts),
            State::Paying { .. } => return Ok(()),
            State::Closed { .. } => return Err(Reject::UnknownExecution),
        }
        execution.state = State::Committed(hash);
        execution.heard = now.mono;
        // Its run is in this time too.
        self.on_staged(task, at, Took::AtMost, now);
        let Some(execution) = task.executions.get(at) else { return Ok(()) };
        let (worker, took) = (execution.worker, now.mono.saturating_duration_since(execution.leased));
        self.workers.succeeded(worker, took);
        self.workers.release(worker, task.id);
        self.tell_state(task);
        Ok(())
    }

    fn on_ended(&mut self, task: &mut Task, at: usize, failure: Failure, now: Now) -> Result<(), Reject> {
        let Some(execution) = task.executions.get(at) else { return Ok(()) };
        let worker = execution.worker;
        if !execution.is_busy() {
            return Err(Reject::Repeated);
        }
        let by_user = failure == Failure::Host(HostEnd::Deadline) && task.terms.clocks.running_ms.is_some();
        // What the program or its inputs may be to blame for is no sign of a bad worker.
        let blames_worker = matches!(
            failure,
            Failure::Host(HostEnd::Killed | HostEnd::NoResources)
                | Failure::Stage(StageError::NoRoom)
                | Failure::LeaseExpired
        );
        if let Failure::Stage(_) = failure {
            self.workers.emptied(worker);
        }
        if let Failure::Host(_) | Failure::Stage(_) | Failure::StagingTime | Failure::TooLarge = failure {
            task.hosts.insert(worker, failure);
        }
        self.lose(task, at, failure.name(), blames_worker, now);
        if by_user {
            self.finish(task, End::Failed(Failed::RunningTime), now);
        }
        Ok(())
    }

    fn on_revealed(&mut self, task: &mut Task, at: usize, shown: Shown, now: Now) -> Result<(), Reject> {
        let most = task.content.as_ref().map_or(0, |content| content.work.limits.fuel);
        let Some(execution) = task.executions.get_mut(at) else { return Ok(()) };
        let Shown { result, nonce, fuel, output } = shown;
        // What is fetched from its worker would tell it who fetches.
        if execution.nameless && matches!(output, Some(Source::Blob(_))) {
            self.lose(task, at, "bad_reveal", true, now);
            return Err(Reject::BadReveal);
        }
        match &execution.state {
            State::Revealing { commit, .. } => {
                if commitment(execution.id, &result.0, &nonce) != *commit || fuel > most {
                    self.lose(task, at, "bad_reveal", true, now);
                    return Err(Reject::BadReveal);
                }
                execution.shown = Some((result, fuel));
                execution.state = State::Revealed;
                let worker = execution.worker;
                execution.output = output;
                task.poll.vote(worker, result);
            }
            // The output, asked for again.
            State::Revealed if execution.shown == Some((result, fuel)) && output.is_some() => {
                execution.output = output;
                let from = execution.worker;
                if task.fetching.is_some_and(|(asked, _)| asked == from) {
                    task.fetching = None;
                }
            }
            State::Revealed => return Err(Reject::Repeated),
            _ => return Err(Reject::UnknownExecution),
        }
        Ok(())
    }

    fn on_acknowledged(
        &mut self,
        task: &mut Task,
        at: usize,
        acknowledged: &Verified<Acknowledged>,
        now: Now,
    ) -> Result<(), Reject> {
        let Some(execution) = task.executions.get_mut(at) else { return Ok(()) };
        let Acknowledged { voucher: hash, cumulative } = *acknowledged.body();
        match &execution.state {
            State::Paying { voucher, verdict, paid, .. } if voucher.hash() == hash => {
                let (nameless, worker) = (execution.nameless, execution.worker);
                let own = (!nameless).then(|| self.signer.open((**voucher).clone(), &VOUCHER, self.signer.me(), now));
                let own: Option<Voucher> = own.transpose()?.map(|own: Verified<Voucher>| *own.body());
                if own.is_some_and(|own| own.cumulative != cumulative) {
                    return Err(Reject::Contradicts);
                }
                execution.state = State::Closed { why: verdict.name(), paid: Some(*paid) };
                let receipt = (cumulative, acknowledged.record().as_bytes());
                if let Some(Voucher { interval, .. }) = own
                    && self.payer.acknowledge(worker, interval, receipt)
                {
                    let rows = self.account_rows(worker, interval);
                    self.push(Output::Persist(rows));
                }
                Ok(())
            }
            State::Paying { .. } => Err(Reject::Contradicts),
            _ => Err(Reject::Repeated),
        }
    }
}
