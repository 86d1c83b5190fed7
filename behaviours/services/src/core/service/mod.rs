//! The service's side: introduction points, publication, introductions, and the proof that all of it works.

mod answers;
mod exchanges;
mod points;
mod publication;
mod saved;
mod shell;
mod status;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis};

use super::{
    address::Address,
    blinding::Identity,
    circuit::{Circuit, Purpose},
    client::Failure,
    descriptor::{ClientKey, Contents, MixedOffer},
    handshake::SessionKeys,
    introduction::FirstStream,
    mixed,
    period::{Calendar, LEAD, Period},
    pow::Puzzle,
    reject::{Reject, Rejects},
    view::View,
};
use crate::wire::Message;

use answers::{Answers, Keys};
use points::Points;
use publication::{News, Publication};
use saved::Saved;
use shell::Shell;

pub use exchanges::Exchange;
pub use saved::Row;
pub use status::{DirectoryStatus, LastProbe, State, Status};

/// After the last change of the points until a descriptor is made.
const SETTLE: Duration = Duration::from_secs(1);
/// A probe that did not end by then failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(90);

/// What it says of requests through the mixnet.
const OFFER: MixedOffer =
    MixedOffer { request: (mixed::MAX_REQUEST / 1024) as u16, answer: (mixed::MAX_ANSWER / 1024) as u16 };

/// What a service is made with.
#[derive(Debug)]
pub struct Config {
    /// How many introduction points: 1 to 5.
    pub points: usize,
    /// Introductions a second and at once that each point may pass on; zeros leave it to the relay.
    pub limits: (u16, u16),
    /// Whom it admits; `None`: everybody who knows the name.
    pub clients: Option<Vec<ClientKey>>,
    /// The puzzle that it may ask for; `None`: never one.
    pub puzzle: Option<Box<dyn Puzzle>>,
    /// It does not hide: clients are told, and the caller builds its circuits short.
    pub single_hop: bool,
    /// It takes requests through the mixnet.
    pub mixed: bool,
}

impl Default for Config {
    fn default() -> Self {
        let puzzle: Box<dyn Puzzle> = Box::new(super::pow::Equihash);
        Self { points: 3, limits: (0, 0), clients: None, puzzle: Some(puzzle), single_hop: false, mixed: true }
    }
}

/// What a service asks for. In order: what follows a [`Output::Persist`] happens when those rows are on disk; several may be
/// written in one batch before anything else of the same round is done.
#[derive(Debug)]
pub enum Output {
    /// A circuit to `relay`. [`Service::handle_opened`] or [`Service::handle_closed`] follows.
    Open {
        /// Its number.
        circuit: Circuit,
        /// Its last hop.
        relay: NodeId,
        /// What for.
        purpose: Purpose,
    },
    /// A message to the circuit's last hop.
    Send(Circuit, Message),
    /// The circuit is not needed any more; it may be gone already.
    Close(Circuit),
    /// Changes to what is on disk.
    Persist(Vec<Row>),
    /// A client is at the other end: add a virtual hop as the service, and serve. The circuit is the caller's.
    Accept {
        /// The circuit.
        circuit: Circuit,
        /// For the virtual hop.
        keys: SessionKeys,
        /// The first stream, unless the client opens streams later.
        stream: Option<FirstStream>,
    },
    /// Answer a request that came through the mixnet: the parts of what [`mixed::Answerer::seal`] makes of the answer go back on its circuit.
    Exchange(Box<Exchange>),
    /// Connect to this service as a stranger would, with a fresh descriptor, through the point with this key; the result goes to
    /// [`Service::handle_probe`]. If the service admits known clients only, with a key that it gave itself.
    Probe(Address, [u8; 32]),
}

