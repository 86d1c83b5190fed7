//! Chat between whole nodes: rooms, direct messages, groups, mailboxes, kill -9 and panic.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fog_testnet::{Node, NodePlan, Plan, Testnet, until};
use serde_json::Value;

use super::support::{Alone, PATIENCE, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 6;

fn testnet(dir: &Path, clients: usize) -> Testnet {
    let mut plan = Plan::new(fog(), dir, RELAYS);
    plan.nodes.extend(vec![NodePlan::client(); clients]);
    plan.mean_delay_ms = 20;
    ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")))
}

fn chat(node: &Node, args: &[&str]) -> Value {
    run_in(&node.data_dir, &[&["--json", "chat"], args].concat()).json()
}

fn history(node: &Node, to: &str) -> Vec<Value> {
    run_in(&node.data_dir, &["--json", "chat", "history", to]).json_lines()
}

fn texts(node: &Node, to: &str) -> Vec<String> {
    let ended = run_in(&node.data_dir, &["--json", "chat", "history", to]);
    if ended.code != Some(0) {
        return Vec::new();
    }
    let lines = ended.json_lines();
    let text = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    lines.iter().filter(|line| line["kind"] == "text").map(text).collect()
}

fn introduce(from: &Node, to: &Node, name: &str) {
    let invite = ok(ok(to.client()).invite());
    let added = chat(from, &["contact", "add", &invite, "--name", name]);
    assert_eq!(added[0]["name"], name, "{added}");
}

#[track_caller]
fn wait_for(node: &Node, to: &str, expected: &[&str]) {
    ok(until(&format!("{expected:?} in {to}"), PATIENCE, || {
        let found = texts(node, to);
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    }));
}

#[test]
fn an_open_room_has_one_order_at_all_members_and_keeps_it_over_kill_9() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut net = testnet(&scratch.path().join("net"), 0);
    for node in &net.nodes[..3] {
        assert_eq!(chat(node, &["join", "#plaza"])["to"], "#plaza");
    }
    let mut expected = Vec::new();
    for round in 0..4 {
        let author = &net.nodes[round % 3];
        let text = format!("message {round}");
        let sent = chat(author, &["send", "#plaza", &text]);
        assert!(sent["id"].as_str().is_some_and(|id| id.len() == 64), "{sent}");
        expected.push(text);
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        net.nodes[..3].iter().for_each(|node| wait_for(node, "#plaza", &expected));
    }
    let ids = |node: &Node| history(node, "#plaza").into_iter().map(|line| line["id"].clone()).collect::<Vec<_>>();
    let all = ids(&net.nodes[0]);
    assert!(net.nodes[..3].iter().all(|node| ids(node) == all));
    let last = history(&net.nodes[2], "#plaza").pop().expect("a line");
    assert_eq!((last["seq"].as_u64(), last["gap_before"].as_bool()), (Some(2), Some(false)), "{last}");
    assert_eq!(last["clock"].as_object().map(serde_json::Map::len), Some(3), "{last}");
    let why = chat(&net.nodes[1], &["why", last["id"].as_str().expect("an id")]);
    assert_eq!(
        (why["standing"].as_str(), why["author"].as_str()),
        (Some("complete"), last["author"].as_str()),
        "{why}"
    );

    // One is killed while the others talk, comes back, has everything in the same order, and goes on.
    net.nodes[1].kill();
    chat(&net.nodes[0], &["send", "#plaza", "while you were away"]);
    ok(net.nodes[1].start());
    expected.push("while you were away".into());
    let all: Vec<_> = expected.iter().map(String::as_str).collect();
    wait_for(&net.nodes[1], "#plaza", &all);
    chat(&net.nodes[1], &["send", "#plaza", "I am back"]);
    expected.push("I am back".into());
    let all: Vec<_> = expected.iter().map(String::as_str).collect();
    net.nodes[..3].iter().for_each(|node| wait_for(node, "#plaza", &all));
    let later = ids(&net.nodes[0]);
    assert!(net.nodes[..3].iter().all(|node| ids(node) == later));
    // Who is not in the room has nothing of it.
    run_in(&net.nodes[4].data_dir, &["chat", "history", "#plaza"]).refused(1);
}

