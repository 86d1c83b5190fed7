//! Fog compute where it is hard: a submitter that is killed, inputs and outputs larger than any message, modules that do not end or take
//! all memory, and checks that nobody sees coming. What tasks cost is what both sides have in their books.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use fog_testnet::{Client, Node, NodePlan, Plan, Testnet, tasks, until};
use serde_json::{Value, json};

use super::{
    support::{PATIENCE, fog, metric, ok, one_network_at_a_time, run_in},
    tasks::{modules, peer, up, worker_ready},
};

const MIB: usize = 1024 * 1024;
/// `(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))`
const ENDLESS: [u8; 55] = *b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

/// Bytes without a pattern that compresses, by a seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn ended(client: &Client, ids: &[String]) -> usize {
    let is_done = |id: &&String| ok(client.task(id)).state == "done";
    ids.iter().filter(is_done).count()
}

/// What each worker was paid, as the submitter says, is what it earned, as it says itself, and all of it is what the submitter spent.
fn books_agree(submitter: &Node, workers: &[Node], ids: &[String]) {
    let client = ok(submitter.client());
    let mut paid = BTreeMap::<String, u64>::new();
    let mut price = 0;
    for id in ids {
        let task = ok(client.task(id));
        assert_eq!(task.price, task.replicas.iter().map(|replica| replica.price).sum::<u64>(), "{task:?}");
        let shown = run_in(&submitter.data_dir, &["--json", "task", "show", id]).json();
        assert_eq!(shown["price"].as_u64(), Some(task.price), "{shown}");
        price += task.price;
        task.replicas.iter().for_each(|replica| *paid.entry(replica.worker.clone()).or_default() += replica.price);
    }
    assert!(price > 0);
    ok(until("both sides have the same in their books", PATIENCE, || {
        for node in workers {
            let worker = ok(node.client()).worker().map_err(|error| error.to_string())?;
            let due = paid.get(&peer(node)).copied().unwrap_or_default();
            if worker.earned != due {
                return Err(format!("worker {} earned {} of {due}", node.index, worker.earned));
            }
        }
        let spent = client.worker().map_err(|error| error.to_string())?.spent;
        if spent == price { Ok(()) } else { Err(format!("{spent} spent, {price} shown")) }
    }));
}

#[test]
fn a_submitter_that_is_killed_ends_its_tasks_once_and_both_sides_books_agree() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut net = up(&scratch.path().join("net"), 4, 1);
    let primes = modules().join("primes.wasm");
    let range = |at: u64| (20_000_000 + at * 5_000, 20_001_000 + at * 5_000);
    let client = ok(net.nodes[4].client());
    let ids: Vec<_> = (0..10)
        .map(|at| {
            let (from, to) = range(at);
            ok(client.task_submit(&primes, &[&from.to_string(), &to.to_string()], &json!({})))
        })
        .collect();
    for least in [2, 5] {
        let client = ok(net.nodes[4].client());
        ok(until("some have ended and some have not", PATIENCE * 2, || match ended(&client, &ids) {
            done if done >= least => Ok(()),
            done => Err(format!("{done} have ended")),
        }));
        net.nodes[4].kill();
        ok(net.nodes[4].start());
    }
    let client = ok(net.nodes[4].client());
    for (at, id) in ids.iter().enumerate() {
        let task = ok(client.task_wait(id, PATIENCE * 3));
        let (from, to) = range(at as u64);
        assert_eq!((task.state.as_str(), task.exit), ("done", Some(0)), "{task:?}");
        assert_eq!(task.stdout.as_deref(), Some(tasks::primes(from, to).as_str()), "{task:?}");
        let good = task.replicas.iter().filter(|replica| replica.price > 0);
        let workers: BTreeSet<_> = good.clone().map(|replica| &replica.worker).collect();
        assert_eq!(good.count(), workers.len(), "nobody is paid twice: {task:?}");
    }
    let listed = run_in(&net.nodes[4].data_dir, &["--json", "task", "list"]).json();
    let listed: Vec<_> = listed.as_array().expect("a list").iter().filter_map(|task| task["id"].as_str()).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), ids.iter().map(String::as_str).collect());
    assert_eq!(listed.len(), ids.len());
    books_agree(&net.nodes[4], &net.nodes[..4], &ids);
    // They are the same after both sides were killed once more.
    net.nodes.iter_mut().for_each(Node::kill);
    net.nodes.iter_mut().for_each(|node| ok(node.start()));
    books_agree(&net.nodes[4], &net.nodes[..4], &ids);
}

