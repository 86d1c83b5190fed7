//! Processes that are stopped, killed, replaced, and that misbehave.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fog_tasks::{
    Ending, HostEnd,
    sandbox::{Busy, PoolConfig, PoolEvent, RunId},
};

use super::support::{PATIENCE, Tested, config, endless, signal, stat, until};
use crate::common::{job, nothing, program, with_args, with_stdin};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("events_of_a_run_come_in_order", events_of_a_run_come_in_order),
    ("small_runs_are_each_done_once", small_runs_are_each_done_once),
    ("a_process_that_is_killed_takes_one_run_with_it", a_process_that_is_killed_takes_one_run_with_it),
    ("frozen_time_does_not_count", frozen_time_does_not_count),
    ("a_run_that_is_cancelled_ends_and_its_process_does_not", a_run_that_is_cancelled_ends_and_its_process_does_not),
    ("all_are_killed_at_once", all_are_killed_at_once),
    ("slots_come_and_go", slots_come_and_go),
    ("a_process_that_does_not_answer_is_replaced", a_process_that_does_not_answer_is_replaced),
    ("without_a_program_there_is_no_room", without_a_program_there_is_no_room),
    ("a_process_is_confined", a_process_is_confined),
    ("the_system_refuses_a_process_what_a_run_does_not_need", the_system_refuses_a_process_what_a_run_does_not_need),
    ("processes_end_with_their_parent", processes_end_with_their_parent),
];

const KILLED: Ending = Ending::Host(HostEnd::Killed);

