//! One coordinator and some workers whose messages, stores and time are in a test's hands.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use proptest::{
    strategy::Strategy,
    test_runner::{Config as ProptestConfig, TestCaseError, TestRunner},
};
use serde_bytes::ByteBuf;

use super::{
    coordinator::{self, Coordinator, End, Submission, TaskEvent},
    ids::{ExecutionId, TaskId},
    offer::{Accepts, Offer, Price},
    outcome::{Ending, Outcome},
    pay::{Credit, LocalAccounts, VOUCHER, Verdict, Voucher},
    row::Row,
    terms::Terms,
    work::{Content, Limits, Work},
    worker::{self, RunEvent, Worker},
};
use crate::wire::{Message, Source, ToCoordinator, ToWorker};

pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);

pub(crate) fn start() -> Now {
    Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) }
}

pub(crate) fn key(number: u64) -> Arc<SigningKey> {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Arc::new(SigningKey::from_bytes(&bytes))
}

pub(crate) fn id_of(key: &SigningKey) -> NodeId {
    NodeId(key.verifying_key().to_bytes())
}

pub(crate) fn work(number: u64) -> Work {
    Work {
        version: 1,
        module: Content::of(b"module"),
        args: vec![number.to_string()],
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        limits: Limits { fuel: 1_000_000_000, ..Limits::default() },
        seed: [0; 32],
    }
}

pub(crate) fn submission(number: u64, terms: Terms) -> Submission {
    let source = Source::Inline(ByteBuf::from(*b"module"));
    Submission { work: work(number), terms, sources: vec![(Content::of(b"module"), source)] }
}

/// What a work gives, wherever it is run.
pub(crate) fn right(work: &Work) -> Outcome {
    let hash = blake3::hash(&work.encode().unwrap());
    Outcome { stdout: hash.as_bytes().to_vec(), fuel: 1_000_000, ..Outcome::ended(Ending::Exit(0), "") }
}

/// What `liar` says that it gives.
pub(crate) fn wrong(work: &Work, liar: u64) -> Outcome {
    Outcome { stderr: liar.to_be_bytes().to_vec(), ..right(work) }
}

pub(crate) fn offer() -> Offer {
    Offer {
        slots: 2,
        free: 2,
        queued: 0,
        speed: 1_000_000_000,
        memory_bytes: 1 << 30,
        staging_bytes: 1 << 30,
        features: Vec::new(),
        price: Price::default(),
        accepts: Accepts::default(),
        family: None,
        milliwatts: 0,
        eligible: true,
    }
}

/// A worker, what is under way to and from it, and what its host does.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) worker: Worker,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) id: NodeId,
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Runs that were begun.
    pub(crate) runs: BTreeMap<ExecutionId, Arc<Work>>,
    pub(crate) stages: VecDeque<ExecutionId>,
    pub(crate) offer: Option<Vec<u8>>,
    pub(crate) to_it: VecDeque<ToWorker>,
    pub(crate) from_it: VecDeque<ToCoordinator>,
    /// Sums by account that it holds vouchers for: what it can ever claim.
    pub(crate) claims: BTreeMap<u32, u64>,
    pub(crate) ran: usize,
    /// What it answers to keys that are no peer's.
    pub(crate) answers: VecDeque<(NodeId, ToCoordinator)>,
}

/// A coordinator and its workers.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) config: coordinator::Config,
    pub(crate) coordinator: Coordinator,
    pub(crate) key: Arc<SigningKey>,
    /// What the coordinator and its accounts keep: one table, written in one batch.
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The worker's side of the coordinator's node, which has its accounts.
    pub(crate) accounts: Worker,
    pub(crate) hosts: Vec<Host>,
    /// How tasks ended, each time that it was said.
    pub(crate) ends: BTreeMap<TaskId, Vec<End>>,
    pub(crate) verdicts: Vec<(NodeId, ExecutionId, Verdict, u64)>,
    pub(crate) drops: usize,
    pub(crate) restarts: u8,
    /// What is to go through the mixnet.
    pub(crate) mixed: VecDeque<(NodeId, ExecutionId, ToWorker)>,
}

impl World {
    /// Workers 1, 2, … that are newcomers; the coordinator is node 0, or worker 1 itself.
    pub(crate) fn new(workers: u64, own: bool) -> Self {
        Self::with(workers, own, coordinator::Config::default())
    }

    pub(crate) fn with(workers: u64, own: bool, config: coordinator::Config) -> Self {
        let now = start();
        let key = key(u64::from(own));
        let coordinator = Coordinator::new(config.clone(), key.clone(), NETWORK, [3; 32], now);
        let hosts = (1..=workers).map(|number| Host::new(number, now)).collect();
        let mut world = Self {
            now,
            config,
            coordinator,
            accounts: Host::worker(&key, now),
            key,
            rows: BTreeMap::new(),
            hosts,
            ends: BTreeMap::new(),
            verdicts: Vec::new(),
            drops: 0,
            restarts: 0,
            mixed: VecDeque::new(),
        };
        for at in 0..world.hosts.len() {
            world.hosts[at].worker.set_capacity(offer(), now);
        }
        world.collect();
        world.meet();
        world
    }

