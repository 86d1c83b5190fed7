//! Scripts of signals over time, and what the policy does at each.

use std::time::{Duration, Instant};

use fog_base::{Now, UnixMillis};

use super::{Action::*, *};

#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
pub(super) fn start() -> Now {
    Now { mono: Instant::now() + Duration::from_secs(86_400), unix: UnixMillis(1_800_000_000_000) }
}

/// An idle desktop with four processors and eight GiB.
pub(super) fn idle() -> Signals {
    Signals {
        cpu: Ok(CpuUse { busy_cpus: 0.1, host_cpus: 4.0 }),
        load_1min: Ok(0.1),
        usable_cpus: Ok(4.0),
        memory: Ok(Memory { total: 8 << 30, available: 6 << 30 }),
        pressure: Pressure { cpu: Ok(0.0), memory: Ok(0.0), io: Ok(0.0) },
        power: Ok(Power::Mains),
        battery: Ok(Battery { percent: 80.0, discharging: false }),
        battery_temperature_c: Ok(30.0),
        temperature: Ok(Temperature { celsius: 50.0, zone: "x86_pkg_temp".into(), headroom: Some(50.0) }),
        throttled: Ok(false),
        input: Ok(Input::Seen(Duration::from_secs(3600))),
        link: Ok(Link::Cable),
        metered: Ok(false),
        local_time: Ok(LocalTime { weekday: Weekday::Monday, minute: 720 }),
        disk_free: Ok(100 << 30),
    }
}

pub(super) struct Script {
    pub(super) policy: Policy,
    pub(super) now: Now,
    pub(super) own: OwnLoad,
}

impl Script {
    pub(super) fn new(preferences: Preferences) -> Self {
        preferences.check().expect("preferences");
        Self { policy: Policy::new(preferences), now: start(), own: OwnLoad::default() }
    }

    /// One that works already.
    fn working() -> Self {
        let mut script = Self::new(Preferences::default());
        assert_eq!(script.see(&idle()), [Slots(4)]);
        script
    }

    pub(super) fn see(&mut self, signals: &Signals) -> Vec<Action> {
        self.policy.handle_signals(signals.clone(), self.own, self.now)
    }

    /// The same signals each second for so long; what was done, with the second.
    pub(super) fn hold(&mut self, seconds: u64, signals: &Signals) -> Vec<(u64, Action)> {
        let mut done = Vec::new();
        for second in 1..=seconds {
            self.now = self.now.plus(Duration::from_secs(1));
            done.extend(self.see(signals).into_iter().map(|action| (second, action)));
        }
        done
    }

    fn codes(&self) -> Vec<&'static str> {
        self.policy.reasons().iter().map(Reason::code).collect()
    }
}

#[test]
fn an_idle_host_works_at_once_with_as_many_tasks_as_it_has_processors() {
    let mut script = Script::new(Preferences::default());
    assert!(!script.policy.is_eligible());
    assert_eq!(script.see(&idle()), [Slots(4)]);
    assert!(script.policy.is_eligible() && script.policy.reasons().is_empty());
    assert_eq!(script.hold(60, &idle()), []);
}

#[test]
fn the_users_first_key_freezes_and_three_minutes_without_one_thaw() {
    let mut script = Script::working();
    script.now = script.now.plus(Duration::from_millis(25));
    let key = Ok(Input::Seen(Duration::ZERO));
    assert_eq!(script.policy.handle_input(key.clone(), script.now), [Freeze, Slots(0)]);
    assert_eq!(script.codes(), ["user_active"]);
    assert_eq!(script.policy.handle_input(key, script.now), []);
    let idle_for = |seconds| Signals { input: Ok(Input::Seen(Duration::from_secs(seconds))), ..idle() };
    assert_eq!(script.see(&idle_for(179)), []);
    assert_eq!(script.see(&idle_for(180)), [Thaw, Slots(4)]);
}

#[test]
fn a_user_who_stays_gets_the_memory_back_after_ten_minutes() {
    let mut script = Script::working();
    let typing = Signals { input: Ok(Input::Seen(Duration::ZERO)), ..idle() };
    let expected = [(1, Freeze), (1, Slots(0)), (601, Vacate), (611, Kill)];
    assert_eq!(script.hold(700, &typing), expected);
    assert_eq!(script.policy.state(), State::Stopped);
    assert_eq!(script.hold(1, &idle()), [(1, Slots(4))]);
}

