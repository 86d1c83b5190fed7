//! A task process: reads runs from its parent, does them one after the other, and answers. It trusts neither the modules nor its own
//! ability to survive them: what it cannot do it dies of, and the parent starts another one.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Read, Write},
    process::ExitCode,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    confine,
    frame::{self, Fields, MAX_FRAME},
    run::{Cancelled, Runner, Ticker},
    wasi::{Bytes, Log, Stream},
};
use crate::core::{
    outcome::{Ending, Outcome},
    work::{MAX_MODULE, Work},
};

/// The most tasks that wait in the process. A parent that sends more has lost its way.
const MAX_WAITING: usize = 64;
/// Stack of the thread that runs modules; a module's own calls may take a mebibyte of it.
const STACK: usize = 8 << 20;
/// What is gathered before it is written: results at once, logs by the tick.
const BUFFER: usize = 64 * 1024;
/// How long results are held back at most while the next run is there already.
const HOLD: Duration = Duration::from_micros(500);

/// What is to be done, in order.
enum Task {
    Learn([u8; 32], Vec<u8>),
    Forget([u8; 32]),
    Run(Box<Run>),
}

struct Run {
    id: u64,
    work: Work,
    stdin: Bytes,
    inputs: Vec<(String, Bytes)>,
    cancelled: Option<Cancelled>,
}