    pub(crate) fn me(&self) -> NodeId {
        id_of(&self.key)
    }

    /// The coordinator hears of all workers.
    pub(crate) fn meet(&mut self) {
        for host in &self.hosts {
            self.coordinator.handle_connected(host.id, None, self.now);
            if let Some(offer) = &host.offer {
                let _known = self.coordinator.handle_offer(offer, self.now);
            }
        }
        self.collect();
    }

    pub(crate) fn submit(&mut self, number: u64, terms: Terms) -> TaskId {
        let task = self.coordinator.submit(submission(number, terms), self.now).unwrap();
        self.collect();
        task
    }

    /// Acts on all outputs.
    pub(crate) fn collect(&mut self) {
        let me = self.me();
        while let Some(output) = self.coordinator.poll_output() {
            match output {
                coordinator::Output::Send { to, message } => {
                    let message = through_the_wire(Message::ToWorker(message));
                    let Message::ToWorker(message) = message else { unreachable!() };
                    if let Some(host) = self.hosts.iter_mut().find(|host| host.id == to) {
                        host.to_it.push_back(message);
                    }
                }
                coordinator::Output::Mixed { to, execution, message } => self.mixed.push_back((to, execution, message)),
                coordinator::Output::Persist(rows) => persist(&mut self.rows, rows),
                coordinator::Output::Owe { to, amount } => self.accounts.owe(to, amount, self.now),
                coordinator::Output::Event(task, TaskEvent::Ended(end)) => self.ends.entry(task).or_default().push(end),
                coordinator::Output::Verdict { worker, execution, verdict, value } => {
                    self.verdicts.push((worker, execution, verdict, value));
                }
                coordinator::Output::Drop(_) => self.drops += 1,
                coordinator::Output::FetchOutput { .. }
                | coordinator::Output::Offers { .. }
                | coordinator::Output::Event(..)
                | coordinator::Output::Forget(_) => {}
            }
        }
        while let Some(output) = self.accounts.poll_output() {
            if let worker::Output::Persist(rows) = output {
                persist(&mut self.rows, rows);
            }
        }
        for host in &mut self.hosts {
            host.collect(me);
        }
    }

    /// What the coordinator's node owes a worker, and what that worker has of it, by their balances.
    pub(crate) fn debts(&self, at: usize) -> (i64, i64) {
        let (host, unix) = (&self.hosts[at], self.now.unix);
        let owed = self.accounts.balances().account(host.id, unix).balance.amount;
        (-owed, host.worker.balances().account(self.me(), unix).balance.amount)
    }

    /// The next message to a worker arrives; false if there is none.
    pub(crate) fn hand_to_worker(&mut self, at: usize) -> bool {
        let Some(message) = self.hosts[at].to_it.pop_front() else { return false };
        self.say_to_worker(at, message);
        true
    }

    pub(crate) fn say_to_worker(&mut self, at: usize, message: ToWorker) {
        let (from, now) = (self.me(), self.now);
        let host = &mut self.hosts[at];
        let voucher = if let ToWorker::Voucher(record) = &message { Some(record.clone()) } else { None };
        let taken = host.worker.handle_message(from, message, now);
        if let (Ok(()), Some(record)) = (taken, voucher) {
            let voucher = record.verify::<Voucher>(&VOUCHER, &NETWORK, now.unix).unwrap();
            let Voucher { interval, cumulative, .. } = *voucher.body();
            let claim = host.claims.entry(interval.0).or_default();
            *claim = cumulative.max(*claim);
        }
        self.collect();
    }

    /// The next message from a worker arrives; false if there is none.
    pub(crate) fn hand_to_coordinator(&mut self, at: usize) -> bool {
        let Some(message) = self.hosts[at].from_it.pop_front() else { return false };
        let _taken = self.say_from_worker(at, message);
        true
    }

    pub(crate) fn say_from_worker(&mut self, at: usize, message: ToCoordinator) -> Result<(), super::reject::Reject> {
        let taken = self.coordinator.handle_message(self.hosts[at].id, message, self.now);
        self.collect();
        taken
    }

    /// A worker's host stages what it was told to.
    pub(crate) fn stage(&mut self, at: usize) -> bool {
        let Some(execution) = self.hosts[at].stages.pop_front() else { return false };
        self.hosts[at].worker.handle_staged(execution, Ok(()), self.now);
        self.collect();
        true
    }

    /// A worker's host runs the first run that was begun, with this outcome.
    pub(crate) fn run(&mut self, at: usize, outcome: impl FnOnce(&Work) -> Outcome) -> bool {
        let Some((execution, work)) = self.hosts[at].runs.pop_first() else { return false };
        self.hosts[at].worker.handle_run(execution, RunEvent::Started, self.now);
        self.hosts[at].worker.handle_run(execution, RunEvent::Done(outcome(&work)), self.now);
        self.hosts[at].ran += 1;
        self.collect();
        true
    }

