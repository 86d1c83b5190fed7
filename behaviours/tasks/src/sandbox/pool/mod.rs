//! The parent's side of task processes: starts them, gives them runs, watches their deadlines, stops and replaces them.
//!
//! Threads, not tasks: a process has one that writes to it and one that reads from it, and the pool has a keeper, which starts processes
//! (they die with the thread that started them, so that must be one that lives as long as the pool) and looks at deadlines.
//! No call waits for a process.

mod link;
mod slot;
mod usage;

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::slot::{Doom, Item, Slot};
pub use self::usage::PoolUse;
use super::run::Job;
use crate::core::outcome::{Ending, HostEnd, Outcome};

/// How often deadlines are looked at.
const WATCH: Duration = Duration::from_millis(20);
/// How long a process may take to heed a cancellation before it is killed.
const CANCEL: Duration = Duration::from_secs(1);
/// Runs that a process may have, the present one among them, while its runs are short.
const AHEAD: usize = 32;
/// A run that takes longer is not short: nothing waits behind it.
const SHORT: Duration = Duration::from_millis(5);
/// How long a process that could not be started, or died without doing anything, is not tried again; doubled each time.
const BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What a caller names a run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// How processes are started and limited.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The command whose body is [`serve`](super::serve), with its arguments.
    pub command: Vec<OsString>,
    /// How many processes, and so runs at a time.
    pub slots: usize,
    /// Bytes of private memory that each may have: modules, compiling and running them, and what they read and write.
    pub memory_bytes: u64,
    /// How long compiling one module may take: time on a core where that is known (Linux), and ten times as much altogether.
    pub compile: Duration,
    /// How far behind everyone else they stand: 19 is furthest.
    pub nice: u8,
}

impl PoolConfig {
    /// `slots` processes of `command`, with 1 GiB, 20 s of compiling and the lowest priority each.
    pub fn new(command: Vec<OsString>, slots: usize) -> Self {
        Self { command, slots, memory_bytes: 1 << 30, compile: Duration::from_secs(20), nice: 19 }
    }
}

/// What a pool tells. Each run that was accepted is `Done` exactly once, and nothing of it comes later.
#[derive(Debug)]
pub enum PoolEvent {
    /// It is running: the module is compiled, and its time runs.
    Started(RunId),
    /// It wrote to a stream.
    Log {
        /// The run.
        run: RunId,
        /// Standard error, not standard output.
        stderr: bool,
        /// What it wrote; it comes with the outcome again.
        bytes: Vec<u8>,
    },
    /// It ended.
    Done {
        /// The run.
        run: RunId,
        /// What it gave.
        outcome: Outcome,
    },
}

/// Why a run was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Every process has work.
    #[error("every task process has work")]
    Full,
    /// Processes are frozen.
    #[error("task processes are frozen")]
    Frozen,
    /// A run with this id is not done yet.
    #[error("a run with this id is not done yet")]
    Known,
    /// The work's description is refused.
    #[error("the work is refused: {0}")]
    Work(crate::core::work::WorkError),
}

type Events = dyn Fn(PoolEvent) + Send + Sync;

/// Task processes, and the runs that they have.
pub struct Pool {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("slots", &self.shared.lock().slots.len()).finish_non_exhaustive()
    }
}

struct Shared {
    config: PoolConfig,
    events: Box<Events>,
    state: Mutex<State>,
    /// A process could not be held to the calls of the system that a run needs.
    unsealed: AtomicBool,
    /// The keeper has something to do.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// How many slots there are to be.
    wanted: usize,
    /// Runs whose process died before it began them.
    stranded: VecDeque<Item>,
    clock: Clock,
    closed: bool,
    /// The keeper has looked once, so there are processes.
    begun: bool,
    /// The keeper sleeps long, as there is nothing to watch.
    resting: bool,
    /// Of processes that ended.
    past_cpu: Duration,
}

/// The time in which processes were not frozen: `Instant` (on Linux `CLOCK_MONOTONIC`, which stands still while the host sleeps) less
/// what passed between a freeze and its thaw. Deadlines are of this clock.
#[derive(Default)]
struct Clock {
    frozen: Duration,
    since: Option<Instant>,
    begin: Option<Instant>,
}

impl Clock {
    fn now(&self) -> Duration {
        let Some(begin) = self.begin else { return Duration::ZERO };
        self.since.unwrap_or_else(Instant::now).duration_since(begin).saturating_sub(self.frozen)
    }

