//! Fog compute between whole nodes: a module runs elsewhere, its result is agreed on, checked and paid; what wrong input gets; workers that lie,
//! copy, die and stand still; hosts whose users come back. `FOG_TASKS` says how many tasks the storm has (60 unless told).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fog_testnet::{Faults, Node, NodePlan, Plan, Testnet, tasks, until};
use serde_json::json;

use super::support::{PATIENCE, fog, ok, one_network_at_a_time, run_in};

pub(super) fn modules() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this")).join("behaviours/tasks/tests/modules")
}

fn module(name: &str) -> String {
    modules().join(name).display().to_string()
}

pub(super) fn peer(node: &Node) -> String {
    ok(node.client()).peer_id().to_owned()
}

fn signal(node: &Node, signal: &str) {
    let pid = ok(node.client()).pid().to_string();
    let sent = std::process::Command::new("kill").args([signal, &pid]).status().expect("kill");
    assert!(sent.success(), "{signal} {pid}");
}

pub(super) fn worker_ready(node: &Node) {
    ok(until("a node works for others", PATIENCE, || {
        let worker = ok(node.client()).worker().map_err(|error| error.to_string())?;
        if worker.eligible { Ok(()) } else { Err(format!("{worker:?}")) }
    }));
}

pub(super) fn up(dir: &Path, workers: usize, clients: usize) -> Testnet {
    let mut plan = Plan::new(fog(), dir, workers);
    plan.nodes.extend(vec![NodePlan::client(); clients]);
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    net.nodes[..workers].iter().for_each(worker_ready);
    net
}

