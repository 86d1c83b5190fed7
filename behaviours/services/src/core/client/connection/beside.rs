//! Which rendezvous point and which introduction point are tried, and what is tried beside one that does not answer: the first that does is
//! taken. Nothing is said to a service before, so that it is introduced to once.

use std::time::{Duration, Instant};

use fog_base::NodeId;

use super::{Attempt, Connection, Introducing, Progress, Rendezvous, STEP, World};
use crate::core::{
    circuit::{Circuit, Purpose},
    descriptor::IntroductionPoint,
};

/// What did not come about within this gets another one beside it.
const BESIDE: Duration = Duration::from_secs(2);

impl Connection {
    /// A circuit to a relay that did not fail a moment ago, if there is one.
    pub(super) fn draw_rendezvous(&self, world: &mut World<'_>) -> Option<Rendezvous> {
        let now = world.now.mono;
        let used = self.rendezvous.as_ref().map(|meeting| meeting.relay);
        let is_good = |relay: &&NodeId| Some(**relay) != used && !world.recent.has(&relay.0, now);
        let good: Vec<_> = world.view.relays.iter().filter(is_good).copied().collect();
        let relay = world.shell.random.pick(if good.is_empty() { &world.view.relays } else { &good }).copied()?;
        let circuit = world.shell.open(relay, Purpose::Rendezvous);
        let cookie = world.shell.random.bytes();
        Some(Rendezvous { circuit, relay, cookie, ready: false, beside_at: Some(now + BESIDE), deadline: now + STEP })
    }

    /// A rendezvous point answered, the first of those that were asked.
    pub(super) fn is_met(&mut self, circuit: Circuit, world: &mut World<'_>) -> Progress {
        if self.beside.0.as_ref().is_some_and(|meeting| meeting.circuit == circuit) {
            std::mem::swap(&mut self.rendezvous, &mut self.beside.0);
        }
        if let Some(slower) = self.beside.0.take() {
            world.shell.close(slower.circuit);
        }
        if let Some(meeting) = &mut self.rendezvous {
            meeting.ready = true;
            world.recent.forget(&meeting.relay.0);
        }
        self.send_if_ready(world)
    }

    /// The best of the points that are `wanted`: the one that failed least, among equals at random.
    pub(super) fn choose(
        &self,
        wanted: impl Fn(&IntroductionPoint) -> bool,
        world: &mut World<'_>,
    ) -> Option<IntroductionPoint> {
        let mut points: Vec<_> = self.known.as_ref()?.contents.points.iter().filter(|point| wanted(point)).collect();
        world.shell.random.shuffle(&mut points);
        let failures = |point: &IntroductionPoint| self.failures.get(&point.auth_key).copied().unwrap_or(0);
        let badness =
            |point: &&IntroductionPoint| failures(point) + u32::from(world.recent.has(&point.auth_key, world.now.mono));
        points.into_iter().filter(|point| failures(point) < 2).min_by_key(badness).cloned()
    }

    /// A circuit to a point.
    pub(super) fn approach(&self, point: IntroductionPoint, world: &mut World<'_>) -> Introducing {
        let circuit = world.shell.open(point.relay, Purpose::Introduce);
        let (attempt, now) = (Attempt::Prepares { opened: false }, world.now.mono);
        Introducing { circuit, point, attempt, beside_at: Some(now + BESIDE), deadline: now + STEP }
    }

    pub(super) fn note_failed(&mut self, failed: &Introducing, badly: u32, world: &mut World<'_>) {
        world.shell.close(failed.circuit);
        world.recent.add(failed.point.auth_key, world.now.mono);
        *self.failures.entry(failed.point.auth_key).or_default() += badly;
    }

    /// The circuit to a point is there, the first of those that were asked for.
    pub(super) fn is_approached(&mut self, circuit: Circuit, world: &mut World<'_>) -> Progress {
        if self.beside.1.as_ref().is_some_and(|beside| beside.circuit == circuit) {
            std::mem::swap(&mut self.introducing, &mut self.beside.1);
        }
        if let Some(slower) = self.beside.1.take() {
            self.note_failed(&slower, 1, world);
        }
        if let Some(introducing) = &mut self.introducing {
            introducing.attempt = Attempt::Prepares { opened: true };
            world.recent.forget(&introducing.point.auth_key);
        }
        self.send_if_ready(world)
    }

    /// Another one beside what does not come about.
    pub(super) fn step_beside(&mut self, world: &mut World<'_>) {
        let now = world.now.mono;
        let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if self.rendezvous.as_mut().is_some_and(|meeting| !meeting.ready && is_due(&mut meeting.beside_at))
            && self.beside.0.is_none()
            && self.rendezvous_left > 1
        {
            self.rendezvous_left -= 1;
            self.beside.0 = self.draw_rendezvous(world);
        }
        if self.introducing.as_mut().is_some_and(|slow| slow.is_opening() && is_due(&mut slow.beside_at))
            && self.beside.1.is_none()
            && self.connect.through.is_none()
            && let Some(left) = self.introductions_left.checked_sub(1)
            && let Some(slow) = self.introducing.as_ref().map(|slow| slow.point.auth_key)
            && let Some(point) = self.choose(|point| point.auth_key != slow, world)
        {
            self.introductions_left = left;
            self.beside.1 = Some(self.approach(point, world));
        }
    }

    /// When [`Self::step_beside`] has something to do.
    pub(super) fn beside_at(&self) -> Option<Instant> {
        let meeting = self.rendezvous.as_ref().filter(|meeting| !meeting.ready).and_then(|meeting| meeting.beside_at);
        let opening = self.introducing.as_ref().filter(|slow| slow.is_opening()).and_then(|slow| slow.beside_at);
        meeting.into_iter().chain(opening).min()
    }
}
