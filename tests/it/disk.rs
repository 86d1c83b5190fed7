//! A full disk: a clear line, no panic, and nothing lost. The disk is a small tmpfs, which only root can mount, and only on Linux.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fog_testnet::{tasks::primes, until};
use serde_json::json;

use super::{
    support::{Alone, PATIENCE, fog, not_tried, ok, one_network_at_a_time, run_in},
    tasks,
};

/// A disk of a few megabytes. Unmounted when dropped.
struct SmallDisk {
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(mebibytes: usize) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mount = dir.path().join("disk");
        fs::create_dir(&mount).map_err(|e| e.to_string())?;
        let size = format!("size={mebibytes}m,mode=700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self { mount, _dir: dir }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) => Err(format!("mount: {e}")),
        }
    }

    /// Fills what is free, to the last byte: once more, if something was freed meanwhile.
    fn fill(&self) -> PathBuf {
        let path = self.mount.join("filling");
        let mut file = File::options().create(true).append(true).open(&path).expect("a file");
        for size in [64 * 1024, 1024, 1] {
            loop {
                match file.write_all(&vec![0; size]) {
                    Ok(()) => {}
                    Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::WriteZero) => break,
                    Err(e) => panic!("{}: {e}", path.display()),
                }
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
    }
}

fn small_disk(test: &str) -> Option<SmallDisk> {
    disk_of(test, 48)
}

fn disk_of(test: &str, mebibytes: usize) -> Option<SmallDisk> {
    SmallDisk::mount(mebibytes).map_err(|why| not_tried(test, &why)).ok()
}

#[test]
fn a_node_on_a_full_disk_says_so_and_does_not_start() {
    let Some(disk) = small_disk("a node on a full disk") else { return };
    disk.fill();
    let ended = run_in(&disk.mount.join("data"), &["run", "--no-mdns"]);
    ended.refused(1);
    let said = ended.stderr.to_lowercase();
    assert!(said.contains("space") || said.contains("disk"), "{ended:?}");
}

#[test]
fn a_disk_that_fills_up_under_a_node_loses_nothing() {
    let _alone = one_network_at_a_time();
    let Some(disk) = small_disk("a disk that fills up under a node") else { return };
    let dir = disk.mount.join("data");
    let mut node = Alone::start_in(&dir);
    let id = node.node_file()["peer_id"].clone();
    let chat = |args: &[&str]| run_in(&dir, &[&["--json", "chat"], args].concat());
    chat(&["join", "#lobby"]).json();
    chat(&["send", "#lobby", "before"]).json();
    let filling = disk.fill();
    // A few may find room in what the log has of the disk, or in what the store removes; what is not on it is refused, and chat says that it
    // stands still.
    let mut kept = vec!["before".to_owned()];
    let refused = (0..600).map(|n| format!("{n} {}", "x".repeat(4000))).find_map(|text| {
        disk.fill();
        let ended = chat(&["send", "#lobby", &text]);
        kept.extend((ended.code == Some(0)).then_some(text));
        (ended.code != Some(0)).then_some(ended)
    });
    refused.expect("the disk is full").refused(1);
    let stands = || run_in(&dir, &["--json", "status"]).json()["warnings"].to_string().contains("chat stands still");
    assert!(stands());
    let shown = || -> Vec<String> {
        let text = |line: &serde_json::Value| line["text"].as_str().unwrap_or_default().to_owned();
        chat(&["history", "#lobby"]).json_lines().iter().map(text).collect()
    };
    fs::remove_file(&filling).expect("room again");
    ok(until("chat goes on", PATIENCE, || {
        let ended = chat(&["send", "#lobby", "after"]);
        if ended.code == Some(0) { Ok(()) } else { Err(ended.stderr) }
    }));
    kept.push("after".to_owned());
    assert_eq!(shown(), kept, "what was refused is not there, and what was taken is");
    assert!(!stands());
    let filling = disk.fill();
    assert_eq!(ok(node.client().status()).state, "joining", "it answers on a full disk");
    assert!(node.process.is_running());
    // Killed on the full disk, as an impatient user would.
    node.process.kill();
    fs::remove_file(filling).expect("room again");
    let again = Alone::start_in(&dir);
    assert_eq!(again.node_file()["peer_id"], id);
    assert_eq!(shown(), kept);
    drop(again);
    assert_log_has_no_panic(&dir.with_extension("log"));
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_file_keeps_what_is_there_and_says_so() {
    let _alone = one_network_at_a_time();
    let Some(disk) = disk_of("a disk that fills up in the middle of a file", 128) else { return };
    let source = Alone::start();
    // Slow enough to be met in the middle.
    let dir = disk.mount.join("data");
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("fog.toml"), "[limits]\nfiles_down_kib_per_second = 4096\n").expect("its configuration");
    let node = Alone::start_in(&dir);
    let path = source.dir.with_extension("bin");
    let bytes: Vec<u8> = (0..24 << 20).map(|n: u32| (n % 251) as u8).collect();
    fs::write(&path, &bytes).expect("a file");
    for one in [&source, &node] {
        one.run(&["--json", "chat", "join", "#lobby"]).json();
    }
    node.run(&["connect", &ok(source.client().invite())]);
    let shared = source.run(&["--json", "chat", "file", "send", "#lobby", &path.display().to_string()]).json();
    let id = shared["id"].as_str().expect("an id");
    ok(until("the file is offered", PATIENCE, || {
        let listed = node.run(&["--json", "chat", "file", "list"]).stdout;
        if listed.contains(id) { Ok(()) } else { Err(listed) }
    }));
    let out = disk.mount.join("out.bin");
    let dir = dir.display().to_string();
    let get = ["--data-dir", &dir, "--json", "chat", "file", "get", id, "--out"];
    let mut getting = Command::new(fog());
    let getting = getting.args(get).arg(&out).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut getting = getting.spawn().expect("the program");
    let lines = BufReader::new(getting.stdout.take().expect("a pipe")).lines();
    let mut filling = None;
    for line in lines.map(|line| line.expect("text")) {
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if filling.is_none() && line["bytes"].as_u64().is_some_and(|bytes| bytes > 2 << 20) {
            filling = Some(disk.fill());
        }
    }
    let ended = getting.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&ended.stderr).to_lowercase();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("space") || said.contains("disk"), "{said}");
    assert!(!out.exists());
    fs::remove_file(filling.expect("it was in the middle")).expect("room again");
    ok(until("the file", PATIENCE, || {
        let ended = node.run(&[&get[2..], &[&*out.display().to_string()]].concat());
        if ended.code == Some(0) { Ok(()) } else { Err(ended.stderr) }
    }));
    assert!(fs::read(&out).expect("the file") == bytes);
    assert_log_has_no_panic(&node.dir.with_extension("log"));
}

