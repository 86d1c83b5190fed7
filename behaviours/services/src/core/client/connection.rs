//! One connection: from a name to keys that a service shares.
//!
//! Budgets are numbers that only fall, so that no retry can be forgotten.

mod beside;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{Epoch, NodeId, Now};

use super::{
    Connect, Failure, Output,
    cache::Cache,
    fetch::{Fetch, Fetched},
    recent::Recent,
    shell::Shell,
};
use crate::{
    core::{
        blinding::{BlindedKey, Fog, Subcredential},
        circuit::Circuit,
        descriptor::{Contents, Descriptor, IntroductionPoint},
        handshake::{Initiator, SessionKeys},
        introduction::Request,
        period::Calendar,
        pow::{MAX_EFFORT, Work},
        reject::Reject,
        view::View,
    },
    wire::{AckStatus, COOKIE, Message, Reply},
};

/// Introductions for one connection.
pub const INTRODUCTIONS: u32 = 6;
const RENDEZVOUS: u32 = 6;
/// For a rendezvous point, for an introduction point, and for an ACK.
const STEP: Duration = Duration::from_secs(10);
/// For the service to come.
const WAIT: Duration = Duration::from_secs(15);
const ALL: Duration = Duration::from_secs(60);
/// What is paid where nothing is asked for: made while circuits are built, and a flood that pays nothing waits behind it.
const LEAST_EFFORT: u32 = 1;
/// The least that is paid after an introduction failed at a service that has a puzzle.
const LEAST_RETRY_EFFORT: u32 = 8;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The descriptor.
    Descriptor,
    /// The rendezvous point, the introduction point, or a proof of work.
    Circuits,
    /// That the introduction is passed on.
    Introduction,
    /// The service.
    Service,
}

impl Stage {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Descriptor => "looking the service up",
            Self::Circuits => "building circuits",
            Self::Introduction => "introducing",
            Self::Service => "waiting for the service",
        }
    }
}

/// What a step has to work with.
pub(super) struct World<'a> {
    pub(super) calendar: &'a Calendar,
    pub(super) view: &'a View,
    pub(super) cache: &'a mut Cache,
    pub(super) recent: &'a mut Recent,
    pub(super) shell: &'a mut Shell,
    pub(super) now: Now,
}

impl World<'_> {
    fn epoch(&self) -> Epoch {
        self.calendar.epoch(self.now.unix)
    }
}

/// How a connection stands after a step.
#[derive(Debug)]
pub(super) enum Progress {
    Pending,
    Done(SessionKeys, Circuit),
    Found { points: usize, last_epoch: Epoch, revision: u64 },
    Failed(Failure),
}

/// A descriptor that was opened.
#[derive(Debug)]
struct Known {
    key: BlindedKey,
    subcredential: Subcredential,
    revision: u64,
    contents: Contents,
}

#[derive(Debug)]
struct Rendezvous {
    circuit: Circuit,
    relay: NodeId,
    cookie: [u8; COOKIE],
    ready: bool,
    /// When another one is asked beside it.
    beside_at: Option<Instant>,
    deadline: Instant,
}

#[derive(Debug)]
enum Attempt {
    /// The circuit is being built, or a proof made, or the rendezvous point is not ready.
    Prepares { opened: bool },
    /// Sent; the ACK is awaited.
    Sent(Initiator),
    /// Passed on; the service is awaited.
    PassedOn(Initiator),
}

#[derive(Debug)]
struct Introducing {
    circuit: Circuit,
    point: IntroductionPoint,
    attempt: Attempt,
    /// When another one is tried beside it.
    beside_at: Option<Instant>,
    deadline: Instant,
}

