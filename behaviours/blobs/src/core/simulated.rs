//! A download, a disk, and sources that lie, stall, refuse, leave and return, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::{
    bitmap::Bitmap,
    blob::{GROUP_BYTES, PIECE_GROUPS},
    download::{Config, Counts, Download, Output, Report},
    reject::Reject,
    slice::Steps,
    testing::{Content, start},
};
use crate::wire::{Ending, FromSource, Holding, RequestId, ToSource};

/// How a source behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Conduct {
    Honest,
    /// One bit of one step in so many is wrong.
    Lies(u32),
    /// Sends nothing more after so many steps.
    Stalls(u32),
    /// Refuses every other request.
    Busy,
    /// Says that it has everything, and has nothing.
    Empty,
    /// Leaves after so many steps, and returns after so many seconds.
    Leaves(u32, u64),
    /// Never says what it has.
    Silent,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) conduct: Conduct,
    /// Bytes a second.
    pub(crate) rate: f64,
    pub(crate) delay: Duration,
    pub(crate) pieces: Bitmap,
    pub(crate) joins: Duration,
}

#[derive(Debug)]
struct Server {
    plan: Plan,
    is_there: bool,
    /// Of the stream: what was on its way when it broke does not arrive.
    stream: u32,
    jobs: Vec<(RequestId, std::iter::Peekable<Steps>, u64)>,
    is_ticking: bool,
    sent: u32,
    asked: u32,
}

#[derive(Debug)]
enum Event {
    Join,
    Leave,
    Ask(ToSource),
    Answer(FromSource),
    Tick,
    Written(u64, bool),
    Resume,
}

pub(crate) struct World {
    pub(crate) content: Content,
    pub(crate) config: Config,
    start: Instant,
    pub(crate) at: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, u8, u32)>>,
    events: BTreeMap<u64, Event>,
    number: u64,
    servers: Vec<Server>,
    pub(crate) download: Download,
    rng: ChaCha20Rng,
    /// Groups that are on the disk, and those of which the bitmap on the disk says so.
    written: Bitmap,
    saved: Bitmap,
    at_start: u64,
    disk: Vec<u8>,
    pub(crate) reports: Vec<Report>,
    pub(crate) rejects: BTreeSet<(u8, Reject)>,
    pub(crate) write_failures: u32,
    is_done: bool,
    tag: u32,
    events_left: u64,
    most_ahead: u64,
}

/// The node with this number.
pub(crate) fn id(at: u8) -> NodeId {
    NodeId([at; 32])
}

