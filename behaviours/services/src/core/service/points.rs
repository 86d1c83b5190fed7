//! The service's introduction points: chosen, established, built again, replaced.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis};
use zeroize::Zeroizing;

use super::{
    saved::{Life, Row, SavedPoint},
    shell::Shell,
};
use crate::{
    core::{
        circuit::{Circuit, Purpose},
        descriptor::IntroductionPoint,
        handshake::PointKeys,
        replay::{ReplayLog, Tag},
        view::View,
    },
    wire::Message,
};

/// A point is replaced at an age between these.
const AGE: (Duration, Duration) = (Duration::from_secs(18 * 3600), Duration::from_secs(24 * 3600));
/// Or after a number of introductions between these.
const INTRODUCTIONS: (u32, u32) = (16_384, 32_768);
/// How long a point that was replaced still answers.
const GRACE: Duration = Duration::from_secs(600);
/// For a circuit, and for the relay's answer on it.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Failures in a row after which the relay is replaced. What fails while nothing else of this node's circuits comes to be is not one.
const FAILURES: u32 = 3;
/// Doubled after each failure, so many times at most.
const RETRY: Duration = Duration::from_millis(200);
const MAX_TRIES: u32 = 5;
/// How long a relay that failed is not drawn again, if there are others.
const AVOID: Duration = Duration::from_secs(600);
const MAX_AVOIDED: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until then.
    Waits(Instant),
    Opens(Circuit, Instant),
    Asks(Circuit, Instant),
    Established(Circuit),
}

impl Phase {
    fn circuit(self) -> Option<Circuit> {
        match self {
            Self::Waits(_) => None,
            Self::Opens(circuit, _) | Self::Asks(circuit, _) | Self::Established(circuit) => Some(circuit),
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Waits(at) | Self::Opens(_, at) | Self::Asks(_, at) => Some(at),
            Self::Established(_) => None,
        }
    }
}

/// One point.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) keys: PointKeys,
    life: Life,
    pub(super) log: ReplayLog,
    phase: Phase,
    /// Failures in a row that were the relay's.
    failures: u32,
    /// All failures in a row, up to [`MAX_TRIES`].
    tries: u32,
    /// When it was last asked for.
    began: Instant,
    /// It failed while nothing else of this service came to be: perhaps it is this node's own link.
    is_doubtful: bool,
    /// It is being replaced, and is destroyed then.
    retires: Option<UnixMillis>,
}

impl Point {
    fn new(keys: PointKeys, life: Life, log: ReplayLog, now: Instant) -> Self {
        let phase = Phase::Waits(now);
        Self { keys, life, log, phase, failures: 0, tries: 0, began: now, is_doubtful: false, retires: None }
    }

    fn is_over(&self, now: UnixMillis) -> bool {
        now >= self.life.until
            || now < self.life.made.minus(AGE.0)
            || self.log.len() >= self.life.introductions as usize
    }

    fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }
}

/// A circuit to another relay, by which a doubtful failure is judged.
#[derive(Debug, Clone, Copy)]
struct Check {
    circuit: Circuit,
    deadline: Instant,
}

/// All points.
#[derive(Debug)]
pub(super) struct Points {
    wanted: usize,
    limits: (u16, u16),
    points: BTreeMap<[u8; 32], Point>,
    avoided: Vec<(NodeId, Instant)>,
    /// When a circuit of this service came to be last, or brought something.
    alive: Option<Instant>,
    check: Option<Check>,
    /// Counted up when the set of established points changes.
    changes: u64,
}

impl Points {
    pub(super) fn restore(
        wanted: usize,
        limits: (u16, u16),
        saved: Vec<SavedPoint>,
        mut answered: BTreeMap<[u8; 32], Vec<Tag>>,
        now: Now,
    ) -> Self {
        let points = saved.into_iter().map(|SavedPoint { keys, life }| {
            let key = keys.public().auth_key;
            let log = ReplayLog::restore(answered.remove(&key).unwrap_or_default());
            (key, Point::new(keys, life, log, now.mono))
        });
        let points = points.collect();
        Self { wanted, limits, points, avoided: Vec::new(), alive: None, check: None, changes: 0 }
    }

