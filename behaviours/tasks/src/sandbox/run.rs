//! One run: a fresh store, `_start`, and what it gave. The process that this is called in is the sandbox's outer wall; here are the
//! meter, the deadline and the limits.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use wasmtime::{Engine, Store, UpdateDeadline};

use super::{
    engine::{Compiled, Compiler, Growth, State, Unfit, cut},
    wasi::{Bytes, Log, Setup, Stop, Wasi},
};
use crate::core::{
    outcome::{Ending, HostEnd, Outcome, Trap},
    work::Work,
};

/// How often a run's deadline is looked at.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Ticks without a run after which the clock rests.
const IDLE_TICKS: u32 = 100;
/// The most modules that are kept compiled.
pub(super) const MAX_MODULES: usize = 64;

/// A run, with everything that it needs.
#[derive(Clone)]
pub struct Job {
    /// What is computed.
    pub work: Work,
    /// The module that the work names.
    pub module: Bytes,
    /// The standard input that it names; empty if none.
    pub stdin: Bytes,
    /// The inputs that it names, in its order.
    pub inputs: Vec<(String, Bytes)>,
    /// How long it may run, without compiling, and in a pool without the time that it is frozen.
    pub wall: Duration,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("module", &self.work.module).field("wall", &self.wall).finish_non_exhaustive()
    }
}

/// A module that was compiled, or why it was not.
type Learned = Result<Arc<Compiled>, Unfit>;

/// Runs modules, one at a time.
pub struct Runner {
    compiler: Compiler,
    /// The one that was used last is at the end.
    modules: VecDeque<([u8; 32], Learned)>,
    ticker: Arc<Ticker>,
    /// The clock's.
    thread: Thread,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("modules", &self.modules.len()).finish_non_exhaustive()
    }
}

/// Why a run is cancelled from outside; the number is what processes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    Killed = 1,
    Deadline = 2,
}

impl Cancelled {
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Killed, Self::Deadline].into_iter().find(|why| *why as u8 == number)
    }

    pub(super) fn ending(self) -> HostEnd {
        match self {
            Self::Killed => HostEnd::Killed,
            Self::Deadline => HostEnd::Deadline,
        }
    }
}

/// The clock of runs, and the flag that ends one.
pub(super) struct Ticker {
    engine: Engine,
    /// Ticks that have passed.
    ticks: AtomicU64,
    running: AtomicBool,
    /// Whether the clock rests, and has to be woken.
    resting: AtomicBool,
    cancelled: AtomicU8,
}

impl Ticker {
    /// Ends the present run within a tick; `why` is a [`Cancelled`].
    pub(super) fn cancel(&self, why: Cancelled) {
        self.cancelled.store(why as u8, Ordering::SeqCst);
    }

    /// Before a run: nobody has cancelled it.
    pub(super) fn prepare(&self) {
        self.cancelled.store(0, Ordering::SeqCst);
    }
}

impl Runner {
    /// Prepares to run; starts the thread of its clock.
    pub fn new() -> Result<Self, String> {
        Self::with_tick(|| ())
    }

    /// Likewise; `on_tick` is called with each tick during runs.
    pub(super) fn with_tick(on_tick: impl Fn() + Send + 'static) -> Result<Self, String> {
        let compiler = Compiler::new().map_err(|error| format!("{error:#}"))?;
        let ticker = Arc::new(Ticker {
            engine: compiler.engine.clone(),
            ticks: AtomicU64::new(0),
            running: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            cancelled: AtomicU8::new(0),
        });
        let weak = Arc::downgrade(&ticker);
        let thread = thread::Builder::new().name("ticks".into()).spawn(move || tick(&weak, on_tick));
        let thread = thread.map_err(|error| error.to_string())?.thread().clone();
        Ok(Self { compiler, modules: VecDeque::new(), ticker, thread })
    }

    pub(super) fn ticker(&self) -> &Arc<Ticker> {
        &self.ticker
    }

    /// Runs `job`; what it writes to its streams is shown to `log` meanwhile, and stands in the outcome too.
    pub fn run(&mut self, job: &Job, log: Log) -> Outcome {
        let Job { work, module, stdin, inputs, wall } = job;
        if !self.knows(&work.module.hash) {
            if !work.module.is(module) {
                return unstaged("module");
            }
            // How large it became is of no interest to who runs here.
            let _ = self.learn(work.module.hash, module);
        }
        self.ticker.prepare();
        self.start(work, Arc::clone(stdin), inputs.clone(), Some(*wall), log)
    }

