//! What is kept across restarts, and how it is read again.
//!
//! | prefix | name | value |
//! |---|---|---|
//! | 1 | task id | what was submitted: [`Submitted`] |
//! | 2 | task id | how far it is: [`Progress`] |
//! | 3 | task id | the encoded outcome |
//! | 4 | worker | its [`Standing`] |
//! | 5 | worker ‖ interval u32 | what it was promised: [`Paid`] |
//!
//! A restart forgets bids that nobody agreed to, commits, and reveals: all of them are asked for again. It does not forget a lease, a
//! verdict, or a voucher.

use std::{collections::BTreeMap, sync::Arc};

use fog_base::{NodeId, Now, UnixMillis, codec, record::SignedRecord};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    Coordinator,
    execution::{Execution, State},
    mixed::resend,
    submit::Known,
    task::Task,
    view::{End, Failed, TrustedBy},
};
use crate::{
    core::{
        ids::{ExecutionId, TaskId},
        matcher::Needs,
        outcome::{Ending, ResultHash},
        pay::{Interval, Paid, Verdict, account_name},
        row::Row,
        standing::Standing,
        terms::Terms,
        verify::Voter,
        work::{Content, Work},
    },
    wire::{Phase, Source},
};

const SUBMITTED: u8 = 1;
const PROGRESS: u8 = 2;
const OUTCOME: u8 = 3;
const STANDING: u8 = 4;
const ACCOUNT: u8 = 5;
/// Larger rows are not written: nothing that is within the bounds comes near.
const MAX_ROW: usize = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submitted {
    work: ByteBuf,
    terms: Terms,
    sources: Vec<(Content, Source)>,
    at: UnixMillis,
    number: u64,
    preferred: Vec<NodeId>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    attempt: u32,
    placed: Option<UnixMillis>,
    ended: Option<UnixMillis>,
    end: Option<SavedEnd>,
    hosts: Vec<(NodeId, crate::wire::Failure)>,
    executions: Vec<SavedExecution>,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedEnd {
    Done { result: ResultHash, ending: Ending, fuel: u64, credibility: f64, by: TrustedBy },
    Failed(Failed),
    Cancelled,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedExecution {
    id: ExecutionId,
    worker: NodeId,
    credibility: f64,
    family: Option<String>,
    newcomer: bool,
    rate: u64,
    agreed_at: Option<UnixMillis>,
    running_ms: u64,
    shown: Option<(ResultHash, u64)>,
    state: SavedState,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedState {
    Leased { agreement: ByteBuf },
    Paying { voucher: ByteBuf, verdict: Verdict, paid: u64 },
    Closed { paid: Option<u64> },
}

fn row<T: Serialize>(prefix: u8, name: &[u8], value: &T) -> Option<Row> {
    codec::encode(value, MAX_ROW).ok().map(|value| Row::put(prefix, name, value))
}

pub(super) fn outcome_row(task: TaskId, bytes: Vec<u8>) -> Row {
    Row::put(OUTCOME, &task.0, bytes)
}

pub(super) fn standing_row(worker: NodeId, standing: &Standing) -> Option<Row> {
    row(STANDING, &worker.0, standing)
}

pub(super) fn forget_rows(task: TaskId) -> Vec<Row> {
    [SUBMITTED, PROGRESS, OUTCOME].map(|prefix| Row::remove(prefix, &task.0)).into()
}

impl Task {
    pub(super) fn submission_row(&self) -> Option<Row> {
        let content = self.content.as_ref()?;
        let submitted = Submitted {
            work: ByteBuf::from(content.encoded.clone()),
            terms: self.terms.clone(),
            sources: content.sources.clone(),
            at: self.submitted,
            number: self.number,
            preferred: self.preferred.iter().copied().collect(),
        };
        row(SUBMITTED, &self.id.0, &submitted)
    }

    pub(super) fn state_row(&self) -> Option<Row> {
        if self.check.is_some() {
            return None;
        }
        let progress = Progress {
            attempt: self.attempt,
            placed: self.placed,
            ended: self.ended,
            end: self.end.as_ref().map(|end| match end {
                End::Done { result, ending, fuel, credibility, by, .. } => {
                    let (result, ending, fuel, credibility, by) = (*result, *ending, *fuel, *credibility, *by);
                    SavedEnd::Done { result, ending, fuel, credibility, by }
                }
                End::Failed(failed) => SavedEnd::Failed(failed.clone()),
                End::Cancelled => SavedEnd::Cancelled,
            }),
            hosts: self.hosts.iter().map(|(worker, failure)| (*worker, *failure)).collect(),
            executions: self.executions.iter().filter_map(Execution::saved).collect(),
        };
        row(PROGRESS, &self.id.0, &progress)
    }
}

impl Execution {
    fn saved(&self) -> Option<SavedExecution> {
        let bytes = |record: &SignedRecord| ByteBuf::from(record.as_bytes());
        let state = match &self.state {
            State::Bidding(_) => return None,
            State::Paying { voucher, verdict, paid, .. } => {
                SavedState::Paying { voucher: bytes(voucher), verdict: *verdict, paid: *paid }
            }
            State::Closed { paid, .. } if self.agreement.is_some() => SavedState::Closed { paid: *paid },
            State::Closed { .. } => return None,
            _ => SavedState::Leased { agreement: bytes(self.agreement.as_ref()?) },
        };
        Some(SavedExecution {
            id: self.id,
            worker: self.worker,
            credibility: self.voter.credibility,
            family: self.voter.family.clone(),
            newcomer: self.voter.newcomer,
            rate: self.rate,
            agreed_at: self.agreed_at,
            running_ms: self.running_ms,
            shown: self.shown,
            state,
        })
    }

    fn restored(saved: SavedExecution, terms: &Terms, nameless: bool, now: Now) -> Option<Self> {
        let voter = Voter {
            worker: saved.worker,
            credibility: saved.credibility,
            family: saved.family,
            newcomer: saved.newcomer,
        };
        let resend = resend(nameless, now.mono);
        let parse = |bytes: &[u8]| SignedRecord::parse(bytes).ok();
        let (state, agreement) = match saved.state {
            SavedState::Leased { agreement } => (State::Leasing(resend), Some(parse(&agreement)?)),
            SavedState::Paying { voucher, verdict, paid } => {
                (State::Paying { voucher: Box::new(parse(&voucher)?), verdict, paid, resend }, None)
            }
            SavedState::Closed { paid } => (State::Closed { why: "closed", paid }, None),
        };
        Some(Self {
            id: saved.id,
            worker: saved.worker,
            nameless,
            voter,
            bid: None,
            highest_rate: saved.rate,
            staging_ms: terms.clocks.staging_ms,
            queueing_ms: terms.clocks.queueing_ms,
            running_ms: saved.running_ms,
            class: terms.class,
            agreement,
            agreed_at: saved.agreed_at,
            rate: saved.rate,
            lease: None,
            lease_seq: 0,
            leased: now.mono,
            renew: now.mono,
            heard: now.mono,
            phase: Phase::Staging,
            staging: None,
            since: now.mono,
            state,
            shown: saved.shown,
            output: None,
            no_output: false,
        })
    }
}

impl Coordinator {
    /// The key of the row that holds an ended task's encoded outcome.
    pub fn outcome_key(task: TaskId) -> Vec<u8> {
        Row::key(OUTCOME, &task.0)
    }

    /// Takes back what [`super::Output::Persist`] wrote; rows of others and rows that cannot be read are passed over. Open leases are said
    /// again, and unacknowledged vouchers.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>, now: Now) {
        let mut submitted = BTreeMap::new();
        let mut progress = BTreeMap::new();
        for (key, value) in rows {
            let Some((prefix, name)) = key.split_first() else { continue };
            match *prefix {
                SUBMITTED => read::<Submitted, 16, _>(name, &value, |id, it| submitted.insert(TaskId(id), it)),
                PROGRESS => read::<Progress, 16, _>(name, &value, |id, it| progress.insert(TaskId(id), it)),
                STANDING => read::<Standing, 32, _>(name, &value, |id, it| self.standings.restore(NodeId(id), it)),
                ACCOUNT => self.restore_account(name, &value),
                _ => {}
            }
        }
        let old = self.old_account_rows();
        if !old.is_empty() {
            self.push(super::Output::Persist(old));
        }
        let mut ended = Vec::new();
        for (id, it) in submitted {
            if let Some(at) = self.restore_task(id, it, progress.remove(&id), now) {
                ended.push((at, id));
            }
        }
        ended.sort_unstable();
        self.ended.extend(ended.into_iter().map(|(_, id)| id));
        let all: Vec<_> = self.tasks.keys().copied().collect();
        for id in all {
            self.with(id, now, |me, task| me.resume(task, now));
        }
        self.after(now);
    }

    /// Returns when it ended, if it did.
    fn restore_task(&mut self, id: TaskId, it: Submitted, progress: Option<Progress>, now: Now) -> Option<UnixMillis> {
        let work = Work::decode(&it.work).ok()?;
        let needs = Needs::new(&work, &it.terms);
        let content = Known { work, encoded: it.work.into_vec(), sources: it.sources, needs, outcome: None };
        let mut task = self.task_of(id, Arc::new(content), it.terms, now);
        self.next_number = self.next_number.max(it.number + 1);
        task.number = it.number;
        task.submitted = it.at;
        task.preferred = it.preferred.into();
        let passed = now.unix.since(it.at);
        task.deadline =
            task.terms.deadline_ms.map(|ms| now.mono + std::time::Duration::from_millis(ms).saturating_sub(passed));
        if let Some(progress) = progress {
            task.attempt = progress.attempt;
            task.placed = progress.placed;
            task.ended = progress.ended;
            task.hosts = progress.hosts.into_iter().collect();
            task.end = progress.end.map(restored_end);
            let terms = task.terms.clone();
            let restored = |it: SavedExecution| {
                let nameless = self.is_nameless(&terms, it.worker);
                Execution::restored(it, &terms, nameless, now)
            };
            task.executions = progress.executions.into_iter().filter_map(restored).collect();
        }
        for execution in &task.executions {
            self.executions.insert(execution.id, id);
        }
        task.told = task.state();
        if task.is_open() {
            self.open += 1;
        } else {
            task.content = None;
        }
        let ended = task.ended.filter(|_| !task.is_open());
        self.tasks.insert(id, task);
        ended
    }

    /// Says again what was said last to each of a task's workers.
    fn resume(&mut self, task: &mut Task, now: Now) {
        for at in 0..task.executions.len() {
            let Some(execution) = task.executions.get(at) else { continue };
            match &execution.state {
                State::Leasing(_) if task.is_open() => {
                    let (worker, voter) = (execution.worker, execution.voter.clone());
                    if task.poll.join(voter) {
                        self.workers.begin(worker, task.id);
                        self.lease(task, at, now);
                    }
                }
                State::Paying { voucher, .. } => {
                    let message = crate::wire::ToWorker::Voucher((**voucher).clone());
                    self.push(execution.say(message));
                }
                _ => {}
            }
        }
    }

    /// The row of an account that changed; those of accounts for which there is no room any more go.
    pub(super) fn account_rows(&mut self, worker: NodeId, interval: Interval) -> Vec<Row> {
        let account = self.payer.account(worker, interval);
        let kept = row(ACCOUNT, &account_name(worker, interval), &account);
        kept.into_iter().chain(self.old_account_rows()).collect()
    }

    fn old_account_rows(&mut self) -> Vec<Row> {
        let old = self.payer.trim().into_iter();
        old.map(|(worker, interval)| Row::remove(ACCOUNT, &account_name(worker, interval))).collect()
    }

    fn restore_account(&mut self, name: &[u8], value: &[u8]) {
        read::<Paid, 36, _>(name, value, |name, account| {
            if let (Some(worker), Some(interval)) = (name.first_chunk::<32>(), name.last_chunk::<4>()) {
                self.payer.restore(NodeId(*worker), Interval(u32::from_be_bytes(*interval)), account);
            }
        });
    }
}

fn read<T: serde::de::DeserializeOwned, const N: usize, R>(
    name: &[u8],
    value: &[u8],
    then: impl FnOnce([u8; N], T) -> R,
) {
    if let (Ok(name), Ok(value)) = (name.try_into(), codec::decode(value, MAX_ROW)) {
        then(name, value);
    }
}

fn restored_end(end: SavedEnd) -> End {
    match end {
        SavedEnd::Done { result, ending, fuel, credibility, by } => {
            End::Done { outcome: None, result, ending, fuel, credibility, by }
        }
        SavedEnd::Failed(failed) => End::Failed(failed),
        SavedEnd::Cancelled => End::Cancelled,
    }
}