#[test]
fn going_to_battery_vacates_at_once_and_mains_is_believed_after_a_minute() {
    let mut script = Script::working();
    let unplugged = Signals { power: Ok(Power::Battery), ..idle() };
    assert_eq!(script.hold(5, &unplugged), [(1, Freeze), (1, Vacate), (1, Slots(0))]);
    assert_eq!(script.policy.state(), State::Vacating);
    // Plugged in again, but what is given back is not taken back.
    assert_eq!(script.hold(54, &idle()), [(6, Kill)]);
    assert_eq!(script.codes(), ["settling"]);
    assert_eq!(script.hold(6, &idle()), [(6, Slots(4))]);
}

#[test]
fn heat_vacates_at_once_and_must_fall_by_ten_degrees() {
    let hot = |celsius| {
        let hottest = Temperature { celsius, zone: "x86_pkg_temp".into(), headroom: None };
        Signals { temperature: Ok(hottest), ..idle() }
    };
    let mut script = Script::working();
    assert_eq!(script.hold(10, &hot(89.9)), []);
    assert_eq!(script.hold(11, &hot(90.0)), [(1, Freeze), (1, Vacate), (1, Slots(0)), (11, Kill)]);
    assert_eq!(script.hold(120, &hot(85.0)), []);
    assert_eq!(script.codes(), ["too_hot"]);
    assert_eq!(script.hold(120, &hot(79.0)), [(60, Slots(4))]);

    let tripping = Temperature { celsius: 70.0, zone: "soc".into(), headroom: Some(4.0) };
    let tripping = Signals { temperature: Ok(tripping), ..idle() };
    assert_eq!(script.hold(1, &tripping), [(1, Freeze), (1, Vacate), (1, Slots(0))]);
}

#[test]
fn a_slowed_down_processor_freezes_until_it_recovers() {
    let mut script = Script::working();
    assert_eq!(script.hold(1, &Signals { throttled: Ok(true), ..idle() }), [(1, Freeze), (1, Slots(0))]);
    assert_eq!(script.codes(), ["throttled"]);
    assert_eq!(script.hold(60, &idle()), [(60, Thaw), (60, Slots(4))]);
}

#[test]
fn the_end_of_its_hours_vacates_and_their_begin_needs_no_waiting() {
    let nights = Preferences { start_hour: 22.0, end_hour: 6.0, ..Preferences::default() };
    let at = |minute| Signals { local_time: Ok(LocalTime { weekday: Weekday::Friday, minute }), ..idle() };
    let mut script = Script::new(nights);
    assert_eq!(script.hold(1, &at(359)), [(1, Slots(4))]);
    assert_eq!(script.hold(11, &at(360)), [(1, Freeze), (1, Vacate), (1, Slots(0)), (11, Kill)]);
    assert_eq!(script.codes(), ["time_of_day"]);
    assert_eq!(script.hold(1, &at(1320)), [(1, Slots(4))]);
}

#[test]
fn other_programs_have_to_be_busy_for_some_seconds_and_calm_for_a_minute() {
    let busy = |busy_cpus| Signals { cpu: Ok(CpuUse { busy_cpus, host_cpus: 4.0 }), ..idle() };
    let mut script = Script::working();
    assert_eq!(script.hold(2, &busy(4.0)), [], "a burst of two seconds");
    assert_eq!(script.hold(600, &idle()), []);
    let done = script.hold(20, &busy(2.0));
    assert_eq!(done, [(7, Freeze), (7, Slots(0))]);
    assert_eq!(script.codes(), ["cpu_usage"]);
    // 20 % would not have stopped it, and does not start it.
    assert_eq!(script.hold(120, &busy(0.8)), []);
    assert_eq!(script.codes(), ["cpu_usage"]);
    let done = script.hold(120, &idle());
    assert_eq!(done.iter().map(|(_, action)| *action).collect::<Vec<_>>(), [Thaw, Slots(4)]);
    assert!(done[0].0 >= 60, "{done:?}");
}

#[test]
fn its_own_work_is_not_taken_for_others() {
    let mut script = Script::working();
    script.own = OwnLoad { cpus: 3.9, resident: 1 << 30 };
    let full = Signals {
        cpu: Ok(CpuUse { busy_cpus: 4.0, host_cpus: 4.0 }),
        load_1min: Ok(9.0),
        pressure: Pressure { cpu: Ok(90.0), memory: Ok(0.0), io: Ok(90.0) },
        ..idle()
    };
    assert_eq!(script.hold(600, &full), []);
}

