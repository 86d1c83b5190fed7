//! A client's exchanges: a descriptor, a request through one of its points, and the pieces of the answer. All of it travels through the mixnet;
//! no circuit is built.
//!
//! A request goes through another point only if the first one said that it did not pass it on. One whose end is not known is not repeated.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{MessageId, NodeId, Now};

use super::{Gather, MAX_REQUEST, NotServed, Request, open_answer};
use crate::{
    core::{
        address::Address,
        blinding::{BlindedKey, Fog, Subcredential},
        client::{self, cache::Cache},
        descriptor::{ClientSecret, Contents, Descriptor, DescriptorError},
        handshake::Initiator,
        period::Calendar,
        pow::{MAX_EFFORT, Work},
        random::Random,
        reject::{Reject, Rejects},
        view::View,
    },
    wire::mixed::{Ask, Denial, Piece},
};

/// Exchanges at a time.
const MAX_JOBS: usize = 128;
/// For all of one.
const ALL: Duration = Duration::from_secs(80);
/// Directories that are asked for one descriptor, and how many at once.
const DIRECTORIES: usize = 6;
const AT_ONCE: usize = 2;
const FETCH: Duration = Duration::from_secs(10);
/// Reply blocks for a descriptor: it has 9 pieces at most.
const FETCH_BLOCKS: usize = 9;
/// Reply blocks that a request brings.
const FIRST_BLOCKS: usize = 32;
/// The most that are given out at once.
const MORE_BLOCKS: usize = 128;
/// After this long without a piece those that are missing are asked for; twice as long each time.
const QUIET: Duration = Duration::from_secs(8);