#[test]
fn a_module_runs_elsewhere_and_wrong_input_gets_a_reason() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = up(&scratch.path().join("net"), 4, 1);
    let data = &net.nodes[4].data_dir;
    let input = scratch.path().join("in.txt");
    fs::write(&input, "what is in it\n").expect("written");

    // Arguments, a file in, a file out: by replicas that agree, paid, on other nodes.
    let ran = run_in(data, &["--json", "task", "run", &module("primes.wasm"), "--arg", "2", "--arg", "5000"]).json();
    assert_eq!((ran["state"].as_str(), ran["exit"].as_u64()), (Some("done"), Some(0)), "{ran}");
    assert_eq!(ran["stdout"], tasks::primes(2, 5000));
    let replicas = ran["replicas"].as_array().expect("replicas");
    assert!(replicas.len() >= 2 && ran["verdict"] == "agreed" && ran["price"].as_u64() > Some(0), "{ran}");
    let me = peer(&net.nodes[4]);
    assert!(replicas.iter().all(|replica| replica["worker"] != me.as_str()), "{ran}");
    let id = ran["id"].as_str().expect("an id").to_owned();
    let again = run_in(data, &["--json", "task", "run", &module("primes.wasm"), "--arg", "2", "--arg", "5000"]).json();
    assert_eq!(
        (again["verdict"].as_str(), &again["output_hash"]),
        (Some("remembered"), &ran["output_hash"]),
        "{again}"
    );

    let given = format!("a.txt={}", input.display());
    let copied = run_in(data, &["--json", "task", "run", &module("copy.wasm"), "--input", &given]).json();
    assert_eq!(copied["state"], "done", "{copied}");
    let out = scratch.path().join("out");
    let copy = copied["id"].as_str().expect("an id").to_owned();
    run_in(data, &["--json", "task", "output", &copy, "--out", &out.display().to_string()]).json();
    let written = fs::read_dir(&out).expect("a folder").count();
    assert!(written > 0, "nothing was written");
    run_in(data, &["task", "output", &copy, "--out", &out.display().to_string()]).refused(1).says("cannot be written");

    // What there is to see.
    assert_eq!(run_in(data, &["--json", "task", "list"]).json().as_array().map(Vec::len), Some(3));
    assert_eq!(run_in(data, &["--json", "task", "show", &id[..8]]).json()["id"], id.as_str());
    let logs = run_in(data, &["--json", "task", "logs", &id]).json_lines();
    assert_eq!(logs[0]["text"], tasks::primes(2, 5000));
    let explained = run_in(data, &["--json", "task", "explain", &module("primes.wasm")]).json();
    assert_eq!(explained["matches"], 4, "{explained}");
    let topology = run_in(data, &["--json", "worker", "topology"]).json();
    let newest = topology.as_array().and_then(|all| all.last()).expect("a look");
    assert_eq!(newest["workers"].as_array().map(Vec::len), Some(4), "{newest}");

    receipts_agree(&net);

    // A module that fails is no failure of the network, and is not run again elsewhere.
    let failed = run_in(data, &["--json", "task", "run", &module("primes.wasm")]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    failed.says("exited with 2");
    let nonsense = scratch.path().join("nonsense.wasm");
    fs::write(&nonsense, b"\0asm\x01\0\0\0\xff").expect("written");
    run_in(data, &["task", "run", &nonsense.display().to_string()]).says("bad module");
    let fuel = ["task", "run", &module("primes.wasm"), "--arg", "2", "--arg", "100000000", "--fuel", "1000000"];
    run_in(data, &fuel).says("out of fuel");

    // Wrong usage.
    let wrong: [(&[&str], i32, &str); 9] = [
        (&["task", "run", "/nowhere.wasm"], 1, "cannot be read"),
        (&["task", "run", &module("primes.wasm"), "--trust", "1"], 2, "trust"),
        (&["task", "run", &module("primes.wasm"), "--replicas", "200"], 2, "replicas"),
        (&["task", "run", &module("primes.wasm"), "--memory-mib", "0"], 2, "memory"),
        (&["task", "run", &module("primes.wasm"), "--strategy", "best"], 2, "strategy"),
        (&["task", "run", &module("primes.wasm"), "--input", "../x=/etc/hostname"], 2, "/in"),
        (&["task", "show", "nothing"], 2, "id"),
        (&["task", "show", "00000000000000000000000000000000"], 1, "no task"),
        (&["worker", "pause"], 1, "no worker"),
    ];
    for (args, code, what) in wrong {
        run_in(data, args).refused(code).says(what);
    }
    // A GPU is nowhere: the user is told, and the task waits for nobody.
    let gpu = ["--timeout", "3", "task", "run", &module("primes.wasm"), "--arg", "7", "--feature", "gpu:cuda"];
    let late = run_in(data, &[&["--json"], &gpu[..]].concat());
    assert!(late.code == Some(4) && late.stdout.contains("\"reason\":\"no worker that fits is free\""), "{late:?}");
    let open = run_in(data, &["--json", "task", "list"]).json();
    let waiting = open.as_array().expect("a list").iter().find(|task| task["state"] == "offered").expect("it waits");
    let cancelled = run_in(data, &["--json", "task", "cancel", waiting["id"].as_str().expect("an id")]).json();
    assert_eq!(cancelled["state"], "cancelled");
}

/// What the last node spent is what others earned, and either side has the other's signature under it.
fn receipts_agree(net: &Testnet) {
    let receipts = |node: &Node| run_in(&node.data_dir, &["--json", "worker", "receipts"]).json();
    let client = peer(&net.nodes[4]);
    ok(until("all vouchers are acknowledged", PATIENCE, || {
        let (mut spent, mut earned) = (BTreeMap::new(), BTreeMap::new());
        let of = |receipt: &serde_json::Value, peer: &str| (peer.to_owned(), receipt["hour"].to_string());
        for receipt in receipts(&net.nodes[4]).as_array().expect("receipts") {
            assert_eq!(receipt["side"], "spent", "{receipt}");
            let is_proved = receipt["proved"] == receipt["amount"] && receipt["record"] != "";
            spent.insert(of(receipt, receipt["peer"].as_str().expect("a peer")), receipt["amount"].as_u64());
            if !is_proved {
                return Err(receipt.to_string());
            }
        }
        for node in &net.nodes[..4] {
            for receipt in receipts(node).as_array().expect("receipts") {
                assert!(receipt["side"] == "earned" && receipt["peer"] == client.as_str(), "{receipt}");
                assert!(receipt["record"].as_str() > Some(""), "{receipt}");
                earned.insert(of(receipt, &peer(node)), receipt["amount"].as_u64());
            }
        }
        if spent == earned && !spent.is_empty() { Ok(()) } else { Err(format!("{spent:?} {earned:?}")) }
    }));
}

