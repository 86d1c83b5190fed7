//! The end of a task: what each worker is paid and told, what is remembered, and what is forgotten.

use std::sync::Arc;

use fog_base::Now;
use rand_chacha::rand_core::Rng;

use super::{
    Coordinator, Output, TaskEvent,
    execution::{Execution, State},
    mixed::resend,
    submit::Known,
    task::Task,
    view::{End, TrustedBy},
};
use crate::{
    core::{
        memo::Remembered,
        outcome::Outcome,
        pay::{Payer, VOUCHER, Verdict},
        row::Row,
        standing::SPOT_CHECKS,
        terms::Privacy,
        verify::{Believed, Judged, judge_spot_check},
    },
    wire::ToWorker,
};

/// How often a voucher is said: for about two minutes. A later one of the same account has its sum.
pub(super) const VOUCHER_TRIES: u32 = 8;
/// Outcomes up to this size are kept in memory for whoever asks; others are in their rows.
const KEPT: usize = 16 * 1024;

impl Coordinator {
    /// Ends a task. All that follows is in one batch of rows, before anything is said.
    pub(super) fn finish(&mut self, task: &mut Task, end: End, now: Now) {
        if !task.is_open() {
            return;
        }
        self.set_hungry(task, false);
        (task.parked, task.fetching) = (None, None);
        task.ended = Some(now.unix);
        let mut rows = Vec::new();
        let mut judged = self.verdicts(task, &end);
        let (mut owes, mut says) = (Vec::new(), Vec::new());
        if task.check.is_some() && judged.iter().any(|it| it.verdict == Verdict::Failed) {
            // It may be the memory that is wrong.
            self.memo.forget(&task.work_id);
        }
        fail_overcharges(task, &end, &mut judged);
        for judged in &judged {
            owes.extend(self.settle(task, judged, &mut rows, &mut says, now));
        }
        // These come behind the rows.
        let before = self.outputs.len();
        for at in 0..task.executions.len() {
            self.drop_execution(task, at, "not_needed");
        }
        let cancels = self.outputs.split_off(before);
        let kept = self.keep(task, &end, &mut rows);
        task.end = Some(kept);
        task.told = task.state();
        if task.check.is_none() {
            rows.extend(task.state_row());
        }
        self.push(Output::Persist(rows));
        self.outputs.extend(owes);
        self.outputs.extend(cancels);
        self.outputs.extend(says);
        if task.check.is_none() {
            self.push(Output::Event(task.id, TaskEvent::Ended(end)));
        }
        task.content = None;
        self.open = self.open.saturating_sub(1);
        self.ended.push_back(task.id);
        // A spot check that comes right behind what it follows would tell the worker whose that was.
        if task.check.is_none() && task.terms.privacy != Privacy::Mixed {
            self.maybe_check(&judged, now);
        }
    }

    fn verdicts(&self, task: &Task, end: &End) -> Vec<Judged> {
        if let Some((worker, known)) = task.check {
            let checked = task.executions.iter().filter(|execution| execution.worker == worker);
            let judge = |it: &Execution| it.shown.map(|(result, _)| judge_spot_check(&it.voter, known, result));
            return checked.filter_map(judge).collect();
        }
        match (end, task.accepted) {
            (End::Done { .. }, Some(accepted)) => task.poll.verdicts(accepted),
            _ => Vec::new(),
        }
    }

    /// Pays one replica, or not, and tells it. Returns what is owed from now on.
    fn settle(
        &mut self,
        task: &mut Task,
        judged: &Judged,
        rows: &mut Vec<Row>,
        says: &mut Vec<Output>,
        now: Now,
    ) -> Option<Output> {
        let Judged { worker, verdict, .. } = *judged;
        rows.extend(self.judge(judged, now));
        let revealed = |state: &State| matches!(state, State::Revealed);
        let execution = task.executions.iter_mut().find(|it| it.worker == worker && revealed(&it.state))?;
        let (id, rate) = (execution.id, execution.rate);
        let no_output = execution.no_output;
        let verdict = if no_output && verdict == Verdict::Good { Verdict::Failed } else { verdict };
        let fuel = match (verdict, execution.shown) {
            (Verdict::Good, Some((_, fuel))) => fuel,
            _ => 0,
        };
        execution.output = None;
        let nameless = execution.nameless;
        if worker == self.signer.me() {
            // This node does not pay itself; its worker need not keep the result.
            execution.state = State::Closed { why: verdict.name(), paid: Some(0) };
            says.push(Output::Send { to: worker, message: ToWorker::Cancel(id) });
            return None;
        }
        // A key that is for one execution has an account with one voucher.
        let mut alone = Payer::new();
        let payer = if nameless { &mut alone } else { &mut self.payer };
        let issued = payer.issue(worker, id, verdict, (fuel, rate), now.unix);
        let amount = issued.amount;
        let signer = self.signer_of(nameless, id);
        let record = signer.sign(&VOUCHER, issued.number, now, &issued.voucher).ok()?;
        let resend = resend(nameless, now.mono);
        execution.state = State::Paying { voucher: Box::new(record.clone()), verdict, paid: amount, resend };
        says.push(execution.say(ToWorker::Voucher(record)));
        if nameless {
            // What others hear of this node's experience must not tell them who submitted what, nor what a worker may spend here that this
            // node owes it by name.
            return None;
        }
        rows.extend(self.account_rows(worker, issued.voucher.interval));
        says.push(Output::Verdict { worker, execution: id, verdict, value: amount });
        (amount > 0).then_some(Output::Owe { to: worker, amount })
    }