/// A service.
#[derive(Debug)]
pub struct Service {
    config: Config,
    identity: Identity,
    calendar: Calendar,
    view: View,
    shell: Shell,
    points: Points,
    answers: Answers,
    publications: BTreeMap<Period, Publication>,
    steps: BTreeMap<Period, u64>,
    /// What the last descriptors told.
    told: Contents,
    /// Until when changes settle, once there were some.
    settles: Option<Instant>,
    seen_changes: u64,
    republish: Instant,
    probe: ProbeTimes,
    last_probe: Option<LastProbe>,
    failed: Option<String>,
}

#[derive(Debug)]
struct ProbeTimes {
    next: Instant,
    running: Option<Instant>,
    turn: usize,
}

impl Service {
    /// From its key, and the rows that it kept before, in any order. `seed` has 32 random bytes.
    pub fn new<'a>(
        config: Config,
        identity: Identity,
        calendar: Calendar,
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        let mut config = config;
        config.points = config.points.clamp(1, 5);
        let Saved { points, answered, steps, seeds } = Saved::read(rows);
        let answers = Answers::new(config.puzzle.take(), seeds, now.mono);
        Self {
            points: Points::restore(config.points, config.limits, points, answered, now),
            answers,
            shell: Shell::new(calendar.network, seed),
            config,
            identity,
            calendar,
            view: View::default(),
            publications: BTreeMap::new(),
            steps,
            told: Contents::default(),
            settles: None,
            seen_changes: 0,
            republish: now.mono,
            probe: ProbeTimes { next: now.mono, running: None, turn: 0 },
            last_probe: None,
            failed: None,
        }
    }

    /// Its name.
    pub fn address(&self) -> Address {
        Address::new(*self.identity.key())
    }

    /// The network changed, or an epoch began.
    pub fn set_view(&mut self, view: View, now: Now) {
        self.view = view;
        self.handle_timeout(now);
    }

    /// Admits other clients than before. If one was removed the points are replaced: it knows them.
    pub fn set_clients(&mut self, clients: Option<Vec<ClientKey>>, now: Now) {
        let before = std::mem::replace(&mut self.config.clients, clients);
        let removed = match (&before, &self.config.clients) {
            (Some(before), Some(now)) => before.iter().any(|client| !now.contains(client)),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if removed {
            self.points.replace_all(&mut self.shell);
        }
        self.settles = Some(now.mono + SETTLE);
        self.told = Contents::default();
        self.handle_timeout(now);
    }

    /// A circuit is ready; `binding` is known to its two ends alone.
    pub fn handle_opened(&mut self, circuit: Circuit, binding: &[u8; 32], now: Now) {
        self.points.handle_alive(now);
        let ours = self.points.opened(circuit, binding, &mut self.shell, now)
            || self.answers.opened(circuit, &mut self.shell)
            || self.publications.values_mut().any(|publication| publication.opened(circuit, &mut self.shell));
        if !ours {
            self.shell.close(circuit);
        }
        self.handle_timeout(now);
    }

    /// A circuit could not be built, or is gone.
    pub fn handle_closed(&mut self, circuit: Circuit, now: Now) {
        let _ = self.points.closed(circuit, &mut self.shell, now)
            || self.answers.closed(circuit, &mut self.shell)
            || self.publications.values_mut().any(|publication| publication.closed(circuit, now));
        self.answers.exchanges.closed(circuit);
        self.handle_timeout(now);
    }

    /// A message from a circuit's last hop.
    pub fn handle_message(&mut self, circuit: Circuit, command: u8, body: &[u8], now: Now) -> Result<(), Reject> {
        self.points.handle_alive(now);
        let result = Message::decode(command, body)
            .ok_or(Reject::Malformed)
            .and_then(|message| self.handle(circuit, message, now))
            .map_err(|reason| self.shell.rejects.count(reason));
        if matches!(result, Err(Reject::Malformed | Reject::Unexpected))
            && self.points.established_on(circuit).is_none()
        {
            self.shell.close(circuit);
            self.handle_closed(circuit, now);
        }
        self.handle_timeout(now);
        result
    }

    fn handle(&mut self, circuit: Circuit, message: Message, now: Now) -> Result<(), Reject> {
        let Self { points, answers, publications, shell, view, .. } = self;
        let interval = self.calendar.schedule.length() / 3;
        let keys = |publications: &BTreeMap<Period, Publication>| Keys {
            subcredentials: publications.values().rev().map(|publication| publication.subcredential).collect(),
            blinded: publications.values().rev().map(|publication| *publication.secret().key()).collect(),
        };
        let expected = match message {
            Message::Introduce2(introduction) => {
                let key = points.established_on(circuit).ok_or(Reject::Unexpected)?;
                return answers.introduced((key, &introduction), &keys(publications), points, view, shell, now);
            }
            Message::MixedRequest(part) if self.config.mixed => {
                let key = points.established_on(circuit).ok_or(Reject::Unexpected)?;
                let Some((number, request)) = answers.exchanges.part(circuit, &part)? else { return Ok(()) };
                return answers.asked((key, circuit, number), &request, &keys(publications), points, shell, now);
            }
            Message::IntroEstablished(done) => points.answered(circuit, done, shell, now),
            Message::StoreAnswer(answer) => {
                publications.values_mut().any(|publication| publication.stored(circuit, answer, shell, now))
            }
            Message::FetchAnswer(found) => publications
                .values_mut()
                .any(|publication| publication.fetched(circuit, found.as_deref(), interval, shell, now)),
            _ => false,
        };
        if expected { Ok(()) } else { Err(Reject::Unexpected) }
    }

    /// How a probe ended.
    pub fn handle_probe(&mut self, result: Result<(), Failure>, now: Now) {
        if self.probe.running.take().is_none() {
            return;
        }
        let detail = result.as_ref().map_or_else(ToString::to_string, |()| "introduced to itself".to_owned());
        let ok = result.is_ok();
        self.last_probe = Some(LastProbe { ok, at: now.unix, detail });
        let interval = self.calendar.schedule.length() / 3;
        // A failure is looked at again soon, through another point.
        let wait = if ok { interval } else { interval.min(Duration::from_secs(15)) };
        self.probe.next = now.mono + wait;
        self.handle_timeout(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let epoch = self.calendar.epoch(now.unix);
        self.points.tick(&self.view, &mut self.shell, now);
        self.answers.tick(epoch, &mut self.shell, now);
        self.turn_periods(now);
        self.publish_if_due(now);
        for publication in self.publications.values_mut() {
            publication.tick(&mut self.shell, now);
        }
        self.probe_if_due(now);
    }

    /// Periods begin and end, and their rings change.
    fn turn_periods(&mut self, now: Now) {
        let epoch = self.calendar.epoch(now.unix);
        for period in self.calendar.published(now.unix) {
            let Some(ring) = self.view.rings.get(&period) else { continue };
            let step = self.steps.get(&period).copied();
            let publication = self.publications.entry(period).or_insert_with(|| {
                self.settles.get_or_insert(now.mono + SETTLE);
                Publication::new(&self.identity, &self.calendar, period, step)
            });
            let directories = ring.directories(publication.secret().key());
            publication.set_directories(&directories, &mut self.shell, Some(now));
        }
        let published: Vec<_> = self.calendar.published(now.unix).collect();
        for (_, publication) in self.publications.iter_mut().filter(|(period, _)| !published.contains(period)) {
            publication.stop(&mut self.shell);
        }
        if self.publications.values().any(|publication| publication.behind) {
            self.settles.get_or_insert(now.mono + SETTLE);
        }
        let over: Vec<_> = self.publications.keys().filter(|period| !period.is_open(epoch)).copied().collect();
        for period in over {
            self.publications.remove(&period);
            self.shell.persist([Row::forget_step(period)]);
        }
        self.steps.retain(|period, _| period.is_open(epoch));
    }

    fn publish_if_due(&mut self, now: Now) {
        if self.seen_changes != self.points.changes() || std::mem::take(&mut self.answers.news) {
            self.seen_changes = self.points.changes();
            self.settles = Some(now.mono + SETTLE);
        }
        let settled = self.settles.is_some_and(|at| at <= now.mono);
        let hourly = self.republish <= now.mono;
        if !settled && !hourly {
            return;
        }
        self.settles = None;
        let contents = Contents {
            single_hop: self.config.single_hop,
            points: self.points.listed().cloned().collect(),
            puzzle: self.answers.offer(),
            mixed: self.config.mixed.then_some(OFFER),
        };
        let epochs = self.calendar.schedule.length() * LEAD;
        self.republish = now.mono + self.shell.random.between(epochs * 3 / 4, epochs);
        if contents.points.is_empty() {
            return;
        }
        let changed = contents != self.told;
        self.told = contents;
        let news = News { contents: &self.told, clients: self.config.clients.as_deref() };
        let published: Vec<_> = self.calendar.published(now.unix).collect();
        for (period, publication) in &mut self.publications {
            let due = changed || hourly || publication.revision().is_none() || publication.behind;
            if due && published.contains(period) {
                let result = publication.publish(&news, &self.calendar, &mut self.shell, now);
                self.failed = result.err().map(|e| e.to_string());
                self.probe.next = now.mono;
            }
        }
    }

    fn probe_if_due(&mut self, now: Now) {
        if self.probe.running.is_some_and(|since| now.mono.saturating_duration_since(since) >= PROBE_TIMEOUT) {
            self.handle_probe_timeout(now);
        }
        let current = self.publications.get(&self.calendar.period(now.unix));
        let shown = current.is_some_and(Publication::is_shown);
        if self.probe.running.is_some() || self.probe.next > now.mono || !shown {
            return;
        }
        let keys: Vec<_> = self.points.listed().map(|point| point.auth_key).collect();
        self.probe.turn = self.probe.turn.wrapping_add(1);
        let Some(key) = keys.get(self.probe.turn % keys.len().max(1)) else { return };
        self.probe.running = Some(now.mono);
        self.shell.outputs.push_back(Output::Probe(Address::new(*self.identity.key()), *key));
        for publication in self.publications.values_mut() {
            publication.probe(&mut self.shell, now);
        }
    }

    fn handle_probe_timeout(&mut self, now: Now) {
        self.probe.running = None;
        self.probe.next = now.mono;
        self.last_probe = Some(LastProbe { ok: false, at: now.unix, detail: Failure::TimedOut.to_string() });
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self, now: Now) -> Option<Instant> {
        let publications = self.publications.values().filter_map(Publication::next_timeout);
        let own = [self.points.next_timeout(now), self.answers.next_timeout(now.mono), self.settles];
        let probe = self.probe.running.map_or(self.probe.next, |since| since + PROBE_TIMEOUT);
        // A probe waits for the first directory, not for a time.
        let probe = (probe > now.mono).then_some(probe);
        publications.chain(own.into_iter().flatten()).chain(probe).chain([self.republish]).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shell.outputs.pop_front()
    }

    /// How often what was refused.
    pub fn rejects(&self) -> &Rejects {
        &self.shell.rejects
    }

    /// Its state, as far as it was shown.
    pub fn status(&self, now: UnixMillis) -> Status {
        let current = self.publications.get(&self.calendar.period(now));
        let points: Vec<_> = self.points.iter().collect();
        let directories = current.into_iter().flat_map(|publication| {
            let revision = publication.revision();
            publication.directories.iter().map(move |(relay, directory)| DirectoryStatus {
                relay: *relay,
                shown: directory.showed.filter(|(shown, _)| Some(*shown) == revision).map(|(_, at)| at),
                refused: directory.refused,
                lies: directory.lies,
            })
        });
        let mut status = Status {
            state: State::Starting,
            points,
            directories: directories.collect(),
            revision: current.and_then(Publication::revision),
            answered: self.answers.answered,
            waiting: self.answers.waiting(),
            effort: self.answers.offer().map_or(0, |offer| offer.effort),
            last_probe: self.last_probe.clone(),
            error: self.failed.clone(),
        };
        status.state = status.judge(self.config.points);
        status
    }
}

#[cfg(test)]
mod tests;
