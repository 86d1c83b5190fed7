//! The two threads of a process: one writes what it is given, one reads what it answers.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use super::{
    PoolEvent, RunId, Shared,
    slot::{Doom, Live, Message, Slot},
    usage,
};
use crate::{
    core::{
        outcome::{Ending, HostEnd, Outcome},
        work::is_file_name,
    },
    sandbox::frame::{self, Fields},
};

/// Messages that wait to be written: as many runs as may be ahead, their modules, what is forgotten for those, and cancellations.
const MAX_MESSAGES: usize = 256;
const BUFFER: usize = 64 * 1024;
/// A file's path in a process.
const MAX_PATH: usize = 4096;

/// Starts a process in a slot. To be called by the keeper only: the process dies with the thread that starts it.
pub(super) fn start(shared: &Arc<Shared>, at: usize, slot: &mut Slot, now: Duration) {
    if launch(shared, at, slot).is_err() {
        slot.failed(now);
    }
}

fn launch(shared: &Arc<Shared>, at: usize, slot: &mut Slot) -> io::Result<()> {
    let (program, arguments) = shared.config.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    // What the node was started with is none of its business.
    command.args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn()?;
    let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let (to, messages) = mpsc::sync_channel(MAX_MESSAGES);
    let (memory, nice) = (shared.config.memory_bytes, shared.config.nice);
    slot.began(Live { process, to });
    let shared = Arc::clone(shared);
    let writer = thread::Builder::new().name("task-writer".into()).spawn(move || {
        // Where writing fails the process is gone, which the reader sees.
        write(stdin, memory, nice, &messages).ok();
    });
    let reader = thread::Builder::new().name("task-reader".into()).spawn(move || read(&shared, at, stdout));
    if let Err(error) = writer.and(reader) {
        slot.kill(Doom::All);
        if let Some(mut process) = slot.take_process() {
            process.wait()?;
        }
        slot.ended(None, Duration::ZERO);
        return Err(error);
    }
    Ok(())
}

fn write(stdin: ChildStdin, memory: u64, nice: u8, messages: &Receiver<Message>) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER, stdin);
    frame::write(&mut to, frame::SETUP, &[&memory.to_le_bytes(), &[nice]])?;
    to.flush()?;
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            write_message(&mut to, message)?;
            next = messages.try_recv().ok();
        }
        to.flush()?;
    }
    Ok(())
}

fn write_message(to: &mut impl Write, message: Message) -> io::Result<()> {
    match message {
        Message::Module(hash, bytes) => {
            frame::write(to, frame::MODULE, &[&hash, &(bytes.len() as u64).to_le_bytes()])?;
            frame::write_data(to, &bytes)
        }
        Message::Forget(hash) => frame::write(to, frame::FORGET, &[&hash]),
        Message::Cancel(RunId(id), why) => frame::write(to, frame::CANCEL, &[&id.to_le_bytes(), &[why as u8]]),
        Message::Run { id: RunId(id), work, job } => {
            frame::write(to, frame::RUN, &[&id.to_le_bytes(), &work])?;
            // The process reads as many bytes as the work says. Others must not go out of step.
            let stdin = job.work.stdin.map(|content| (content.size, &job.stdin));
            let inputs = job.work.inputs.iter().zip(&job.inputs).map(|(input, (_, bytes))| (input.content.size, bytes));
            for (size, bytes) in stdin.into_iter().chain(inputs) {
                if bytes.len() as u64 != size {
                    return Err(frame::malformed());
                }
                frame::write_data(to, bytes)?;
            }
            Ok(())
        }
    }
}

/// What a run has given so far.
struct Current {
    id: RunId,
    limit: u64,
    /// It is done elsewhere.
    moved: bool,
    outcome: Outcome,
}

fn read(shared: &Arc<Shared>, at: usize, stdout: ChildStdout) {
    let mut from = BufReader::with_capacity(BUFFER, stdout);
    let mut reader = Reader { shared, at, ready: false, current: None, frame: Vec::new() };
    let broken = loop {
        match reader.step(&mut from) {
            Ok(true) => {}
            Ok(false) => break false,
            Err(error) => break error.kind() == io::ErrorKind::InvalidData,
        }
    };
    reader.end(broken);
}

struct Reader<'a> {
    shared: &'a Arc<Shared>,
    at: usize,
    ready: bool,
    current: Option<Current>,
    frame: Vec<u8>,
}

