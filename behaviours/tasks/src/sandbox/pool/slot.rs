//! One place for a process: what it has been given, what it knows, and what becomes of both when it ends.

use std::{
    collections::VecDeque,
    process::{Child, ExitStatus},
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use super::{
    BACKOFF, CANCEL, MAX_BACKOFF, RunId, SHORT,
    usage::{self, PoolUse},
};
use crate::{
    core::outcome::{Ending, HostEnd, Outcome},
    sandbox::{
        run::{Cancelled, Job, MAX_MODULES},
        wasi::Bytes,
    },
};

/// Compiled code that a process may keep, in bytes.
const MAX_CODE: u64 = 256 << 20;
/// What a deadline is exceeded by, at least, before the process is killed: it is told first, and ends the run by itself.
const GRACE: Duration = Duration::from_millis(200);

/// What is written to a process.
pub(super) enum Message {
    Module([u8; 32], Bytes),
    Forget([u8; 32]),
    Run { id: RunId, work: Arc<[u8]>, job: Arc<Job> },
    Cancel(RunId, Cancelled),
}

/// What a process does, in the order in which it does it.
pub(super) enum Item {
    Compile([u8; 32]),
    Run(Run),
}

pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) job: Arc<Job>,
    work: Arc<[u8]>,
    /// It has told that it runs.
    pub(super) begun: bool,
    cancelled: bool,
    /// Since when it is to have ended.
    cancelled_at: Option<Duration>,
    /// It was told that its time is over.
    late: bool,
    /// Another process does it: what comes of it here is nothing.
    pub(super) moved: bool,
}

impl Item {
    pub(super) fn run(id: RunId, job: Arc<Job>, work: Arc<[u8]>) -> Self {
        Self::Run(Run { id, job, work, begun: false, cancelled: false, cancelled_at: None, late: false, moved: false })
    }

    /// The id of a run that is not done.
    pub(super) fn id(&self) -> Option<RunId> {
        match self {
            Self::Run(run) if !run.moved => Some(run.id),
            _ => None,
        }
    }

    pub(super) fn is_run(&self, id: RunId) -> bool {
        self.id() == Some(id)
    }

    pub(super) fn module(&self) -> Option<[u8; 32]> {
        match self {
            Self::Run(run) => Some(run.job.work.module.hash),
            Self::Compile(_) => None,
        }
    }

    pub(super) fn cancel(&mut self) {
        if let Self::Run(run) = self {
            run.cancelled = true;
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Run(Run { cancelled: true, .. }))
    }
}

/// Why a process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doom {
    /// A run took too long.
    Deadline,
    /// Compiling took too long.
    Compile,
    /// A run that was cancelled did not end.
    Cancelled,
    /// It said what nobody asked, or did not listen.
    Broken,
    /// Everything that it does is to end.
    All,
}

struct Known {
    hash: [u8; 32],
    size: u64,
}

pub(super) struct Live {
    pub(super) process: Child,
    pub(super) to: SyncSender<Message>,
}

#[derive(Default)]
pub(super) struct Slot {
    live: Option<Live>,
    /// A process is being waited for.
    ending: bool,
    pub(super) items: VecDeque<Item>,
    /// The module that was used last is at the end.
    known: Vec<Known>,
    /// Since when the first item is the first, and the time on a core that the process had had then.
    since: Duration,
    cpu: Duration,
    /// Its last run was short.
    quick: bool,
    doom: Option<Doom>,
    /// It has done something since it was started.
    useful: bool,
    failures: u32,
    retry_at: Duration,
    /// Frozen at the moment.
    frozen: bool,
}

impl Slot {
    pub(super) fn is_live(&self) -> bool {
        self.live.is_some() && self.doom.is_none()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.live.is_none() && !self.ending
    }

    pub(super) fn may_start(&self, now: Duration) -> bool {
        self.is_gone() && now >= self.retry_at
    }

    pub(super) fn has_failed(&self) -> bool {
        self.is_gone() && self.failures > 0
    }

    pub(super) fn knows(&self, module: &[u8; 32]) -> bool {
        self.known.iter().any(|known| known.hash == *module)
    }

    /// Whether what is going on has been short so far, and was the last time.
    pub(super) fn is_quick(&self, now: Duration) -> bool {
        self.quick && matches!(self.items.front(), Some(Item::Run(_))) && now.saturating_sub(self.since) < SHORT
    }

    pub(super) fn began(&mut self, live: Live) {
        self.live = Some(live);
        (self.doom, self.useful, self.quick, self.frozen) = (None, false, false, false);
        self.known.clear();
    }

    pub(super) fn failed(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + (BACKOFF * 2u32.saturating_pow(self.failures.min(16) - 1)).min(MAX_BACKOFF);
    }