/// A host as its files tell: on mains or on battery.
fn laptop(root: &Path, on_mains: bool) {
    let supply = |name: &str, files: &[(&str, &str)]| {
        let dir = root.join("sys/class/power_supply").join(name);
        fs::create_dir_all(&dir).expect("a folder");
        for (file, text) in files {
            fs::write(dir.join(file), text).expect("written");
        }
    };
    supply("AC", &[("type", "Mains\n"), ("online", if on_mains { "1\n" } else { "0\n" })]);
    let status = if on_mains { "Full\n" } else { "Discharging\n" };
    supply("BAT0", &[("type", "Battery\n"), ("present", "1\n"), ("capacity", "95\n"), ("status", status)]);
    fs::create_dir_all(root.join("proc")).expect("a folder");
    for file in ["stat", "meminfo", "loadavg"] {
        fs::copy(Path::new("/proc").join(file), root.join("proc").join(file)).expect("copied");
    }
}

#[test]
fn a_laptop_that_goes_to_battery_gives_its_tasks_back_and_they_end_elsewhere() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("host");
    laptop(&root, true);
    let mut plan = Plan::new(fog(), scratch.path().join("net"), 4);
    plan.nodes.push(NodePlan::client());
    plan.nodes[1].probe_root = Some(root.clone());
    plan.nodes[1].worker = Some("suspend_cpu_usage_pct = 0\nrun_if_user_active = true\ncontinue_after_s = 1\n".into());
    let net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    net.nodes[..4].iter().for_each(worker_ready);
    let (client, laptop_node) = (ok(net.nodes[4].client()), ok(net.nodes[1].client()));
    let primes = modules().join("primes.wasm");
    // Some seconds each, more of them than there are other workers.
    let ids: Vec<_> = (0..6)
        .map(|at| {
            let (from, to) = (format!("{}", 20_000_000 + at), format!("{}", 20_004_000 + at));
            ok(client.task_submit(&primes, &[&from, &to], &json!({ "replicas": 1, "trust": 0.0 })))
        })
        .collect();
    ok(until("the laptop works", PATIENCE, || {
        let worker = laptop_node.worker().map_err(|error| error.to_string())?;
        if worker.running > 0 { Ok(()) } else { Err(format!("{worker:?}")) }
    }));
    laptop(&root, false);
    let began = Instant::now();
    let stopped = ok(until("the laptop stops", PATIENCE, || {
        let worker = laptop_node.worker().map_err(|error| error.to_string())?;
        if !worker.eligible && worker.running == 0 { Ok(worker) } else { Err(format!("{worker:?}")) }
    }));
    eprintln!("on battery: its tasks are given back after {:?}: {:?}", began.elapsed(), stopped.reasons);
    assert!(stopped.reasons.iter().any(|reason| reason.contains("batter")), "{stopped:?}");
    for (at, id) in ids.iter().enumerate() {
        let task = ok(client.task_wait(id, PATIENCE * 3));
        let right = tasks::primes(20_000_000 + at as u64, 20_004_000 + at as u64);
        assert_eq!((task.state.as_str(), task.stdout.as_deref()), ("done", Some(right.as_str())), "{task:?}");
    }
    laptop(&root, true);
    worker_ready(&net.nodes[1]);
}