impl Reader<'_> {
    /// Reads one answer; `false` at the end. What does not belong here is an error, after which nothing is read.
    fn step(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut payload = std::mem::take(&mut self.frame);
        let Some(kind) = frame::read(from, &mut payload)? else { return Ok(false) };
        let mut fields = Fields(&payload);
        match kind {
            frame::READY if !self.ready => {
                self.ready = true;
                if fields.u8()? == 0 {
                    self.shared.unsealed.store(true, Ordering::Relaxed);
                }
            }
            _ if !self.ready => return Err(frame::malformed()),
            frame::COMPILED => {
                let (hash, size) = (fields.array()?, fields.u64()?);
                self.with_slot(|slot, now| slot.compiled(hash, size, now))?;
            }
            frame::BEGUN => {
                let id = RunId(fields.u64()?);
                let (limit, moved) = self.with_slot(|slot, now| slot.begun(id, now))?;
                let outcome = Outcome::ended(Ending::Host(HostEnd::Killed), "");
                self.current = Some(Current { id, limit, moved, outcome });
                if !moved {
                    self.shared.tell(PoolEvent::Started(id));
                }
            }
            frame::LOG => self.log(fields)?,
            frame::FILE => {
                let mut next = Vec::new();
                self.file(fields, from, &mut next)?;
            }
            frame::DONE => self.done(fields)?,
            _ => return Err(frame::malformed()),
        }
        self.frame = payload;
        Ok(true)
    }

    fn current(&mut self, id: u64) -> io::Result<&mut Current> {
        self.current.as_mut().filter(|current| current.id == RunId(id)).ok_or_else(frame::malformed)
    }

    fn log(&mut self, mut fields: Fields<'_>) -> io::Result<()> {
        let (id, stream) = (fields.u64()?, fields.u8()?);
        let current = self.current(id)?;
        let (stderr, sink) = match stream {
            1 => (false, &mut current.outcome.stdout),
            2 => (true, &mut current.outcome.stderr),
            _ => return Err(frame::malformed()),
        };
        if fields.0.is_empty() || (sink.len() + fields.0.len()) as u64 > current.limit {
            return Err(frame::malformed());
        }
        sink.extend_from_slice(fields.0);
        if !current.moved {
            self.shared.tell(PoolEvent::Log { run: RunId(id), stderr, bytes: fields.0.to_vec() });
        }
        Ok(())
    }

    fn file(&mut self, mut fields: Fields<'_>, from: &mut impl Read, next: &mut Vec<u8>) -> io::Result<()> {
        let (id, size, path) = (fields.u64()?, fields.u64()?, fields.text()?);
        let current = self.current(id)?;
        let written: u64 = current.outcome.outputs.values().map(|bytes| bytes.len() as u64).sum();
        let fits = written.checked_add(size).is_some_and(|sum| sum <= current.limit);
        let is_path = path.len() <= MAX_PATH && path.split('/').all(is_file_name);
        if !fits || current.outcome.outputs.len() >= 4096 || !is_path {
            return Err(frame::malformed());
        }
        let bytes = frame::read_data(from, size, next)?;
        current.outcome.outputs.insert(path, bytes);
        Ok(())
    }

    fn done(&mut self, mut fields: Fields<'_>) -> io::Result<()> {
        let id = fields.u64()?;
        let (kind, code, fuel) = (fields.u8()?, fields.u32()?, fields.u64()?);
        let ending = Ending::of(kind, code).ok_or_else(frame::malformed)?;
        let detail = fields.text()?;
        let given = self.current.take().filter(|current| current.id == RunId(id)).map(|current| current.outcome);
        let given = given.unwrap_or_else(|| Outcome::ended(ending, ""));
        let outcome = Outcome { ending, fuel, detail, ..given };
        let news = self.with_slot(|slot, now| slot.done(RunId(id), now))?;
        if news {
            self.shared.tell(PoolEvent::Done { run: RunId(id), outcome });
        }
        Ok(())
    }

    /// `None` of `change` is an answer that nobody waits for.
    fn with_slot<T>(&self, change: impl FnOnce(&mut Slot, Duration) -> Option<T>) -> io::Result<T> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let now = state.clock.now();
        let changed = state.slots.get_mut(self.at).and_then(|slot| change(slot, now));
        if !state.stranded.is_empty() || self.at >= state.wanted {
            self.shared.wake.notify_all();
        }
        changed.ok_or_else(frame::malformed)
    }

    /// The process has ended, or is to: waits for it, and sees to its runs.
    fn end(mut self, broken: bool) {
        let mut state = self.shared.lock();
        let Some(slot) = state.slots.get_mut(self.at) else { return };
        if broken {
            slot.kill(Doom::Broken);
        }
        let Some(mut process) = slot.take_process() else { return };
        // Known until it is waited for.
        state.past_cpu += usage::of(process.id()).cpu;
        drop(state);
        process.kill().ok();
        let status = process.wait().ok();
        let mut state = self.shared.lock();
        let now = state.clock.now();
        let Some(slot) = state.slots.get_mut(self.at) else { return };
        let (over, left) = slot.ended(status, now);
        state.stranded.extend(left);
        let closed = state.closed;
        drop(state);
        self.shared.wake.notify_all();
        for (run, outcome) in over.into_iter().filter(|_| !closed) {
            let begun = self.current.take_if(|current| current.id == run).map(|current| current.outcome);
            // What it wrote before is known, and worth showing.
            let begun = begun.unwrap_or_else(|| Outcome::ended(outcome.ending, ""));
            let outcome = Outcome { stdout: begun.stdout, stderr: begun.stderr, ..outcome };
            self.shared.tell(PoolEvent::Done { run, outcome });
        }
    }
}
