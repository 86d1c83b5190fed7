//! What the fuzz targets `tasks_manifest` and `tasks_wire` do with an input, shared with the test that replays their corpora. The first byte of
//! an input says what the others are.

#![allow(dead_code, unreachable_pub, clippy::indexing_slicing, clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey};
use fog_base::{
    NetworkId, NodeId, Now, UnixMillis,
    record::{Kind, SignedRecord},
};
use fog_tasks::{
    Content, Coordinator, Ending, Input, Limits, Outcome, TaskId, Work, Worker,
    coordinator::{self, End, Submission, TaskEvent},
    core::{
        offer::{OFFER, Offer},
        pay::{ACKNOWLEDGED, Credit, LocalAccounts, VOUCHER},
        terms::Terms,
    },
    wire::{
        MAX_MESSAGE, Message, Source, ToCoordinator, ToWorker,
        record::{AGREEMENT, BID, COMMIT, LEASE},
    },
    worker::{self, RunEvent},
};

pub const NETWORK: NetworkId = NetworkId([1; 32]);
const UNIX: UnixMillis = UnixMillis(1_800_000_000_000);
const KINDS: [Kind; 7] = [OFFER, BID, AGREEMENT, LEASE, COMMIT, VOUCHER, ACKNOWLEDGED];

fn key(number: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_bytes(&[number; 32]))
}

fn id(key: &SigningKey) -> NodeId {
    NodeId(key.verifying_key().to_bytes())
}

fn now() -> Now {
    Now { mono: Instant::now(), unix: UNIX }
}

/// A record of any body, with a right signature.
pub fn signed(kind: &Kind, key: &SigningKey, body: &[u8]) -> Option<SignedRecord> {
    let (from, length) = (UNIX.as_secs(), u32::try_from(body.len()).ok()?);
    let head = [
        &kind.number.to_be_bytes()[..],
        &kind.version.to_be_bytes(),
        key.verifying_key().as_bytes(),
        &7u64.to_be_bytes(),
        &from.to_be_bytes(),
        &(from + 60).to_be_bytes(),
        &length.to_be_bytes(),
        body,
    ]
    .concat();
    let signature = key.sign(&[&b"fog signed record v1\0"[..], &NETWORK.0, &head].concat());
    SignedRecord::parse(&[&head[..], &signature.to_bytes()].concat()).ok()
}

/// What describes a work: 0 an encoding; 1 arguments, variables and names of inputs, a byte for the kind and one for the length before
/// each; 2 the body of an offer, which is then matched with a work.
pub fn fuzz_manifest(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    match mode % 3 {
        0 => {
            if let Ok(work) = Work::decode(data) {
                read_again(&work);
            }
        }
        1 => {
            let work = described(data);
            if work.encode().is_ok() {
                read_again(&work);
            }
        }
        _ => offered(data),
    }
}

fn read_again(work: &Work) {
    let bytes = work.encode().unwrap();
    assert_eq!(Work::decode(&bytes).as_ref(), Ok(work));
    assert!(work.contents().len() <= work.inputs.len() + 2 && work.staged_bytes() >= work.module.size);
    let source = Source::Inline(b"module".to_vec().into());
    let mut coordinator = Coordinator::new(coordinator::Config::default(), key(1), NETWORK, [7; 32], now());
    let sources = work.contents().into_iter().map(|content| (content, source.clone())).collect();
    let task = Submission { work: work.clone(), terms: Terms::default(), sources };
    // Sources that are not what is named are refused; whatever is taken is there.
    if let Ok(task) = coordinator.submit(task, now()) {
        assert!(coordinator.task(task).is_some());
    }
}