#[test]
fn direct_messages_are_delivered_read_and_answered_on_all_ways() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = testnet(&scratch.path().join("net"), 2);
    let (ada, bob) = (&net.nodes[RELAYS], &net.nodes[RELAYS + 1]);
    introduce(ada, bob, "bob");
    introduce(bob, ada, "ada");
    let sent = chat(ada, &["send", "@bob", "hello bob", "--wait"]);
    assert!(matches!(sent["state"].as_str(), Some("delivered" | "read")), "{sent}");
    wait_for(bob, "@ada", &["hello bob"]);
    let sent = chat(bob, &["send", "@ada", "hello ada", "--wait"]);
    assert!(matches!(sent["state"].as_str(), Some("delivered" | "read")), "{sent}");
    wait_for(ada, "@bob", &["hello bob", "hello ada"]);

    let file = scratch.path().join("plan.txt");
    std::fs::write(&file, "the plan").expect("written");
    let file = file.display().to_string();
    let shared = chat(bob, &["file", "send", "@ada", &file])["id"].as_str().expect("an id").to_owned();
    ok(until("the file is offered", PATIENCE, || {
        let listed = chat(ada, &["file", "list"]).to_string();
        if listed.contains(&shared) { Ok(()) } else { Err(listed) }
    }));

    // Through the mixnet alone: by the flag, and by the policy, which no flag widens.
    let sent = chat(ada, &["send", "@bob", "through the mixnet", "--via", "mix", "--wait"]);
    assert!(sent["state"] == "delivered" && (sent["via"] == "mix" || sent["via"] == "mailbox"), "{sent}");
    assert_eq!(chat(ada, &["contact", "policy", "bob", "mix"])[0]["policy"], "mix");
    let sent = chat(ada, &["send", "@bob", "by policy", "--wait"]);
    assert!(sent["state"] == "delivered" && (sent["via"] == "mix" || sent["via"] == "mailbox"), "{sent}");
    let refused = run_in(&ada.data_dir, &["--json", "chat", "send", "@bob", "no", "--via", "direct"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    // A file would go over a link, to it or from it.
    run_in(&ada.data_dir, &["chat", "file", "send", "@bob", &file]).refused(1).says("policy");
    run_in(&ada.data_dir, &["chat", "file", "get", &shared]).refused(1).says("policy");
    wait_for(bob, "@ada", &["hello bob", "hello ada", "through the mixnet", "by policy"]);

    // Both see the same words.
    let words = |node, name| chat(node, &["contact", "verify", name])[0]["words"].clone();
    assert_eq!(words(ada, "bob"), words(bob, "ada"));
    assert_eq!(words(ada, "bob").as_array().map(Vec::len), Some(12));

    // A blocked contact is not heard.
    chat(bob, &["contact", "block", "ada"]);
    chat(ada, &["send", "@bob", "can you hear me"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!texts(bob, "@ada").iter().any(|text| text == "can you hear me"));
    chat(bob, &["contact", "unblock", "ada"]);
    assert_eq!(texts(bob, "@ada").len(), 4);
}

#[test]
fn a_message_waits_in_a_mailbox_and_arrives_once_after_kill_9() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut net = testnet(&scratch.path().join("net"), 2);
    let (ada, bob) = (RELAYS, RELAYS + 1);
    introduce(&net.nodes[ada], &net.nodes[bob], "bob");
    introduce(&net.nodes[bob], &net.nodes[ada], "ada");
    chat(&net.nodes[ada], &["send", "@bob", "first", "--wait"]);
    net.nodes[bob].kill();
    let expected: Vec<_> = (0..10).map(|n| format!("offline {n}")).collect();
    for text in &expected {
        chat(&net.nodes[ada], &["send", "@bob", text]);
    }
    ok(until("a mailbox to carry them", PATIENCE, || {
        let lines = history(&net.nodes[ada], "@bob");
        let carried = lines.iter().filter(|line| line["state"] == "carried").count();
        if carried == expected.len() { Ok(()) } else { Err(format!("{carried} are carried: {lines:?}")) }
    }));
    // The sender is gone as well when the recipient comes back: the mailbox has them.
    net.nodes[ada].kill();
    ok(net.nodes[bob].start());
    let all: Vec<_> = std::iter::once("first").chain(expected.iter().map(String::as_str)).collect();
    wait_for(&net.nodes[bob], "@ada", &all);
    ok(net.nodes[ada].start());
    chat(&net.nodes[bob], &["send", "@ada", "got them all", "--wait"]);
    let all: Vec<_> = all.into_iter().chain(["got them all"]).collect();
    wait_for(&net.nodes[ada], "@bob", &all);
    wait_for(&net.nodes[bob], "@ada", &all);
}

#[test]
fn a_group_is_closed_and_who_was_removed_reads_nothing_more() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = testnet(&scratch.path().join("net"), 0);
    let [ada, bob, eve, ..] = net.nodes.as_slice() else { panic!("too few nodes") };
    for (from, to, name) in [
        (ada, bob, "bob"),
        (ada, eve, "eve"),
        (bob, ada, "ada"),
        (bob, eve, "eve"),
        (eve, ada, "ada"),
        (eve, bob, "bob"),
    ] {
        introduce(from, to, name);
    }
    assert_eq!(chat(ada, &["group", "create", "club"])["to"], "&club");
    chat(ada, &["group", "invite", "&club", "bob"]);
    chat(ada, &["group", "invite", "&club", "eve"]);
    let members = |node: &Node, count: usize| {
        ok(until("the members", PATIENCE, || {
            let ended = run_in(&node.data_dir, &["--json", "chat", "group", "members", "&club"]);
            if ended.code != Some(0) {
                return Err(ended.stderr);
            }
            let members = ended.json();
            let joined = members.as_array().expect("a list").iter().filter(|one| one["role"] != "invited").count();
            if joined == count { Ok(()) } else { Err(members.to_string()) }
        }));
    };
    [ada, bob, eve].into_iter().for_each(|node| members(node, 3));
    chat(bob, &["send", "&club", "all three"]);
    [ada, bob, eve].into_iter().for_each(|node| wait_for(node, "&club", &["all three"]));
    chat(ada, &["group", "remove", "&club", "eve"]);
    [ada, bob].into_iter().for_each(|node| members(node, 2));
    chat(ada, &["send", "&club", "without eve"]);
    wait_for(bob, "&club", &["all three", "without eve"]);
    chat(bob, &["send", "&club", "indeed"]);
    wait_for(bob, "&club", &["all three", "without eve", "indeed"]);
    wait_for(ada, "&club", &["all three", "without eve", "indeed"]);
    assert!(!texts(eve, "&club").iter().any(|text| text.contains("without") || text.contains("indeed")));
    let strangers = run_in(&net.nodes[4].data_dir, &["chat", "history", "&club"]);
    strangers.refused(1);
}

