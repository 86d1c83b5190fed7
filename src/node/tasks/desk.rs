//! What people and programs do with tasks, and with this node as a worker.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fog_base::{DropCounters, DropReason, MessageId, NodeId, Now};
use fog_mix::core::endpoint::ReplyBlock;
use fog_tasks::{
    Content, Outcome,
    core::{
        coordinator::{Coordinator, End, Submission, TaskView},
        ids::TaskId,
        reject::Reject,
        standing::Prior,
        terms::Privacy,
    },
    wire::{Source, message::MAX_INLINE_TOTAL},
};
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    contents::Contents,
    driver::{Driver, Input, Job, Want},
    harvest::Harvest,
    logs::FOLLOWED,
    mixed::{News, Ways},
    placing, report,
    spec::{BatchSpec, Parsed, TaskSpec},
    view,
};
use crate::{
    node::{clock, command::Failure, metrics::Metrics},
    store::{Store, Table},
};

/// What is larger is a file: whoever has it from an earlier task does not fetch it again, and it is written once, not with each task.
const INLINE: usize = 4 * 1024;
/// Tasks in one batch.
const MAX_BATCH: usize = 4_096;
/// Digits of an id at least.
const MIN_DIGITS: usize = 4;

/// What is said while the store does not take the state of tasks.
const STAND: &str = "tasks stand still: the store does not take their state";
const ROOM: &str = "is the disk full? They go on by themselves when there is room";
const UNSEALED: &str = "this system does not filter the calls of task processes: a flaw in wasmtime would give a task the rights of the node's user (`--roles` without `worker` runs none)";

/// What the driver counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) ended: AtomicU64,
    pub(super) runs: AtomicU64,
    pub(super) checks: AtomicU64,
    pub(super) ways: Ways,
    /// Whether the store does not take what tasks rest on: nothing is done or said of them.
    pub(super) stands_still: AtomicBool,
}

/// Tasks, for the API.
pub struct Desk {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) wants: mpsc::Sender<Want>,
    pub(super) contents: Contents,
    pub(super) store: Arc<dyn Store>,
    pub(super) drops: Arc<DropCounters>,
    pub(super) counts: Arc<Counts>,
    /// None if this node is no worker.
    pub(super) harvest: Option<Arc<Harvest>>,
    pub(super) relays: watch::Sender<BTreeSet<NodeId>>,
    /// Held while a content is made a file and shared: of those who bring the same one at once, one does.
    pub(super) sharing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("is_worker", &self.harvest.is_some()).finish_non_exhaustive()
    }
}