    /// Counts a verdict for the worker's standing.
    pub(super) fn judge(&mut self, judged: &Judged, now: Now) -> Option<Row> {
        let standing = self.standings.record(judged, now.unix)?;
        super::saved::standing_row(judged.worker, &standing)
    }

    /// Keeps the outcome where it belongs, and returns what stays in memory.
    fn keep(&mut self, task: &Task, end: &End, rows: &mut Vec<Row>) -> End {
        let End::Done { outcome: Some(outcome), result, credibility, by, .. } = end else { return end.clone() };
        let bytes = outcome.to_bytes();
        let size = bytes.len();
        rows.push(super::saved::outcome_row(task.id, bytes));
        let believed = Believed { result: *result, credibility: *credibility };
        if !matches!(by, TrustedBy::Memory | TrustedBy::Best) {
            self.remember(task, believed, outcome, size);
        }
        let mut kept = end.clone();
        if let End::Done { outcome, .. } = &mut kept
            && size > KEPT
        {
            *outcome = None;
        }
        kept
    }

    fn remember(&mut self, task: &Task, believed: Believed, outcome: &Arc<Outcome>, size: usize) {
        let (Privacy::Open, Some(content)) = (task.terms.privacy, &task.content) else { return };
        let inline = content.sources.iter().map(|(_, source)| source.bytes().len());
        let bytes = inline.fold(size + content.encoded.len() + 1_024, usize::saturating_add);
        let known = Known { outcome: Some(outcome.clone()), ..(**content).clone() };
        let Believed { result, credibility } = believed;
        self.memo.insert(task.work_id, Remembered { result, credibility, value: Arc::new(known) }, bytes);
    }

    /// Some of those that did well are given something whose result is known.
    fn maybe_check(&mut self, judged: &[Judged], now: Now) {
        for judged in judged {
            let draw = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            if judged.worker != self.signer.me() && judged.verdict == Verdict::Good && draw < SPOT_CHECKS {
                self.spot_check(judged.worker, now);
            }
        }
    }

    /// Forgets the oldest ended tasks.
    pub(super) fn forget_oldest(&mut self) {
        while self.ended.len() > self.config.max_ended {
            let Some(id) = self.ended.pop_front() else { return };
            let Some(task) = self.tasks.remove(&id) else { continue };
            for execution in &task.executions {
                self.executions.remove(&execution.id);
            }
            self.timers.set(id, None);
            if task.check.is_none() {
                self.push(Output::Persist(super::saved::forget_rows(id)));
                self.push(Output::Forget(id));
            }
        }
    }
}

/// Who states other fuel than the result has, which everybody's hash of it covers, did nothing well, and is paid nothing.
fn fail_overcharges(task: &Task, end: &End, judged: &mut [Judged]) {
    let remembered = || Some(task.content.as_ref()?.outcome.as_ref()?.fuel);
    let fuel = if let End::Done { fuel, .. } = end { Some(*fuel) } else { remembered() };
    let stated = |worker| {
        let shown = task.executions.iter().find(|it| it.worker == worker && matches!(it.state, State::Revealed));
        shown.and_then(|it| it.shown).map(|(_, fuel)| fuel)
    };
    for judged in judged.iter_mut().filter(|judged| judged.verdict == Verdict::Good) {
        if fuel.is_some() && stated(judged.worker).is_some_and(|stated| Some(stated) != fuel) {
            (judged.verdict, judged.proven) = (Verdict::Failed, false);
        }
    }
}
