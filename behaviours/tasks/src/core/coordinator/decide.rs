//! What follows for a task from what is known of it: [`Coordinator::advance`] is called after whatever concerns a task and does all that can
//! be done, so that no order of events leaves one waiting for nothing.

use std::time::{Duration, Instant};

use fog_base::{NodeId, Now};

use super::{
    Coordinator, Output,
    execution::{Execution, MOVED, State},
    mixed::resend,
    task::Task,
    view::{End, Failed, TrustedBy},
};
use crate::{
    core::{
        ids::TaskId,
        mixed,
        outcome::Outcome,
        pay::Verdict,
        terms::Class,
        verify::{Believed, Judged, Poll, Step},
    },
    wire::{Phase, Source, ToWorker, message::MAX_OUTCOME},
};

/// So many hosts that could not run it end a task.
pub(super) const HOSTS: usize = 3;
/// The most bids for one task.
pub(super) const MAX_BIDS: u32 = 256;
/// A worker is not asked again for a task so soon after it refused.
const REFUSED: Duration = Duration::from_secs(1);
/// And after it failed.
const FAILED: Duration = Duration::from_secs(30);
/// How long a winner may take to show its output.
const SHOWING: Duration = Duration::from_secs(20);
/// How long fetching an output may take.
const FETCHING: Duration = Duration::from_secs(300);
/// A run that waits so long in its worker's queue goes to a worker that is idle.
const MOVED_AFTER: Duration = Duration::from_secs(10);
/// So often for one task.
const MOVES: usize = 8;
/// What a worker's clocks may exceed the bid's by: a tenth and this.
const SLACK: Duration = Duration::from_secs(3);
/// Beyond all clocks of an execution together, for standing still.
const STANDSTILL: Duration = Duration::from_secs(60);

impl Coordinator {
    /// Calls `then` with a task and does what follows from it.
    pub(super) fn with(&mut self, id: TaskId, now: Now, then: impl FnOnce(&mut Self, &mut Task)) {
        let Some(mut task) = self.tasks.remove(&id) else { return };
        then(self, &mut task);
        self.follow(&mut task, now);
        self.timers.set(id, self.due(&task));
        self.tasks.insert(id, task);
    }

    /// Does what can be done for a task.
    pub(super) fn advance(&mut self, id: TaskId, now: Now) {
        self.with(id, now, |_, _| ());
    }

    /// Ends a task.
    pub(super) fn end(&mut self, id: TaskId, end: End, now: Now) {
        self.with(id, now, |me, task| me.finish(task, end, now));
    }

    fn follow(&mut self, task: &mut Task, now: Now) {
        if task.is_open() && task.deadline.is_some_and(|deadline| deadline <= now.mono) {
            self.finish(task, End::Failed(Failed::Deadline), now);
        }
        for at in 0..task.executions.len() {
            self.look_after(task, at, now);
        }
        if task.is_open() {
            self.decide(task, now);
        }
        self.tell_state(task);
    }

    /// Repeats what was not answered, renews leases, and gives up what takes too long.
    fn look_after(&mut self, task: &mut Task, at: usize, now: Now) {
        let tries = self.config.tries;
        let Some(execution) = task.executions.get_mut(at) else { return };
        if execution.is_busy() && self.given_up_at(execution).is_some_and(|end| end <= now.mono) {
            let why = execution.given_up_for(self.silent_at(execution), now);
            return self.lose(task, at, why, why != "frozen", now);
        }
        if let State::Active = execution.state {
            if execution.renew <= now.mono {
                self.lease(task, at, now);
            }
            return self.move_on(task, at, now);
        }
        let Some(times) = execution.state.repeats(now.mono) else { return };
        match &execution.state {
            State::Bidding(_) | State::Leasing(_) if times > tries => self.lose(task, at, "no_answer", true, now),
            State::Revealing { .. } if times > tries => self.lose(task, at, "not_revealed", true, now),
            State::Bidding(_) => {
                if let (Some(record), Some(content)) = (execution.bid.clone(), &task.content) {
                    let work = content.encoded.clone();
                    self.push(execution.say(ToWorker::Bid { record, work }));
                }
            }
            State::Leasing(_) => self.send_lease(task, at),
            State::Revealing { want, .. } => {
                let want_output = *want;
                self.push(execution.say(ToWorker::Reveal { execution: execution.id, want_output }));
            }
            State::Paying { paid, .. } if times > super::settle::VOUCHER_TRIES => {
                execution.state = State::Closed { why: "unacknowledged", paid: Some(*paid) };
            }
            State::Paying { voucher, .. } => {
                let record = (**voucher).clone();
                self.push(execution.say(ToWorker::Voucher(record)));
            }
            _ => {}
        }
    }