#[derive(Default)]
struct Inbox {
    tasks: VecDeque<Task>,
    /// The run that is going on.
    current: Option<u64>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

struct Outbox<W> {
    to: W,
    buffer: Vec<u8>,
    written: Instant,
}

impl<W: Write> Outbox<W> {
    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        frame::write(&mut self.buffer, kind, parts)?;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(MAX_FRAME).try_for_each(|piece| self.frame(frame::DATA, &[piece]))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        self.written = Instant::now();
        self.to.flush()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of the hidden command `fog task-process`: confines this process, then serves runs until `stdin` ends or is malformed.
/// To be called with the process's standard input and output, of which nothing else may make use, and before other threads are
/// started; the process is to exit with the code that this returns.
pub fn serve(stdin: impl Read, stdout: impl Write + Send + 'static) -> ExitCode {
    confine::begin();
    let mut stdin = BufReader::with_capacity(BUFFER, stdin);
    match session(&mut stdin, stdout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn session(stdin: &mut impl Read, stdout: impl Write + Send + 'static) -> io::Result<()> {
    let mut payload = Vec::new();
    if frame::read(stdin, &mut payload)? != Some(frame::SETUP) {
        return Err(frame::malformed());
    }
    let mut fields = Fields(&payload);
    confine::resources(fields.u64()?, fields.u8()?);
    let outbox =
        Arc::new(Mutex::new(Outbox { to: stdout, buffer: Vec::with_capacity(2 * BUFFER), written: Instant::now() }));
    let ticked = Arc::clone(&outbox);
    let runner = Runner::with_tick(move || {
        // Whoever holds it writes anyway.
        if let Ok(mut outbox) = ticked.try_lock() {
            outbox.flush().ok();
        }
    });
    let runner = runner.map_err(io::Error::other)?;
    let ticker = Arc::clone(runner.ticker());
    let shared = Arc::new(Shared::default());
    let (worker, answers) = (Arc::clone(&shared), Arc::clone(&outbox));
    thread::Builder::new().name("runs".into()).stack_size(STACK).spawn(move || {
        let _alive = Alive;
        work(runner, &worker, &answers);
    })?;
    let is_sealed = confine::seal();
    let mut outbox = lock(&outbox);
    outbox.frame(frame::READY, &[&[is_sealed.into()]]).and_then(|()| outbox.flush())?;
    drop(outbox);
    receive(stdin, &shared, &ticker, &mut payload)
}

/// The thread that runs is the process: without it nothing would be answered.
struct Alive;

impl Drop for Alive {
    fn drop(&mut self) {
        std::process::exit(1);
    }
}

fn receive(stdin: &mut impl Read, shared: &Shared, ticker: &Ticker, payload: &mut Vec<u8>) -> io::Result<()> {
    while let Some(kind) = frame::read(stdin, payload)? {
        let mut fields = Fields(payload);
        let task = match kind {
            frame::MODULE => {
                let (hash, size) = (fields.array()?, fields.u64()?);
                if size > MAX_MODULE {
                    return Err(frame::malformed());
                }
                Task::Learn(hash, frame::read_data(stdin, size, payload)?)
            }
            frame::FORGET => Task::Forget(fields.array()?),
            frame::RUN => {
                let id = fields.u64()?;
                let work = Work::decode(fields.0).map_err(|_| frame::malformed())?;
                let size = work.stdin.map_or(0, |content| content.size);
                let stdin_bytes = Arc::new(frame::read_data(stdin, size, payload)?);
                let mut inputs = Vec::with_capacity(work.inputs.len());
                for input in &work.inputs {
                    let bytes = frame::read_data(stdin, input.content.size, payload)?;
                    inputs.push((input.name.clone(), Arc::new(bytes)));
                }
                Task::Run(Box::new(Run { id, work, stdin: stdin_bytes, inputs, cancelled: None }))
            }
            frame::CANCEL => {
                let (id, why) = (fields.u64()?, fields.u8()?);
                let why = Cancelled::of(why).ok_or_else(frame::malformed)?;
                cancel(&mut lock(&shared.inbox), ticker, id, why);
                continue;
            }
            _ => return Err(frame::malformed()),
        };
        let mut inbox = lock(&shared.inbox);
        if inbox.tasks.len() >= MAX_WAITING {
            return Err(frame::malformed());
        }
        inbox.tasks.push_back(task);
        drop(inbox);
        shared.arrived.notify_one();
    }
    Ok(())
}

fn cancel(inbox: &mut Inbox, ticker: &Ticker, id: u64, why: Cancelled) {
    if inbox.current == Some(id) {
        ticker.cancel(why);
    }
    for task in &mut inbox.tasks {
        if let Task::Run(run) = task {
            run.cancelled = run.cancelled.or((run.id == id).then_some(why));
        }
    }
}

/// Does the tasks until writing fails, which is when the parent is gone.
fn work<W: Write + Send + 'static>(mut runner: Runner, shared: &Shared, outbox: &Arc<Mutex<Outbox<W>>>) {
    loop {
        let mut inbox = lock(&shared.inbox);
        let task = loop {
            match inbox.tasks.pop_front() {
                Some(task) => break task,
                None => inbox = shared.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            }
        };
        if let Task::Run(run) = &task {
            inbox.current = Some(run.id);
            runner.ticker().prepare();
        }
        let more = !inbox.tasks.is_empty();
        drop(inbox);
        let done = match task {
            Task::Forget(hash) => {
                runner.forget(&hash);
                Ok(())
            }
            Task::Learn(hash, bytes) => {
                let size = runner.learn(hash, &bytes);
                let mut outbox = lock(outbox);
                outbox.frame(frame::COMPILED, &[&hash, &size.to_le_bytes()]).and_then(|()| outbox.flush())
            }
            Task::Run(run) => perform(&mut runner, *run, outbox, more),
        };
        lock(&shared.inbox).current = None;
        if done.is_err() {
            return;
        }
    }
}

fn perform<W: Write + Send + 'static>(
    runner: &mut Runner,
    run: Run,
    outbox: &Arc<Mutex<Outbox<W>>>,
    more: bool,
) -> io::Result<()> {
    let Run { id, work, stdin, inputs, cancelled } = run;
    let outcome = if let Some(why) = cancelled {
        Outcome::ended(Ending::Host(why.ending()), "")
    } else {
        lock(outbox).frame(frame::BEGUN, &[&id.to_le_bytes()])?;
        let log_to = Arc::clone(outbox);
        let log: Log = Arc::new(move |stream, bytes| {
            let mut outbox = lock(&log_to);
            for piece in bytes.chunks(BUFFER) {
                let stream = if stream == Stream::Out { 1 } else { 2 };
                // Who reads no logs reads no result either.
                outbox.frame(frame::LOG, &[&id.to_le_bytes(), &[stream], piece]).ok();
            }
        });
        runner.start(&work, stdin, inputs, None, log)
    };
    let mut outbox = lock(outbox);
    for (path, bytes) in &outcome.outputs {
        outbox.frame(frame::FILE, &[&id.to_le_bytes(), &(bytes.len() as u64).to_le_bytes(), path.as_bytes()])?;
        outbox.data(bytes)?;
    }
    let (kind, code) = outcome.ending.code();
    let (code, fuel) = (code.to_le_bytes(), outcome.fuel.to_le_bytes());
    outbox.frame(frame::DONE, &[&id.to_le_bytes(), &[kind], &code, &fuel, outcome.detail.as_bytes()])?;
    if more && outbox.written.elapsed() < HOLD { Ok(()) } else { outbox.flush() }
}