    /// The established points that descriptors name.
    pub(super) fn listed(&self) -> impl Iterator<Item = &IntroductionPoint> {
        let listed = self.points.values().filter(|point| point.is_established() && point.retires.is_none());
        listed.map(|point| point.keys.public())
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn get_mut(&mut self, key: &[u8; 32]) -> Option<&mut Point> {
        self.points.get_mut(key)
    }

    /// All of them: the relay, and whether it is established.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let current = self.points.values().filter(|point| point.retires.is_none());
        current.map(|point| (point.keys.public().relay, point.is_established()))
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, view: &View, shell: &mut Shell, now: Now) {
        self.retire(shell, now);
        self.choose(view, shell, now);
        let due: Vec<_> =
            self.points.iter().filter(|(_, p)| p.phase.deadline().is_some_and(|at| at <= now.mono)).collect();
        let due: Vec<_> = due.into_iter().map(|(key, point)| (*key, matches!(point.phase, Phase::Waits(_)))).collect();
        for (key, waited) in due {
            match self.points.get_mut(&key) {
                Some(point) if waited => {
                    let circuit = shell.open(point.keys.public().relay, Purpose::ServiceIntroduction);
                    point.phase = Phase::Opens(circuit, now.mono + TIMEOUT);
                    point.began = now.mono;
                }
                _ => self.failed(&key, shell, now),
            }
        }
        if let Some(Check { circuit, .. }) = self.check.filter(|check| check.deadline <= now.mono) {
            shell.close(circuit);
            self.checked(false, shell, now);
        }
        self.begin_check(view, shell, now);
    }

    /// A circuit to a relay that is not doubtful itself, if there are doubts.
    fn begin_check(&mut self, view: &View, shell: &mut Shell, now: Now) {
        let doubtful = self.points.values().filter(|point| point.is_doubtful);
        let doubtful: Vec<_> = doubtful.map(|point| point.keys.public().relay).collect();
        if doubtful.is_empty() || self.check.is_some() {
            return;
        }
        let others: Vec<_> = view.relays.iter().filter(|relay| !doubtful.contains(relay)).copied().collect();
        match shell.random.pick(&others).copied() {
            Some(relay) => {
                let circuit = shell.open(relay, Purpose::Probe);
                self.check = Some(Check { circuit, deadline: now.mono + TIMEOUT });
            }
            None => self.checked(false, shell, now),
        }
    }

    /// Whether another circuit came to be, when these had failed: if so it was their relays that failed, and if not this node's link.
    fn checked(&mut self, is_alive: bool, shell: &mut Shell, now: Now) {
        self.check = None;
        let doubts = self.points.iter_mut().map(|(key, point)| (*key, std::mem::take(&mut point.is_doubtful)));
        let doubtful: Vec<_> = doubts.filter(|(_, is_doubtful)| *is_doubtful).map(|(key, _)| key).collect();
        if is_alive {
            doubtful.iter().for_each(|key| self.count_failure(key, shell, now));
        }
    }

    /// A circuit of this service came to be, or brought something: its link works.
    pub(super) fn handle_alive(&mut self, now: Now) {
        self.alive = Some(now.mono);
    }

    /// When the next thing is due.
    pub(super) fn next_timeout(&self, now: Now) -> Option<Instant> {
        let unix = self.points.values().map(|point| point.retires.unwrap_or(point.life.until));
        let unix = unix.map(|at| now.mono + at.since(now.unix));
        let check = self.check.map(|check| check.deadline);
        self.points.values().filter_map(|point| point.phase.deadline()).chain(unix).chain(check).min()
    }