impl World {
    pub(crate) fn new(content: Content, plans: Vec<Plan>, config: Config, seed: u64) -> Self {
        let (now, blob) = (start(), content.blob);
        let have = Bitmap::new(blob.groups());
        let mut world = Self {
            disk: vec![0; content.bytes.len()],
            download: Download::new(blob, have.clone(), 0, seed, config.clone(), now).unwrap(),
            written: have.clone(),
            saved: have,
            at_start: blob.groups(),
            content,
            config,
            start: now.mono,
            at: Duration::ZERO,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            servers: Vec::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            reports: Vec::new(),
            rejects: BTreeSet::new(),
            write_failures: 0,
            is_done: false,
            tag: 0,
            events_left: 3_000_000,
            most_ahead: 0,
        };
        for (at, plan) in (0u8..).zip(plans) {
            world.put(plan.joins, at, 0, Event::Join);
            let (is_there, jobs) = (false, Vec::new());
            world.servers.push(Server { plan, is_there, stream: 0, jobs, is_ticking: false, sent: 0, asked: 0 });
        }
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.start + self.at, unix: UnixMillis(self.at.as_millis() as u64) }
    }

    fn put(&mut self, at: Duration, peer: u8, stream: u32, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number, peer, stream)));
        self.events.insert(self.number, event);
    }

    /// Runs until it is done, or `limit` of virtual time passed, or `events` happened. Says whether it is done.
    pub(crate) fn run(&mut self, limit: Duration, events: u64) -> bool {
        for _ in 0..events {
            self.drain();
            if self.is_done {
                return true;
            }
            let timer = self.download.poll_timeout().map(|at| at.saturating_duration_since(self.start));
            let next = self.queue.peek().map(|Reverse((at, ..))| *at);
            let at = [timer, next].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at <= limit) else { return false };
            self.events_left = self.events_left.checked_sub(1).expect("it goes on for ever");
            self.at = self.at.max(at);
            if timer.is_some_and(|timer| timer <= at) {
                self.download.handle_timeout(self.now());
                continue;
            }
            let Reverse((_, number, peer, stream)) = self.queue.pop().unwrap();
            let event = self.events.remove(&number).unwrap();
            self.happen(peer, stream, event);
        }
        false
    }

    fn happen(&mut self, at: u8, stream: u32, event: Event) {
        let now = self.now();
        match event {
            Event::Written(group, is_ok) => {
                if is_ok {
                    self.written.set(group);
                }
                self.download.handle_written(group, is_ok, now);
                if !is_ok {
                    self.put(self.at + Duration::from_secs(1), 0, 0, Event::Resume);
                }
                return;
            }
            Event::Resume => return self.download.resume(now),
            Event::Join => {
                let server = &mut self.servers[at as usize];
                server.is_there = true;
                let _banned = self.download.handle_source(id(at), now);
                return;
            }
            _ => {}
        }
        let server = &mut self.servers[at as usize];
        if server.stream != stream {
            return;
        }
        match event {
            Event::Leave => {
                server.is_there = false;
                server.stream += 1;
                server.jobs.clear();
                server.is_ticking = false;
                self.download.handle_gone(id(at), now);
                if let Conduct::Leaves(_, seconds) = server.plan.conduct {
                    server.sent = 0;
                    self.put(self.at + Duration::from_secs(seconds), at, 0, Event::Join);
                }
            }
            Event::Ask(message) if server.is_there => self.serve(at, message),
            Event::Tick => self.tick(at),
            Event::Answer(message) => {
                if let Err(reject) = self.download.handle_message(id(at), message, now) {
                    self.rejects.insert((at, reject));
                }
            }
            _ => {}
        }
    }

    fn serve(&mut self, at: u8, message: ToSource) {
        let blob = self.content.blob;
        let server = &mut self.servers[at as usize];
        let conduct = server.plan.conduct;
        let answer = match message {
            ToSource::Want(_) if conduct == Conduct::Silent => return,
            ToSource::Want(id) if conduct == Conduct::Empty || server.plan.pieces.is_full() => {
                FromSource::Have(id, Holding::All(blob.size()))
            }
            ToSource::Want(id) => FromSource::Have(id, Holding::Some(blob.size(), server.plan.pieces.to_bytes())),
            ToSource::Forget(_) => return,
            ToSource::Cut { id, end } => {
                for job in server.jobs.iter_mut().filter(|job| job.0 == id) {
                    job.2 = job.2.min(u64::from(end));
                }
                return;
            }
            ToSource::Request { id, first, count, .. } => {
                server.asked += 1;
                let (first, end) = (u64::from(first), u64::from(first) + u64::from(count));
                assert!(end <= blob.groups() && first / PIECE_GROUPS == (end - 1) / PIECE_GROUPS);
                if conduct == Conduct::Empty {
                    FromSource::End(id, Ending::Missing)
                } else if conduct == Conduct::Busy && server.asked.is_multiple_of(2) {
                    FromSource::End(id, Ending::Busy)
                } else {
                    assert!(server.plan.pieces.get(first / PIECE_GROUPS), "asked for what it does not have");
                    server.jobs.push((id, Steps::new(&blob, first..end).peekable(), end));
                    if !server.is_ticking {
                        server.is_ticking = true;
                        let stream = server.stream;
                        self.put(self.at, at, stream, Event::Tick);
                    }
                    return;
                }
            }
        };
        let (at_time, stream) = (self.at + server.plan.delay, server.stream);
        self.put(at_time, at, stream, Event::Answer(answer));
    }

    /// Sends one step.
    fn tick(&mut self, at: u8) {
        let server = &mut self.servers[at as usize];
        while server.jobs.first_mut().is_some_and(|job| job.1.peek().is_none_or(|step| step.group >= job.2)) {
            let _over = server.jobs.remove(0);
        }
        let Some((id, steps, _)) = server.jobs.first_mut() else {
            server.is_ticking = false;
            return;
        };
        let step = steps.next().unwrap();
        let mut bytes = self.content.read(&step);
        server.sent += 1;
        let (stream, id, sent) = (server.stream, *id, server.sent);
        let plan = server.plan.clone();
        match plan.conduct {
            Conduct::Stalls(after) if sent > after => return,
            Conduct::Leaves(after, _) if sent > after => {
                return self.put(self.at + plan.delay, at, stream, Event::Leave);
            }
            Conduct::Lies(one_in) if !bytes.is_empty() && self.rng.random_range(0..one_in) == 0 => {
                let place = self.rng.random_range(0..bytes.len());
                bytes[place] ^= 1 << self.rng.random_range(0..8);
            }
            _ => {}
        }
        let takes = Duration::from_secs_f64(bytes.len() as f64 / plan.rate);
        self.put(self.at + takes + plan.delay, at, stream, Event::Answer(FromSource::Step(id, bytes)));
        self.put(self.at + takes, at, stream, Event::Tick);
    }

    fn drain(&mut self) {
        while let Some(output) = self.download.poll_output() {
            match output {
                Output::Send { to, message } => {
                    let at = to.0[0];
                    let (delay, stream) = (self.servers[at as usize].plan.delay, self.servers[at as usize].stream);
                    self.put(self.at + delay, at, stream, Event::Ask(message));
                }
                Output::Persist(verified) => {
                    assert_eq!(verified.data(), self.content.group(verified.group()), "verified, and not the blob's");
                    let fails = self.write_failures > 0 && self.rng.random_range(0..20) == 0;
                    if fails {
                        self.write_failures -= 1;
                    } else {
                        let from = verified.offset() as usize;
                        self.disk[from..from + verified.data().len()].copy_from_slice(verified.data());
                    }
                    let later = Duration::from_micros(self.rng.random_range(0..20_000));
                    self.put(self.at + later, 0, 0, Event::Written(verified.group(), !fails));
                }
                Output::Report(report) => self.reports.push(report),
                Output::Done => self.is_done = true,
            }
        }
        self.most_ahead = self.most_ahead.max(self.download.ahead());
        assert!(self.download.ahead() <= self.config.max_ahead);
    }

    /// The process ends and starts again: only what the bitmap on the disk says is there.
    pub(crate) fn kill(&mut self, saves: bool) {
        if saves {
            self.saved = self.written.clone();
        }
        self.check_accounts(false);
        for (at, group) in (0..self.content.blob.groups()).enumerate().filter(|(_, group)| !self.saved.get(*group)) {
            let start = at * GROUP_BYTES;
            let end = start + self.content.blob.group_len(group);
            self.disk[start..end].fill(0xee);
        }
        self.written = self.saved.clone();
        self.at_start = self.saved.len() - self.saved.count();
        self.tag += 1;
        let (blob, seed) = (self.content.blob, self.rng.next_u64());
        self.download =
            Download::new(blob, self.saved.clone(), self.tag, seed, self.config.clone(), self.now()).unwrap();
        self.queue.clear();
        self.events.clear();
        for at in 0..self.servers.len() {
            let server = &mut self.servers[at];
            server.stream += 1;
            server.jobs.clear();
            server.is_ticking = false;
            self.put(self.at + Duration::from_millis(50), at as u8, 0, Event::Join);
        }
    }

    /// Whatever was requested more than once was requested again for a counted reason.
    fn check_accounts(&self, is_over: bool) {
        let Counts { requested, released, stolen, doubled, unwritten, .. } = self.download.counts();
        let again = released + stolen + doubled + unwritten;
        assert!(requested <= self.at_start + again, "{:?}", self.download.counts());
        if is_over {
            assert_eq!(requested, self.at_start + again, "{:?}", self.download.counts());
        }
    }

    pub(crate) fn check_done(&self) {
        assert!(self.disk == self.content.bytes, "other bytes");
        self.check_accounts(true);
        for report in &self.reports {
            let (Report::Lied { peer, .. } | Report::Stalled { peer }) = report;
            let conduct = self.servers[peer.0[0] as usize].plan.conduct;
            match report {
                Report::Lied { .. } => assert!(matches!(conduct, Conduct::Lies(_)), "{conduct:?} is no liar"),
                Report::Stalled { .. } => {
                    assert!(matches!(conduct, Conduct::Stalls(_)), "{conduct:?} did not stall: {report:?}");
                }
            }
        }
        for (at, reject) in &self.rejects {
            let conduct = self.servers[*at as usize].plan.conduct;
            let is_fair = reject.weight() == 0.0 || matches!(conduct, Conduct::Lies(_));
            assert!(is_fair, "{conduct:?} was refused for {reject:?}");
        }
    }
}