impl Desk {
    /// Has something done in the driver, between two things that happen there; the answer comes when what followed is on the disk.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Driver, Now) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |driver, now| {
            let value = ask(driver, now);
            Box::new(move || drop(reply.send(value)))
        });
        let stopped = || Failure::failed("the node is stopping", "start it again with `fog run`");
        self.inputs.send(Input::Job(job)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| if self.stands_still() { Failure::failed(STAND, ROOM) } else { stopped() })
    }

    /// An offer that gossip brought, and what others say of its worker's results: false if the driver is behind.
    pub(in crate::node) fn handle_offer(&self, bytes: Vec<u8>, worker: NodeId, heard: Prior) -> bool {
        self.inputs.try_send(Input::Offer { bytes, worker, heard }).is_ok()
    }

    /// A message for this node's worker came through the mixnet: false if the driver is behind.
    pub(in crate::node) fn handle_request(&self, blocks: Vec<ReplyBlock>, body: Vec<u8>) -> bool {
        self.inputs.try_send(Input::Mixed(News::Request { blocks, body })).is_ok()
    }

    /// An answer of a worker came through the mixnet.
    pub(in crate::node) fn handle_answer(&self, message: MessageId, piece: Vec<u8>) {
        if self.inputs.try_send(Input::Mixed(News::Answer { message, piece })).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }

    fn stands_still(&self) -> bool {
        self.counts.stands_still.load(Ordering::Relaxed)
    }

    /// What a user should know: that tasks stand still, that those of others are held by fewer walls.
    pub(in crate::node) fn warnings(&self) -> impl Iterator<Item = String> {
        let stand = self.stands_still().then(|| format!("{STAND} ({ROOM})"));
        let is_unsealed = self.harvest.as_ref().is_some_and(|harvest| harvest.is_unsealed());
        stand.into_iter().chain(is_unsealed.then(|| UNSEALED.into()))
    }

    /// The nodes to which the mixnet leads.
    pub(in crate::node) fn handle_relays(&self, relays: BTreeSet<NodeId>) {
        self.relays.send_if_modified(|known| {
            *known != relays && {
                *known = relays;
                true
            }
        });
    }

    /// `fog task run`
    pub(crate) async fn submit(&self, spec: TaskSpec) -> Result<report::Submitted, Failure> {
        let submission = self.prepare(spec).await?;
        let needed = contents(&submission);
        let taken = self.ask(move |driver, now| {
            let taken = driver.coordinator.submit(submission, now);
            if let Ok(task) = &taken {
                needed.into_iter().for_each(|content| driver.needed.add(content, *task));
            }
            taken
        });
        let id = taken.await?.map_err(refused)?;
        Ok(report::Submitted { id: id.to_string() })
    }

    /// `fog task batch`
    pub(crate) async fn batch(&self, spec: BatchSpec) -> Result<report::Batch, Failure> {
        if spec.tasks.is_empty() || spec.tasks.len() > MAX_BATCH {
            return Err(Failure::usage(format!("a batch has 1 to {MAX_BATCH} tasks"), "split it"));
        }
        let mut submissions = Vec::new();
        for task in spec.tasks {
            submissions.push(self.prepare(task).await?);
        }
        let began = clock::now().mono;
        let wanted = submissions.iter().map(|task| (task.work.clone(), task.terms.clone())).collect();
        let problem = self.ask(move |driver, now| placing::problem(&driver.coordinator, wanted, now)).await?;
        let placed = tokio::task::spawn_blocking(move || placing::solve(problem, began));
        let placed = placed.await.map_err(|error| Failure::failed(error.to_string(), ""))?;
        let placements = placed.placements.clone();
        let needed: Vec<_> = submissions.iter().map(contents).collect();
        let taken = self.ask(move |driver, now| {
            let taken = driver.coordinator.submit_batch(submissions, placements, now);
            for (task, needed) in taken.iter().zip(needed) {
                if let Ok(task) = task {
                    needed.into_iter().for_each(|content| driver.needed.add(content, *task));
                }
            }
            taken
        });
        let ids = taken.await?.into_iter().collect::<Result<Vec<_>, _>>().map_err(refused)?;
        Ok(report::Batch {
            ids: ids.iter().map(ToString::to_string).collect(),
            pareto: placed.pareto,
            chosen: placed.chosen,
            placement: placed.placements.iter().map(|of| of.first().map(ToString::to_string)).collect(),
            placed_ms: placed.took.as_secs_f64() * 1000.0,
        })
    }

    /// `fog task explain`
    pub(crate) async fn explain(&self, spec: TaskSpec) -> Result<report::Explanation, Failure> {
        let parsed = parse(spec).await?;
        let explained =
            self.ask(move |driver, now| driver.coordinator.explain(&parsed.work, &parsed.terms, now)).await?;
        Ok(view::explanation(explained))
    }

    /// `fog task list`, newest first.
    pub(crate) async fn list(&self) -> Result<Vec<report::Task>, Failure> {
        let mut tasks = self.ask(|driver, _| driver.coordinator.tasks().collect::<Vec<_>>()).await?;
        tasks.sort_by_key(|task| std::cmp::Reverse(task.submitted));
        Ok(tasks.iter().map(|task| view::task(task, None)).collect())
    }

    /// `fog task show`
    pub(crate) async fn show(&self, id: &str) -> Result<report::Task, Failure> {
        let task = self.find(id).await?;
        let outcome = self.outcome(&task)?;
        Ok(view::task(&task, outcome.as_deref()))
    }

    /// The task, when it has ended.
    pub(crate) async fn wait(&self, id: &str, patience: Duration) -> Result<report::Task, Failure> {
        let until = clock::now().mono + patience;
        let task = self.find(id).await?;
        if task.end.is_some() {
            return Ok(view::task(&task, self.outcome(&task)?.as_deref()));
        }
        let id = task.id;
        let ended = self.ask(move |driver, _| {
            let is_open = driver.coordinator.task(id).is_some_and(|task| task.end.is_none());
            let (ends, ended) = oneshot::channel();
            if is_open {
                driver.waiters.entry(id).or_default().push(ends);
            }
            is_open.then_some(ended)
        });
        let Some(ended) = ended.await? else { return self.show(&id.to_string()).await };
        let in_time = tokio::time::timeout_at(until.into(), ended).await.is_ok();
        let task = self.show(&id.to_string()).await?;
        if in_time {
            return Ok(task);
        }
        let why = task.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let message = format!("the task is {} after {} s{why}", task.state, patience.as_secs());
        Err(Failure::timed_out(message, format!("it goes on: `fog task show {id}`, or `fog task cancel {id}`")))
    }

    /// `fog task logs`
    pub(crate) async fn logs(&self, id: &str, follow: bool) -> Result<mpsc::Receiver<report::LogLine>, Failure> {
        let task = self.find(id).await?;
        if task.end.is_none() {
            let id = task.id;
            return self.ask(move |driver, _| driver.logs.read(id, follow)).await;
        }
        let (sender, lines) = mpsc::channel(FOLLOWED);
        if let Some(outcome) = self.outcome(&task)? {
            let worker = task.replicas.iter().find(|replica| replica.result == outcome.hash());
            let worker = worker.map(|replica| replica.worker.to_string()).unwrap_or_default();
            for (stream, bytes) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
                let text = String::from_utf8_lossy(bytes).into_owned();
                if !text.is_empty() {
                    drop(sender.try_send(report::LogLine { worker: worker.clone(), stream: stream.into(), text }));
                }
            }
        }
        Ok(lines)
    }

    /// `fog task output`
    pub(crate) async fn write_output(&self, id: &str, dir: PathBuf) -> Result<report::Written, Failure> {
        if !dir.is_absolute() {
            return Err(Failure::usage("the path is not absolute", "name a folder by its absolute path"));
        }
        let task = self.find(id).await?;
        let Some(outcome) = self.outcome(&task)? else {
            let message = format!("the task is {} and left no output", task.state.name());
            return Err(Failure::failed(message, format!("`fog task show {}`", task.id)));
        };
        let shown = dir.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&dir, &outcome)).await;
        let files = written.map_err(|error| Failure::failed(error.to_string(), ""))?.map_err(|error| {
            Failure::failed(
                format!("the output cannot be written to `{shown}`: {error}"),
                "name another folder with --out",
            )
        })?;
        Ok(report::Written { id: task.id.to_string(), dir: shown, files })
    }

    /// `fog task cancel`
    pub(crate) async fn cancel(&self, id: &str) -> Result<report::Task, Failure> {
        let task = self.find(id).await?.id;
        let cancelled = self.ask(move |driver, now| driver.coordinator.cancel(task, now)).await?;
        let shown = self.show(&task.to_string()).await?;
        match cancelled {
            Ok(()) => Ok(shown),
            Err(_) => Err(Failure::failed(
                format!("the task is {} already", shown.state),
                "`fog task show` says how it ended",
            )),
        }
    }

    /// `fog worker status`
    pub(crate) async fn worker(&self) -> Result<report::Worker, Failure> {
        let status = self.harvest.as_ref().map(|harvest| harvest.status());
        let (load, accounts, speed) =
            self.ask(|driver, _| (driver.worker.load(), view::accounts(driver), driver.capacity.speed())).await?;
        Ok(view::worker(status, load, accounts, speed))
    }

    /// `fog worker pause` and `resume`
    pub(crate) async fn pause(&self, paused: bool) -> Result<report::Worker, Failure> {
        let Some(harvest) = self.harvest.clone() else {
            return Err(Failure::failed("this node is no worker", "give it the role: `fog run --roles worker,…`"));
        };
        let acted = tokio::task::spawn_blocking(move || harvest.pause(paused));
        acted.await.map_err(|error| Failure::failed(error.to_string(), ""))?;
        self.worker().await
    }

    /// `fog worker topology`
    pub(crate) async fn topology(&self) -> Result<Vec<report::Topology>, Failure> {
        self.ask(|driver, now| {
            let now = driver.coordinator.topology(now);
            driver.coordinator.snapshots().chain([&now]).map(view::topology).collect()
        })
        .await
    }

    /// `fog worker receipts`
    pub(crate) async fn receipts(&self) -> Result<Vec<report::Receipt>, Failure> {
        self.ask(|driver, _| view::receipts(driver)).await
    }

    /// What is counted.
    pub(in crate::node) fn add_metrics(&self, metrics: &mut Metrics) {
        let (hits, misses) = self.contents.counts();
        metrics.counter("task_contents_found", "Modules and inputs that were here when a task needed them", hits);
        metrics.counter("task_contents_missed", "Those that were not", misses);
        let counts = &self.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        metrics.counter("tasks_ended", "Tasks of this node that ended", read(&counts.ended));
        metrics.counter("task_runs", "Runs of tasks here", read(&counts.runs));
        let help = "Works whose results are known that were given to workers as if they were not";
        metrics.counter("task_spot_checks", help, read(&counts.checks));
        counts.ways.add_metrics(metrics);
        let dropped = self.drops.snapshot().map(|(reason, n)| (reason.name().to_owned(), n)).collect();
        metrics.counters("task_messages_dropped", "Messages of tasks that were not taken", "reason", dropped);
        let eligible = self.harvest.as_ref().is_some_and(|harvest| harvest.status().eligible);
        metrics.gauge("worker_eligible", "1 while this node works for others", f64::from(u8::from(eligible)));
    }

    /// The only task whose id begins so.
    async fn find(&self, digits: &str) -> Result<TaskView, Failure> {
        let is_id = (MIN_DIGITS..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            let hint = "`fog task list` lists them; its first 4 digits are enough if no other task has them";
            return Err(Failure::usage(format!("`{digits}` is not the id of a task"), hint));
        }
        let digits = digits.to_ascii_lowercase();
        let wanted = digits.clone();
        let found = self.ask(move |driver, _| matching(&driver.coordinator, &wanted)).await?;
        match <[TaskView; 1]>::try_from(found) {
            Ok([task]) => Ok(task),
            Err(none) if none.is_empty() => {
                Err(Failure::missing(format!("there is no task {digits}"), "`fog task list` lists them"))
            }
            Err(_) => Err(Failure::failed(format!("more than one task begins with {digits}"), "give more digits")),
        }
    }

    /// What a task gave: from memory, or from the disk.
    fn outcome(&self, task: &TaskView) -> Result<Option<Arc<Outcome>>, Failure> {
        let Some(End::Done { outcome, .. }) = &task.end else { return Ok(None) };
        if let Some(outcome) = outcome {
            return Ok(Some(Arc::clone(outcome)));
        }
        let unread = |why: String| Failure::failed(format!("the task's output cannot be read: {why}"), "run it again");
        let row = self
            .store
            .get(Table::Tasks, &Coordinator::outcome_key(task.id))
            .map_err(|error| unread(error.to_string()))?;
        let row = row.ok_or_else(|| unread("it is not kept any more".into()))?;
        let outcome = Outcome::from_bytes(&row, row.len()).map_err(|_| unread("it is damaged".into()))?;
        Ok(Some(Arc::new(outcome)))
    }

    /// A task as the coordinator takes it: what is large is shared as files.
    async fn prepare(&self, spec: TaskSpec) -> Result<Submission, Failure> {
        let Parsed { work, terms, contents } = parse(spec).await?;
        let (is_sealed, is_mixed) = (terms.privacy != Privacy::Open, terms.privacy == Privacy::Mixed);
        let mut sources = Vec::new();
        let mut inline = 0;
        for (content, bytes) in contents {
            let bytes: super::contents::Bytes = Arc::new(bytes);
            self.contents.put(&content, Arc::clone(&bytes));
            // Whoever fetches a file knows from whom. The sizes were looked at.
            if is_mixed || bytes.len() <= INLINE && inline + bytes.len() <= MAX_INLINE_TOTAL {
                inline += bytes.len();
                sources.push((content, Source::Inline(ByteBuf::from(bytes.to_vec()))));
            } else {
                sources.push((content, Source::Blob(ByteBuf::from(self.share(content, bytes, is_sealed).await?))));
            }
        }
        Ok(Submission { work, terms, sources })
    }

    /// Shares a content as a file, and yields its manifest.
    async fn share(
        &self,
        content: Content,
        bytes: super::contents::Bytes,
        is_sealed: bool,
    ) -> Result<Vec<u8>, Failure> {
        let known = || self.ask(move |driver, _| driver.shared.get(&content).cloned());
        if !is_sealed && let Some(manifest) = known().await? {
            return Ok(manifest);
        }
        let _alone = self.sharing.lock().await;
        if !is_sealed && let Some(manifest) = known().await? {
            return Ok(manifest);
        }
        let contents = self.contents.clone();
        let written = tokio::task::spawn_blocking(move || contents.write(&content, &bytes)).await;
        let unshared =
            |why: String| Failure::failed(format!("an input cannot be shared: {why}"), "is there room on the disk?");
        let path =
            written.map_err(|error| unshared(error.to_string()))?.map_err(|error| unshared(error.to_string()))?;
        let (reply, shared) = oneshot::channel();
        let want = Want::Share { path, is_sealed, reply };
        self.wants.send(want).await.map_err(|_| unshared("the node is stopping".into()))?;
        let manifest = shared.await.ok().flatten().ok_or_else(|| unshared("its file cannot be read".into()))?;
        let kept = manifest.clone();
        self.ask(move |driver, _| drop(driver.shared.insert(content, kept))).await?;
        Ok(manifest)
    }
}

