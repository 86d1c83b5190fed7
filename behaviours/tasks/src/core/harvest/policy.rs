//! The ladder: eligible, suspended, vacating, stopped. It follows the machine activities of HTCondor's startd ("Policy Configuration",
//! SUSPEND, CONTINUE, PREEMPT, KILL), with "subtract own load" from there too.
//!
//! ```text
//!             nothing wrong            a reason                  it lasts, or is of the bad kind        time is up
//!  Stopped ──────────────▶ Eligible ──────────▶ Suspended ─────────────────────────────▶ Vacating ────────────▶ Stopped
//!                              ▲                    │
//!                              └────────────────────┘ nothing wrong for `continue_after_s`
//! ```

use std::time::{Duration, Instant};

use fog_base::Now;

use super::{
    preferences::Preferences,
    reason::Reason,
    rules::Moment,
    signals::{Input, OwnLoad, Probe, Signals},
    slots::{self, Offered},
};

/// The time constant with which others' use of the processors is smoothed: what BOINC's client looks back.
const SMOOTHING: Duration = Duration::from_secs(10);

/// Where on the ladder a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It works.
    Eligible,
    /// Its tasks are frozen, and may go on soon.
    Suspended,
    /// They are given back, and end.
    Vacating,
    /// There are none. It begins here.
    Stopped,
}

/// What is to be done. In order; none is repeated while nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stop every task where it is, within 100 ms.
    Freeze,
    /// Let them go on.
    Thaw,
    /// Give every task back: its submitter is told, another worker takes it. Its process ends.
    Vacate,
    /// Kill what is left.
    Kill,
    /// So many tasks may run. Those that are too many are given back; 0 for as long as the host is not eligible.
    Slots(u32),
}

/// Decides, from what the owner wants and what the host says.
#[derive(Debug)]
pub struct Policy {
    preferences: Preferences,
    state: State,
    since: Option<Instant>,
    paused: bool,
    /// Until when work does not begin, though nothing is wrong.
    held_until: Option<Instant>,
    others: Option<Smoothed>,
    signals: Option<Signals>,
    own: OwnLoad,
    reasons: Vec<Reason>,
    offered: Offered,
}

impl Policy {
    /// A host of which nothing is known yet, and so without slots.
    pub fn new(preferences: Preferences) -> Self {
        Self {
            preferences,
            state: State::Stopped,
            since: None,
            paused: false,
            held_until: None,
            others: None,
            signals: None,
            own: OwnLoad::default(),
            reasons: Vec::new(),
            offered: Offered::default(),
        }
    }

    /// A whole sample, about once a second. `own` is of the same time.
    pub fn handle_signals(&mut self, signals: Signals, own: OwnLoad, now: Now) -> Vec<Action> {
        self.others = signals.cpu.as_ref().ok().and_then(|cpu| {
            let share = ((cpu.busy_cpus - own.cpus) / cpu.host_cpus).clamp(0.0, 1.0);
            share.is_finite().then(|| Smoothed::next(self.others, share, now.mono))
        });
        self.own = own;
        self.signals = Some(signals);
        self.decide(now)
    }

    /// The user's hands alone, which are looked at more often so that tasks are frozen soon enough. Nothing before the first sample.
    pub fn handle_input(&mut self, input: Probe<Input>, now: Now) -> Vec<Action> {
        let Some(signals) = &mut self.signals else {
            return Vec::new();
        };
        signals.input = input;
        self.decide(now)
    }

    /// The user wants no work here until [`Self::resume`].
    pub fn pause(&mut self, now: Now) -> Vec<Action> {
        self.paused = true;
        self.decide(now)
    }

    /// The user allows work again.
    pub fn resume(&mut self, now: Now) -> Vec<Action> {
        self.paused = false;
        self.decide(now)
    }

    /// Where on the ladder the host is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether tasks may run and be taken.
    pub fn is_eligible(&self) -> bool {
        self.state == State::Eligible
    }

    /// Why not, if it is not eligible: never empty then, once there was a sample.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// How many tasks may run; 0 unless eligible.
    pub fn slots(&self) -> u32 {
        self.offered.slots()
    }

    /// What the owner wants.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }

    /// The last sample, with input as it was last told.
    pub fn signals(&self) -> Option<&Signals> {
        self.signals.as_ref()
    }

    pub(super) fn others(&self) -> Option<f64> {
        self.others.map(|others| others.value)
    }

    pub(super) fn own(&self) -> OwnLoad {
        self.own
    }

    fn decide(&mut self, now: Now) -> Vec<Action> {
        let Some(signals) = &self.signals else {
            return Vec::new();
        };
        let (memory_slots, memory_free) = slots::by_memory(&self.preferences, signals, self.own, self.offered.slots());
        let moment = Moment {
            preferences: &self.preferences,
            signals,
            others: self.others(),
            working: self.state == State::Eligible,
            paused: self.paused,
            memory_slots,
            memory_free,
        };
        let fitting = memory_slots.min(slots::by_processors(&self.preferences, signals));
        self.reasons = moment.reasons();
        if self.reasons.iter().any(|reason| !reason.ends_sharply()) {
            self.held_until = now.mono.checked_add(self.preferences.continue_after());
        }
        let mut actions = self.climb(now.mono);
        let fitting = if self.is_eligible() { fitting } else { 0 };
        let changed = self.offered.change(fitting, self.preferences.continue_after(), now.mono);
        actions.extend(changed.map(Action::Slots));
        if !self.is_eligible() && self.reasons.is_empty() {
            self.reasons.push(Reason::Settling { left: self.left(now.mono) });
        }
        actions
    }

    /// One step, if it is time for it.
    fn climb(&mut self, now: Instant) -> Vec<Action> {
        let wrong = !self.reasons.is_empty();
        let bad = self.reasons.iter().any(Reason::vacates_at_once);
        let held = self.held_until.is_some_and(|until| now < until);
        let here = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let (state, actions) = match self.state {
            State::Eligible if bad => (State::Vacating, vec![Action::Freeze, Action::Vacate]),
            State::Eligible if wrong => (State::Suspended, vec![Action::Freeze]),
            State::Suspended if !wrong && !held => (State::Eligible, vec![Action::Thaw]),
            State::Suspended if bad || here >= self.preferences.max_suspend_time() => {
                (State::Vacating, vec![Action::Vacate])
            }
            State::Vacating if here >= self.preferences.max_vacate_time() => (State::Stopped, vec![Action::Kill]),
            State::Stopped if !wrong && !held => (State::Eligible, Vec::new()),
            State::Eligible | State::Suspended | State::Vacating | State::Stopped => return Vec::new(),
        };
        self.state = state;
        self.since = Some(now);
        actions
    }

    /// How long it waits at least, if nothing gets wrong again.
    fn left(&self, now: Instant) -> Duration {
        let held = self.held_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let vacating = match (self.state, self.since) {
            (State::Vacating, Some(since)) => {
                self.preferences.max_vacate_time().saturating_sub(now.saturating_duration_since(since))
            }
            _ => Duration::ZERO,
        };
        held.max(vacating)
    }
}

/// An exponentially weighted average of samples that are not equally far apart.
#[derive(Debug, Clone, Copy)]
struct Smoothed {
    value: f64,
    at: Instant,
}

impl Smoothed {
    fn next(before: Option<Self>, sample: f64, now: Instant) -> Self {
        let value = before.map_or(sample, |before| {
            let passed = now.saturating_duration_since(before.at).as_secs_f64();
            let kept = libm::exp(-passed / SMOOTHING.as_secs_f64());
            sample + (before.value - sample) * kept
        });
        Self { value, at: now }
    }
}