    pub(super) fn knows(&self, hash: &[u8; 32]) -> bool {
        self.modules.iter().any(|(known, _)| known == hash)
    }

    /// Compiles a module and keeps it, also if it is unfit; how many bytes it takes up.
    pub(super) fn learn(&mut self, hash: [u8; 32], bytes: &[u8]) -> u64 {
        let compiled = self.compiler.compile(bytes).map(Arc::new);
        let size = compiled.as_ref().map_or(0, |compiled| compiled.size);
        self.forget(&hash);
        if self.modules.len() >= MAX_MODULES {
            self.modules.pop_front();
        }
        self.modules.push_back((hash, compiled));
        size
    }

    pub(super) fn forget(&mut self, hash: &[u8; 32]) {
        self.modules.retain(|(known, _)| known != hash);
    }

    /// Runs a work whose module was learned. Without a `wall`, who may cancel it keeps the time.
    pub(super) fn start(
        &mut self,
        work: &Work,
        stdin: Bytes,
        inputs: Vec<(String, Bytes)>,
        wall: Option<Duration>,
        log: Log,
    ) -> Outcome {
        let Some(at) = self.modules.iter().position(|(known, _)| *known == work.module.hash) else {
            return unstaged("module");
        };
        let Some((hash, module)) = self.modules.remove(at) else { return unstaged("module") };
        self.modules.push_back((hash, module.clone()));
        let compiled = match module {
            Ok(compiled) => compiled,
            Err(Unfit { ending, detail }) => return Outcome::ended(ending, detail),
        };
        if work.stdin.map_or(!stdin.is_empty(), |content| !content.is(&stdin)) {
            return unstaged("standard input");
        }
        let fits =
            |(input, (name, bytes)): (&crate::Input, &(String, Bytes))| input.name == *name && input.content.is(bytes);
        if work.inputs.len() != inputs.len() || !work.inputs.iter().zip(&inputs).all(fits) {
            return unstaged("input");
        }
        let limit = work.limits.memory_bytes;
        if compiled.memory_bytes > limit {
            let detail =
                format!("the module needs {} bytes of memory, and its limit is {limit}", compiled.memory_bytes);
            return Outcome::ended(Ending::BadModule, detail);
        }
        let args = std::iter::once("module".to_owned()).chain(work.args.iter().cloned()).collect();
        let (env, seed, output_bytes) = (work.env.clone(), work.seed, work.limits.output_bytes);
        let wasi = Wasi::new(Setup { args, env, stdin, inputs, output_bytes, seed, log });
        self.call(&compiled, wasi, work, wall)
    }

    fn call(&self, compiled: &Compiled, wasi: Wasi, work: &Work, wall: Option<Duration>) -> Outcome {
        let growth = Growth { memory_bytes: work.limits.memory_bytes, host_failed: false };
        let state = State { wasi, memory: None, stop: None, growth, interrupted: None };
        let mut store = Store::new(&self.compiler.engine, state);
        store.limiter(|state| &mut state.growth);
        let fuel = work.limits.fuel;
        let ticker = Arc::clone(&self.ticker);
        let _running = self.running();
        let ticks = wall.and_then(|wall| u64::try_from(wall.as_nanos().div_ceil(TICK.as_nanos())).ok());
        let last = ticker.ticks.load(Ordering::SeqCst).saturating_add(ticks.unwrap_or(u64::MAX));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |mut store| {
            let end = if let Some(why) = Cancelled::of(ticker.cancelled.load(Ordering::SeqCst)) {
                why.ending()
            } else if ticker.ticks.load(Ordering::SeqCst) > last {
                HostEnd::Deadline
            } else {
                return Ok(UpdateDeadline::Continue(1));
            };
            store.data_mut().interrupted = Some(end);
            Err(wasmtime::Trap::Interrupt.into())
        });
        let ended = store
            .set_fuel(fuel)
            .and_then(|()| compiled.start.instantiate(&mut store))
            .and_then(|instance| instance.get_typed_func::<(), ()>(&mut store, "_start"))
            .and_then(|start| start.call(&mut store, ()));
        let left = store.get_fuel().unwrap_or(0);
        let state = store.into_data();
        let (ending, detail) = match ended {
            Ok(()) => (Ending::Exit(0), String::new()),
            Err(error) => ending(&error, &state),
        };
        let fuel = if ending == Ending::OutOfFuel { fuel } else { fuel - left.min(fuel) };
        let written = state.wasi.into_written();
        Outcome { ending, fuel, stdout: written.stdout, stderr: written.stderr, outputs: written.outputs, detail }
    }

    fn running(&self) -> Running<'_> {
        self.ticker.running.store(true, Ordering::SeqCst);
        if self.ticker.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.ticker)
    }
}