/// One exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Asking {
    /// The service.
    pub address: Address,
    /// The key for it, if it admits known clients only.
    pub client: Option<ClientSecret>,
    /// Its port, what to say to it, and whether the program ended its half. `None`: only whether the service is there and takes such.
    pub request: Option<(u16, Vec<u8>, bool)>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It never left.
    Refused,
    /// The relay has it.
    Delivered,
    /// Nobody knows.
    Failed,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No descriptor.
    #[error(transparent)]
    Lookup(#[from] client::Failure),
    /// The service does not say that it takes requests through the mixnet.
    #[error("the service does not take the privacy level `mixed`")]
    NotTaken,
    /// Larger than the service takes.
    #[error("the request is larger than the level `mixed` carries")]
    TooLarge,
    /// No introduction point passed it on.
    #[error("none of the service's introduction points passes the request on")]
    NoPoint,
    /// The relay that passed it on lost the answer, or changed it. Whether the service got the request is not known.
    #[error("the answer was lost on its way; the service may have got the request")]
    Lost,
    /// Time is up. Whether the service got the request is not known.
    #[error("no answer came in time; the service may have got the request")]
    TimedOut,
    /// The service says so itself.
    #[error(transparent)]
    NotServed(#[from] NotServed),
}

/// What a client asks for. In order.
#[derive(Debug)]
pub enum Output {
    /// A message through the mixnet; [`Asker::handle_sent`] and [`Asker::handle_piece`] follow.
    Send {
        /// Its name.
        message: MessageId,
        /// To which relay.
        to: NodeId,
        /// What it says.
        body: Vec<u8>,
        /// With so many reply blocks.
        blocks: usize,
    },
    /// Make a proof of work away from this thread; the result goes to [`Asker::handle_work`].
    Solve {
        /// For which exchange.
        job: JobId,
        /// Over this key,
        key: BlindedKey,
        /// this seed,
        seed: [u8; 32],
        /// with this effort,
        effort: u32,
        /// from this nonce on.
        nonce: [u8; 16],
    },
    /// The end of an exchange: the answer, empty if nothing was asked.
    Done(JobId, Result<Vec<u8>, Failure>),
}

#[derive(Debug)]
struct Known {
    subcredential: Subcredential,
    contents: Contents,
}

#[derive(Debug)]
struct Asked {
    relay: NodeId,
    id: [u8; 16],
    first: MessageId,
    initiator: Initiator,
    pieces: Gather,
    /// Pieces that there are blocks for, if none is lost.
    granted: usize,
    quiet: Duration,
    again: Instant,
}

#[derive(Debug)]
enum Phase {
    Fetching {
        key: BlindedKey,
        left: Vec<NodeId>,
        running: BTreeMap<MessageId, (Gather, Instant)>,
        invalid: Option<DescriptorError>,
    },
    Solving,
    Asked(Box<Asked>),
}

#[derive(Debug)]
struct Job {
    asking: Asking,
    nonce: [u8; 16],
    known: Option<Known>,
    work: Option<Work>,
    tried: BTreeSet<[u8; 32]>,
    phase: Phase,
    messages: Vec<MessageId>,
    deadline: Instant,
}

/// What a step of an exchange ends with, if it ends.
type Progress = Option<Result<Vec<u8>, Failure>>;

/// All exchanges of a client.
#[derive(Debug)]
pub struct Asker {
    calendar: Calendar,
    view: View,
    cache: Cache,
    random: Random,
    rejects: Rejects,
    outputs: VecDeque<Output>,
    jobs: BTreeMap<JobId, Job>,
    by_message: BTreeMap<MessageId, JobId>,
    next: u64,
}

impl Asker {
    /// Knows nothing yet. `seed` has 32 random bytes.
    pub fn new(calendar: Calendar, seed: [u8; 32]) -> Self {
        Self {
            calendar,
            view: View::default(),
            cache: Cache::default(),
            random: Random::new(seed),
            rejects: Rejects::default(),
            outputs: VecDeque::new(),
            jobs: BTreeMap::new(),
            by_message: BTreeMap::new(),
            next: 0,
        }
    }

    /// The network changed, or an epoch began.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
    }

    /// Begins. [`Output::Done`] ends it in any case.
    pub fn ask(&mut self, asking: Asking, now: Now) -> JobId {
        self.next += 1;
        let id = JobId(self.next);
        if self.jobs.len() >= MAX_JOBS {
            self.outputs.push_back(Output::Done(id, Err(client::Failure::TooMany.into())));
            return id;
        }
        let mut job = Job {
            asking,
            nonce: self.random.bytes(),
            known: None,
            work: None,
            tried: BTreeSet::new(),
            phase: Phase::Solving,
            messages: Vec::new(),
            deadline: now.mono + ALL,
        };
        let progress = self.start(id, &mut job, now);
        self.settle(id, job, progress);
        id
    }

    /// The caller does not want it any more.
    pub fn cancel(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.forget(&job);
        }
    }

    /// What became of a message.
    pub fn handle_sent(&mut self, message: MessageId, sent: Sent, now: Now) {
        self.with_message(message, |asker, id, job| match (&mut job.phase, sent) {
            (Phase::Fetching { .. }, Sent::Refused | Sent::Failed) => asker.unfetched(id, job, message, now),
            (Phase::Asked(asked), Sent::Delivered) => {
                asked.again = now.mono + asked.quiet;
                None
            }
            (Phase::Asked(asked), Sent::Refused) if asked.first == message => asker.introduce(id, job, now),
            (Phase::Asked(asked), Sent::Failed) if asked.first == message => Some(Err(Failure::TimedOut)),
            _ => None,
        });
    }

    /// An answer to a message.
    pub fn handle_piece(&mut self, message: MessageId, bytes: &[u8], now: Now) {
        let Some(piece) = Piece::decode(bytes) else {
            self.rejects.count(Reject::Malformed);
            return;
        };
        self.with_message(message, |asker, id, job| match &mut job.phase {
            Phase::Fetching { .. } => asker.fetched(id, job, message, piece, now),
            Phase::Asked(_) => asker.answered(id, job, message, piece, now),
            Phase::Solving => None,
        });
    }

    /// A proof of work was made; `None`: it was given up.
    pub fn handle_work(&mut self, id: JobId, work: Option<Work>, now: Now) {
        self.with(id, |asker, job| {
            job.work = work;
            if matches!(job.phase, Phase::Solving) { asker.introduce(id, job, now) } else { None }
        });
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = self.jobs.iter().filter(|(_, job)| job.next_timeout() <= now.mono).map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            self.with(id, |asker, job| asker.late(id, job, now));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.jobs.values().map(Job::next_timeout).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How often what was refused.
    pub fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    fn with_message(&mut self, message: MessageId, step: impl FnOnce(&mut Self, JobId, &mut Job) -> Progress) {
        if let Some(id) = self.by_message.get(&message).copied() {
            self.with(id, |asker, job| step(asker, id, job));
        }
    }

    fn with(&mut self, id: JobId, step: impl FnOnce(&mut Self, &mut Job) -> Progress) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        let progress = step(self, &mut job);
        self.settle(id, job, progress);
    }

    fn settle(&mut self, id: JobId, job: Job, progress: Progress) {
        match progress {
            None => drop(self.jobs.insert(id, job)),
            Some(result) => {
                self.forget(&job);
                self.outputs.push_back(Output::Done(id, result));
            }
        }
    }

    fn forget(&mut self, job: &Job) {
        for message in &job.messages {
            self.by_message.remove(message);
        }
    }

    fn send(&mut self, id: JobId, job: &mut Job, to: NodeId, (ask, blocks): (&Ask, usize)) -> MessageId {
        let message = MessageId(self.random.bytes());
        self.by_message.insert(message, id);
        job.messages.push(message);
        self.outputs.push_back(Output::Send { message, to, body: ask.encode(), blocks });
        message
    }

    fn start(&mut self, id: JobId, job: &mut Job, now: Now) -> Progress {
        let period = self.calendar.period(now.unix);
        let key = BlindedKey::derive::<Fog>(job.asking.address.key(), &self.calendar.context(period));
        if let Some(descriptor) = self.cache.get(&key, self.calendar.epoch(now.unix)) {
            return self.learn(id, job, &descriptor, now);
        }
        let Some(ring) = self.view.rings.get(&period).filter(|ring| !ring.is_empty()) else {
            return Some(Err(client::Failure::NotReady.into()));
        };
        let mut left = ring.directories(&key);
        left.retain(|relay| self.view.us != Some(*relay));
        self.random.shuffle(&mut left);
        left.truncate(DIRECTORIES);
        job.phase = Phase::Fetching { key, left, running: BTreeMap::new(), invalid: None };
        self.fetch(id, job, now)
    }

    /// Asks directories, as many as may be asked at once.
    fn fetch(&mut self, id: JobId, job: &mut Job, now: Now) -> Progress {
        loop {
            let Phase::Fetching { key, left, running, invalid } = &mut job.phase else { return None };
            if running.len() >= AT_ONCE {
                return None;
            }
            let Some(relay) = left.pop() else {
                let failure = invalid.map_or(client::Failure::NotFound, client::Failure::of_descriptor);
                return running.is_empty().then_some(Err(failure.into()));
            };
            let ask = Ask::Fetch(*key.as_bytes());
            let message = self.send(id, job, relay, (&ask, FETCH_BLOCKS));
            if let Phase::Fetching { running, .. } = &mut job.phase {
                running.insert(message, (Gather::default(), now.mono + FETCH));
            }
        }
    }

    fn unfetched(&mut self, id: JobId, job: &mut Job, message: MessageId, now: Now) -> Progress {
        if let Phase::Fetching { running, .. } = &mut job.phase {
            running.remove(&message);
        }
        self.fetch(id, job, now)
    }

    fn fetched(&mut self, id: JobId, job: &mut Job, message: MessageId, piece: Piece, now: Now) -> Progress {
        let Phase::Fetching { key, running, invalid, .. } = &mut job.phase else { return None };
        let (pieces, _) = running.get_mut(&message)?;
        let Piece::Data { index, length, data } = piece else { return self.unfetched(id, job, message, now) };
        if !pieces.insert(index, length, data) {
            self.rejects.count(Reject::Malformed);
            return self.unfetched(id, job, message, now);
        }
        let whole = pieces.whole()?;
        let judged = Descriptor::parse(&whole, &self.calendar.network).and_then(|descriptor| {
            let is_ours = descriptor.header().key == *key;
            if is_ours {
                descriptor.check(self.calendar.epoch(now.unix)).map(|()| descriptor)
            } else {
                Err(DescriptorError::OtherService)
            }
        });
        match judged {
            Ok(descriptor) => {
                // One that is older than what was seen before is a rollback.
                if self.cache.revision(key).is_some_and(|seen| descriptor.header().revision < seen) {
                    self.rejects.count(Reject::RolledBack);
                    return self.unfetched(id, job, message, now);
                }
                self.cache.put(descriptor.clone());
                self.learn(id, job, &descriptor, now)
            }
            Err(error) => {
                *invalid = Some(error);
                self.rejects.count(Reject::Malformed);
                self.unfetched(id, job, message, now)
            }
        }
    }

    /// A descriptor is there.
    fn learn(&mut self, id: JobId, job: &mut Job, descriptor: &Descriptor, now: Now) -> Progress {
        let header = descriptor.header();
        let subcredential = Subcredential::derive::<Fog>(job.asking.address.key(), &header.key);
        let contents = match descriptor.open(&subcredential, job.asking.client.as_ref()) {
            Ok(contents) => contents,
            Err(error) => return Some(Err(client::Failure::of_descriptor(error).into())),
        };
        let Some(offer) = contents.mixed else { return Some(Err(Failure::NotTaken)) };
        let Some((_, bytes, _)) = &job.asking.request else { return Some(Ok(Vec::new())) };
        if bytes.len() > MAX_REQUEST.min(usize::from(offer.request) * 1024) {
            return Some(Err(Failure::TooLarge));
        }
        let epoch = self.calendar.epoch(now.unix);
        let puzzle = contents.puzzle.filter(|puzzle| puzzle.last_epoch >= epoch);
        let key = header.key;
        job.known = Some(Known { subcredential, contents });
        job.phase = Phase::Solving;
        let Some(puzzle) = puzzle else { return self.introduce(id, job, now) };
        let (effort, nonce) = (puzzle.effort.clamp(1, MAX_EFFORT), self.random.bytes());
        self.outputs.push_back(Output::Solve { job: id, key, seed: puzzle.seed, effort, nonce });
        None
    }

    /// Sends the request through a point that was not tried yet.
    fn introduce(&mut self, id: JobId, job: &mut Job, now: Now) -> Progress {
        // What directories, or a point that said no, may still say is not wanted any more.
        self.forget(job);
        job.messages.clear();
        let (known, (port, bytes, half_closed)) = (job.known.as_ref()?, job.asking.request.as_ref()?);
        let is_open = |relay: &NodeId| self.view.us != Some(*relay);
        let points = known.contents.points.iter().filter(|point| is_open(&point.relay));
        let open: Vec<_> = points.filter(|point| !job.tried.contains(&point.auth_key)).collect();
        let Some(point) = self.random.pick(&open).copied() else { return Some(Err(Failure::NoPoint)) };
        let request =
            Request { nonce: job.nonce, work: job.work, half_closed: *half_closed, port: *port, bytes: bytes.clone() };
        job.tried.insert(point.auth_key);
        let (network, relay) = (&self.calendar.network, point.relay);
        let started =
            Initiator::start_request(network, &known.subcredential, point, &request.encode(), &mut self.random);
        // A point whose keys are none is as good as none.
        let Ok((initiator, sealed)) = started else { return self.introduce(id, job, now) };
        let name = self.random.bytes();
        let ask = Ask::Request { id: name, request: Box::new(sealed) };
        let first = self.send(id, job, relay, (&ask, FIRST_BLOCKS));
        job.phase = Phase::Asked(Box::new(Asked {
            relay,
            id: name,
            first,
            initiator,
            pieces: Gather::default(),
            granted: FIRST_BLOCKS,
            quiet: QUIET,
            again: now.mono + QUIET * 2,
        }));
        None
    }

    fn answered(&mut self, id: JobId, job: &mut Job, message: MessageId, piece: Piece, now: Now) -> Progress {
        let Phase::Asked(asked) = &mut job.phase else { return None };
        let is_first = message == asked.first;
        let (index, length, data) = match piece {
            Piece::Data { index, length, data } => (index, length, data),
            Piece::Denied(Denial::Unknown | Denial::Limited) if is_first && asked.pieces.is_empty() => {
                return self.introduce(id, job, now);
            }
            Piece::Denied(_) => return Some(Err(Failure::Lost)),
        };
        if !asked.pieces.insert(index, length, data) {
            self.rejects.count(Reject::Malformed);
            return Some(Err(Failure::Lost));
        }
        asked.again = now.mono + asked.quiet;
        if let Some(whole) = asked.pieces.whole() {
            let opened = open_answer(&asked.initiator, &whole);
            return Some(match opened {
                Ok(answer) => answer.map_err(Failure::from),
                Err(_) => {
                    self.rejects.count(Reject::BadSignature);
                    Err(Failure::Lost)
                }
            });
        }
        if asked.pieces.count().is_some_and(|count| count > asked.granted) {
            let from = asked.granted;
            self.more(id, job, from, now);
        }
        None
    }

    /// Asks for the pieces from number `from` on that are missing.
    fn more(&mut self, id: JobId, job: &mut Job, from: usize, now: Now) {
        let Phase::Asked(asked) = &mut job.phase else { return };
        let (missing, has) = asked.pieces.missing(from);
        let blocks = if asked.pieces.is_empty() { FIRST_BLOCKS } else { missing.min(MORE_BLOCKS) };
        asked.granted = asked.granted.max(from + blocks);
        asked.again = now.mono + asked.quiet;
        let (relay, name) = (asked.relay, asked.id);
        self.send(id, job, relay, (&Ask::More { id: name, has }, blocks));
    }

    fn late(&mut self, id: JobId, job: &mut Job, now: Now) -> Progress {
        if job.deadline <= now.mono {
            return Some(Err(match job.phase {
                Phase::Fetching { .. } => client::Failure::NotFound.into(),
                _ => Failure::TimedOut,
            }));
        }
        match &mut job.phase {
            Phase::Fetching { running, .. } => {
                running.retain(|_, (_, until)| *until > now.mono);
                self.fetch(id, job, now)
            }
            Phase::Asked(asked) => {
                if asked.again <= now.mono {
                    asked.quiet *= 2;
                    self.more(id, job, 0, now);
                }
                None
            }
            Phase::Solving => None,
        }
    }
}

impl Job {
    fn next_timeout(&self) -> Instant {
        let own = match &self.phase {
            Phase::Fetching { running, .. } => running.values().map(|(_, until)| *until).min(),
            Phase::Asked(asked) => Some(asked.again),
            Phase::Solving => None,
        };
        own.map_or(self.deadline, |own| own.min(self.deadline))
    }
}
