//! What holds for whatever a host says.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    transcript_tests::{Script, idle},
    *,
};
use crate::core::testing::holds_often;

/// A sample that is idle but for some things, each of which may be wrong, absent or hidden.
fn signals() -> impl Strategy<Value = Signals> {
    fn probe<T: Clone + std::fmt::Debug + 'static>(usual: T, values: Vec<T>) -> impl Strategy<Value = Probe<T>> {
        prop_oneof![
            12 => Just(Ok(usual)),
            3 => proptest::sample::select(values).prop_map(Ok),
            1 => Just(Err(Unknown::absent("absent"))),
            1 => Just(Err(Unknown::unseen("unseen"))),
        ]
    }
    let heat = |celsius| Temperature { celsius, zone: "z".into(), headroom: None };
    let used = |busy_cpus| CpuUse { busy_cpus, host_cpus: 4.0 };
    let memory = |mib: u64| Memory { total: 8 << 30, available: mib << 20 };
    let seen = |seconds| Input::Seen(Duration::from_secs(seconds));
    (
        probe(used(0.2), vec![used(0.7), used(1.1), used(4.0), used(f64::NAN), used(-3.0)]),
        probe(memory(6000), vec![memory(0), memory(255), memory(800)]),
        probe(Power::Mains, vec![Power::Battery]),
        probe(
            Battery { percent: 80.0, discharging: false },
            vec![Battery { percent: 92.0, discharging: true }, Battery { percent: 5.0, discharging: true }],
        ),
        probe(heat(50.0), vec![heat(85.0), heat(95.0)]),
        probe(seen(999), vec![seen(0), seen(179), Input::NoneFor(Duration::ZERO)]),
        probe(0.0, vec![9.0, 50.0, 100.0]),
        probe(false, vec![true]),
    )
        .prop_map(|(cpu, memory, power, battery, temperature, input, waits, throttled)| Signals {
            cpu,
            memory,
            power,
            battery,
            temperature,
            input,
            pressure: Pressure { cpu: waits.clone(), memory: waits.clone(), io: waits },
            throttled,
            ..idle()
        })
}

/// What tasks do when they are told.
#[derive(Default)]
struct Tasks {
    slots: u32,
    frozen: bool,
    may_exist: bool,
}

impl Tasks {
    fn follow(&mut self, action: Action) {
        match action {
            Action::Freeze => {
                assert!(!self.frozen, "frozen twice");
                self.frozen = true;
            }
            Action::Thaw => {
                assert!(self.frozen && self.may_exist, "thawed what is not frozen");
                self.frozen = false;
            }
            Action::Vacate => assert!(self.frozen && self.may_exist, "vacated what runs or is gone"),
            Action::Kill => {
                assert!(self.frozen);
                (self.frozen, self.may_exist) = (false, false);
            }
            Action::Slots(slots) => {
                assert_ne!(slots, self.slots, "nothing new");
                self.slots = slots;
                self.may_exist |= slots > 0;
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u64, Signals)>> {
    let seconds = prop_oneof![8 => Just(1u64), 2 => 1..30u64, 1 => 30..700u64];
    proptest::collection::vec((seconds, signals()), 1..120)
}

proptest! {
    #[test]
    fn actions_make_sense_in_their_order_and_whoever_does_not_work_says_why(steps in steps()) {
        let mut script = Script::new(Preferences::default());
        let mut tasks = Tasks::default();
        for (seconds, signals) in steps {
            script.now = script.now.plus(Duration::from_secs(seconds));
            for action in script.see(&signals) {
                tasks.follow(action);
            }
            let policy = &script.policy;
            prop_assert_eq!(tasks.slots, policy.slots());
            prop_assert_eq!(policy.is_eligible(), tasks.slots > 0);
            prop_assert_eq!(policy.is_eligible(), policy.reasons().is_empty());
            prop_assert!(!(policy.is_eligible() && tasks.frozen));
            prop_assert!(policy.slots() <= 4);
        }
    }

    #[test]
    fn nothing_runs_on_battery_or_with_the_user_there_unless_that_is_allowed(
        steps in steps(),
        run_on_batteries: bool,
        run_if_user_active: bool,
    ) {
        let mut script = Script::new(Preferences { run_on_batteries, run_if_user_active, ..Preferences::default() });
        for (seconds, signals) in steps {
            script.now = script.now.plus(Duration::from_secs(seconds));
            script.see(&signals);
            if !run_on_batteries && (signals.power == Ok(Power::Battery) || matches!(signals.power, Err(Unknown::Unseen(_)))) {
                prop_assert!(!script.policy.is_eligible());
            }
            if !run_if_user_active && matches!(signals.input, Ok(Input::Seen(idle)) if idle < Duration::from_secs(180)) {
                prop_assert!(!script.policy.is_eligible());
            }
            if signals.temperature.is_ok_and(|hottest| hottest.celsius >= 90.0) {
                prop_assert!(!script.policy.is_eligible());
            }
        }
    }

    #[test]
    fn its_own_load_never_suspends_it(loads in proptest::collection::vec((0.0..4.0f64, 0.0..0.9f64, 0.0..100.0f64), 1..200)) {
        let mut script = Script::new(Preferences::default());
        script.see(&idle());
        for (own, others, waits) in loads {
            script.own = OwnLoad { cpus: own, resident: 1 << 30 };
            let signals = Signals {
                cpu: Ok(CpuUse { busy_cpus: (own + others).min(4.0), host_cpus: 4.0 }),
                load_1min: Ok(own + others),
                pressure: Pressure { cpu: Ok(waits), memory: Ok(0.0), io: Ok(waits) },
                ..idle()
            };
            prop_assert_eq!(script.hold(1, &signals), []);
        }
    }
}

/// Only the user's comings and goings, which wait for idle time themselves, may be nearer to each other.
#[test]
fn between_an_end_of_work_and_its_next_begin_is_a_quiet_minute() {
    holds_often(steps(), 256, 20, |steps| {
        let mut script = Script::new(Preferences { run_if_user_active: true, ..Preferences::default() });
        let (mut last_wrong, mut began_again) = (None, false);
        for (seconds, signals) in steps {
            let before = script.policy.is_eligible();
            script.now = script.now.plus(Duration::from_secs(seconds));
            script.see(&signals);
            let policy = &script.policy;
            if !before
                && policy.is_eligible()
                && let Some(wrong) = last_wrong
            {
                prop_assert!(script.now.mono.duration_since(wrong) >= Duration::from_secs(60));
                began_again = true;
            }
            if policy.reasons().iter().any(|reason| reason.code() != "settling") {
                last_wrong = Some(script.now.mono);
            }
        }
        Ok(began_again)
    });
}

/// However the host's reasons come and go, tasks that were frozen are given back or go on within the longest suspension.
#[test]
fn no_task_is_frozen_for_longer_than_the_ladder_allows() {
    holds_often(steps(), 256, 20, |steps| {
        let mut script = Script::new(Preferences::default());
        let (mut frozen_since, mut froze) = (None, false);
        for (seconds, signals) in steps {
            for action in script.hold(seconds.min(30), &signals) {
                match action.1 {
                    Action::Freeze => (frozen_since, froze) = (Some(script.now.mono), true),
                    Action::Thaw | Action::Vacate => frozen_since = None,
                    Action::Kill | Action::Slots(_) => {}
                }
            }
            if let Some(since) = frozen_since {
                prop_assert!(script.now.mono.duration_since(since) <= Duration::from_secs(630));
            }
        }
        Ok(froze)
    });
}
