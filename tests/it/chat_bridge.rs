//! Three hosts, of which the first two are in one local network and the last two have the internet: who has both is the way between the others.

use std::fs;

use fog_testnet::until;
use serde_json::Value;

use super::{
    namespaces::{Host, Lan},
    support::{PATIENCE, not_tried, ok, one_network_at_a_time},
};

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];
const BOB: &str = "9.9.1.2/32";
const CYD: &str = "9.9.2.2/32";

fn chat(host: &Host, args: &[&str]) -> Value {
    let ended = host.run(&[&["chat"], args].concat());
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended.json()
}

/// Ids and texts of a conversation, once so many are there.
fn history(host: &Host, to: &str, count: usize) -> Vec<(String, String)> {
    ok(until(&format!("{count} messages in {to} of {}", host.namespace), PATIENCE, || {
        let ended = host.run(&["chat", "history", to]);
        let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let lines: Vec<_> = ended.json_lines().iter().map(|line| (field(line, "id"), field(line, "text"))).collect();
        if lines.len() == count { Ok(lines) } else { Err(format!("{lines:?} {}", ended.stderr)) }
    }))
}

fn peers(host: &Host) -> Result<Vec<(String, String)>, String> {
    let peers = host.run(&["peers"]);
    if peers.code != Some(0) {
        return Err(peers.stderr);
    }
    let field = |peer: &Value, name: &str| peer[name].as_str().unwrap_or_default().to_owned();
    let all = peers.json();
    Ok(all.as_array().into_iter().flatten().map(|peer| (field(peer, "peer_id"), field(peer, "path"))).collect())
}

#[test]
fn who_is_in_a_local_network_and_on_the_internet_brings_what_others_say_to_each_other() {
    let what = "chat from a local network to the internet";
    let _alone = one_network_at_a_time();
    let address = |host: usize| if host == 3 { vec![] } else { vec![format!("10.99.0.{host}/24")] };
    let lan = match Lan::new(NAMES.len(), address) {
        Ok(lan) => lan,
        Err(why) => return not_tried(what, &why),
    };
    if let Err(why) = lan.uplink(1, BOB).and_then(|()| lan.uplink(2, CYD)) {
        return not_tried(what, &why);
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let start = |at: usize, settings: &[&str]| {
        let settings = [&["--name", NAMES[at]], settings].concat();
        Host::start(lan.host(at), scratch.path().join(NAMES[at]), &settings)
    };
    let [ada, bob, cyd] = [start(0, &[]), start(1, &[]), start(2, &["--no-mdns"])];
    let hosts = [&ada, &bob, &cyd];
    ok(until("three nodes", PATIENCE, || hosts.iter().try_for_each(|host| host.status().map(drop))));
    let id = |host: &Host| host.run(&["id"]).json();
    let ids = hosts.map(|host| id(host)["peer_id"].as_str().expect("an id").to_owned());
    ok(until("a connection over the internet", PATIENCE, || {
        let dialled = cyd.run(&["connect", id(&bob)["invite"].as_str().expect("an invite")]);
        if dialled.code == Some(0) { Ok(()) } else { Err(format!("{} {dialled:?}", id(&bob))) }
    }));
    let path = |to: usize, path: &str| vec![(ids[to].clone(), path.to_owned())];
    ok(until("that who has both is between the others", PATIENCE, || {
        let found = (peers(&ada)?, peers(&cyd)?);
        if found == (path(1, "lan"), path(1, "direct")) { Ok(()) } else { Err(format!("{found:?}")) }
    }));

    hosts.iter().for_each(|host| drop(chat(host, &["join", "#harbour"])));
    for (count, host) in hosts.iter().enumerate() {
        chat(host, &["send", "#harbour", &format!("from {}", NAMES[count])]);
        let told = hosts.map(|host| history(host, "#harbour", count + 1));
        assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    }
    // Who is between carries what it cannot read.
    for (from, to) in [(&ada, &cyd), (&cyd, &ada)] {
        chat(from, &["contact", "add", id(to)["invite"].as_str().expect("an invite")]);
    }
    for (from, to) in [(&ada, "@cyd"), (&cyd, "@ada")] {
        let sent = chat(from, &["send", to, "just you", "--wait"]);
        assert_eq!((&sent["via"], &sent["state"]), (&"carrier".into(), &"delivered".into()), "{sent}");
    }
    assert_eq!(history(&ada, "@cyd", 2), history(&cyd, "@ada", 2));

    let file = scratch.path().join("map.bin");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(&file, &bytes).expect("a file");
    let shared = chat(&ada, &["file", "send", "#harbour", &file.display().to_string()]);
    let id = shared["id"].as_str().expect("an id");
    for host in [&bob, &cyd] {
        history(host, "#harbour", 4);
        let out = host.data_dir.with_extension("bin");
        let ended = host.run(&["chat", "file", "get", id, "--out", &out.display().to_string()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(fs::read(&out).expect("the file") == bytes);
    }
    assert_eq!((peers(&ada), peers(&cyd)), (Ok(path(1, "lan")), Ok(path(1, "direct"))), "they never met");
}
