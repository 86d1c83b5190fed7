//! Names, topics, what expires, how far somebody is, and a fetch that is paused.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use fog_testnet::until;
use serde_json::Value;

use super::support::{Alone, PATIENCE, fog, ok};

fn chat(node: &Alone, args: &[&str]) -> Value {
    node.run(&[&["--json", "chat"], args].concat()).json()
}

/// What `told` finds in what a node says, when it does.
#[track_caller]
fn wait_for<T>(node: &Alone, args: &[&str], told: impl Fn(&Value) -> Option<T>) -> T {
    ok(until(&format!("{args:?}"), PATIENCE, || {
        let lines = node.run(&[&["--json", "chat"], args].concat()).json_lines();
        lines.iter().find_map(&told).ok_or_else(|| format!("{lines:?}"))
    }))
}

fn connect(from: &Alone, to: &Alone) {
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", to.port, to.client().peer_id());
    from.run(&["--json", "connect", &address]).json();
}

/// The conversation `to` in the list.
fn listed(to: &'static str) -> impl Fn(&Value) -> Option<Value> {
    move |list| list.as_array()?.iter().find(|one| one["to"] == to).cloned()
}

#[test]
fn names_and_topics_reach_others_and_stay() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dirs = [temporary.path().join("ada"), temporary.path().join("bob")];
    let (ada, bob) = (Alone::start_in(&dirs[0]), Alone::start_in(&dirs[1]));
    connect(&ada, &bob);
    for node in [&ada, &bob] {
        chat(node, &["join", "#lobby"]);
    }
    assert_eq!(chat(&ada, &["nick", "ada"])["name"], "ada");
    chat(&ada, &["send", "#lobby", "hello"]);
    wait_for(&bob, &["history", "#lobby"], |line| (line["name"] == "ada").then_some(()));
    // A contact keeps its name here, and its person is told of the other one.
    chat(&bob, &["send", "@ada", "hello ada", "--wait"]);
    chat(&ada, &["nick", "countess"]);
    let trace = wait_for(&bob, &["trace", "ada"], |trace| (trace["calls_itself"] == "countess").then(|| trace.clone()));
    assert_eq!((trace["name"].as_str(), trace["connected"].as_str()), (Some("ada"), Some("lan")), "{trace}");
    assert_eq!(trace["ways"][0], "lan", "{trace}");
    for bad in ["", "two words", "#room", "@", ada.client().peer_id()] {
        ada.run(&["chat", "nick", bad]).refused(2);
    }
    bob.run(&["chat", "trace", "nobody"]).refused(1).says("nobody");

    let topic = |node: &Alone, expected: Option<&str>| {
        wait_for(node, &["conversations"], |list| {
            (listed("#lobby")(list)?["topic"].as_str() == expected).then_some(())
        });
    };
    topic(&bob, None);
    chat(&ada, &["topic", "#lobby", "poems and engines"]);
    topic(&bob, Some("poems and engines"));
    assert_eq!(chat(&bob, &["topic", "#lobby"])["topic"], "poems and engines");
    bob.run(&["chat", "topic", "#lobby", "two\nlines"]).refused(2).says("one line");
    bob.run(&["chat", "topic", "@ada", "us"]).refused(1);
    bob.run(&["chat", "topic", "#nowhere"]).refused(1).says("#nowhere");

    drop((ada, bob));
    let (ada, bob) = (Alone::start_in(&dirs[0]), Alone::start_in(&dirs[1]));
    assert_eq!(chat(&ada, &["nick"])["name"], "countess");
    topic(&bob, Some("poems and engines"));
    connect(&ada, &bob);
    chat(&bob, &["topic", "#lobby", ""]);
    topic(&ada, None);
}