impl Introducing {
    /// Its circuit is not there yet.
    fn is_opening(&self) -> bool {
        matches!(self.attempt, Attempt::Prepares { opened: false })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    NotNeeded,
    Making,
    Made(Work),
}

/// One connection that is being made.
#[derive(Debug)]
pub(super) struct Connection {
    connect: Connect,
    fetch: Option<Fetch>,
    known: Option<Known>,
    rendezvous: Option<Rendezvous>,
    introducing: Option<Introducing>,
    /// Those beside them, while they do not come about.
    beside: (Option<Rendezvous>, Option<Introducing>),
    proof: Proof,
    effort: u32,
    /// How often each point failed.
    failures: BTreeMap<[u8; 32], u32>,
    introductions_left: u32,
    rendezvous_left: u32,
    /// The service was told at least once.
    told: bool,
    stage: Option<Stage>,
    deadline: Instant,
}

impl Connection {
    pub(super) fn new(connect: Connect, now: Instant) -> Self {
        Self {
            connect,
            fetch: None,
            known: None,
            rendezvous: None,
            introducing: None,
            beside: (None, None),
            proof: Proof::NotNeeded,
            effort: 0,
            failures: BTreeMap::new(),
            introductions_left: INTRODUCTIONS,
            rendezvous_left: RENDEZVOUS,
            told: false,
            stage: None,
            deadline: now + ALL,
        }
    }

    fn key(&self, world: &World<'_>) -> BlindedKey {
        let context = world.calendar.context(world.calendar.period(world.now.unix));
        BlindedKey::derive::<Fog>(self.connect.address.key(), &context)
    }

    pub(super) fn start(&mut self, world: &mut World<'_>) -> Progress {
        let key = self.key(world);
        let cached = if self.connect.fresh { None } else { world.cache.get(&key, world.epoch()) };
        // Both at once: the rendezvous point needs nothing of the descriptor.
        if !self.connect.lookup && !self.meet(world) {
            return Progress::Failed(Failure::NotReady);
        }
        match cached {
            Some(descriptor) => self.learn(&descriptor, world),
            None => self.look_up(world),
        }
    }

    /// Asks the directories for a descriptor that is newer than the one known to be of no use.
    fn look_up(&mut self, world: &mut World<'_>) -> Progress {
        let key = self.key(world);
        let period = world.calendar.period(world.now.unix);
        let Some(ring) = world.view.rings.get(&period).filter(|ring| !ring.is_empty()) else {
            return Progress::Failed(Failure::NotReady);
        };
        let useless = self.known.take().filter(|known| known.key == key).map(|known| known.revision);
        // Of the one that is cached the same revision will do; only an older one is a rollback.
        let seen = world.cache.revision(&key).and_then(|revision| revision.checked_sub(1));
        let above = useless.max(seen);
        self.stage(Stage::Descriptor, world);
        let directories = ring.directories(&key);
        self.fetch = Some(Fetch::start(key, directories, above, world.shell, world.now.mono));
        Progress::Pending
    }

    /// Draws a rendezvous point; false if there is no relay.
    fn meet(&mut self, world: &mut World<'_>) -> bool {
        self.rendezvous = self.draw_rendezvous(world);
        self.rendezvous.is_some()
    }

    /// The one beside it, or another rendezvous point, within the budget.
    fn meet_again(&mut self, world: &mut World<'_>) -> Progress {
        if let Some(old) = self.rendezvous.take() {
            world.shell.close(old.circuit);
            if !old.ready {
                world.recent.add(old.relay.0, world.now.mono);
            }
        }
        self.rendezvous = self.beside.0.take();
        if self.rendezvous.is_some() {
            return Progress::Pending;
        }
        self.rendezvous_left = self.rendezvous_left.saturating_sub(1);
        if self.rendezvous_left > 0 && self.meet(world) {
            Progress::Pending
        } else {
            Progress::Failed(Failure::Rendezvous)
        }
    }

    /// A descriptor is there.
    fn learn(&mut self, descriptor: &Descriptor, world: &mut World<'_>) -> Progress {
        let header = *descriptor.header();
        let subcredential = Subcredential::derive::<Fog>(self.connect.address.key(), &header.key);
        let contents = match descriptor.open(&subcredential, self.connect.client.as_ref()) {
            Ok(contents) => contents,
            Err(e) => return Progress::Failed(Failure::of_descriptor(e)),
        };
        let (points, last_epoch, revision) = (contents.points.len(), header.last_epoch, header.revision);
        self.effort =
            self.effort.max(contents.puzzle.map_or(0, |offer| offer.effort.max(LEAST_EFFORT))).min(MAX_EFFORT);
        self.known = Some(Known { key: header.key, subcredential, revision, contents });
        if self.connect.lookup {
            return Progress::Found { points, last_epoch, revision };
        }
        self.introduce(world)
    }