    /// Gives it a run, and the module before it if it does not have that.
    pub(super) fn give(&mut self, item: Item, now: Duration) {
        let Item::Run(run) = &item else { return };
        let hash = run.job.work.module.hash;
        if self.items.is_empty() {
            self.since = now;
            self.cpu = Duration::MAX;
        }
        let message = Message::Run { id: run.id, work: Arc::clone(&run.work), job: Arc::clone(&run.job) };
        let module = Arc::clone(&run.job.module);
        match self.known.iter().position(|known| known.hash == hash) {
            Some(at) => {
                let known = self.known.remove(at);
                self.known.push(known);
            }
            None => {
                self.make_room();
                self.known.push(Known { hash, size: 0 });
                self.items.push_back(Item::Compile(hash));
                self.send(Message::Module(hash, module));
            }
        }
        self.items.push_back(item);
        self.send(message);
    }

    fn make_room(&mut self) {
        while self.known.len() >= MAX_MODULES || self.known.iter().map(|known| known.size).sum::<u64>() > MAX_CODE {
            let needed = |hash: [u8; 32]| self.items.iter().any(|item| item.module() == Some(hash));
            let Some(at) = self.known.iter().position(|known| !needed(known.hash)) else { return };
            let Known { hash, .. } = self.known.remove(at);
            self.send(Message::Forget(hash));
        }
    }

    fn send(&mut self, message: Message) {
        let sent = self.live.as_ref().is_some_and(|live| live.to.try_send(message).is_ok());
        if !sent {
            self.kill(Doom::Broken);
        }
    }

    pub(super) fn cancel(&mut self, id: RunId, now: Duration) {
        let Some(at) = self.items.iter().position(|item| item.is_run(id)) else { return };
        if let Some(Item::Run(run)) = self.items.get_mut(at) {
            run.cancelled = true;
            run.cancelled_at.get_or_insert(now);
        }
        self.send(Message::Cancel(id, Cancelled::Killed));
    }

    /// The run that would be done last, to be given to another process.
    pub(super) fn take_last(&mut self) -> Option<Item> {
        if !matches!(self.items.front(), Some(Item::Run(_))) {
            return None;
        }
        let behind = self.items.iter_mut().skip(1).rev();
        let mut runs = behind.filter_map(|item| match item {
            Item::Run(run) if !run.moved && !run.cancelled => Some(run),
            _ => None,
        });
        let run = runs.next()?;
        run.moved = true;
        let (id, copy) = (run.id, Item::run(run.id, Arc::clone(&run.job), Arc::clone(&run.work)));
        self.send(Message::Cancel(id, Cancelled::Killed));
        Some(copy)
    }

    /// Kills the process if what it does takes too long.
    pub(super) fn watch(&mut self, now: Duration, compile: Duration) {
        let passed = now.saturating_sub(self.since);
        let mut late = None;
        let doom = match self.items.front_mut() {
            Some(Item::Compile(_)) => {
                let cpu = self.live.as_ref().map_or(Duration::ZERO, |live| usage::of(live.process.id()).cpu);
                // Seen for the first time since it is the first.
                self.cpu = self.cpu.min(cpu);
                let known = cpu > Duration::ZERO;
                let spent = if known { cpu.saturating_sub(self.cpu) } else { passed };
                if spent <= compile && passed <= compile.saturating_mul(10) {
                    return;
                }
                Doom::Compile
            }
            Some(Item::Run(run))
                if run.cancelled_at.is_some_and(|at| now.saturating_sub(at.max(self.since)) > CANCEL) =>
            {
                Doom::Cancelled
            }
            Some(Item::Run(run)) => {
                let wall = run.job.wall;
                // Until it says that it runs, it is still being given its inputs.
                let staging = if run.begun { Duration::ZERO } else { compile };
                if passed > wall && run.begun && !run.late {
                    run.late = true;
                    late = Some(run.id);
                }
                if passed <= wall.saturating_add((wall / 10).max(GRACE)).saturating_add(staging) {
                    late.into_iter().for_each(|id| self.send(Message::Cancel(id, Cancelled::Deadline)));
                    return;
                }
                Doom::Deadline
            }
            _ => return,
        };
        self.kill(doom);
    }

    pub(super) fn kill(&mut self, doom: Doom) {
        if let Some(live) = &mut self.live {
            self.doom.get_or_insert(doom);
            live.process.kill().ok();
        }
    }

    pub(super) fn freeze(&mut self) -> bool {
        self.frozen = true;
        self.live.as_ref().is_none_or(|live| signal::stop(&live.process))
    }