    /// Takes a run that only waits to a worker that is idle, if there is one: it is nobody's fault, and no attempt.
    fn move_on(&mut self, task: &mut Task, at: usize, now: Now) {
        let Some(execution) = task.executions.get(at) else { return };
        // Through the mixnet it is heard late that a run began.
        let late = if execution.nameless { 2 * self.heartbeat_of(execution) } else { Duration::ZERO };
        let waits = execution.phase == Phase::Queued && execution.since + MOVED_AFTER + late <= now.mono;
        let moves = task.executions.iter().filter(|execution| execution.is_moved()).count();
        if !waits || !task.is_open() || task.check.is_some() || moves >= MOVES {
            return;
        }
        if let Some(idle) = self.idle_for(task, execution.voter.newcomer, now) {
            self.lose(task, at, MOVED, false, now);
            task.preferred.push_front(idle);
        }
    }

    fn decide(&mut self, task: &mut Task, now: Now) {
        if let Some(accepted) = task.accepted {
            return self.collect(task, accepted, now);
        }
        if let Some((worker, known)) = task.check {
            let shown = task.executions.iter().find(|it| it.worker == worker).and_then(|it| it.shown);
            let over = task.executions.iter().any(|it| !it.is_live());
            if shown.is_some() || over {
                return self.accept(task, known, now);
            }
        }
        match task.poll.step() {
            Step::More if self.is_exhausted(task) => self.conclude(task, now),
            Step::More => {
                if let Some(parked) = &mut task.parked {
                    parked.until = parked.until.filter(|until| *until > now.mono);
                }
                let waits = task.parked.is_some_and(|parked| parked.until.is_some());
                self.set_hungry(task, !waits);
            }
            Step::Wait => self.reveal(task, now),
            Step::Accept(best) => self.accept(task, best, now),
            Step::NoAgreement(best) if task.terms.accept_best => self.accept(task, best, now),
            Step::NoAgreement(_) => self.finish(task, End::Failed(Failed::NoAgreement), now),
        }
    }

    /// No more executions may begin: what there is decides.
    fn conclude(&mut self, task: &mut Task, now: Now) {
        self.set_hungry(task, false);
        if task.hosts.len() < HOSTS && task.executions.iter().any(|it| it.is_live() && it.shown.is_none()) {
            return self.reveal(task, now);
        }
        match task.poll.best() {
            Some(best) if best.credibility >= task.terms.trust() || task.terms.accept_best => {
                self.accept(task, best, now)
            }
            _ => {
                let last = task.last_failure.to_owned();
                let failed =
                    if task.hosts.len() >= HOSTS { Failed::Hosts(last) } else { Failed::Attempts(task.attempt, last) };
                self.finish(task, End::Failed(failed), now);
            }
        }
    }

    /// When all replicas have committed, they show what they have; the most credible one with its output.
    fn reveal(&mut self, task: &mut Task, now: Now) {
        self.set_hungry(task, false);
        if task.executions.iter().any(Execution::is_busy) {
            return;
        }
        let committed = |execution: &Execution| matches!(execution.state, State::Committed(_));
        let shower = task.executions.iter().filter(|it| committed(it));
        let shower =
            shower.max_by(|one, other| one.voter.credibility.total_cmp(&other.voter.credibility)).map(|it| it.id);
        for execution in &mut task.executions {
            let State::Committed(commit) = execution.state else { continue };
            let want = Some(execution.id) == shower && task.check.is_none();
            execution.state = State::Revealing { commit, resend: resend(execution.nameless, now.mono), want };
            let message = ToWorker::Reveal { execution: execution.id, want_output: want };
            self.outputs.push_back(execution.say(message));
        }
    }

    fn accept(&mut self, task: &mut Task, accepted: Believed, now: Now) {
        self.set_hungry(task, false);
        task.accepted = Some(accepted);
        // Whoever is not done is not needed.
        for at in 0..task.executions.len() {
            if task.executions.get(at).is_some_and(|it| it.is_live() && it.shown.is_none()) {
                self.drop_execution(task, at, "not_needed");
            }
        }
        self.collect(task, accepted, now);
    }