    fn freeze(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn thaw(&mut self) {
        self.frozen += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: PoolEvent) {
        (self.events)(event);
    }
}

impl Pool {
    /// Starts the processes. `events` is called by the pool's own threads, one event of a run after the other; while it does not
    /// return, the process that the event is of is not read from. It may call the pool.
    pub fn new(config: PoolConfig, events: impl Fn(PoolEvent) + Send + Sync + 'static) -> io::Result<Self> {
        let wanted = config.slots;
        let clock = Clock { begin: Some(Instant::now()), ..Clock::default() };
        let state = Mutex::new(State { wanted, clock, ..State::default() });
        let shared = Arc::new(Shared {
            config,
            events: Box::new(events),
            state,
            unsealed: AtomicBool::new(false),
            wake: Condvar::new(),
        });
        let kept = Arc::clone(&shared);
        let keeper = thread::Builder::new().name("task-keeper".into()).spawn(move || keep(&kept))?;
        let pool = Self { shared, keeper: Some(keeper) };
        let mut state = pool.shared.lock();
        while !state.begun {
            state = pool.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Ok(pool)
    }

    /// Gives a run to a process: an idle one, best one that has its module compiled; or one whose runs are short, behind them.
    pub fn start(&self, id: RunId, job: Job) -> Result<(), Busy> {
        let work = job.work.encode().map_err(Busy::Work)?;
        let mut state = self.shared.lock();
        if state.clock.since.is_some() {
            return Err(Busy::Frozen);
        }
        let known = state.slots.iter().flat_map(|slot| &slot.items).chain(&state.stranded).any(|item| item.is_run(id));
        if known {
            return Err(Busy::Known);
        }
        let at = state.place_for(&job.work.module.hash).ok_or(Busy::Full)?;
        let now = state.clock.now();
        if let Some(slot) = state.slots.get_mut(at) {
            slot.give(Item::run(id, Arc::new(job), work.into()), now);
        }
        if state.resting {
            self.shared.wake.notify_all();
        }
        Ok(())
    }

    /// Ends a run as [`HostEnd::Killed`]; it is `Done` soon after. Of a run that is not known nothing comes.
    pub fn cancel(&self, id: RunId) {
        let mut state = self.shared.lock();
        let now = state.clock.now();
        state.stranded.iter_mut().filter(|item| item.is_run(id)).for_each(Item::cancel);
        state.slots.iter_mut().for_each(|slot| slot.cancel(id, now));
        self.shared.wake.notify_all();
    }

    /// Stops every process where it is (SIGSTOP): when this returns, none of them gets a core any more. Their time stands still.
    /// Without such signals (not Unix) it does what [`kill_all`](Self::kill_all) does.
    pub fn freeze(&self) {
        let mut state = self.shared.lock();
        state.clock.freeze();
        let stopped = state.slots.iter_mut().all(Slot::freeze);
        drop(state);
        if !stopped {
            self.kill_all();
        }
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        let mut state = self.shared.lock();
        state.clock.thaw();
        state.slots.iter_mut().for_each(Slot::thaw);
        self.shared.wake.notify_all();
    }

    /// Kills every process; runs end as [`HostEnd::Killed`]. New processes take their places.
    pub fn kill_all(&self) {
        let mut state = self.shared.lock();
        state.slots.iter_mut().for_each(|slot| slot.kill(Doom::All));
        state.stranded.iter_mut().for_each(Item::cancel);
        self.shared.wake.notify_all();
    }

    /// How many processes there are from now on. Those that are too many finish their runs first.
    pub fn set_slots(&self, slots: usize) {
        self.shared.lock().wanted = slots;
        self.shared.wake.notify_all();
    }

    /// Runs that are not done.
    pub fn runs(&self) -> usize {
        let state = self.shared.lock();
        let items = state.slots.iter().flat_map(|slot| &slot.items).chain(&state.stranded);
        items.filter(|item| item.id().is_some()).count()
    }

    /// Whether this system could not hold a process to the calls that a run needs: then code that got out of a module has the rights of this
    /// process's user.
    pub fn is_unsealed(&self) -> bool {
        self.shared.unsealed.load(Ordering::Relaxed)
    }

    /// What the processes use, for who subtracts it from the load of the host.
    pub fn usage(&self) -> PoolUse {
        let state = self.shared.lock();
        state.slots.iter().fold(PoolUse { cpu: state.past_cpu, ..PoolUse::default() }, |sum, slot| sum + slot.usage())
    }
}

impl Drop for Pool {
    /// Kills the processes. Runs that were not done are not reported.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.slots.iter_mut().for_each(|slot| slot.kill(Doom::All));
        drop(state);
        self.shared.wake.notify_all();
        // An event that holds the last handle is told by the keeper itself.
        let keeper = self.keeper.take().filter(|keeper| keeper.thread().id() != thread::current().id());
        if let Some(keeper) = keeper {
            keeper.join().ok();
        }
    }
}

impl State {
    /// Which slot takes a run of this module, if any.
    fn place_for(&self, module: &[u8; 32]) -> Option<usize> {
        let now = self.clock.now();
        let rank = |slot: &Slot| {
            let knows = slot.knows(module);
            match slot.items.len() {
                0 => Some((0, !knows, 0)),
                // A module that is compiled first would hold up what is short.
                waiting if knows && waiting < AHEAD && slot.is_quick(now) => Some((1, false, waiting)),
                _ => None,
            }
        };
        let live = self.slots.iter().enumerate().take(self.wanted).filter(|(_, slot)| slot.is_live());
        live.filter_map(|(at, slot)| Some((rank(slot)?, at))).min().map(|(_, at)| at)
    }
}

/// The keeper's life.
fn keep(shared: &Arc<Shared>) {
    let mut state = shared.lock();
    while !state.closed {
        let ended = tend(shared, &mut state);
        if !state.begun {
            state.begun = true;
            shared.wake.notify_all();
        }
        if !ended.is_empty() {
            drop(state);
            for (run, outcome) in ended {
                shared.tell(PoolEvent::Done { run, outcome });
            }
            state = shared.lock();
            continue;
        }
        let idle = state.clock.since.is_some() || state.slots.iter().all(Slot::is_idle);
        let idle = idle && state.stranded.is_empty();
        // An idle pool is woken by whoever gives it something; a second is for what nobody tells.
        let wait = if idle { Duration::from_secs(1) } else { WATCH };
        state.resting = idle;
        state = shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        state.resting = false;
    }
}

/// Starts what is missing, retires what is too much, kills what is late; runs that ended without a process.
fn tend(shared: &Arc<Shared>, state: &mut State) -> Vec<(RunId, Outcome)> {
    let mut ended = Vec::new();
    let killed = |item: &Item| item.is_cancelled();
    let cancelled: Vec<_> = state.stranded.iter().filter(|item| killed(item)).filter_map(Item::id).collect();
    state.stranded.retain(|item| !killed(item));
    ended.extend(cancelled.into_iter().map(|id| (id, Outcome::ended(Ending::Host(HostEnd::Killed), ""))));
    if state.clock.since.is_some() {
        return ended;
    }
    while state.slots.len() < state.wanted {
        state.slots.push(Slot::default());
    }
    let (now, wanted) = (state.clock.now(), state.wanted);
    for (at, slot) in state.slots.iter_mut().enumerate() {
        slot.watch(now, shared.config.compile);
        if at >= wanted {
            slot.retire();
        } else if slot.may_start(now) {
            link::start(shared, at, slot, now);
        }
    }
    while state.slots.len() > wanted && state.slots.last().is_some_and(Slot::is_gone) {
        state.slots.pop();
    }
    while let Some(item) = state.stranded.pop_front() {
        let Some(at) = item.module().and_then(|module| state.place_for(&module)) else {
            state.stranded.push_front(item);
            break;
        };
        if let Some(slot) = state.slots.get_mut(at) {
            slot.give(item, now);
        }
    }
    // Without a process that could be started they would wait for ever.
    let hopeless = state.slots.iter().take(wanted).all(|slot| slot.has_failed());
    if hopeless && !state.stranded.is_empty() {
        let outcome = || Outcome::ended(Ending::Host(HostEnd::NoResources), "task processes do not work here");
        ended.extend(state.stranded.drain(..).filter_map(|item| Some((item.id()?, outcome()))));
    }
    spread(state, now);
    ended
}

/// Takes what waits behind a run that turned out long to processes that are idle.
fn spread(state: &mut State, now: Duration) {
    let mut idle = state.slots.iter().take(state.wanted).filter(|slot| slot.is_live() && slot.is_idle()).count();
    let mut moved = Vec::new();
    for slot in &mut state.slots {
        while idle > 0 && !slot.is_quick(now) {
            let Some(item) = slot.take_last() else { break };
            idle -= 1;
            moved.push(item);
        }
    }
    for item in moved {
        let at = state.slots.iter().take(state.wanted).position(|slot| slot.is_live() && slot.is_idle());
        match at.and_then(|at| state.slots.get_mut(at)) {
            Some(slot) => slot.give(item, now),
            None => state.stranded.push_back(item),
        }
    }
}
