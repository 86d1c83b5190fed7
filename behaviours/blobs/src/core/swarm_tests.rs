//! Downloads from simulated sources that lie, stall, refuse, leave and return, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis};
use proptest::prelude::*;
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
enum Conduct {
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
struct Plan {
    conduct: Conduct,
    /// Bytes a second.
    rate: f64,
    delay: Duration,
    pieces: Bitmap,
    joins: Duration,
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

struct World {
    content: Content,
    config: Config,
    start: Instant,
    at: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, u8, u32)>>,
    events: BTreeMap<u64, Event>,
    number: u64,
    servers: Vec<Server>,
    download: Download,
    rng: ChaCha20Rng,
    /// Groups that are on the disk, and those of which the bitmap on the disk says so.
    written: Bitmap,
    saved: Bitmap,
    at_start: u64,
    disk: Vec<u8>,
    reports: Vec<Report>,
    rejects: BTreeSet<(u8, Reject)>,
    write_failures: u32,
    is_done: bool,
    tag: u32,
    events_left: u64,
    most_ahead: u64,
}

fn id(at: u8) -> NodeId {
    NodeId([at; 32])
}

impl World {
    fn new(content: Content, plans: Vec<Plan>, config: Config, seed: u64) -> Self {
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

    fn now(&self) -> Now {
        Now { mono: self.start + self.at, unix: UnixMillis(self.at.as_millis() as u64) }
    }

    fn put(&mut self, at: Duration, peer: u8, stream: u32, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number, peer, stream)));
        self.events.insert(self.number, event);
    }

    /// Runs until it is done, or `limit` of virtual time passed, or `events` happened. Says whether it is done.
    fn run(&mut self, limit: Duration, events: u64) -> bool {
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
                } else if conduct == Conduct::Busy && server.asked % 2 == 0 {
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
    fn kill(&mut self, saves: bool) {
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

    fn check_done(&self) {
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

fn plan(conduct: Conduct, rate: f64, pieces: u64) -> Plan {
    Plan { conduct, rate, delay: Duration::from_millis(20), pieces: Bitmap::full(pieces), joins: Duration::ZERO }
}

fn conducts() -> impl Strategy<Value = Conduct> {
    prop_oneof![
        3 => Just(Conduct::Honest),
        2 => (1u32..60).prop_map(Conduct::Lies),
        2 => (0u32..100).prop_map(Conduct::Stalls),
        1 => Just(Conduct::Busy),
        1 => Just(Conduct::Empty),
        2 => (1u32..100, 0u64..30).prop_map(|(after, seconds)| Conduct::Leaves(after, seconds)),
        1 => Just(Conduct::Silent),
    ]
}

fn plans(pieces: u64) -> impl Strategy<Value = Vec<Plan>> {
    let bits = prop::collection::vec(any::<bool>(), pieces as usize);
    let one = (conducts(), 20_000.0f64..30e6, 0u64..400, bits, 0u64..20_000);
    prop::collection::vec(one, 0..8).prop_map(move |all| {
        let plan = |(conduct, rate, delay, bits, joins): (_, _, _, Vec<bool>, _)| {
            let mut held = Bitmap::new(pieces);
            for (piece, _) in (0..).zip(bits).filter(|(_, bit)| *bit) {
                held.set(piece);
            }
            let (delay, joins) = (Duration::from_millis(delay), Duration::from_millis(joins));
            Plan { conduct, rate, delay, pieces: held, joins }
        };
        all.into_iter().map(plan).collect()
    })
}

const HOUR: Duration = Duration::from_secs(3_600);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the others do, and however often the process is killed: if two honest sources have everything between them, the
    /// download is over in the end, with the right bytes.
    #[test]
    fn it_ends_with_the_right_bytes(
        size in prop_oneof![0usize..200_000, 1_000_000usize..6_000_000],
        others in plans(6), split in prop::collection::vec(any::<bool>(), 6), rate in 30_000.0f64..20e6,
        failures in 0u32..4, kills in prop::collection::vec((1u64..2_000, any::<bool>()), 0..4), seed in any::<u64>(),
    ) {
        let content = Content::new(size, seed);
        let pieces = content.blob.pieces();
        let fit = |bits: &Bitmap| {
            let mut held = Bitmap::new(pieces);
            bits.iter().for_each(|piece| { held.set(piece); });
            held
        };
        let mut all: Vec<_> = others.into_iter().map(|plan| Plan { pieces: fit(&plan.pieces), ..plan }).collect();
        for side in [true, false] {
            let mut held = Bitmap::new(pieces);
            (0..pieces).zip(&split).filter(|(_, of)| **of == side).for_each(|(piece, _)| { held.set(piece); });
            all.push(Plan { pieces: held, ..plan(Conduct::Honest, rate, pieces) });
        }
        let mut world = World::new(content, all, Config::default(), seed);
        world.write_failures = failures;
        for (events, saves) in kills {
            if world.run(10 * HOUR, events) {
                break;
            }
            world.kill(saves);
        }
        prop_assert!(world.run(10 * HOUR, u64::MAX), "{:?} {:?}", world.download.progress(world.now()), world.download.counts());
        world.check_done();
    }

    /// Messages that nobody asked for, in any order, never panic, are never believed, and cost their sender.
    #[test]
    fn garbage_is_refused(messages in prop::collection::vec((0u8..3, 0u8..6, any::<u32>(), any::<u8>(), 0usize..40), 1..200)) {
        let content = Content::new(3_000_000, 5);
        let blob = content.blob;
        let mut world = World::new(content, Vec::new(), Config::default(), 1);
        for peer in 0..2 {
            world.download.handle_source(id(peer), world.now()).unwrap();
        }
        for (peer, kind, number, byte, len) in messages {
            let request = RequestId { download: number % 2, number: number % 40 };
            let message = match kind {
                0 => FromSource::Have(blob.id(), Holding::All(u64::from(number))),
                1 => FromSource::Have(blob.id(), Holding::Some(blob.size(), vec![byte; len])),
                2 => FromSource::Gained(blob.id(), number),
                3 => FromSource::Step(request, vec![byte; len]),
                4 => FromSource::End(request, Ending::Missing),
                _ => FromSource::Have(blob.id(), Holding::All(blob.size())),
            };
            let _outcome = world.download.handle_message(id(peer), message, world.now());
            while let Some(output) = world.download.poll_output() {
                prop_assert!(!matches!(output, Output::Persist(_) | Output::Done));
            }
        }
        prop_assert!(world.download.have().is_empty());
    }
}

#[test]
fn four_equal_sources_are_four_times_one() {
    let took = |sources: usize| {
        let content = Content::new(100 << 20, 1);
        let plans = vec![plan(Conduct::Honest, 20e6, content.blob.pieces()); sources];
        let mut world = World::new(content, plans, Config::default(), 7);
        assert!(world.run(HOUR, u64::MAX));
        world.check_done();
        assert_eq!(world.download.counts().duplicates, 0);
        world.at.as_secs_f64()
    };
    let (one, four) = (took(1), took(4));
    assert!((5.2..6.0).contains(&one), "{one}");
    assert!(one / four > 3.6, "{one} {four}");
}

#[test]
fn a_slow_source_does_not_hold_up_the_end() {
    let content = Content::new(40 << 20, 2);
    let pieces = content.blob.pieces();
    let plans = vec![plan(Conduct::Honest, 10e6, pieces), plan(Conduct::Honest, 20e3, pieces)];
    let mut world = World::new(content, plans, Config::default(), 7);
    assert!(world.run(HOUR, u64::MAX));
    world.check_done();
    let counts = world.download.counts();
    assert!(world.at < Duration::from_millis(6_500), "{:?}: 4.2 s by the fast one alone; {counts:?}", world.at);
    assert!(counts.stolen > 0 && counts.duplicates <= 64, "{counts:?}");
}

#[test]
fn the_rarest_pieces_come_first() {
    let content = Content::new(32 << 20, 3);
    let pieces = content.blob.pieces();
    let mut common = Bitmap::full(pieces);
    let rare: BTreeSet<u64> = [5, 11, 20].into();
    rare.iter().for_each(|piece| {
        common.clear(*piece);
    });
    let mut plans = vec![Plan { pieces: common, ..plan(Conduct::Honest, 1e6, pieces) }; 3];
    plans.push(Plan { joins: Duration::from_millis(100), ..plan(Conduct::Honest, 1e6, pieces) });
    let mut world = World::new(content, plans, Config::default(), 7);
    let has_rare = |world: &World| rare.iter().all(|piece| world.download.have().has_all(piece * 64..piece * 64 + 64));
    while !has_rare(&world) {
        assert!(!world.run(HOUR, 1));
    }
    // Three pieces at 1 MB/s; of the others there was time for 11 pieces or so.
    assert!(world.at < Duration::from_millis(3_600), "{:?}", world.at);
    assert!(world.run(HOUR, u64::MAX));
    world.check_done();
}

#[test]
fn a_liar_costs_one_group_and_is_banned() {
    let content = Content::new(8 << 20, 4);
    let pieces = content.blob.pieces();
    let plans = vec![plan(Conduct::Lies(1), 50e6, pieces), plan(Conduct::Honest, 5e6, pieces)];
    let mut world = World::new(content, plans, Config::default(), 7);
    assert!(world.run(HOUR, u64::MAX));
    world.check_done();
    assert!(matches!(world.reports[..], [Report::Lied { peer, .. }] if peer == id(0)), "{:?}", world.reports);
    assert_eq!(world.download.counts().released, world.config.first_window);
    assert!(world.rejects.contains(&(0, Reject::Lie)) && world.rejects.contains(&(0, Reject::Banned)));
}

#[test]
fn a_blob_of_another_size_is_nobodys_lie() {
    let content = Content::new(100_000, 4);
    let mut world = World::new(content, Vec::new(), Config::default(), 7);
    world.download.handle_source(id(9), world.now()).unwrap();
    let have = FromSource::Have(world.content.blob.id(), Holding::All(100_001));
    assert_eq!(world.download.handle_message(id(9), have, world.now()), Err(Reject::OtherSize));
    assert!(world.download.handle_source(id(9), world.now()).is_ok(), "it is not banned");
}

#[test]
fn sixteen_gib_take_bounded_memory() {
    let blob = super::blob::Blob::new(super::blob::BlobId([1; 32]), 16 << 30).unwrap();
    let now = start();
    let have = Bitmap::new(blob.groups());
    let mut download = Download::new(blob, have, 0, 1, Config::default(), now).unwrap();
    for peer in 0..100 {
        let accepted = download.handle_source(id(peer), now).is_ok();
        assert_eq!(accepted, peer < 64);
        let have = FromSource::Have(blob.id(), Holding::All(blob.size()));
        assert_eq!(download.handle_message(id(peer), have, now).is_ok(), accepted);
    }
    let requested = download.counts().requested;
    assert_eq!(requested, Config::default().max_ahead, "no more is under way than may be held");
    assert_eq!(download.ahead(), requested);
    let mut seen = BTreeSet::new();
    while let Some(output) = download.poll_output() {
        if let Output::Send { message: ToSource::Request { first, count, .. }, .. } = output {
            assert!((first..first + u32::from(count)).all(|group| seen.insert(group)), "requested twice");
        }
    }
    assert_eq!(seen.len() as u64, requested);
}