#[test]
fn pressure_keeps_work_from_beginning_and_that_of_memory_ends_it() {
    let waiting =
        |cpu, memory, io| Signals { pressure: Pressure { cpu: Ok(cpu), memory: Ok(memory), io: Ok(io) }, ..idle() };
    let mut script = Script::new(Preferences::default());
    assert_eq!(script.hold(5, &waiting(41.0, 0.0, 41.0)), []);
    assert_eq!(script.codes(), ["cpu_pressure", "io_pressure"]);
    assert_eq!(script.hold(60, &idle()), [(60, Slots(4))]);
    assert_eq!(script.hold(5, &waiting(41.0, 0.0, 41.0)), []);
    assert_eq!(script.hold(1, &waiting(0.0, 11.0, 0.0)), [(1, Freeze), (1, Slots(0))]);
    assert_eq!(script.codes(), ["memory_pressure"]);
}

#[test]
fn slots_follow_memory_down_at_once_and_up_after_a_minute() {
    let mib = |available: u64| Signals { memory: Ok(Memory { total: 8 << 30, available: available << 20 }), ..idle() };
    let mut script = Script::working();
    assert_eq!(script.hold(2, &mib(800)), [(1, Slots(3))]);
    assert_eq!(script.hold(2, &mib(750)), [], "what is missing is less than a quarter of a task");
    assert_eq!(script.hold(2, &mib(700)), [(1, Slots(2))]);
    assert_eq!(script.hold(30, &idle()), []);
    assert_eq!(script.hold(2, &mib(700)), [], "it begins to wait anew");
    assert_eq!(script.hold(61, &idle()), [(61, Slots(4))]);
    // Its own tasks' memory is theirs to use.
    script.own.resident = 4 * (256 << 20);
    assert_eq!(script.hold(5, &mib(10)), []);
    script.own.resident = 0;
    assert_eq!(script.hold(1, &mib(10)), [(1, Freeze), (1, Slots(0))]);
    assert_eq!(script.codes(), ["memory"]);
}

#[test]
fn a_share_of_processors_and_of_memory_limits_tasks() {
    let half = Preferences { max_ncpus_pct: 60.0, ..Preferences::default() };
    assert_eq!(Script::new(half).see(&idle()), [Slots(2)]);
    let least = Preferences { max_ncpus_pct: 1.0, ..Preferences::default() };
    assert_eq!(Script::new(least).see(&idle()), [Slots(1)]);
    let group = Signals { usable_cpus: Ok(0.5), ..idle() };
    assert_eq!(Script::new(Preferences::default()).see(&group), [Slots(1)]);

    let small = |seconds| Signals {
        memory: Ok(Memory { total: 1 << 30, available: 1 << 30 }),
        input: Ok(Input::Seen(Duration::from_secs(seconds))),
        ..idle()
    };
    let beside = Preferences { run_if_user_active: true, ..Preferences::default() };
    assert_eq!(Script::new(beside.clone()).see(&small(0)), [Slots(2)], "half of the memory");
    assert_eq!(Script::new(beside).see(&small(999)), [Slots(3)], "nine tenths of it");
}

#[test]
fn a_pause_lasts_until_it_is_taken_back() {
    let mut script = Script::working();
    assert_eq!(script.policy.pause(script.now), [Freeze, Slots(0)]);
    assert_eq!(script.hold(5, &idle()), []);
    assert_eq!(script.codes(), ["user_request"]);
    assert_eq!(script.policy.resume(script.now), [Thaw, Slots(4)]);
    script.policy.pause(script.now);
    assert_eq!(script.hold(1000, &idle()), [(600, Vacate), (610, Kill)]);
    assert_eq!(script.policy.resume(script.now), [Slots(4)]);
}