    /// The next point.
    fn introduce(&mut self, world: &mut World<'_>) -> Progress {
        let Some(known) = &self.known else { return Progress::Pending };
        let Some(left) = self.introductions_left.checked_sub(1) else { return Progress::Failed(self.spent()) };
        let epoch = world.epoch();
        let Some(point) = self.choose(|point| self.connect.through.is_none_or(|key| key == point.auth_key), world)
        else {
            // All of them failed: perhaps the service has others by now.
            return if self.connect.through.is_some() { Progress::Failed(self.spent()) } else { self.look_up(world) };
        };
        self.introductions_left = left;
        let offer = known.contents.puzzle.filter(|offer| self.effort > 0 && offer.last_epoch >= epoch);
        self.proof = offer.map_or(Proof::NotNeeded, |_| Proof::Making);
        if let Some(offer) = offer {
            let nonce = world.shell.random.bytes();
            let (connection, key, effort) = (world.shell.connection, known.key, self.effort);
            world.shell.outputs.push_back(Output::Solve { connection, key, seed: offer.seed, effort, nonce });
        }
        self.introducing = Some(self.approach(point, world));
        self.stage(Stage::Circuits, world);
        Progress::Pending
    }

    fn spent(&self) -> Failure {
        if self.told { Failure::TimedOut } else { Failure::Introduction }
    }

    /// Sends the introduction, if all that it needs is there.
    fn send_if_ready(&mut self, world: &mut World<'_>) -> Progress {
        let work = match self.proof {
            Proof::NotNeeded => None,
            Proof::Making => return Progress::Pending,
            Proof::Made(work) => Some(work),
        };
        let (Some(known), Some(meeting)) = (&self.known, self.rendezvous.as_ref().filter(|meeting| meeting.ready))
        else {
            return Progress::Pending;
        };
        let Some(introducing) = &mut self.introducing else { return Progress::Pending };
        if !matches!(introducing.attempt, Attempt::Prepares { opened: true }) {
            return Progress::Pending;
        }
        let stream = self.connect.stream.clone();
        let request = Request { cookie: meeting.cookie, rendezvous: meeting.relay, work, stream };
        let shell = &mut *world.shell;
        let point = &introducing.point;
        let started =
            Initiator::start(&shell.network, &known.subcredential, point, &request.encode(), &mut shell.random);
        let Ok((initiator, introduction)) = started else {
            return self.point_failed(2, world);
        };
        shell.send(introducing.circuit, Message::Introduce1(introduction));
        introducing.attempt = Attempt::Sent(initiator);
        introducing.deadline = world.now.mono + STEP;
        self.stage(Stage::Introduction, world);
        Progress::Pending
    }

    /// The current point failed, this badly. The one beside it comes next, if there is one.
    fn point_failed(&mut self, badly: u32, world: &mut World<'_>) -> Progress {
        if let Some(introducing) = self.introducing.take() {
            self.note_failed(&introducing, badly, world);
        }
        self.introducing = self.beside.1.take();
        if self.introducing.is_some() { Progress::Pending } else { self.introduce(world) }
    }

    /// The service was told, or may have been, and did not come.
    fn not_met(&mut self, world: &mut World<'_>) -> Progress {
        if self.known.as_ref().is_some_and(|known| known.contents.puzzle.is_some()) {
            self.effort = self.effort.saturating_mul(2).clamp(LEAST_RETRY_EFFORT, MAX_EFFORT);
        }
        // Its cookie was used up, or will be.
        match self.meet_again(world) {
            Progress::Pending => self.point_failed(1, world),
            other => other,
        }
    }

    fn meeting(&self, circuit: Circuit) -> Option<&Rendezvous> {
        self.rendezvous.iter().chain(&self.beside.0).find(|meeting| meeting.circuit == circuit)
    }

    fn is_at_point(&self, circuit: Circuit) -> bool {
        self.introducing.iter().chain(&self.beside.1).any(|introducing| introducing.circuit == circuit)
    }