    /// The output of the accepted result, from one of those that have it.
    fn collect(&mut self, task: &mut Task, accepted: Believed, now: Now) {
        if task.check.is_some() {
            return self.finish(task, End::Cancelled, now);
        }
        if let Some((from, until)) = task.fetching {
            if now.mono < until {
                return;
            }
            self.no_output(task, from);
        }
        loop {
            let has_it = |it: &Execution| {
                matches!(it.state, State::Revealed)
                    && !it.no_output
                    && it.shown.is_some_and(|(r, _)| r == accepted.result)
            };
            let rank = |it: &&Execution| (it.output.is_some(), it.worker == self.signer.me());
            let Some(winner) = task.executions.iter().filter(|it| has_it(it)).max_by_key(rank) else {
                return self.begin_again(task, now);
            };
            let worker = winner.worker;
            match &winner.output {
                Some(Source::Inline(bytes)) => {
                    let outcome = Outcome::from_bytes(bytes, MAX_OUTCOME).ok();
                    if self.take_output(task, worker, outcome, accepted, now) {
                        return;
                    }
                }
                Some(Source::Blob(manifest)) => {
                    let manifest = manifest.to_vec();
                    task.fetching = Some((worker, now.mono + FETCHING));
                    return self.push(Output::FetchOutput { task: task.id, manifest, from: worker });
                }
                None => {
                    let message = ToWorker::Reveal { execution: winner.id, want_output: true };
                    let patience = if winner.nameless { mixed::SHOWING } else { SHOWING };
                    task.fetching = Some((worker, now.mono + patience));
                    return self.push(winner.say(message));
                }
            }
        }
    }

    pub(super) fn on_output(&mut self, id: TaskId, from: NodeId, outcome: Option<Outcome>, now: Now) {
        self.with(id, now, |me, task| {
            let Some(accepted) = task.accepted.filter(|_| task.is_open()) else { return };
            if task.fetching.is_some_and(|(asked, _)| asked == from) {
                task.fetching = None;
                me.take_output(task, from, outcome, accepted, now);
            }
        });
    }

    /// Ends the task with this output, if it is the accepted one's.
    fn take_output(
        &mut self,
        task: &mut Task,
        from: NodeId,
        outcome: Option<Outcome>,
        accepted: Believed,
        now: Now,
    ) -> bool {
        let Some(outcome) = outcome.filter(|outcome| outcome.hash() == Some(accepted.result)) else {
            self.no_output(task, from);
            return false;
        };
        let agreeing = task.executions.iter().filter(|it| it.shown.is_some_and(|(r, _)| r == accepted.result)).count();
        let own = task.executions.iter().any(|it| it.worker == self.signer.me() && it.shown.is_some());
        let by = match () {
            () if accepted.credibility < task.terms.trust() => TrustedBy::Best,
            () if own => TrustedBy::Own,
            () if agreeing > 1 => TrustedBy::Agreement,
            () => TrustedBy::Record,
        };
        let end = End::Done {
            result: accepted.result,
            ending: outcome.ending,
            fuel: outcome.fuel,
            credibility: accepted.credibility,
            by,
            outcome: Some(std::sync::Arc::new(outcome)),
        };
        self.finish(task, end, now);
        true
    }

    fn no_output(&mut self, task: &mut Task, worker: NodeId) {
        task.fetching = None;
        for execution in task.executions.iter_mut().filter(|it| it.worker == worker) {
            execution.no_output = true;
        }
    }

    /// Nobody who gave the accepted result has its output: others are to compute it.
    fn begin_again(&mut self, task: &mut Task, now: Now) {
        task.accepted = None;
        for at in 0..task.executions.len() {
            if task.executions.get(at).is_some_and(Execution::is_live) {
                self.lose(task, at, "no_output", true, now);
            }
        }
        task.poll = Poll::new(&task.terms);
        if self.is_exhausted(task) {
            self.conclude(task, now);
        } else {
            self.set_hungry(task, true);
        }
    }

    /// Gives an execution up: its worker did not do what it should, or cannot now. `blames`: and that counts against it.
    pub(super) fn lose(&mut self, task: &mut Task, at: usize, why: &'static str, blames: bool, now: Now) {
        let Some(execution) = task.executions.get(at).filter(|execution| execution.is_live()) else { return };
        let (worker, id, nameless) = (execution.worker, execution.id, execution.nameless);
        let pause = if blames { FAILED } else { REFUSED };
        task.avoided.insert(worker, now.mono + pause);
        task.last_failure = why;
        self.drop_execution(task, at, why);
        if blames && worker != self.signer.me() {
            if self.workers.failed(worker, now) {
                self.snapshot("worker_failed", Some(worker), now);
            }
            let judged = Judged { worker, verdict: Verdict::Failed, proven: false };
            let rows = self.judge(&judged, now).into_iter().collect();
            self.push(Output::Persist(rows));
            if !nameless {
                self.push(Output::Verdict { worker, execution: id, verdict: Verdict::Failed, value: 0 });
            }
        }
    }