#[test]
fn a_password_room_opens_with_its_password_alone() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let net = testnet(&scratch.path().join("net"), 0);
    let [ada, bob, eve, ..] = net.nodes.as_slice() else { panic!("too few nodes") };
    for (node, password) in [(ada, "correct horse"), (bob, "correct horse"), (eve, "wrong horse")] {
        chat(node, &["join", "#den", "--password", password]);
    }
    chat(ada, &["send", "#den", "inside"]);
    wait_for(bob, "#den", &["inside"]);
    chat(eve, &["send", "#den", "anybody here?"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((texts(eve, "#den").len(), texts(bob, "#den").len()), (1, 1));
    // What was printed is read.
    let conversations = chat(bob, &["conversations"]);
    let den = conversations.as_array().expect("a list").iter().find(|one| one["to"] == "#den").expect("the room");
    assert_eq!((den["kind"].as_str(), den["unread"].as_u64()), (Some("password"), Some(0)));
}

#[cfg(unix)]
#[test]
fn who_follows_a_room_sees_what_this_node_sends_and_ends_well() {
    let node = Alone::start();
    let chat = |args: &[&str]| node.run(&[&["--json", "chat"], args].concat());
    chat(&["join", "#lobby"]).json();
    let follow = || {
        let mut command = Command::new(fog());
        command.arg("--data-dir").arg(&node.dir).args(["--json", "chat", "history", "#lobby", "--follow"]);
        let mut following = command.stdout(Stdio::piped()).spawn().expect("the program");
        let mut lines = BufReader::new(following.stdout.take().expect("a pipe")).lines();
        let next = move || -> Value {
            let line = lines.next().expect("a line").expect("text");
            serde_json::from_str(&line).expect("JSON")
        };
        (following, next)
    };
    let (mut following, mut next) = follow();
    // The first one may be of the history; then it follows.
    for text in ["one", "two"] {
        chat(&["send", "#lobby", text]).json();
        assert_eq!(next()["text"], text);
    }
    let interrupt = Command::new("kill").args(["-INT", &following.id().to_string()]).status();
    assert!(interrupt.expect("kill").success());
    assert_eq!(following.wait().expect("its end").code(), Some(0));
    let (mut following, mut next) = follow();
    assert_eq!([next()["text"].clone(), next()["text"].clone()], ["one", "two"]);
    drop(node);
    assert_eq!(following.wait().expect("its end").code(), Some(3));
}

/// A dot at the beginning of its name would hide it.
fn fetched_twice_it_is_there_once(node: &Alone, content: &Path) {
    let chat = |args: &[&str]| node.run(&[&["--json", "chat"], args].concat());
    let hidden = node.dir.with_file_name(".hidden");
    fs::copy(content, &hidden).expect("a file");
    let sent = chat(&["file", "send", "#lobby", &hidden.display().to_string()]).json_lines();
    let out = node.dir.with_extension("out");
    fs::create_dir(&out).expect("a folder");
    for _ in 0..2 {
        let get = ["file", "get", sent[0]["id"].as_str().expect("an id"), "--out", &out.display().to_string()];
        let path = chat(&get).json_lines().last().expect("its end")["path"].clone();
        assert_eq!(path.as_str(), out.join("_hidden").to_str());
    }
    assert_eq!(fs::read_dir(&out).expect("a folder").count(), 1);
}

#[test]
fn panic_leaves_nothing_that_can_be_read_and_wrong_input_is_refused() {
    let canary = "canary-7f3a9c51";
    let node = Alone::start();
    let chat = |args: &[&str]| node.run(&[&["--json", "chat"], args].concat());
    assert_eq!(chat(&["join", "#lobby"]).json()["to"], "#lobby");
    let sent = chat(&["send", "#lobby", canary]).json();
    let id = sent["id"].as_str().expect("an id").to_owned();
    assert_eq!(chat(&["history", "#lobby"]).json_lines().len(), 1);
    for (args, code) in [
        (&["send", "#nowhere", "x"][..], 1),
        (&["send", "lobby", "x"], 1),
        (&["file", "send", "#lobby", "/proc/self/environ"], 1),
        (&["join", "@x"], 2),
        (&["send", "#lobby", ""], 2),
        (&["send", "#lobby", "\u{1b}[2J"], 2),
        (&["send", "#lobby", &"x".repeat(8_193)], 2),
        (&["join", "#"], 2),
        (&["join", "#a\tb"], 2),
        (&["join", "#x", "--password", ""], 2),
        (&["contact", "add", "fog1nonsense"], 2),
        (&["contact", "policy", "nobody", "mix"], 1),
        (&["group", "invite", "&none", "nobody"], 1),
        (&["why", "abc"], 2),
        (&["why", &"0".repeat(64)], 1),
        (&["history", "#lobby", "--limit", "-1"], 2),
    ] {
        node.run(&[&["chat"], args].concat()).refused(code);
    }
    assert_eq!(chat(&["history", "#lobby"]).json_lines().len(), 1, "nothing was lost or added");
    // Neither the store nor the log holds the text, before or after.
    let holds = |dir: &Path, needle: &[u8]| {
        fn walk(dir: &Path, needle: &[u8], found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).expect("a directory").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, needle, found);
                } else if fs::read(&path).unwrap_or_default().windows(needle.len()).any(|window| window == needle) {
                    found.push(path.display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(dir, needle, &mut found);
        found
    };
    assert_eq!(holds(&node.dir, canary.as_bytes()), Vec::<String>::new());
    let shared = node.dir.with_extension("shared");
    fs::write(&shared, canary.repeat(1000)).expect("a file");
    let path = shared.to_str().expect("text");
    assert_eq!(chat(&["file", "send", "#lobby", path]).json_lines().len(), 1);
    fetched_twice_it_is_there_once(&node, &shared);
    let kept = |folder: &str| {
        fs::read_dir(node.dir.join(folder)).map(|found| found.flatten().map(|one| one.file_name()).collect())
    };
    let records: Vec<_> = kept("blobs").expect("a folder");
    // Where a file that is fetched goes unless somebody says otherwise.
    fs::create_dir_all(node.dir.join("files")).expect("a folder");
    fs::copy(&shared, node.dir.join("files/fetched.txt")).expect("a file");
    let key = fs::read(node.dir.join("chat.key")).expect("the key file");
    assert_eq!(chat(&["panic"]).json()["destroyed"], true);
    assert_eq!(chat(&["conversations"]).json(), serde_json::json!([]));
    node.run(&["chat", "why", &id]).refused(1);
    assert_ne!(fs::read(node.dir.join("chat.key")).expect("a new key file"), key);
    assert_eq!(holds(&node.dir, &key), Vec::<String>::new());
    assert_eq!(holds(&node.dir, canary.as_bytes()), Vec::<String>::new(), "what was fetched is gone");
    assert!(!node.dir.join("files").exists());
    let anew = kept("blobs").expect("a folder");
    assert!(anew.len() == 1 && anew != records, "{anew:?} {records:?}");
    assert_eq!(chat(&["join", "#lobby"]).json()["to"], "#lobby", "chat begins anew");
}
