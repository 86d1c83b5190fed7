//! Tasks that go through the mixnet, between whole nodes: done by workers that cannot know who submits them, also when the submitter is killed
//! meanwhile, and nothing of them on any stream.

use std::{fs, path::PathBuf};

use fog_testnet::{Node, NodePlan, Plan, SHARED_HOST, Testnet, tasks, until};
use serde_json::json;

use super::support::{PATIENCE, fog, metric, ok, one_network_at_a_time, run_in};

const WORKERS: usize = 6;

fn module() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this"))
        .join("behaviours/tasks/tests/modules/primes.wasm")
}

/// Messages about executions that this node sent and received, by the way.
fn messages(node: &Node, way: &str) -> f64 {
    let of = |name: &str| metric(&node.data_dir, &format!("fog_task_messages_{name}_total{{way=\"{way}\"}}"));
    of("sent") + of("received")
}

#[test]
fn a_mixed_task_is_done_over_a_restart_by_workers_that_no_stream_tells_of_it() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), WORKERS);
    plan.nodes[1].worker = Some(format!("{SHARED_HOST}accept_mixed = false\n"));
    plan.nodes.push(NodePlan::client());
    let mut net = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let data = net.nodes[WORKERS].data_dir.clone();
    let module_text = module().display().to_string();

    // Who takes it, and who does not and why.
    let described = scratch.path().join("task.json");
    fs::write(&described, json!({ "module": module_text, "privacy": "mixed" }).to_string()).expect("written");
    let described = described.display().to_string();
    ok(until("all but one take mixed tasks", PATIENCE * 2, || {
        let explained = run_in(&data, &["--json", "task", "explain", &described]).json();
        let (matches, rejected) = (explained["matches"].as_u64(), explained["rejected"].as_array().map(Vec::len));
        if (matches, rejected) == (Some(WORKERS as u64 - 1), Some(1)) { Ok(()) } else { Err(explained.to_string()) }
    }));
    let explained = run_in(&data, &["--json", "task", "explain", &described]).json();
    assert!(explained.to_string().contains("it does not take tasks labelled mixed"), "{explained}");
    let large = scratch.path().join("large");
    fs::write(&large, vec![7; 65 * 1024]).expect("written");
    let input = format!("x={}", large.display());
    let wrong = ["task", "run", &module_text, "--privacy", "mixed", "--input", &input];
    run_in(&data, &wrong).refused(2).says("64 KiB in one file");
    let wrong = ["task", "run", &module_text, "--privacy", "mixed", "--output-mib", "1"];
    run_in(&data, &wrong).refused(2).says("20 KiB");

    // By replicas that agree, paid, on other nodes.
    let args = ["--json", "task", "run", &module_text, "--arg", "2", "--arg", "5000", "--privacy", "mixed"];
    let ran = run_in(&data, &args).json();
    assert_eq!((ran["state"].as_str(), ran["exit"].as_u64()), (Some("done"), Some(0)), "{ran}");
    assert_eq!(ran["stdout"], tasks::primes(2, 5000));
    let replicas = ran["replicas"].as_array().expect("replicas");
    assert!(replicas.len() >= 2 && ran["verdict"] == "agreed" && ran["price"].as_u64() > Some(0), "{ran}");
    let refuses = ok(net.nodes[1].client()).peer_id().to_owned();
    assert!(replicas.iter().all(|replica| replica["worker"] != refuses.as_str()), "{ran}");
    assert_eq!(messages(&net.nodes[WORKERS], "stream"), 0.0);
    assert!(messages(&net.nodes[WORKERS], "mixnet") > 0.0);

    // Killed while it runs: the execution goes on, by the same key.
    let client = ok(net.nodes[WORKERS].client());
    let (from, to) = (20_000_000, 20_004_000);
    let args = [&*from.to_string(), &*to.to_string()];
    let wanted = json!({ "privacy": "mixed", "replicas": 1, "trust": 0.0 });
    let id = ok(client.task_submit(&module(), &args, &wanted));
    let runs = ok(until("it is with a worker", PATIENCE, || {
        let task = client.task(&id).map_err(|error| error.to_string())?;
        let placed = task.replicas.iter().any(|it| ["leased", "staging", "queued", "running"].contains(&&*it.state));
        if placed || task.state == "done" { Ok(task) } else { Err(format!("{task:?}")) }
    }));
    eprintln!("killed while it is {}", runs.state);
    net.nodes[WORKERS].kill();
    ok(net.nodes[WORKERS].start());
    let client = ok(net.nodes[WORKERS].client());
    let task = ok(client.task_wait(&id, PATIENCE * 4));
    let right = tasks::primes(from, to);
    assert_eq!((task.state.as_str(), task.stdout.as_deref()), ("done", Some(right.as_str())), "{task:?}");

    // Nothing of either was on a stream, at anybody's.
    for node in &net.nodes {
        assert_eq!(messages(node, "stream"), 0.0);
    }
    let carried: f64 = net.nodes[..WORKERS].iter().map(|node| messages(node, "mixnet")).sum();
    assert!(carried > 0.0 && messages(&net.nodes[1], "mixnet") == 0.0);
    // The count counts: an open task is on streams.
    run_in(&data, &["--json", "task", "run", &module_text, "--arg", "2", "--arg", "100"]).json();
    assert!(messages(&net.nodes[WORKERS], "stream") > 0.0);
}