/// Workers die and come back, or stand still, twice at least and as long as somebody is busy.
fn disturb(nodes: &mut [Node], is_busy: &dyn Fn() -> bool) {
    let mut round = 0;
    while is_busy() || round < 2 {
        let victim = &mut nodes[round % 7];
        if round % 2 == 0 {
            victim.kill();
            thread::sleep(Duration::from_secs(1));
            ok(victim.start());
        } else {
            signal(victim, "-STOP");
            thread::sleep(Duration::from_secs(4));
            signal(victim, "-CONT");
        }
        round += 1;
        thread::sleep(Duration::from_secs(1));
    }
}

/// Tasks of three submitters while workers are killed and stopped, and some of them lie.
#[test]
fn every_task_ends_once_with_the_right_result_whatever_workers_do() {
    let _alone = one_network_at_a_time();
    let count: usize = std::env::var("FOG_TASKS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let scratch = tempfile::tempdir().expect("a directory");
    // Of ten workers two give wrong results, and one commits to a guess and then shows what the others show; three clients submit.
    let mut plan = Plan::new(fog(), scratch.path().join("net"), 10);
    for (at, results) in [(7, "wrong"), (8, "colluding"), (9, "copy")] {
        plan.nodes[at].faults = Some(Faults { results: results.into(), ..Faults::default() });
    }
    plan.nodes.extend(vec![NodePlan::client(); 3]);
    let mut net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    net.nodes[..10].iter().for_each(worker_ready);
    let primes = modules().join("primes.wasm");
    let clients: Vec<_> = (10..13).map(|at| ok(net.nodes[at].client())).collect();
    let began = Instant::now();
    let range = |at: usize| {
        let from = 1_000 + at as u64 * 7;
        (from, from + [50, 500, 3_000][at % 3])
    };
    let ids: Vec<_> = thread::scope(|scope| {
        let submit = |client: usize| {
            let (clients, primes) = (&clients, &primes);
            move || {
                let mine = (client..count).step_by(3);
                mine.map(|at| {
                    let (from, to) = range(at);
                    let args = [from.to_string(), to.to_string()];
                    (at, ok(clients[client].task_submit(primes, &[&args[0], &args[1]], &json!({}))))
                })
                .collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..3).map(|client| scope.spawn(submit(client))).collect();
        let is_busy = || threads.iter().any(|thread| !thread.is_finished());
        disturb(&mut net.nodes, &is_busy);
        threads.into_iter().flat_map(|thread| thread.join().expect("a submitter")).collect()
    });
    let (mut runs, mut late, mut verdicts) = (0, (0, 0), BTreeMap::<String, usize>::new());
    let mut seen = BTreeSet::new();
    for (at, id) in &ids {
        assert!(seen.insert(id.clone()), "{id} twice");
        let task = ok(clients[at % 3].task_wait(id, PATIENCE * 5));
        let (from, to) = range(*at);
        assert_eq!((task.state.as_str(), task.exit), ("done", Some(0)), "{task:?}");
        assert_eq!(task.stdout.as_deref(), Some(tasks::primes(from, to).as_str()), "{task:?}");
        let done = task.replicas.iter().filter(|replica| ["good", "wrong"].contains(&replica.state.as_str())).count();
        runs += done;
        if *at > count / 2 {
            late = (late.0 + done, late.1 + 1);
        }
        *verdicts.entry(task.verdict.unwrap_or_default()).or_default() += 1;
    }
    eprintln!(
        "{count} tasks in {:?}: {:.2} runs a task, {:.2} in the second half; {verdicts:?}",
        began.elapsed(),
        runs as f64 / count as f64,
        late.0 as f64 / f64::from(late.1.max(1))
    );
    // Who lies or copies is paid nothing.
    for at in 7..10 {
        let worker = ok(ok(net.nodes[at].client()).worker());
        assert_eq!(worker.earned, 0, "{:?}: {worker:?}", net.nodes[at].plan.faults);
    }
    // No honest worker is banned.
    for client in &clients {
        let topology = ok(client.topology());
        let honest: Vec<_> = net.nodes[..7].iter().map(peer).collect();
        for worker in topology.iter().filter(|worker| honest.contains(&worker.worker)) {
            assert!(worker.credibility > 0.5, "{worker:?}");
        }
    }
}