    /// Closes an execution without a verdict.
    pub(super) fn drop_execution(&mut self, task: &mut Task, at: usize, why: &'static str) {
        let Some(execution) = task.executions.get_mut(at).filter(|execution| execution.is_live()) else { return };
        let (worker, id) = (execution.worker, execution.id);
        execution.state = State::Closed { why, paid: None };
        execution.output = None;
        (execution.bid, execution.lease) = (None, None);
        task.poll.leave(worker);
        self.workers.release(worker, task.id);
        let cancel = execution.say(ToWorker::Cancel(id));
        self.push(cancel);
    }

    /// When something is to be done for a task.
    fn due(&self, task: &Task) -> Option<Instant> {
        let executions = task.executions.iter().flat_map(|it| [it.acts_at(), self.given_up_at(it)]).flatten();
        if !task.is_open() {
            return executions.min();
        }
        let parked = task.parked.filter(|_| task.poll.step() == Step::More).and_then(|parked| parked.until);
        let fetching = task.fetching.map(|(_, until)| until);
        executions.chain([task.deadline, parked, fetching].into_iter().flatten()).min()
    }

    /// When an execution that is not heard of, or takes too long, is given up.
    fn given_up_at(&self, execution: &Execution) -> Option<Instant> {
        if !execution.is_busy() {
            return None;
        }
        let gone = self.workers.given_up_at(execution.worker, self.config.gone).filter(|_| !execution.nameless);
        let State::Active = execution.state else { return gone };
        let silent = self.silent_at(execution);
        let late = execution.phase_end().min(execution.leased + execution.longest());
        gone.into_iter().chain([silent, late]).min()
    }

    /// When too many of its heartbeats are missing.
    fn silent_at(&self, execution: &Execution) -> Instant {
        execution.heard + self.heartbeat_of(execution) * (self.config.missed_heartbeats + 1)
    }
}

impl State {
    /// How often something was said, this time included, if it is to be said now.
    fn repeats(&mut self, now: Instant) -> Option<u32> {
        let (Self::Bidding(resend)
        | Self::Leasing(resend)
        | Self::Revealing { resend, .. }
        | Self::Paying { resend, .. }) = self
        else {
            return None;
        };
        resend.is_due(now).then_some(resend.times)
    }
}

fn with_slack(millis: u64) -> Duration {
    let clock = Duration::from_millis(millis);
    clock + clock / 10 + SLACK
}

impl Execution {
    /// When something is to be said to its worker.
    fn acts_at(&self) -> Option<Instant> {
        match &self.state {
            State::Bidding(resend) | State::Leasing(resend) => Some(resend.at),
            State::Revealing { resend, .. } | State::Paying { resend, .. } => Some(resend.at),
            State::Active => Some(self.renew),
            State::Committed(_) | State::Revealed | State::Closed { .. } => None,
        }
    }

    /// When its phase has taken too long.
    fn phase_end(&self) -> Instant {
        self.since
            + match self.phase {
                Phase::Staging => with_slack(self.staging_ms),
                Phase::Queued => with_slack(self.queueing_ms),
                Phase::Running => with_slack(self.running_ms),
                Phase::Frozen => match self.class {
                    Class::Urgent => Duration::from_secs(1),
                    Class::Standard => Duration::from_secs(5),
                    Class::BestEffort => Duration::from_secs(10),
                },
            }
    }

    /// The longest that all its phases take together.
    fn longest(&self) -> Duration {
        let all = self.staging_ms.saturating_add(self.queueing_ms).saturating_add(self.running_ms);
        with_slack(all) + STANDSTILL
    }

    /// Why it is given up now.
    fn given_up_for(&self, silent: Instant, now: Now) -> &'static str {
        match (&self.state, self.phase) {
            (State::Active, Phase::Frozen) if self.phase_end() <= now.mono => "frozen",
            (State::Active, _) if silent <= now.mono => "silent",
            (State::Active, _) if self.phase_end().min(self.leased + self.longest()) <= now.mono => "too_long",
            _ => "gone",
        }
    }
}