    fn retire(&mut self, shell: &mut Shell, now: Now) {
        for point in self.points.values_mut().filter(|point| point.retires.is_none()) {
            if point.is_over(now.unix) {
                point.retires = Some(now.unix.plus(GRACE));
                self.changes += 1;
            }
        }
        let gone = self.points.iter().filter(|(_, point)| point.retires.is_some_and(|at| at <= now.unix));
        let gone: Vec<_> = gone.map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| self.destroy(key, shell));
    }

    /// Keys and log go together.
    fn destroy(&mut self, key: &[u8; 32], shell: &mut Shell) {
        let Some(point) = self.points.remove(key) else { return };
        point.phase.circuit().into_iter().for_each(|circuit| shell.close(circuit));
        shell.persist(Row::forget_point(key));
        self.changes += 1;
    }

    /// New points at relays that have none, until there are as many as wanted.
    fn choose(&mut self, view: &View, shell: &mut Shell, now: Now) {
        self.avoided.retain(|(_, until)| *until > now.mono);
        loop {
            let used: Vec<_> = self.iter().map(|(relay, _)| relay).collect();
            if used.len() >= self.wanted {
                return;
            }
            let free: Vec<_> = view.relays.iter().filter(|relay| !used.contains(relay)).copied().collect();
            let avoided = |relay: &NodeId| self.avoided.iter().any(|(other, _)| other == relay);
            let good: Vec<_> = free.iter().filter(|relay| !avoided(relay)).copied().collect();
            let candidates = if good.is_empty() { free } else { good };
            let Some(relay) = shell.random.pick(&candidates).copied() else { return };
            self.make(relay, shell, now);
        }
    }

    fn make(&mut self, relay: NodeId, shell: &mut Shell, now: Now) {
        let seed = Zeroizing::new(shell.random.bytes());
        let keys = PointKeys::from_seed(&seed, relay);
        let more = shell.random.below(u64::from(INTRODUCTIONS.1 - INTRODUCTIONS.0));
        let life = Life {
            made: now.unix,
            until: now.unix.plus(shell.random.between(AGE.0, AGE.1)),
            introductions: INTRODUCTIONS.0 + u32::try_from(more).unwrap_or(0),
        };
        shell.persist([Row::point(&seed, &keys, &life)]);
        let key = keys.public().auth_key;
        self.points.insert(key, Point::new(keys, life, ReplayLog::default(), now.mono));
    }

    fn failed(&mut self, key: &[u8; 32], shell: &mut Shell, now: Now) {
        let Some(point) = self.points.get_mut(key) else { return };
        self.changes += u64::from(point.is_established());
        point.phase.circuit().into_iter().for_each(|circuit| shell.close(circuit));
        point.tries = (point.tries + 1).min(MAX_TRIES);
        point.phase = Phase::Waits(now.mono + RETRY * (1 << point.tries));
        if self.alive.is_some_and(|alive| alive >= point.began) {
            self.count_failure(key, shell, now);
        } else {
            point.is_doubtful = true;
        }
    }

    /// The relay failed, and not this node's link.
    fn count_failure(&mut self, key: &[u8; 32], shell: &mut Shell, now: Now) {
        let Some(point) = self.points.get_mut(key) else { return };
        point.is_doubtful = false;
        point.failures += 1;
        if point.failures >= FAILURES || point.retires.is_some() {
            if self.avoided.len() < MAX_AVOIDED {
                self.avoided.push((point.keys.public().relay, now.mono + AVOID));
            }
            self.destroy(key, shell);
        }
    }

    fn is_check(&self, circuit: Circuit) -> bool {
        self.check.is_some_and(|check| check.circuit == circuit)
    }

    fn of(&self, circuit: Circuit) -> Option<[u8; 32]> {
        self.points.iter().find(|(_, point)| point.phase.circuit() == Some(circuit)).map(|(key, _)| *key)
    }

    /// Which point's established circuit this is.
    pub(super) fn established_on(&self, circuit: Circuit) -> Option<[u8; 32]> {
        let at = self.points.iter().find(|(_, point)| point.phase == Phase::Established(circuit));
        at.map(|(key, _)| *key)
    }

    /// A circuit was opened; false if it is none of these.
    pub(super) fn opened(&mut self, circuit: Circuit, binding: &[u8; 32], shell: &mut Shell, now: Now) -> bool {
        if self.is_check(circuit) {
            shell.close(circuit);
            self.checked(true, shell, now);
            return true;
        }
        let Some(key) = self.of(circuit) else { return false };
        if let Some(point) = self.points.get_mut(&key) {
            let establish = point.keys.establish(&shell.network, binding, self.limits);
            shell.send(circuit, Message::EstablishIntro(establish));
            point.phase = Phase::Asks(circuit, now.mono + TIMEOUT);
        }
        true
    }

    /// The relay answered; false if nobody had asked it.
    pub(super) fn answered(&mut self, circuit: Circuit, done: bool, shell: &mut Shell, now: Now) -> bool {
        let Some(key) = self.of(circuit) else { return false };
        let Some(point) = self.points.get_mut(&key) else { return false };
        if !matches!(point.phase, Phase::Asks(..)) {
            return false;
        }
        if !done {
            self.failed(&key, shell, now);
            return true;
        }
        (point.phase, point.failures, point.tries) = (Phase::Established(circuit), 0, 0);
        point.is_doubtful = false;
        self.changes += 1;
        true
    }

    /// A circuit is gone; false if it was none of these.
    pub(super) fn closed(&mut self, circuit: Circuit, shell: &mut Shell, now: Now) -> bool {
        if self.is_check(circuit) {
            self.checked(false, shell, now);
            return true;
        }
        let Some(key) = self.of(circuit) else { return false };
        if let Some(point) = self.points.get_mut(&key) {
            self.changes += u64::from(point.is_established());
            if point.is_established() {
                // What was there works no more: who else works shows it from now on.
                point.began = now.mono;
            }
            point.phase = Phase::Waits(now.mono);
        }
        self.failed(&key, shell, now);
        true
    }

    /// Replaces all points now: a client was removed, and must not know them any more.
    pub(super) fn replace_all(&mut self, shell: &mut Shell) {
        let keys: Vec<_> = self.points.keys().copied().collect();
        keys.iter().for_each(|key| self.destroy(key, shell));
    }
}