    pub(super) fn has(&self, circuit: Circuit) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.has(circuit))
            || self.meeting(circuit).is_some()
            || self.is_at_point(circuit)
    }

    pub(super) fn opened(&mut self, circuit: Circuit, world: &mut World<'_>) -> Progress {
        if let Some(fetch) = self.fetch.as_ref().filter(|fetch| fetch.has(circuit)) {
            fetch.opened(circuit, world.shell);
        }
        if let Some(meeting) = self.meeting(circuit) {
            world.shell.send(circuit, Message::EstablishRendezvous(meeting.cookie));
        }
        if self.is_at_point(circuit) { self.is_approached(circuit, world) } else { Progress::Pending }
    }

    pub(super) fn closed(&mut self, circuit: Circuit, world: &mut World<'_>) -> Progress {
        if self.fetch.as_ref().is_some_and(|fetch| fetch.has(circuit)) {
            return self.fetched(circuit, None, world);
        }
        if let Some(beside) = self.beside.0.take_if(|beside| beside.circuit == circuit) {
            world.recent.add(beside.relay.0, world.now.mono);
            return Progress::Pending;
        }
        if let Some(beside) = self.beside.1.take_if(|beside| beside.circuit == circuit) {
            self.note_failed(&beside, 1, world);
            return Progress::Pending;
        }
        if self.meeting(circuit).is_some() {
            // Whoever was told of it comes to a place where nobody waits.
            let told = self.introducing.as_ref().is_some_and(|i| !matches!(i.attempt, Attempt::Prepares { .. }));
            return if told { self.not_met(world) } else { self.meet_again(world) };
        }
        match self.introducing.as_ref().map(|introducing| &introducing.attempt) {
            // The relay has done its part.
            Some(Attempt::PassedOn(_)) | None => Progress::Pending,
            Some(Attempt::Prepares { .. }) => self.point_failed(1, world),
            Some(Attempt::Sent(_)) => self.not_met(world),
        }
    }

    pub(super) fn message(
        &mut self,
        circuit: Circuit,
        message: Message,
        world: &mut World<'_>,
    ) -> (Progress, Result<(), Reject>) {
        let is_fetch = self.fetch.as_ref().is_some_and(|fetch| fetch.has(circuit));
        let is_meeting = self.meeting(circuit).is_some();
        let progress = match message {
            Message::FetchAnswer(found) if is_fetch => {
                world.shell.close(circuit);
                self.fetched(circuit, found.as_deref(), world)
            }
            Message::RendezvousEstablished(true) if is_meeting => self.is_met(circuit, world),
            Message::RendezvousEstablished(false) if is_meeting => {
                world.shell.close(circuit);
                self.closed(circuit, world)
            }
            Message::Rendezvous2(reply) if is_meeting => return self.met(&reply, circuit, world),
            Message::IntroduceAck(status) if !is_fetch && !is_meeting => self.acknowledged(status, world),
            _ => {
                world.shell.close(circuit);
                return (self.closed(circuit, world), Err(Reject::Unexpected));
            }
        };
        (progress, Ok(()))
    }

    fn fetched(&mut self, circuit: Circuit, found: Option<&[u8]>, world: &mut World<'_>) -> Progress {
        let epoch = world.epoch();
        let Some(fetch) = &mut self.fetch else { return Progress::Pending };
        match fetch.answered(circuit, found, epoch, world.shell, world.now.mono) {
            Fetched::Pending => Progress::Pending,
            Fetched::Found(descriptor) => {
                // What the others say is not needed any more.
                self.fetch.take().into_iter().for_each(|fetch| fetch.close(world.shell));
                self.failures.clear();
                world.cache.put((*descriptor).clone());
                self.learn(&descriptor, world)
            }
            Fetched::Failed(failure) => Progress::Failed(failure),
        }
    }

    fn acknowledged(&mut self, status: AckStatus, world: &mut World<'_>) -> Progress {
        let Some(introducing) = &mut self.introducing else { return Progress::Pending };
        let attempt = std::mem::replace(&mut introducing.attempt, Attempt::Prepares { opened: false });
        match (attempt, status) {
            (Attempt::Sent(initiator), AckStatus::PassedOn) => {
                introducing.attempt = Attempt::PassedOn(initiator);
                introducing.deadline = world.now.mono + WAIT;
                self.told = true;
                self.stage(Stage::Service, world);
                Progress::Pending
            }
            (Attempt::Sent(_), AckStatus::Limited) => self.point_failed(1, world),
            (Attempt::Sent(_), _) => self.point_failed(2, world),
            (attempt, _) => {
                introducing.attempt = attempt;
                Progress::Pending
            }
        }
    }

    fn met(&mut self, reply: &Reply, circuit: Circuit, world: &mut World<'_>) -> (Progress, Result<(), Reject>) {
        // It may come before the ACK: the ways differ.
        let attempt = self.introducing.as_ref().map(|introducing| &introducing.attempt);
        let Some(Attempt::Sent(initiator) | Attempt::PassedOn(initiator)) = attempt else {
            return (self.meet_again(world), Err(Reject::Unexpected));
        };
        match initiator.finish(reply) {
            Ok(keys) => (Progress::Done(keys, circuit), Ok(())),
            Err(_) => (self.not_met(world), Err(Reject::BadSignature)),
        }
    }

    pub(super) fn worked(&mut self, work: Option<Work>, world: &mut World<'_>) -> Progress {
        if self.proof == Proof::Making {
            self.proof = work.map_or(Proof::NotNeeded, Proof::Made);
        }
        self.send_if_ready(world)
    }

    pub(super) fn timeout(&mut self, world: &mut World<'_>) -> Progress {
        let now = world.now.mono;
        if self.deadline <= now {
            return Progress::Failed(match self.stage {
                Some(Stage::Descriptor) | None => Failure::NotFound,
                Some(Stage::Circuits) if !self.told => Failure::Rendezvous,
                _ => self.spent(),
            });
        }
        for circuit in self.fetch.as_ref().map(|fetch| fetch.late(now)).unwrap_or_default() {
            world.shell.close(circuit);
            let progress = self.fetched(circuit, None, world);
            if !matches!(progress, Progress::Pending) {
                return progress;
            }
        }
        self.step_beside(world);
        if self.rendezvous.as_ref().is_some_and(|meeting| !meeting.ready && meeting.deadline <= now) {
            return self.meet_again(world);
        }
        match &mut self.introducing {
            Some(introducing) if introducing.deadline <= now => match introducing.attempt {
                // Not its fault while the rendezvous point or the proof is what is missing.
                Attempt::Prepares { opened: true } => {
                    introducing.deadline = now + STEP;
                    Progress::Pending
                }
                Attempt::Prepares { opened: false } => self.point_failed(1, world),
                Attempt::Sent(_) | Attempt::PassedOn(_) => self.not_met(world),
            },
            _ => Progress::Pending,
        }
    }

    pub(super) fn next_timeout(&self) -> Instant {
        let fetch = self.fetch.as_ref().and_then(Fetch::next_timeout);
        let meeting = self.rendezvous.as_ref().filter(|meeting| !meeting.ready).map(|meeting| meeting.deadline);
        let introducing = self.introducing.as_ref().map(|introducing| introducing.deadline);
        [fetch, meeting, introducing, self.beside_at()].into_iter().flatten().fold(self.deadline, Instant::min)
    }

    fn stage(&mut self, stage: Stage, world: &mut World<'_>) {
        if self.stage != Some(stage) {
            self.stage = Some(stage);
            world.shell.outputs.push_back(Output::Stage(world.shell.connection, stage));
        }
    }

    pub(super) fn close(mut self, shell: &mut Shell) {
        self.rendezvous.take().into_iter().for_each(|meeting| shell.close(meeting.circuit));
        self.close_rest(shell);
    }

    /// Closes all but the circuit on which the service was met.
    pub(super) fn close_all_but(self, circuit: Circuit, shell: &mut Shell) {
        debug_assert_eq!(self.rendezvous.as_ref().map(|meeting| meeting.circuit), Some(circuit));
        self.close_rest(shell);
    }

    fn close_rest(self, shell: &mut Shell) {
        self.fetch.into_iter().for_each(|fetch| fetch.close(shell));
        let (meeting, point) = self.beside;
        meeting.into_iter().for_each(|meeting| shell.close(meeting.circuit));
        self.introducing.into_iter().chain(point).for_each(|introducing| shell.close(introducing.circuit));
    }
}
