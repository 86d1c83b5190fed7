//! Tasks by the second, from submission to a verified result: real processes, real sockets, through the API, by several connections that
//! submit, wait and look at the result.
//!
//! `task_local_per_s`: a node and its own worker. `task_network_per_s`: eight nodes, of which one submits and works not, so that what
//! workers say is voted on. Both have one slot for each two processors. What others use of this machine meanwhile is told: tasks stand
//! behind everybody (nice 19). Linux only: processor time is read from `/proc`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod harness;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use fog_testnet::{
    Client, Node, NodePlan, Plan, Testnet,
    tasks::{PRIMES, Task, primes, write_module},
    until,
};
use harness::{Harness, Target};
use serde_json::json;

/// Turns, after one that is not counted: in it the module is compiled, and workers get a name.
const RUNS: usize = 5;
const CONNECTIONS: usize = 48;
/// Tasks that a connection submits before it waits for them.
const AHEAD: usize = 8;
const LOCAL: usize = 4_000;
const NETWORK: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let mut harness = Harness::from_env();
    if harness.wants("task_local_per_s") {
        let mut plan = |dir: &Path| Plan::new(env!("CARGO_BIN_EXE_fog"), dir, 1);
        measure(&mut harness, "task_local_per_s", &mut plan, LOCAL, 1_000.0);
    }
    if harness.wants("task_network_per_s") {
        let mut plan = |dir: &Path| Plan::new(env!("CARGO_BIN_EXE_fog"), dir, 7);
        measure(&mut harness, "task_network_per_s", &mut plan, NETWORK, 300.0);
    }
    harness.finish();
}

/// A network of the plan's workers and a client. The first worker submits if it is alone, else the client does.
fn measure(harness: &mut Harness, name: &str, plan: &mut dyn FnMut(&Path) -> Plan, tasks: usize, target: f64) {
    let scratch = tempfile::tempdir().unwrap();
    let mut plan = plan(&scratch.path().join("net"));
    let workers = plan.nodes.len();
    plan.nodes.push(NodePlan::client());
    let net = Testnet::up(&plan, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    net.nodes[..workers].iter().for_each(eligible);
    let submitter = &net.nodes[if workers == 1 { 0 } else { workers }];
    let known = || {
        let known = submitter.client().and_then(|client| client.topology()).map_err(|error| error.to_string())?;
        if known.len() >= workers { Ok(()) } else { Err(format!("{} workers are known", known.len())) }
    };
    until("a node that knows the workers", PATIENCE, known).unwrap_or_else(|error| panic!("{error}"));
    let module = write_module(scratch.path(), "primes.wasm", PRIMES).unwrap();
    let mut rates = Vec::new();
    for turn in 0..=RUNS {
        let rate = take_turn(&net, submitter, &module, turn * tasks, tasks);
        if turn > 0 {
            rates.push(rate);
        }
    }
    harness.medians(name, &mut rates, None, "tasks/s", Some(Target::AtLeast(target)));
}

fn eligible(node: &Node) {
    let works = || {
        let worker = node.client().and_then(|client| client.worker()).map_err(|error| error.to_string())?;
        if worker.eligible { Ok(()) } else { Err(format!("{worker:?}")) }
    };
    until("a node that works", PATIENCE, works).unwrap_or_else(|error| panic!("{error}"));
}

/// Tasks by the second.
fn take_turn(net: &Testnet, submitter: &Node, module: &Path, first: usize, tasks: usize) -> f64 {
    let (next, replicas) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (before, began) = (Used::now(net), Instant::now());
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let client = submitter.client().unwrap();
                loop {
                    let from = next.fetch_add(AHEAD, Ordering::Relaxed);
                    if from >= tasks {
                        return;
                    }
                    let numbers = (from..tasks.min(from + AHEAD)).map(|number| (first + number) as u64);
                    let ids: Vec<_> = numbers.map(|number| (number, submit(&client, module, number))).collect();
                    for (number, id) in ids {
                        replicas.fetch_add(result(&client, number, &id).replicas.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (took, after) = (began.elapsed().as_secs_f64(), Used::now(net));
    let each =
        |part: fn(&Used) -> Duration| part(&after).saturating_sub(part(&before)).as_secs_f64() / tasks as f64 * 1e6;
    let all = (after.all - before.all).as_secs_f64() / took;
    let ours =
        (each(|used| used.nodes) + each(|used| used.tasks) + each(|used| used.bench)) / 1e6 * tasks as f64 / took;
    println!(
        "    {:.0}/s, {:.2} runs each; us of processors for each: submitter {:.0}, all nodes {:.0}, task processes {:.0}, this bench {:.0}; others had {:.1} cores",
        tasks as f64 / took,
        replicas.into_inner() as f64 / tasks as f64,
        each(|used| used.submitter),
        each(|used| used.nodes),
        each(|used| used.tasks),
        each(|used| used.bench),
        (all - ours).max(0.0),
    );
    tasks as f64 / took
}

/// Primes in a range of their own: no result is remembered.
fn submit(client: &Client, module: &Path, number: u64) -> String {
    client.task_submit(module, &[&number.to_string(), &(number + 3).to_string()], &json!({})).unwrap()
}

/// Waits, and looks whether the result is right, and was computed for this task.
fn result(client: &Client, number: u64, id: &str) -> Task {
    let task = client.task_wait(id, PATIENCE).unwrap();
    let right = primes(number, number + 3);
    assert_eq!((task.state.as_str(), task.stdout.as_deref()), ("done", Some(right.as_str())), "{task:?}");
    assert_ne!(task.verdict.as_deref(), Some("remembered"), "{task:?}");
    task
}

/// Processor time so far.
struct Used {
    submitter: Duration,
    nodes: Duration,
    tasks: Duration,
    bench: Duration,
    /// Of the whole machine.
    all: Duration,
}

impl Used {
    fn now(net: &Testnet) -> Self {
        let pids: Vec<u32> = net.nodes.iter().map(|node| node.process().unwrap().pid()).collect();
        let submitter = if pids.len() == 2 { pids[0] } else { pids[pids.len() - 1] };
        Self {
            submitter: of_process(submitter),
            nodes: pids.iter().map(|pid| of_process(*pid)).sum(),
            tasks: pids.iter().flat_map(|pid| children(*pid)).map(of_process).sum(),
            bench: of_process(std::process::id()),
            all: of_machine(),
        }
    }
}

/// The fields of a process's `stat` from its state on: behind its name, which may have anything in it.
fn stat(pid: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// User and system time of a process and of its threads that ended.
fn of_process(pid: u32) -> Duration {
    let fields = stat(pid);
    let ticks = [11, 12].map(|at| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default());
    Duration::from_millis(ticks.iter().sum::<u64>() * TICK_MS)
}

fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|child| stat(*child).get(1) == Some(&pid.to_string())).collect()
}

/// One tick of the clock in `/proc`, in milliseconds.
const TICK_MS: u64 = 10;

/// What all processors did but be idle.
fn of_machine() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<u64> = stat.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    let busy = [0, 1, 2, 5, 6].map(|at| ticks[at]);
    Duration::from_millis(busy.iter().sum::<u64>() * TICK_MS)
}