/// Who ran a task whose result was accepted.
fn runner(client: &Client, module: &str, args: &[&str], more: &Value) -> String {
    let id = ok(client.task_submit(&modules().join(module), args, more));
    let task = ok(client.task_wait(&id, PATIENCE * 2));
    let good: Vec<_> = task.replicas.iter().filter(|replica| replica.state == "good").collect();
    assert!(task.state == "done" && good.len() == 1, "{task:?}");
    good[0].worker.clone()
}

#[test]
fn what_is_larger_than_a_message_goes_in_and_comes_out_and_is_read_again_where_it_is() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = up(&scratch.path().join("net"), 4, 1);
    let client = ok(net.nodes[4].client());
    let file = |name: &str, seed: u64, len: usize| -> PathBuf {
        let path = scratch.path().join(name);
        fs::write(&path, noise(seed, len)).expect("written");
        path
    };
    let given = format!("a.bin={}", file("one", 1, 8 * MIB).display());
    let copy = json!({ "inputs": [given], "output_mib": 32 });
    let id = ok(client.task_submit(&modules().join("copy.wasm"), &[], &copy));
    let task = ok(client.task_wait(&id, PATIENCE * 3));
    assert_eq!(
        (task.state.as_str(), task.exit, task.verdict.as_deref()),
        ("done", Some(0), Some("agreed")),
        "{task:?}"
    );
    let out = scratch.path().join("out");
    ok(client.task_output(&id, &out));
    for name in ["a.bin", "joined/all"] {
        let bytes = fs::read(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(bytes == noise(1, 8 * MIB), "{name} is not what went in: {} bytes", bytes.len());
    }
    // Another one, which one worker gets: what reads it next runs there unless that host is busy for a moment, though each module has its
    // own place.
    let given = format!("b.bin={}", file("other", 2, 32 * MIB).display());
    let more = json!({ "inputs": [given], "replicas": 1, "trust": 0.0, "fuel": 1_000_000, "strategy": "affinity" });
    let first = runner(&client, "hello.wasm", &["0"], &more);
    let others = [
        ("primes.wasm", ["2", "40"]),
        ("clock.wasm", ["1", "2"]),
        ("floats.wasm", ["1", "2"]),
        ("tour.wasm", ["1", "2"]),
    ];
    let runners = others.map(|(module, args)| runner(&client, module, &args, &more));
    let there = runners.iter().filter(|runner| **runner == first).count();
    assert!(there >= 3, "{first} had it, and they ran at {runners:?}");
}

/// How far behind others the task processes of a node stand.
fn niceness(node: &Node) -> Vec<i32> {
    let parent = ok(node.client()).pid().to_string();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let niceness = processes.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // From the state on, the third field: the parent is the fourth, niceness the nineteenth.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let arguments = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let is_one = fields.get(1) == Some(&parent.as_str()) && arguments.contains("task-process");
        is_one.then(|| fields.get(16)?.parse().ok()).flatten()
    });
    niceness.collect()
}