/// While it lives, time runs.
struct Running<'a>(&'a Ticker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::SeqCst);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The clock finds its ticker gone.
        self.thread.unpark();
    }
}

fn tick(ticker: &Weak<Ticker>, on_tick: impl Fn()) {
    let mut idle = 0;
    let mut before = Instant::now();
    loop {
        thread::sleep(TICK);
        let Some(ticker) = ticker.upgrade() else { return };
        let now = Instant::now();
        // Part of a tick is kept for the next one.
        let passed = u32::try_from((now - before).as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX);
        before += TICK * passed;
        ticker.ticks.fetch_add(passed.into(), Ordering::SeqCst);
        ticker.engine.increment_epoch();
        idle = if ticker.running.load(Ordering::SeqCst) { 0 } else { idle + 1 };
        on_tick();
        if idle > IDLE_TICKS {
            idle = 0;
            ticker.resting.store(true, Ordering::SeqCst);
            let running = ticker.running.load(Ordering::SeqCst);
            let resting = Arc::downgrade(&ticker);
            drop(ticker);
            if !running && resting.strong_count() > 0 {
                thread::park();
            }
            if let Some(ticker) = resting.upgrade() {
                ticker.resting.store(false, Ordering::SeqCst);
            }
            before = Instant::now();
        }
    }
}

fn ending(error: &wasmtime::Error, state: &State) -> (Ending, String) {
    match state.stop {
        Some(Stop::Exit(code)) => return (Ending::Exit(code), String::new()),
        Some(Stop::OutOfFuel) => return (Ending::OutOfFuel, String::new()),
        Some(Stop::OutputLimit) => return (Ending::OutputLimit, "it wrote more than its limit".into()),
        None => {}
    }
    if let Some(end) = state.interrupted {
        return (Ending::Host(end), String::new());
    }
    if state.growth.host_failed {
        return (Ending::Host(HostEnd::NoResources), "this host has no memory for it".into());
    }
    let Some(trap) = error.downcast_ref::<wasmtime::Trap>() else {
        return (Ending::Host(HostEnd::NoResources), cut(format!("cannot be started here: {error:#}")));
    };
    let ending = match trap {
        wasmtime::Trap::StackOverflow => Ending::Host(HostEnd::StackOverflow),
        wasmtime::Trap::OutOfFuel => Ending::OutOfFuel,
        wasmtime::Trap::Interrupt => Ending::Host(HostEnd::Deadline),
        wasmtime::Trap::UnreachableCodeReached => Ending::Trap(Trap::Unreachable),
        wasmtime::Trap::MemoryOutOfBounds => Ending::Trap(Trap::Memory),
        wasmtime::Trap::TableOutOfBounds | wasmtime::Trap::IndirectCallToNull => Ending::Trap(Trap::Table),
        wasmtime::Trap::BadSignature => Ending::Trap(Trap::Signature),
        wasmtime::Trap::IntegerDivisionByZero => Ending::Trap(Trap::DivisionByZero),
        wasmtime::Trap::IntegerOverflow => Ending::Trap(Trap::IntegerOverflow),
        wasmtime::Trap::BadConversionToInteger => Ending::Trap(Trap::Conversion),
        _ => Ending::Trap(Trap::Other),
    };
    (ending, trap.to_string())
}

/// A run whose bytes are not what its work names: who staged them is at fault, not the module.
fn unstaged(what: &str) -> Outcome {
    Outcome::ended(Ending::Host(HostEnd::Unstaged), format!("the {what} is not what the work names"))
}