#[test]
fn what_a_host_does_not_have_does_not_stop_it_and_what_it_hides_may() {
    let nothing = |unknown: fn(&str) -> Unknown| Signals {
        cpu: Err(unknown("x")),
        load_1min: Err(unknown("x")),
        usable_cpus: Err(unknown("x")),
        memory: Err(unknown("x")),
        pressure: Pressure { cpu: Err(unknown("x")), memory: Err(unknown("x")), io: Err(unknown("x")) },
        power: Err(unknown("x")),
        battery: Err(unknown("x")),
        battery_temperature_c: Err(unknown("x")),
        temperature: Err(unknown("x")),
        throttled: Err(unknown("x")),
        input: Err(unknown("x")),
        link: Err(unknown("x")),
        metered: Err(unknown("x")),
        local_time: Err(unknown("x")),
        disk_free: Err(unknown("x")),
    };
    let absent = nothing(|why| Unknown::absent(why));
    let mut script = Script::new(Preferences::default());
    assert_eq!(script.see(&absent), [Slots(1)]);
    assert_eq!(script.policy.status().unknown.len(), 17);

    assert_eq!(nothing(|why| Unknown::unseen(why)), Signals::unseen("x"));
    let mut script = Script::new(Preferences::default());
    assert_eq!(script.see(&Signals::unseen("x")), []);
    assert_eq!(script.codes(), ["power_unseen", "user_unseen"]);
    let careless = Preferences { run_on_batteries: true, run_if_user_active: true, ..Preferences::default() };
    assert_eq!(Script::new(careless).see(&Signals::unseen("x")), [Slots(1)]);

    let nights = Preferences { start_hour: 22.0, end_hour: 6.0, ..Preferences::default() };
    let mut script = Script::new(nights);
    assert_eq!(script.see(&absent), []);
    assert_eq!(script.codes(), ["clock_unseen"]);
}

#[test]
fn each_preference_lets_through_what_it_names() {
    let all = Preferences {
        run_on_batteries: true,
        run_if_user_active: true,
        run_if_metered: true,
        network_wifi_only: false,
        suspend_cpu_usage_pct: 0.0,
        suspend_memory_pressure_pct: 0.0,
        start_cpu_pressure_pct: 0.0,
        start_io_pressure_pct: 0.0,
        battery_charge_min_pct: 0.0,
        disk_min_free_gb: 0.0,
        ..Preferences::default()
    };
    let worst = Signals {
        cpu: Ok(CpuUse { busy_cpus: 4.0, host_cpus: 4.0 }),
        pressure: Pressure { cpu: Ok(99.0), memory: Ok(99.0), io: Ok(99.0) },
        power: Ok(Power::Battery),
        battery: Ok(Battery { percent: 30.0, discharging: true }),
        input: Ok(Input::Seen(Duration::ZERO)),
        link: Ok(Link::Mobile),
        metered: Ok(true),
        disk_free: Ok(0),
        ..idle()
    };
    assert_eq!(Script::new(all.clone()).see(&worst), [Slots(4)]);
    let one_off: [(&str, Preferences); 9] = [
        ("batteries", Preferences { run_on_batteries: false, ..all.clone() }),
        ("battery_charge", Preferences { battery_charge_min_pct: 26.0, ..all.clone() }),
        ("user_active", Preferences { run_if_user_active: false, ..all.clone() }),
        ("cpu_usage", Preferences { suspend_cpu_usage_pct: 25.0, ..all.clone() }),
        ("cpu_pressure", Preferences { start_cpu_pressure_pct: 40.0, ..all.clone() }),
        ("memory_pressure", Preferences { suspend_memory_pressure_pct: 10.0, ..all.clone() }),
        ("disk_size", Preferences { disk_min_free_gb: 0.1, ..all.clone() }),
        ("mobile_network", Preferences { network_wifi_only: true, ..all.clone() }),
        ("metered", Preferences { run_if_metered: false, ..all }),
    ];
    for (code, preferences) in one_off {
        let mut script = Script::new(preferences);
        assert_eq!(script.see(&worst), [], "{code}");
        assert_eq!(script.codes(), [code]);
    }
}

#[test]
fn a_host_that_may_go_to_sleep_is_not_kept_awake() {
    let sleepy = Preferences { suspend_if_no_recent_input_min: 30.0, ..Preferences::default() };
    let mut script = Script::new(sleepy);
    assert_eq!(script.see(&idle()), []);
    assert_eq!(script.codes(), ["no_recent_input"]);
}

#[test]
fn the_status_says_what_was_seen_and_why_there_is_no_work() {
    let mut script = Script::new(Preferences::default());
    assert_eq!(script.policy.status().reasons, ["the host was not looked at yet"]);
    script.see(&Signals { power: Ok(Power::Battery), temperature: Err(Unknown::absent("no zone")), ..idle() });
    let status = script.policy.status();
    assert_eq!((status.eligible, status.state, status.slots), (false, "stopped", 0));
    assert_eq!(status.reasons, ["on battery"]);
    assert_eq!(status.battery.expect("told").on_battery, Some(true));
    assert_eq!(status.cpu.expect("told").others_pct, 2.5);
    assert_eq!(status.thermal.expect("told").throttled, Some(false));
    assert_eq!((status.user_idle_s, status.unknown), (Some(3600), vec!["temperature: no zone".to_owned()]));
}