    pub(super) fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen)
            && let Some(live) = &self.live
        {
            signal::go_on(&live.process);
        }
    }

    /// No more is given to it: when it is idle, it ends.
    pub(super) fn retire(&mut self) {
        if self.items.is_empty() {
            self.kill(Doom::All);
        }
    }

    pub(super) fn usage(&self) -> PoolUse {
        self.live.as_ref().map_or_else(PoolUse::default, |live| usage::of(live.process.id()))
    }

    /// The run that has begun: what it may write, and whether it is done here for nothing. `None` if it is not its turn.
    pub(super) fn begun(&mut self, id: RunId, now: Duration) -> Option<(u64, bool)> {
        match self.items.front_mut() {
            Some(Item::Run(run)) if run.id == id && !run.begun => {
                run.begun = true;
                self.since = now;
                Some((run.job.work.limits.output_bytes, run.moved))
            }
            _ => None,
        }
    }

    /// A run is done; whether that is news, and `None` if it is not its turn.
    pub(super) fn done(&mut self, id: RunId, now: Duration) -> Option<bool> {
        match self.items.front() {
            Some(Item::Run(run)) if run.id == id => {}
            _ => return None,
        }
        let news = self.items.pop_front().is_some_and(|item| item.id().is_some());
        self.quick = now.saturating_sub(self.since) < SHORT;
        (self.since, self.cpu, self.useful, self.failures) = (now, Duration::MAX, true, 0);
        Some(news)
    }

    pub(super) fn compiled(&mut self, hash: [u8; 32], size: u64, now: Duration) -> Option<()> {
        match self.items.front() {
            Some(Item::Compile(awaited)) if *awaited == hash => {}
            _ => return None,
        }
        self.items.pop_front();
        self.known.iter_mut().filter(|known| known.hash == hash).for_each(|known| known.size = size);
        (self.since, self.cpu, self.useful, self.failures) = (now, Duration::MAX, true, 0);
        Some(())
    }

    /// The process is to be waited for; nothing is sent to it any more.
    pub(super) fn take_process(&mut self) -> Option<Child> {
        let live = self.live.take()?;
        self.ending = true;
        Some(live.process)
    }

    /// The process has ended: how its runs end, and which are for another one.
    pub(super) fn ended(&mut self, status: Option<ExitStatus>, now: Duration) -> (Vec<(RunId, Outcome)>, Vec<Item>) {
        self.ending = false;
        let doom = self.doom.take();
        if matches!(doom, None | Some(Doom::Broken)) && !self.useful {
            self.failed(now);
        }
        self.known.clear();
        let mut items = std::mem::take(&mut self.items).into_iter();
        let front = items.next();
        let (module, end) = match &front {
            Some(Item::Compile(hash)) => (Some(*hash), HostEnd::Compile),
            _ => (None, end_of_run(doom, status)),
        };
        let detail = detail(doom, end, status);
        let mut over = Vec::new();
        let mut left = Vec::new();
        let is_run = |item: &Item| matches!(item, Item::Run(_));
        for (at, item) in front.into_iter().chain(items).enumerate().filter(|(_, item)| is_run(item)) {
            let Some(id) = item.id() else { continue };
            // A process whose framing broke while it compiled did not break because of what it compiled.
            let with_module = module.is_some() && module == item.module() && doom != Some(Doom::Broken);
            if doom == Some(Doom::All) || item.is_cancelled() {
                over.push((id, Outcome::ended(Ending::Host(HostEnd::Killed), "")));
            } else if at == 0 || with_module {
                over.push((id, Outcome::ended(Ending::Host(end), detail.clone())));
            } else {
                left.push(item);
            }
        }
        left.iter_mut().for_each(|item| {
            if let Item::Run(run) = item {
                run.begun = false;
            }
        });
        (over, left)
    }
}

fn end_of_run(doom: Option<Doom>, status: Option<ExitStatus>) -> HostEnd {
    match doom {
        Some(Doom::Deadline) => HostEnd::Deadline,
        // What Rust does when memory is refused.
        None if status.is_some_and(signal::is_abort) => HostEnd::NoResources,
        _ => HostEnd::Killed,
    }
}

fn detail(doom: Option<Doom>, end: HostEnd, status: Option<ExitStatus>) -> String {
    match (doom, end) {
        (Some(Doom::Compile), _) => "compiling it took too long".into(),
        (None, HostEnd::Compile) => "compiling it took more than this host gives".into(),
        (None, HostEnd::NoResources) => "it took more memory than this host gives".into(),
        (None, _) => status.map_or_else(String::new, |status| format!("the task process ended: {status}")),
        (Some(Doom::Broken), _) => "the task process did not answer as it should".into(),
        _ => String::new(),
    }
}

#[cfg(unix)]
mod signal {
    use std::{
        os::unix::process::ExitStatusExt,
        process::{Child, ExitStatus},
    };

    use rustix::process::{Pid, Signal, kill_process};

    fn send(process: &Child, signal: Signal) -> bool {
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        // The process is not waited for yet, so the id is still its own.
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    pub(super) fn stop(process: &Child) -> bool {
        send(process, Signal::STOP)
    }

    pub(super) fn go_on(process: &Child) {
        send(process, Signal::CONT);
    }

    pub(super) fn is_abort(status: ExitStatus) -> bool {
        status.signal() == Some(Signal::ABORT.as_raw())
    }
}

#[cfg(not(unix))]
mod signal {
    use std::process::{Child, ExitStatus};

    pub(super) fn stop(_process: &Child) -> bool {
        false
    }

    pub(super) fn go_on(_process: &Child) {}

    pub(super) fn is_abort(_status: ExitStatus) -> bool {
        false
    }
}