fn described(mut data: &[u8]) -> Work {
    let mut work = work(0);
    while let [kind, length, rest @ ..] = data {
        let (text, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        let text = String::from_utf8_lossy(text).into_owned();
        data = rest;
        match kind % 5 {
            0 => work.args.push(text),
            1 => {
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                work.env.push((name.to_owned(), value.to_owned()));
            }
            2 => work.inputs.push(Input { content: Content::of(text.as_bytes()), name: text }),
            3 => work.stdin = Some(Content::of(text.as_bytes())),
            _ => work.limits.memory_bytes = text.len() as u64 * 32_768,
        }
    }
    work
}

fn offered(body: &[u8]) {
    let key = key(2);
    let Some(record) = signed(&OFFER, &key, body) else { return };
    let Ok(offer) = Offer::verify(record.as_bytes(), &NETWORK, UNIX) else { return };
    assert!(offer.body().load_ppm() <= 2_000_000 && offer.body().free <= offer.body().slots);
    let _rate = offer.body().rate();
    let mut coordinator = Coordinator::new(coordinator::Config::default(), self::key(1), NETWORK, [7; 32], now());
    let taken = coordinator.handle_offer(record.as_bytes(), now());
    assert!(taken.is_ok(), "{taken:?}");
    let (work, terms) = (work(1), Terms { max_price: Some(1_000), ..Terms::default() });
    let explained = coordinator.explain(&work, &terms, now());
    assert_eq!(explained.matches.len() + explained.unknown.len() + explained.rejected.len(), 1);
    for candidate in coordinator.candidates(now()) {
        assert!(candidate.speed > 0.0 && candidate.reliability <= 1.0, "{candidate:?}");
        let _fits = coordinator.demand(&work, &terms).fits(&candidate);
    }
}

/// What comes from peers: 0 a message; 1 an outcome; 2 the body of a record of the kind that its first byte names, signed by a worker
/// or by a coordinator; 3 a script of what two nodes and the network between them do; 4 rows of the table, two bytes of length before each
/// of key and value.
pub fn fuzz_wire(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    match mode % 5 {
        0 => message(data),
        1 => outcome(data),
        2 => record(data),
        3 => script(data),
        _ => rows(data),
    }
}

fn message(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    assert_eq!(message.encode(), data, "one form");
    assert!(data.len() <= MAX_MESSAGE);
    let mut pair = Pair::new();
    pair.submit(0);
    pair.hear(message);
    pair.settle();
}

fn outcome(data: &[u8]) {
    if let Ok(outcome) = Outcome::from_bytes(data, data.len()) {
        assert_eq!(outcome.to_bytes(), data, "one form");
        assert_eq!(outcome.hash().is_some(), outcome.ending.is_deterministic());
    }
}

fn record(data: &[u8]) {
    let [kind, who, body @ ..] = data else { return };
    let kind = &KINDS[usize::from(*kind) % KINDS.len()];
    let signer = if who % 2 == 0 { key(1) } else { key(2) };
    let Some(record) = signed(kind, &signer, body) else { return };
    let execution = fog_tasks::ExecutionId([3; 16]);
    let mut pair = Pair::new();
    pair.submit(0);
    let message = match kind.number {
        9 => {
            let _taken = pair.coordinator.handle_offer(record.as_bytes(), pair.now);
            return pair.settle();
        }
        10 => Message::ToWorker(ToWorker::Bid { record, work: work(0).encode().unwrap() }),
        11 => Message::ToCoordinator(ToCoordinator::Agreement(record)),
        12 => Message::ToWorker(ToWorker::Lease(record)),
        13 => Message::ToCoordinator(ToCoordinator::Commit(record)),
        14 => Message::ToWorker(ToWorker::Voucher(record)),
        _ => Message::ToCoordinator(ToCoordinator::Acknowledged { execution, record }),
    };
    pair.hear(message);
    pair.settle();
}

fn rows(mut data: &[u8]) {
    let mut field = || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let (field, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        data = rest;
        Some(field.to_vec())
    };
    let mut rows = Vec::new();
    while let (Some(key), Some(value)) = (field(), field()) {
        rows.push((key, value));
    }
    let mut coordinator = Coordinator::new(coordinator::Config::default(), key(1), NETWORK, [7; 32], now());
    coordinator.restore(rows, now());
    while coordinator.poll_output().is_some() {}
    coordinator.handle_timeout(now().plus(Duration::from_secs(100)));
    assert!(coordinator.tasks().count() >= coordinator.open_tasks());
}

fn script(data: &[u8]) {
    let mut pair = Pair::new();
    for step in data.chunks(2).take(400) {
        pair.step(step[0], step.get(1).copied().unwrap_or_default());
    }
    pair.settle();
}

pub fn work(number: u64) -> Work {
    Work {
        version: 1,
        module: Content::of(b"module"),
        args: vec![number.to_string()],
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        limits: Limits::default(),
        seed: [0; 32],
    }
}

/// A coordinator and a worker, and what is on its way between them.
struct Pair {
    coordinator: Coordinator,
    worker: Worker,
    ids: [NodeId; 2],
    to_worker: VecDeque<ToWorker>,
    to_coordinator: VecDeque<ToCoordinator>,
    runs: VecDeque<(fog_tasks::ExecutionId, Arc<Work>)>,
    stages: VecDeque<fog_tasks::ExecutionId>,
    ended: BTreeMap<TaskId, usize>,
    submitted: u64,
    now: Now,
}

impl Pair {
    fn new() -> Self {
        let (now, keys) = (now(), [key(1), key(2)]);
        let ids = [id(&keys[0]), id(&keys[1])];
        let [one, two] = keys;
        let mut worker =
            Worker::new(worker::Config::default(), two, NETWORK, LocalAccounts::new(ids[1], Credit::default()), now);
        let offer =
            Offer { slots: 2, free: 2, eligible: true, memory_bytes: 1 << 30, staging_bytes: 1 << 30, ..Offer::none() };
        worker.set_capacity(offer, now);
        let mut pair = Self {
            coordinator: Coordinator::new(coordinator::Config::default(), one, NETWORK, [7; 32], now),
            worker,
            ids,
            to_worker: VecDeque::new(),
            to_coordinator: VecDeque::new(),
            runs: VecDeque::new(),
            stages: VecDeque::new(),
            ended: BTreeMap::new(),
            submitted: 0,
            now,
        };
        pair.coordinator.handle_connected(pair.ids[1], None, now);
        pair.take();
        pair
    }

    fn submit(&mut self, number: u64) {
        let source = Source::Inline(b"module".to_vec().into());
        // One replica is enough: there is no second worker that could double it.
        let terms = Terms { trust_ppm: 500_000, replicas: 1, ..Terms::default() };
        let task = Submission { work: work(number), terms, sources: vec![(Content::of(b"module"), source)] };
        let _taken = self.coordinator.submit(task, self.now);
        self.take();
    }

    fn hear(&mut self, message: Message) {
        let [coordinator, worker] = self.ids;
        let _taken = match message {
            Message::ToWorker(message) => self.worker.handle_message(coordinator, message, self.now),
            Message::ToCoordinator(message) => self.coordinator.handle_message(worker, message, self.now),
            Message::Offers(message) => self.coordinator.handle_offers(worker, message, self.now),
        };
        self.take();
    }

    /// Takes all outputs.
    fn take(&mut self) {
        loop {
            let (mut moved, me) = (false, self.ids[1]);
            while let Some(output) = self.coordinator.poll_output() {
                moved = true;
                match output {
                    coordinator::Output::Send { to, message } if to == me => self.to_worker.push_back(message),
                    coordinator::Output::Event(task, TaskEvent::Ended(end)) => {
                        let times = self.ended.entry(task).or_default();
                        *times += 1;
                        assert_eq!(*times, 1, "a task ends once");
                        if let End::Done { ending, .. } = end {
                            assert!(ending.is_deterministic());
                        }
                    }
                    _ => {}
                }
            }
            while let Some(output) = self.worker.poll_output() {
                moved = true;
                match output {
                    worker::Output::Send { message, .. } => self.to_coordinator.push_back(message),
                    worker::Output::Publish(record) => {
                        let taken = self.coordinator.handle_offer(record.as_bytes(), self.now);
                        assert!(taken.is_ok(), "{taken:?}");
                    }
                    worker::Output::Stage { execution, .. } => self.stages.push_back(execution),
                    worker::Output::Run { execution, work, .. } => self.runs.push_back((execution, work)),
                    worker::Output::Stop(execution) => self.runs.retain(|(run, _)| *run != execution),
                    _ => {}
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn step(&mut self, what: u8, with: u8) {
        match what % 12 {
            0 => {
                self.submitted += 1;
                self.submit(self.submitted + u64::from(with % 2));
            }
            1 => self.deliver_to_worker(with % 4 == 3),
            2 => self.deliver_to_coordinator(with % 4 == 3),
            3 => drop(self.to_worker.pop_front()),
            4 => drop(self.to_coordinator.pop_front()),
            5 => {
                // Changed on its way.
                let Some(message) = self.to_worker.front() else { return };
                self.hear_changed(Message::ToWorker(message.clone()).encode(), with);
            }
            6 => {
                let Some(message) = self.to_coordinator.front() else { return };
                self.hear_changed(Message::ToCoordinator(message.clone()).encode(), with);
            }
            7 => self.pass(Duration::from_millis(u64::from(with) * u64::from(with))),
            8 => {
                let Some(execution) = self.stages.pop_front() else { return };
                let staged = if with == 255 { Err(fog_tasks::wire::StageError::Missing) } else { Ok(()) };
                self.worker.handle_staged(execution, staged, self.now);
            }
            9 => self.run(with),
            10 => self.worker.set_frozen(with % 2 == 1, self.now),
            _ => match with % 4 {
                0 => self.coordinator.handle_gone(self.ids[1], self.now),
                1 => self.coordinator.handle_connected(self.ids[1], None, self.now),
                2 => self.worker.vacate(self.now),
                _ => {
                    let open = self.coordinator.tasks().find(|task| task.end.is_none()).map(|task| task.id);
                    if let Some(task) = open {
                        let _gone = self.coordinator.cancel(task, self.now);
                    }
                }
            },
        }
        self.take();
    }

    fn deliver_to_worker(&mut self, twice: bool) {
        let Some(message) = self.to_worker.pop_front() else { return };
        if twice {
            self.to_worker.push_back(message.clone());
        }
        self.hear(Message::ToWorker(message));
    }

    fn deliver_to_coordinator(&mut self, twice: bool) {
        let Some(message) = self.to_coordinator.pop_front() else { return };
        if twice {
            self.to_coordinator.push_back(message.clone());
        }
        self.hear(Message::ToCoordinator(message));
    }

    fn hear_changed(&mut self, mut bytes: Vec<u8>, with: u8) {
        let at = usize::from(with) % bytes.len();
        bytes[at] ^= 1 | with;
        if let Ok(message) = Message::decode(&bytes) {
            assert_eq!(message.encode(), bytes, "one form");
            self.hear(message);
        }
    }

    fn run(&mut self, with: u8) {
        let Some((execution, work)) = self.runs.pop_front() else { return };
        let ending = if with == 255 { Ending::Host(fog_tasks::HostEnd::Killed) } else { Ending::Exit(0) };
        let outcome = Outcome { stdout: work.args.concat().into_bytes(), fuel: 1_000, ..Outcome::ended(ending, "") };
        self.worker.handle_run(execution, RunEvent::Started, self.now);
        self.worker.handle_run(execution, RunEvent::Done(outcome), self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.coordinator.handle_timeout(self.now);
        self.worker.handle_timeout(self.now);
        self.take();
    }

    /// Whatever happened: when everything arrives and runs, all tasks end, and nobody was paid more than what ran costs.
    fn settle(&mut self) {
        self.worker.set_frozen(false, self.now);
        self.coordinator.handle_connected(self.ids[1], None, self.now);
        self.take();
        for _ in 0..3_000 {
            while !(self.to_worker.is_empty()
                && self.to_coordinator.is_empty()
                && self.stages.is_empty()
                && self.runs.is_empty())
            {
                self.deliver_to_worker(false);
                self.deliver_to_coordinator(false);
                if let Some(execution) = self.stages.pop_front() {
                    self.worker.handle_staged(execution, Ok(()), self.now);
                }
                self.run(0);
                self.take();
            }
            if self.coordinator.open_tasks() == 0 {
                break;
            }
            self.pass(Duration::from_secs(1));
        }
        assert_eq!(self.coordinator.open_tasks(), 0, "every task ends");
        let done = self.coordinator.tasks().filter(|task| task.end.is_some());
        let most: u64 = done.map(|task| task.replicas.len() as u64).sum();
        assert!(self.coordinator.spent() <= most, "{} for {most} runs", self.coordinator.spent());
    }
}