#[test]
fn what_is_not_there_in_its_time_is_given_up_and_the_rest_is_not() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path().join("bob");
    let (ada, bob) = (Alone::start(), Alone::start_in(&dir));
    connect(&ada, &bob);
    let invite = ok(bob.client().invite());
    chat(&ada, &["contact", "add", &invite, "--name", "bob"]);
    chat(&ada, &["send", "@bob", "one", "--wait"]);
    drop(bob);
    let send = |args: &[&str]| {
        let sent = chat(&ada, &[&["send", "@bob"], args].concat());
        sent["id"].as_str().expect("an id").to_owned()
    };
    let gone = send(&["now or never", "--expire", "10s"]);
    let stays = send(&["whenever"]);
    ada.run(&["chat", "send", "@bob", "x", "--expire", "soon"]).refused(2).says("10s to 7d");
    ada.run(&["chat", "send", "@bob", "x", "--expire", "8d"]).refused(2);
    let line = |id: &str, state: &str| {
        wait_for(&ada, &["history", "@bob"], |line| (line["id"] == id && line["state"] == state).then(|| line.clone()))
    };
    assert_eq!(line(&gone, "failed")["reason"], "expired");
    line(&stays, "queued");
    let bob = Alone::start_in(&dir);
    connect(&ada, &bob);
    line(&stays, "delivered");
    let lines = bob.run(&["--json", "chat", "conversations"]).json();
    let to = lines.as_array().and_then(|all| all.iter().find(|one| one["kind"] == "direct")).expect("a conversation");
    let history = bob.run(&["--json", "chat", "history", to["to"].as_str().expect("a name")]).json_lines();
    let texts: Vec<_> = history.iter().map(|line| line["text"].as_str().unwrap_or_default()).collect();
    assert_eq!(texts, ["one", "whenever"]);
    chat(&ada, &["join", "#lobby"]);
    ada.run(&["chat", "send", "#lobby", "x", "--expire", "1h"]).refused(1).says("does not expire");
}

#[test]
fn a_fetch_that_is_paused_stands_also_over_a_restart_and_goes_on_when_it_is_asked_for() {
    const BYTES: usize = 6 << 20;
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path().join("bob");
    let slow = temporary.path().join("ada");
    fs::create_dir(&slow).expect("a folder");
    fs::write(slow.join("fog.toml"), "[limits]\nfiles_up_kib_per_second = 1024\n").expect("its configuration");
    let (ada, bob) = (Alone::start_in(&slow), Alone::start_in(&dir));
    connect(&ada, &bob);
    for node in [&ada, &bob] {
        chat(node, &["join", "#lobby"]);
    }
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new_derive_key("fog test file").finalize_xof().fill(&mut bytes);
    let (path, out) = (temporary.path().join("film.bin"), temporary.path().join("out"));
    fs::write(&path, &bytes).expect("a file");
    fs::create_dir(&out).expect("a folder");
    let id =
        chat(&ada, &["file", "send", "#lobby", &path.display().to_string()])["id"].as_str().expect("an id").to_owned();
    wait_for(&bob, &["file", "list"], |list| list.to_string().contains(&id).then_some(()));
    bob.run(&["chat", "file", "pause", &id]).refused(1).says("being fetched");

    let get = ["--json", "chat", "file", "get", &id, "--out", &out.display().to_string()];
    let mut fetch = Command::new(fog());
    fetch.arg("--data-dir").arg(&bob.dir).args(get).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = fetch.spawn().expect("a fetch");
    let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let is_going = |line: &Value| line["bytes"].as_u64() > Some(0);
    let going = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).find(is_going);
    assert!(going.is_some(), "progress");
    assert_eq!(chat(&bob, &["file", "pause", &id])["total_bytes"], BYTES);
    let ended = process.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("paused"), "{said}");
    let part = out.join("film.bin.part");
    assert!(part.exists() && !out.join("film.bin").exists());

    drop(bob);
    let bob = Alone::start_in(&dir);
    connect(&ada, &bob);
    // It does not go on by itself: there is nothing to pause.
    bob.run(&["chat", "file", "pause", &id]).refused(1).says("being fetched");
    let path = bob.run(&get).json_lines().pop().expect("its end")["path"].as_str().expect("a path").to_owned();
    assert_eq!(fs::read(path).expect("the file"), bytes);
    assert!(!part.exists());
}