fn matching(coordinator: &Coordinator, digits: &str) -> Vec<TaskView> {
    let whole = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    match whole {
        Some(id) => coordinator.task(TaskId(id)).into_iter().collect(),
        None => coordinator.tasks().filter(|task| task.id.to_string().starts_with(digits)).take(2).collect(),
    }
}

async fn parse(spec: TaskSpec) -> Result<Parsed, Failure> {
    let parsed = tokio::task::spawn_blocking(move || spec.parse()).await;
    parsed.map_err(|error| Failure::failed(error.to_string(), ""))?
}

/// The contents that have files.
fn contents(submission: &Submission) -> Vec<Content> {
    let blobs = submission.sources.iter().filter(|(_, source)| matches!(source, Source::Blob(_)));
    blobs.map(|(content, _)| *content).collect()
}

fn refused(reject: Reject) -> Failure {
    let hint = "`fog task list` shows what is open";
    Failure::failed(format!("the task is not taken: {reject}"), hint)
}

/// Writes the files under a folder, none over another; paths were checked when they came, component by component.
fn write(dir: &Path, outcome: &Outcome) -> std::io::Result<Vec<report::OutputFile>> {
    std::fs::create_dir_all(dir)?;
    let mut files = Vec::new();
    for (path, bytes) in &outcome.outputs {
        if !path.split('/').all(fog_tasks::core::work::is_file_name) {
            return Err(std::io::Error::other("a path leads out of the folder"));
        }
        let file = dir.join(path);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut new = std::fs::File::create_new(&file)?;
        std::io::Write::write_all(&mut new, bytes)?;
        files.push(report::OutputFile { path: path.clone(), bytes: bytes.len() as u64 });
    }
    Ok(files)
}