    /// Everything that can happen without time happens, at honest hosts.
    pub(crate) fn settle(&mut self) {
        self.settle_with(|_, work| right(work));
    }

    pub(crate) fn settle_with(&mut self, outcome: impl Fn(usize, &Work) -> Outcome) {
        loop {
            let mut moved = false;
            for at in 0..self.hosts.len() {
                moved |= self.hand_to_worker(at)
                    | self.stage(at)
                    | self.run(at, |work| outcome(at, work))
                    | self.hand_to_coordinator(at);
            }
            if !moved {
                return;
            }
        }
    }

    /// Time passes; what is due happens.
    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
        self.coordinator.handle_timeout(self.now);
        for host in &mut self.hosts {
            host.worker.handle_timeout(self.now);
        }
        self.collect();
    }

    /// When anything is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let hosts = self.hosts.iter().filter_map(|host| host.worker.poll_timeout());
        hosts.chain(self.coordinator.poll_timeout()).min()
    }

    /// Kills the coordinator and starts it again: what is under way is lost, what was persisted is not.
    pub(crate) fn restart_coordinator(&mut self) {
        self.restarts += 1;
        self.coordinator =
            Coordinator::new(self.config.clone(), self.key.clone(), NETWORK, [3 + self.restarts; 32], self.now);
        for host in &mut self.hosts {
            host.to_it.clear();
            host.from_it.clear();
        }
        self.coordinator.restore(self.rows.clone(), self.now);
        self.accounts = Host::worker(&self.key, self.now);
        self.accounts.restore(self.rows.clone(), self.now);
        self.collect();
        self.meet();
    }

    /// Kills a worker and starts it again.
    pub(crate) fn restart_worker(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.worker = Host::worker(&host.key, self.now);
        host.worker.restore(host.rows.clone(), self.now);
        host.worker.set_capacity(offer(), self.now);
        host.runs.clear();
        host.stages.clear();
        host.to_it.clear();
        host.from_it.clear();
        self.collect();
        self.meet();
    }
}

impl Host {
    fn new(number: u64, now: Now) -> Self {
        let key = key(number);
        Self {
            worker: Self::worker(&key, now),
            id: id_of(&key),
            key,
            rows: BTreeMap::new(),
            runs: BTreeMap::new(),
            stages: VecDeque::new(),
            offer: None,
            to_it: VecDeque::new(),
            from_it: VecDeque::new(),
            claims: BTreeMap::new(),
            ran: 0,
            answers: VecDeque::new(),
        }
    }

    fn worker(key: &Arc<SigningKey>, now: Now) -> Worker {
        // Nothing is forgiven, so that sums can be compared.
        let balances = LocalAccounts::new(id_of(key), Credit { forgiven_per_hour: 0, ..Credit::default() });
        Worker::new(worker::Config::default(), key.clone(), NETWORK, balances, now)
    }

    fn collect(&mut self, coordinator: NodeId) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                worker::Output::Send { to, message } if to == coordinator => {
                    let message = through_the_wire(Message::ToCoordinator(message));
                    let Message::ToCoordinator(message) = message else { unreachable!() };
                    self.from_it.push_back(message);
                }
                worker::Output::Stage { execution, .. } => self.stages.push_back(execution),
                worker::Output::Run { execution, work, .. } => {
                    self.runs.insert(execution, work);
                }
                worker::Output::Stop(execution) => {
                    self.runs.remove(&execution);
                    self.stages.retain(|other| *other != execution);
                }
                worker::Output::Publish(record) => self.offer = Some(record.as_bytes().to_vec()),
                worker::Output::Persist(rows) => persist(&mut self.rows, rows),
                worker::Output::Send { to, message } => self.answers.push_back((to, message)),
                worker::Output::Release(_) | worker::Output::ShareOutput { .. } | worker::Output::Drop(_) => {}
            }
        }
    }
}

fn persist(table: &mut BTreeMap<Vec<u8>, Vec<u8>>, rows: Vec<Row>) {
    for Row { key, value } in rows {
        match value {
            Some(value) => table.insert(key, value),
            None => table.remove(&key),
        };
    }
}

/// Whatever is said fits the wire and arrives as it was said.
fn through_the_wire(message: Message) -> Message {
    let read = Message::decode(&message.encode()).unwrap();
    assert_eq!(read, message);
    read
}

/// Tries a property with so many values, and asserts that it said something of at least `least` of them: `check` answers whether it did.
pub(crate) fn holds_often<S: Strategy>(
    values: S,
    cases: u32,
    least: u32,
    check: impl Fn(S::Value) -> Result<bool, TestCaseError>,
) {
    let said = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&values, |value| {
        said.set(said.get() + u32::from(check(value)?));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(said.get() >= least, "it says something of {} of {cases} cases only", said.get());
}
