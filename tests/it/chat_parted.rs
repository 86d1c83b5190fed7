//! A LAN that falls into halves while everybody talks, and heals. `FOG_CHAT_PARTED` says for how many seconds it is parted (5 unless told).

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use fog_testnet::until;
use serde_json::Value;

use super::{
    namespaces::{Host, Lan},
    support::{PATIENCE, not_tried, ok, one_network_at_a_time},
};

const HOSTS: usize = 6;
const HALF: usize = HOSTS / 2;
const CONVERSATIONS: [&str; 2] = ["#plaza", "&club"];
/// The figure.
const ONE_AGAIN_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(400);

fn chat(host: &Host, args: &[&str]) -> Value {
    host.run(&[&["chat"], args].concat()).json()
}

/// What a member shows: what is the same at all.
fn history(host: &Host, to: &str) -> Vec<String> {
    let ended = host.run(&["chat", "history", to]);
    if ended.code != Some(0) {
        return Vec::new();
    }
    let shown = |line: Value| {
        assert_eq!(line["gap_before"], false, "{line}");
        ["id", "author", "seq", "kind", "text"].map(|field| line[field].to_string()).join(" ")
    };
    ended.json_lines().into_iter().map(shown).collect()
}

/// The histories of all hosts, asked at once.
fn histories(hosts: &[Host], to: &str) -> Vec<Vec<String>> {
    thread::scope(|scope| {
        let asked: Vec<_> = hosts.iter().map(|host| scope.spawn(move || history(host, to))).collect();
        asked.into_iter().map(|asked| asked.join().expect("a history")).collect()
    })
}

/// Waits until all show the same, with everything that was accepted. Yields how many lines.
fn one_history(hosts: &[Host], to: &str, accepted: &[String], patience: Duration) -> usize {
    let same = until(&format!("one history of {to}"), patience, || {
        let all = histories(hosts, to);
        let lacks =
            |lines: &Vec<String>| accepted.iter().filter(|text| !lines.iter().any(|line| line.contains(*text))).count();
        let missing: Vec<_> = all.iter().map(lacks).collect();
        if missing.iter().all(|lacking| *lacking == 0) && all.windows(2).all(|two| two[0] == two[1]) {
            return Ok(all[0].len());
        }
        Err(format!(
            "{:?} lines, of {} accepted lacking: {missing:?}",
            all.iter().map(Vec::len).collect::<Vec<_>>(),
            accepted.len()
        ))
    });
    ok(same)
}

/// Everybody in the room and in the group.
fn gather(hosts: &[Host]) {
    let peer = |host: &Host| host.run(&["id"]).json()["peer_id"].as_str().expect("an id").to_owned();
    chat(&hosts[0], &["group", "create", "club"]);
    for host in &hosts[1..] {
        chat(&hosts[0], &["group", "invite", "&club", &peer(host)]);
    }
    for host in hosts {
        chat(host, &["join", "#plaza", "--password", "correct horse"]);
    }
    for host in &hosts[1..] {
        let joined = until("the group's invitation", PATIENCE, || {
            let ended = host.run(&["chat", "group", "accept", "&club"]);
            if ended.code == Some(0) { Ok(()) } else { Err(ended.stderr) }
        });
        ok(joined);
    }
    for host in hosts {
        let all = until("all members of the group", PATIENCE, || {
            let members = chat(host, &["group", "members", "&club"]);
            let joined = members.as_array().expect("a list").iter().filter(|one| one["role"] != "invited").count();
            if joined == HOSTS { Ok(()) } else { Err(members.to_string()) }
        });
        ok(all);
    }
}

/// All hosts write into all conversations for so long; what was accepted, by conversation.
fn talk(hosts: &[Host], tag: &str, duration: Duration) -> [Vec<String>; 2] {
    let began = Instant::now();
    let accepted = [const { Mutex::new(Vec::new()) }; 2];
    thread::scope(|scope| {
        for (index, host) in hosts.iter().enumerate() {
            let accepted = &accepted;
            scope.spawn(move || {
                for n in 0.. {
                    if began.elapsed() >= duration {
                        return;
                    }
                    for (to, accepted) in CONVERSATIONS.into_iter().zip(accepted) {
                        let text = format!("{tag}-{index}-{n}.");
                        chat(host, &["send", to, &text]);
                        accepted.lock().expect("a list").push(text);
                    }
                    thread::sleep(PAUSE);
                }
            });
        }
    });
    accepted.map(|list| list.into_inner().expect("a list"))
}

#[test]
fn a_lan_that_was_parted_while_all_talked_has_one_history_again() {
    let seconds = std::env::var("FOG_CHAT_PARTED").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let _alone = one_network_at_a_time();
    let lan = match Lan::new(HOSTS, |host| vec![format!("10.99.0.{host}/24")]) {
        Ok(lan) => lan,
        Err(why) => return not_tried("chat on a LAN that is parted", &why),
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let start = |host| Host::start(lan.host(host), scratch.path().join(format!("host-{host}")), &[]);
    let hosts: Vec<_> = (0..HOSTS).map(start).collect();
    let met = until("six hosts that know each other", PATIENCE, || {
        hosts.iter().try_for_each(|host| {
            let status = host.status()?;
            let is_met = status["peers"]["connected"] == HOSTS - 1;
            is_met.then_some(()).ok_or_else(|| status["peers"].to_string())
        })
    });
    ok(met);
    gather(&hosts);
    let mut accepted = talk(&hosts, "before", Duration::from_secs(1));
    for (to, accepted) in CONVERSATIONS.into_iter().zip(&accepted) {
        one_history(&hosts, to, accepted, PATIENCE);
    }

    lan.part(HALF..HOSTS).expect("two bridges");
    let parted = talk(&hosts, "parted", Duration::from_secs(seconds));
    for (to, _) in CONVERSATIONS.into_iter().zip(&parted) {
        for (host, lines) in histories(&hosts, to).iter().enumerate() {
            let hears = |half: std::ops::Range<usize>| {
                half.into_iter().any(|other| lines.iter().any(|line| line.contains(&format!("parted-{other}-"))))
            };
            let (own, other) = if host < HALF { (0..HALF, HALF..HOSTS) } else { (HALF..HOSTS, 0..HALF) };
            assert!(hears(own) && !hears(other), "{to} at host {host}: {lines:?}");
        }
    }
    lan.heal().expect("one bridge");
    let healed = Instant::now();
    for (all, parted) in accepted.iter_mut().zip(parted) {
        all.extend(parted);
    }
    for (to, accepted) in CONVERSATIONS.into_iter().zip(&accepted) {
        let lines = one_history(&hosts, to, accepted, PATIENCE);
        eprintln!(
            "parted for {seconds} s: {to} has {lines} lines, the same everywhere {:.1} s after it healed",
            healed.elapsed().as_secs_f64()
        );
    }
    let took = healed.elapsed();
    assert!(took <= ONE_AGAIN_WITHIN, "it took {took:?}");
}