#[test]
fn what_never_ends_or_takes_all_memory_ends_with_a_reason_and_hurts_nobody() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), 1);
    let worker = "run_on_batteries = true\nbattery_charge_min_pct = 0\nmax_temperature_c = 150\nrun_if_user_active = true\n\
        suspend_cpu_usage_pct = 0\nsuspend_memory_pressure_pct = 0\nstart_cpu_pressure_pct = 0\nstart_io_pressure_pct = 0\n\
        network_wifi_only = false\nrun_if_metered = true\ncontinue_after_s = 1\nnice = 7\n";
    plan.nodes[0].worker = Some(worker.into());
    plan.nodes.push(NodePlan::client());
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    worker_ready(&net.nodes[0]);
    let client = ok(net.nodes[1].client());
    let endless = ok(tasks::write_module(scratch.path(), "endless.wasm", &ENDLESS));
    let one = |more: Value| {
        let mut all = json!({ "replicas": 1, "trust": 0.0 });
        let (all_of, more) = (all.as_object_mut().expect("a map"), more.as_object().expect("a map").clone());
        all_of.extend(more);
        all
    };
    let submit = |module: &Path, args: &[&str], more: Value| ok(client.task_submit(module, args, &one(more)));
    let (memory, primes) = (modules().join("memory.wasm"), modules().join("primes.wasm"));
    let beside = submit(&primes, &["20000000", "20000500"], json!({}));
    let by_run = submit(&endless, &[], json!({ "fuel": 10_000_000_000_000u64, "run_s": 3 }));
    let bomb = submit(&memory, &[], json!({ "memory_mib": 256 }));
    let by_deadline = submit(&endless, &["again"], json!({ "fuel": 10_000_000_000_000u64, "deadline_s": 8 }));
    let end = |id: &str| ok(client.task_wait(id, PATIENCE * 2));
    let (by_run, by_deadline, bomb, beside) = (end(&by_run), end(&by_deadline), end(&bomb), end(&beside));
    let why = |task: &tasks::Task| (task.state.clone(), task.reason.clone().unwrap_or_default());
    assert_eq!(why(&by_run), ("failed".into(), "the run took longer than it may".into()), "{by_run:?}");
    assert_eq!(why(&by_deadline), ("failed".into(), "the deadline passed".into()), "{by_deadline:?}");
    assert!(by_deadline.total_ms.is_some_and(|ms| ms <= 8_800.0), "{by_deadline:?}");
    assert!(by_run.price == 0 && by_deadline.price == 0);
    assert_eq!((bomb.state.as_str(), bomb.exit), ("done", Some(0)), "{bomb:?}");
    let taken = bomb.stdout.as_deref().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    assert!(taken.is_some_and(|mib| (200..256).contains(&mib)), "{bomb:?}");
    assert_eq!(beside.stdout.as_deref(), Some(tasks::primes(20_000_000, 20_000_500).as_str()), "{beside:?}");
    // The worker is as it was.
    let after = end(&submit(&primes, &["2", "100"], json!({})));
    assert_eq!(after.stdout.as_deref(), Some(tasks::primes(2, 100).as_str()), "{after:?}");
    ok(until("nothing runs any more", PATIENCE, || {
        let worker = ok(net.nodes[0].client()).worker().map_err(|error| error.to_string())?;
        if worker.running == 0 && worker.eligible { Ok(()) } else { Err(format!("{worker:?}")) }
    }));
    if cfg!(target_os = "linux") {
        let niceness = niceness(&net.nodes[0]);
        assert!(!niceness.is_empty() && niceness.iter().all(|nice| *nice == 7), "{niceness:?}");
    }
}

#[test]
fn workers_are_given_what_is_known_already_and_that_is_counted() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = up(&scratch.path().join("net"), 5, 1);
    let client = ok(net.nodes[5].client());
    let primes = modules().join("primes.wasm");
    let mut from = 1_000;
    ok(until("a spot check", PATIENCE * 4, || {
        // A result that is sure enough to check others by, of four replicas at first; each that is right draws for a check.
        from += 50;
        let (first, last) = (from.to_string(), (from + 50).to_string());
        let id = ok(client.task_submit(&primes, &[&first, &last], &json!({ "trust": 0.9999 })));
        let task = ok(client.task_wait(&id, PATIENCE * 5));
        assert_eq!(task.stdout.as_deref(), Some(tasks::primes(from, from + 50).as_str()), "{task:?}");
        let checks = metric(&net.nodes[5].data_dir, "fog_task_spot_checks_total");
        if checks > 0.0 { Ok(()) } else { Err(format!("none in {} tasks", (from - 1_000) / 50)) }
    }));
    // All are honest: a check convicts nobody.
    for worker in ok(client.topology()) {
        assert!(worker.credibility > 0.9, "{worker:?}");
    }
}
