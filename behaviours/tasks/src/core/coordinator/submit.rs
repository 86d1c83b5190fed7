//! Taking tasks in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use fog_base::{NodeId, Now};
use rand_chacha::rand_core::Rng;

pub(super) use super::task::Known;
use super::{
    Coordinator, MAX_OUTPUTS, Output, Submission, TaskEvent,
    task::Task,
    view::{End, TaskState, TrustedBy},
    workers::Took,
};
use crate::{
    core::{
        ids::TaskId,
        matcher::Needs,
        reject::Reject,
        terms::{Privacy, Terms},
        verify::{Believed, Poll},
        work::{Content, Work},
    },
    wire::{
        Source,
        message::{MAX_INLINE, MAX_INLINE_TOTAL, MAX_MANIFEST},
    },
};

impl Coordinator {
    pub(super) fn take(
        &mut self,
        submission: Submission,
        preferred: VecDeque<NodeId>,
        now: Now,
    ) -> Result<TaskId, Reject> {
        let Submission { work, terms, sources } = submission;
        if self.open >= self.config.max_open || self.outputs.len() >= MAX_OUTPUTS {
            return Err(Reject::Busy);
        }
        terms.check()?;
        let encoded = work.encode()?;
        check_sources(&work, &sources)?;
        // Whoever fetches something knows from whom.
        let is_fetched = sources.iter().any(|(_, source)| matches!(source, Source::Blob(_)));
        if terms.privacy == Privacy::Mixed && is_fetched {
            return Err(Reject::Sources);
        }
        let mut id = TaskId([0; 16]);
        self.rng.fill_bytes(&mut id.0);
        let needs = Needs::new(&work, &terms);
        let content = Known { work, encoded, sources, needs, outcome: None };
        let mut task = self.task_of(id, Arc::new(content), terms, now);
        task.preferred = preferred;
        self.open += 1;
        if let (Some(content), Some(_)) = (&task.content, self.workers.get(self.signer.me())) {
            // This node's own worker has what this node submits.
            self.workers.staged(self.signer.me(), content.work.contents().into_iter(), Took::Unknown);
        }
        let rows = task.submission_row().into_iter().collect();
        self.push(Output::Persist(rows));
        let remembered = match task.terms.privacy {
            Privacy::Open => self.memo.get(&task.work_id, task.terms.trust()),
            Privacy::Sealed | Privacy::Mixed => None,
        };
        let answer = remembered.and_then(|it| {
            let outcome = it.value.outcome.clone()?;
            Some(End::Done {
                result: it.result,
                ending: outcome.ending,
                fuel: outcome.fuel,
                credibility: it.credibility,
                by: TrustedBy::Memory,
                outcome: Some(outcome),
            })
        });
        self.tasks.insert(id, task);
        match answer {
            Some(end) => self.end(id, end, now),
            None => {
                self.push(Output::Event(id, TaskEvent::State(TaskState::Offered)));
                self.advance(id, now);
            }
        }
        Ok(id)
    }

    /// A task that nothing was done for.
    pub(super) fn task_of(&mut self, id: TaskId, content: Arc<Known>, terms: Terms, now: Now) -> Task {
        let number = self.next_number;
        self.next_number += 1;
        Task {
            id,
            work_id: Work::id_of(&content.encoded),
            content: Some(content),
            number,
            submitted: now.unix,
            deadline: terms.deadline_ms.map(|ms| now.mono + Duration::from_millis(ms)),
            check: None,
            preferred: VecDeque::new(),
            poll: Poll::new(&terms),
            terms,
            attempt: 0,
            executions: Vec::new(),
            avoided: BTreeMap::new(),
            hosts: BTreeMap::new(),
            last_failure: "",
            accepted: None,
            fetching: None,
            parked: None,
            waits_for: None,
            placed: None,
            ended: None,
            end: None,
            told: TaskState::Offered,
        }
    }

    /// Sends a worker a work whose result is known, as if it were any other.
    pub(super) fn spot_check(&mut self, worker: NodeId, now: Now) {
        if self.open >= self.config.max_open {
            return;
        }
        let Some((_, known)) = self.memo.pick(self.rng.next_u64(), crate::core::standing::SPOT_CHECKED_FROM) else {
            return;
        };
        let believed = Believed { result: known.result, credibility: known.credibility };
        let content = known.value.clone();
        let mut id = TaskId([0; 16]);
        self.rng.fill_bytes(&mut id.0);
        let terms = Terms { deadline_ms: Some(600_000), trust_ppm: 0, ..Terms::default() };
        let mut task = self.task_of(id, content, terms, now);
        task.check = Some((worker, believed));
        self.open += 1;
        self.spot_checks += 1;
        self.tasks.insert(id, task);
        self.advance(id, now);
    }

    /// Puts a task where tasks wait for workers, or takes it away.
    pub(super) fn set_hungry(&mut self, task: &Task, hungry: bool) {
        let key = (Reverse(task.terms.class), task.number, task.id);
        if hungry {
            self.hungry.insert(key);
        } else {
            self.hungry.remove(&key);
        }
    }
}

/// Each content once, within the bounds, and inline bytes what their name says.
fn check_sources(work: &Work, sources: &[(Content, Source)]) -> Result<(), Reject> {
    let named: BTreeSet<Content> = sources.iter().map(|(content, _)| *content).collect();
    let mut inline = 0usize;
    for (content, source) in sources {
        let sound = match source {
            Source::Inline(bytes) => {
                inline += bytes.len();
                bytes.len() <= MAX_INLINE && content.is(bytes)
            }
            Source::Blob(manifest) => manifest.len() <= MAX_MANIFEST,
        };
        if !sound {
            return Err(Reject::Sources);
        }
    }
    let complete = named.len() == sources.len() && named == work.contents();
    if complete && inline <= MAX_INLINE_TOTAL { Ok(()) } else { Err(Reject::Sources) }
}