#[test]
fn tasks_stand_still_on_full_disks_and_go_on_when_there_is_room() {
    let _alone = one_network_at_a_time();
    let Some(disk) = disk_of("tasks on full disks", 256) else { return };
    // All nodes have the same disk: the one that submits, and its workers.
    let net = tasks::up(&disk.mount.join("net"), 3, 1);
    let (data, client) = (&net.nodes[3].data_dir, ok(net.nodes[3].client()));
    let module = tasks::modules().join("primes.wasm");
    let submit = |number: usize, length: u64| {
        let (from, to) = (number.to_string(), (number as u64 + length).to_string());
        // Another work each time, as results are remembered, and a row that fills what is left of a page.
        let more = json!({ "replicas": 1, "trust": 0.0, "env": [format!("PAD={number}{}", "x".repeat(2000))] });
        client.task_submit(&module, &[&from, &to], &more).map(|id| (id, primes(number as u64, number as u64 + length)))
    };
    let mut taken = vec![ok(submit(2, 100))];
    ok(client.task_wait(&taken[0].0, PATIENCE));
    // Open while the disk is full.
    taken.extend((0..4).map(|at| ok(submit(3 + at, 20_000))));
    let filling = disk.fill();
    let refused = (0..2_000).find_map(|number| {
        disk.fill();
        submit(1_000 + number, 100).map(|task| taken.push(task)).err().map(|error| error.to_string())
    });
    let refused = refused.expect("the disk is full");
    assert!(refused.contains("tasks stand still"), "{refused}");
    let ended = run_in(data, &["task", "run", &module.display().to_string(), "--arg", "2", "--arg", "9"]);
    ended.refused(1);
    ended.says("tasks stand still");
    let warns = || run_in(data, &["--json", "status"]).json()["warnings"].to_string().contains("tasks stand still");
    assert!(warns());
    fs::remove_file(filling).expect("room again");
    ok(until("tasks go on", PATIENCE, || submit(2_000, 100).map(|task| taken.push(task)).map_err(|e| e.to_string())));
    assert!(!warns());
    for (id, right) in &taken {
        let task = ok(client.task_wait(id, PATIENCE));
        assert_eq!((task.state.as_str(), task.stdout.as_deref()), ("done", Some(right.as_str())), "{task:?}");
    }
    let listed = run_in(data, &["--json", "task", "list"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(taken.len()), "what was refused is not there");
    for node in &net.nodes {
        assert_log_has_no_panic(&node.data_dir.join("fog.log"));
    }
}

fn assert_log_has_no_panic(log: &Path) {
    let text = fs::read_to_string(log).expect("the log");
    assert!(!text.contains("panicked"), "{text}");
}
