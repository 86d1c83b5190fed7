//! Three hosts on a bridge, without a route, a name server or an invite: they meet, talk in a room, alone and in a group, and pass on a large file.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use fog_testnet::until;
use serde_json::Value;

use super::{
    namespaces::{Host, Lan},
    support::{PATIENCE, not_tried, ok, one_network_at_a_time},
};

const NAMES: [&str; 3] = ["ada", "bob", "eve"];
/// The figures.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
const FILE_BYTES: usize = 100_000_000;

fn chat(host: &Host, args: &[&str]) -> Value {
    let ended = host.run(&[&["chat"], args].concat());
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended.json()
}

/// The id of the message with this text.
fn wait_for(host: &Host, to: &str, text: &str) -> String {
    ok(until(&format!("{text} in {to}"), PATIENCE, || {
        let ended = host.run(&["chat", "history", to]);
        if ended.code != Some(0) {
            return Err(ended.stderr);
        }
        let is_it = |line: &Value| line["text"].as_str().is_some_and(|own| own.contains(text));
        let line = ended.json_lines().into_iter().find(is_it);
        line.and_then(|line| line["id"].as_str().map(str::to_owned)).ok_or(ended.stdout)
    }))
}

/// Bytes that cannot be compressed, and their hash.
fn large_file(path: &Path) -> blake3::Hash {
    let mut bytes = vec![0; FILE_BYTES];
    blake3::Hasher::new_derive_key("fog test file").finalize_xof().fill(&mut bytes);
    fs::write(path, &bytes).expect("a file");
    blake3::hash(&bytes)
}

#[test]
fn three_hosts_without_a_route_meet_and_talk_and_pass_on_a_large_file() {
    let _alone = one_network_at_a_time();
    let lan = match Lan::new(NAMES.len(), |host| vec![format!("10.99.0.{host}/24")]) {
        Ok(lan) => lan,
        Err(why) => return not_tried("chat on three hosts", &why),
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let began = Instant::now();
    let start = |(at, name): (usize, &&str)| Host::start(lan.host(at), scratch.path().join(name), &["--name", name]);
    let hosts: Vec<_> = NAMES.iter().enumerate().map(start).collect();
    ok(until("three nodes that know each other", PATIENCE, || {
        hosts.iter().try_for_each(|host| {
            let status = host.status()?;
            (status["peers"]["lan"] == 2).then_some(()).ok_or_else(|| status["peers"].to_string())
        })
    }));
    let took = began.elapsed();
    eprintln!("chat on a LAN: three nodes found each other {:.1} s after their start", took.as_secs_f64());
    assert!(took <= FOUND_WITHIN, "it took {took:?}");

    let [ada, bob, eve] = &hosts[..] else { panic!("three") };
    for host in &hosts {
        chat(host, &["join", "#harbour"]);
    }
    chat(ada, &["send", "#harbour", "to all who are here"]);
    [bob, eve].iter().for_each(|host| drop(wait_for(host, "#harbour", "to all")));
    // Cards came over the wire, so names are enough.
    for (from, to) in [(ada, "@bob"), (bob, "@ada"), (ada, "@eve"), (eve, "@ada"), (bob, "@eve"), (eve, "@bob")] {
        let sent = chat(from, &["send", to, "just you", "--wait"]);
        assert_eq!(
            (&sent["via"], sent["state"] == "delivered" || sent["state"] == "read"),
            (&"lan".into(), true),
            "{sent}"
        );
    }
    chat(ada, &["group", "create", "crew"]);
    for name in ["bob", "eve"] {
        chat(ada, &["group", "invite", "&crew", name]);
    }
    ok(until("three members", PATIENCE, || {
        let members = chat(eve, &["group", "members", "&crew"]);
        members.as_array().is_some_and(|all| all.len() == 3).then_some(()).ok_or_else(|| members.to_string())
    }));
    chat(bob, &["send", "&crew", "sealed for three"]);
    [ada, eve].iter().for_each(|host| drop(wait_for(host, "&crew", "sealed")));

    let file = scratch.path().join("large.bin");
    let hash = large_file(&file);
    let shared = chat(ada, &["file", "send", "&crew", &file.display().to_string()]);
    let id = shared["id"].as_str().expect("an id");
    for host in [bob, eve] {
        ok(until("the file is offered", PATIENCE, || {
            let listed = chat(host, &["file", "list"]).to_string();
            if listed.contains(id) { Ok(()) } else { Err(listed) }
        }));
        let out = host.data_dir.with_extension("bin");
        let ended = host.run(&["chat", "file", "get", id, "--out", &out.display().to_string()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let bytes = fs::read(&out).expect("the file");
        assert!(bytes.len() == FILE_BYTES && blake3::hash(&bytes) == hash, "{} bytes", bytes.len());
    }
}