fn events_of_a_run_come_in_order() {
    let tested = Tested::new(config("task-process", 1));
    let said = with_stdin(with_args(job(program!("hello")), &["x"]), b"typed");
    tested.start(5, &said);
    let mut shown = (Vec::new(), Vec::new());
    assert!(matches!(tested.next(PATIENCE), Some(PoolEvent::Started(RunId(5)))));
    let outcome = loop {
        match tested.next(PATIENCE).unwrap() {
            PoolEvent::Log { run: RunId(5), stderr, bytes } => {
                if stderr {
                    shown.1.extend(bytes)
                } else {
                    shown.0.extend(bytes)
                }
            }
            PoolEvent::Done { run: RunId(5), outcome } => break outcome,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(shown, (outcome.stdout, outcome.stderr));
    assert!(tested.next(Duration::from_millis(50)).is_none());
}

fn small_runs_are_each_done_once() {
    let tested = Tested::new(config("task-process", 2));
    let job = job(nothing());
    for id in 0..5000 {
        tested.start(id, &job);
        // Whoever uses the same id twice is told, if the first is not done yet.
        assert!(matches!(tested.pool.start(RunId(id), job.clone()), Err(Busy::Known | Busy::Full) | Ok(())));
        if id == 0 {
            tested.outcomes(1);
            tested.pool.cancel(RunId(0));
        }
    }
    until("all are done", || tested.pool.runs() == 0);
    let mut done = 0;
    while let Some(event) = tested.next(Duration::from_millis(100)) {
        if let PoolEvent::Done { outcome, .. } = event {
            assert_eq!(outcome.ending, Ending::Exit(0));
            done += 1;
        }
    }
    assert!(done >= 4999, "{done}");
}

fn a_process_that_is_killed_takes_one_run_with_it() {
    let tested = Tested::new(config("task-process", 2));
    let processes = tested.processes();
    assert_eq!(processes.len(), 2);
    tested.start(1, &endless(PATIENCE));
    tested.start(2, &endless(PATIENCE));
    for _ in 0..2 {
        assert!(matches!(tested.next(PATIENCE), Some(PoolEvent::Started(_))));
    }
    signal(processes[0], "-9");
    let Some(PoolEvent::Done { run, outcome }) = tested.next(PATIENCE) else { panic!("no end") };
    assert_eq!(outcome.ending, KILLED);
    assert!(outcome.detail.contains("signal: 9"), "{}", outcome.detail);
    assert!(tested.next(Duration::from_millis(200)).is_none(), "the other one goes on");
    tested.still_serves();
    tested.pool.cancel(RunId(3 - run.0));
    assert_eq!(tested.outcomes(1)[&(3 - run.0)].ending, KILLED);
}

fn frozen_time_does_not_count() {
    let tested = Tested::new(config("task-process", 2));
    let wall = Duration::from_millis(600);
    tested.start(1, &endless(wall));
    tested.start(2, &endless(wall));
    for _ in 0..2 {
        assert!(matches!(tested.next(PATIENCE), Some(PoolEvent::Started(_))));
    }
    tested.pool.freeze();
    let processes = tested.processes();
    until("all are stopped", || processes.iter().all(|pid| stat(*pid)[0] == "T"));
    assert_eq!(tested.pool.start(RunId(3), job(nothing())), Err(Busy::Frozen));
    let before = tested.pool.usage();
    assert_eq!(before.processes, 2);
    assert!(before.resident_bytes > 0);
    assert!(tested.next(3 * wall).is_none(), "nothing ends while it is frozen");
    assert_eq!(tested.pool.usage().cpu, before.cpu);
    tested.pool.thaw();
    let thawed = Instant::now();
    for outcome in tested.outcomes(2).into_values() {
        assert_eq!(outcome.ending, Ending::Host(HostEnd::Deadline));
    }
    // Most of their time was left.
    assert!(thawed.elapsed() > wall / 4, "{:?}", thawed.elapsed());
    tested.still_serves();
    // What is killed while it is frozen ends all the same.
    tested.start(4, &endless(PATIENCE));
    assert!(matches!(tested.next(PATIENCE), Some(PoolEvent::Started(_))));
    tested.pool.freeze();
    tested.pool.kill_all();
    assert_eq!(tested.outcomes(1)[&4].ending, KILLED);
    tested.pool.thaw();
    tested.still_serves();
}

fn a_run_that_is_cancelled_ends_and_its_process_does_not() {
    let tested = Tested::new(config("task-process", 1));
    let processes = tested.processes();
    tested.start(1, &endless(PATIENCE));
    assert!(matches!(tested.next(PATIENCE), Some(PoolEvent::Started(_))));
    assert_eq!(tested.pool.start(RunId(2), job(nothing())), Err(Busy::Full));
    tested.pool.cancel(RunId(1));
    assert_eq!(tested.outcomes(1)[&1].ending, KILLED);
    tested.still_serves();
    assert_eq!(tested.processes(), processes);
    tested.pool.cancel(RunId(77));
}

fn all_are_killed_at_once() {
    let tested = Tested::new(config("task-process", 3));
    for id in 0..3 {
        tested.start(id, &endless(PATIENCE));
    }
    until("they have used some time", || tested.pool.usage().cpu > Duration::from_millis(30));
    let before = tested.pool.usage().cpu;
    tested.pool.kill_all();
    for outcome in tested.outcomes(3).into_values() {
        assert_eq!(outcome.ending, KILLED);
    }
    tested.still_serves();
    assert!(tested.pool.usage().cpu >= before, "what ended has been counted");
}

fn slots_come_and_go() {
    let tested = Tested::new(config("task-process", 1));
    tested.pool.set_slots(3);
    until("there are three", || tested.processes().len() == 3);
    for id in 0..3 {
        tested.start(id, &endless(Duration::from_millis(300)));
    }
    tested.pool.set_slots(1);
    // Those that are too many finish first.
    for outcome in tested.outcomes(3).into_values() {
        assert_eq!(outcome.ending, Ending::Host(HostEnd::Deadline));
    }
    until("there is one", || tested.processes().len() == 1);
    tested.still_serves();
    tested.pool.set_slots(0);
    until("there is none", || tested.processes().is_empty());
    assert_eq!(tested.pool.start(RunId(9), job(nothing())), Err(Busy::Full));
}

fn a_process_that_does_not_answer_is_replaced() {
    let short = |role| PoolConfig { compile: Duration::from_millis(200), ..config(role, 1) };
    let silent = Tested::new(short("silent"));
    let outcome = silent.run(&job(nothing()));
    assert_eq!(outcome.ending, Ending::Host(HostEnd::Compile));
    drop(silent);
    let garbage = Tested::new(short("garbage"));
    let outcome = garbage.run(&job(nothing()));
    // It broke while it compiled, so nothing is known of the module: the run is tried again until that helps nobody.
    assert_eq!(outcome.ending, Ending::Host(HostEnd::NoResources), "{}", outcome.detail);
}

fn without_a_program_there_is_no_room() {
    let tested = Tested::new(PoolConfig::new(vec!["/nonexistent/fog".into()], 2));
    assert_eq!(tested.pool.start(RunId(1), job(nothing())), Err(Busy::Full));
    assert_eq!(tested.pool.runs(), 0);
}

fn a_process_is_confined() {
    let tested = Tested::new(PoolConfig { nice: 7, ..config("task-process", 1) });
    tested.still_serves();
    let pid = tested.processes()[0];
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let limits = read("limits");
    let has = |name: &str, soft: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let value = line.strip_prefix(name).unwrap().split_whitespace().next().unwrap();
        assert_eq!(value, soft, "{name}");
    };
    has("Max core file size", "0");
    has("Max processes", "0");
    has("Max open files", "128");
    has("Max data size", &(1u64 << 30).to_string());
    assert!(read("status").lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])));
    assert_eq!(read("oom_score_adj").trim(), "1000");
    // The 19th field, counted from the state, which is the third.
    assert_eq!(stat(pid)[16], "7");
    assert!(read("environ").is_empty());
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 16, "{open} descriptors");
}

fn the_system_refuses_a_process_what_a_run_does_not_need() {
    let tested = Tested::new(config("curious", 1));
    // A process that got anywhere has ended.
    tested.still_serves();
    let status = std::fs::read_to_string(format!("/proc/{}/status", tested.processes()[0])).unwrap();
    assert!(status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])), "{status}");
    assert!(!tested.pool.is_unsealed());
    let without = Tested::new(config("unsealed", 1));
    until("the pool knows that there is no filter", || without.pool.is_unsealed());
}

fn processes_end_with_their_parent() {
    let mut parent =
        Command::new(std::env::current_exe().unwrap()).arg("parent").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    assert!(!stat(child).is_empty());
    signal(parent.id(), "-9");
    parent.wait().unwrap();
    until("the process is gone", || stat(child).first().is_none_or(|state| state == "Z" || state == "X"));

    let tested = Tested::new(config("task-process", 2));
    let processes = tested.processes();
    tested.start(1, &endless(PATIENCE));
    drop(tested);
    until("both are gone", || processes.iter().all(|pid| stat(*pid).first().is_none_or(|state| state == "Z")));
}
