//! Chat between clients that are killed again and again: whatever a node answered for arrives, in order, once. `FOG_CHAT_KILLS` says how
//! often something is killed (8 unless told), `FOG_CHAT_OFFLINE` how many messages wait for somebody who is away (200 unless told).

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fog_testnet::{ChatLine, Client, Node, NodePlan, Plan, Testnet, until};
use rand::RngExt;

use super::support::{PATIENCE, fog, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 6;
const ADA: usize = RELAYS;
const BOB: usize = RELAYS + 1;
/// Lives between two kills, in milliseconds: from before a node is ready to some messages.
const LIFE_MS: std::ops::Range<u64> = 20..1500;
/// Between two messages of one writer.
const PAUSE_MS: std::ops::Range<u64> = 0..120;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The two clients get each other's invite.
fn introduce(net: &Testnet) {
    let (ada, bob) = (ok(net.nodes[ADA].client()), ok(net.nodes[BOB].client()));
    ok(ada.chat_contact(&ok(bob.invite()), "bob"));
    ok(bob.chat_contact(&ok(ada.invite()), "ada"));
}

/// Relays, and two clients who do not know each other.
fn network(dir: &Path) -> Testnet {
    let mut plan = Plan::new(fog(), dir, RELAYS);
    plan.nodes.extend([NodePlan::client(), NodePlan::client()]);
    plan.mean_delay_ms = 20;
    ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")))
}

/// The texts of a conversation; of a node that is just being killed none.
fn lines(node: &Node, to: &str) -> Vec<ChatLine> {
    node.client().and_then(|client| client.chat_history(to)).unwrap_or_default()
}

fn texts(lines: &[ChatLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// Waits until `wanted` are all there; the whole history.
#[track_caller]
fn arrived(node: &Node, to: &str, wanted: &[String], patience: Duration) -> Vec<ChatLine> {
    ok(until(&format!("{} messages in {to}", wanted.len()), patience, || {
        let lines = lines(node, to);
        let have: BTreeSet<_> = texts(&lines).into_iter().collect();
        let missing: Vec<_> = wanted.iter().filter(|text| !have.contains(text.as_str())).collect();
        if missing.is_empty() {
            return Ok(lines);
        }
        let states: BTreeSet<_> = lines.iter().map(|line| line.state.as_str()).collect();
        Err(format!("{} are not there, the first is {:?}; states {states:?}", missing.len(), missing[0]))
    }))
}

/// Waits until mailboxes have all of these.
#[track_caller]
fn carried(author: &Node, to: &str, written: &[String]) {
    ok(until(&format!("mailboxes that have what was written to {to}"), PATIENCE * 6, || {
        let lines = lines(author, to);
        let mine = lines.iter().filter(|line| written.contains(&line.text));
        let states: Vec<_> = mine.map(|line| line.state.as_str()).collect();
        let is_all = states.len() == written.len() && states.iter().all(|state| *state == "carried");
        if is_all { Ok(()) } else { Err(format!("{:?}", BTreeSet::from_iter(states))) }
    }));
}

#[test]
fn clients_that_come_and_go_lose_nothing_and_repeat_nothing() {
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut net = network(&scratch.path().join("net"));
    a_room_of_clients_that_know_no_address_of_each_other_goes_through_relays(&mut net);
    introduce(&net);
    what_waits_for_somebody_who_is_away_arrives_in_order_once(&mut net);
    what_a_node_answered_for_is_there_after_kill_9_and_arrives(&mut net);
    what_is_said_in_a_group_waits_for_a_member_who_is_away(&mut net);
    ok(net.down());
}

fn a_room_of_clients_that_know_no_address_of_each_other_goes_through_relays(net: &mut Testnet) {
    for index in [ADA, BOB] {
        ok(ok(net.nodes[index].client()).chat_join("#meet", Some("correct horse")));
    }
    // Nothing tells a member who hears it: for a few heartbeats of gossip, that the relays know where this room is heard.
    thread::sleep(Duration::from_secs(3));
    let mut accepted = Vec::new();
    for (round, writer) in [ADA, BOB, ADA, BOB].into_iter().enumerate() {
        if round >= 2 {
            // Whoever listens comes back, with none of its links.
            let listener = ADA + BOB - writer;
            net.nodes[listener].kill();
            ok(net.nodes[listener].start());
            thread::sleep(Duration::from_secs(3));
        }
        let text = format!("through relays {round}");
        let sent = ok(ok(net.nodes[writer].client()).chat_send("#meet", &text, "auto", Some(PATIENCE)));
        assert!(matches!(sent.state.as_str(), "sent" | "delivered"), "{sent:?}");
        accepted.push(text);
        for index in [ADA, BOB] {
            assert_eq!(texts(&arrived(&net.nodes[index], "#meet", &accepted, PATIENCE)), accepted);
        }
    }
    let peers = |index: usize| ok(net.nodes[index].client()).peer_id().to_owned();
    for (index, other) in [(ADA, peers(BOB)), (BOB, peers(ADA))] {
        let connected = run_in(&net.nodes[index].data_dir, &["--json", "peers"]).json();
        let is_direct = connected.as_array().expect("a list").iter().any(|peer| peer["peer_id"] == other.as_str());
        eprintln!(
            "chat through relays: node {index} {} connected to the other client",
            if is_direct { "is" } else { "is not" }
        );
    }
}

fn what_waits_for_somebody_who_is_away_arrives_in_order_once(net: &mut Testnet) {
    let count = number("FOG_CHAT_OFFLINE", 200);
    let ada = ok(net.nodes[ADA].client());
    ok(ada.chat_send("@bob", "before", "auto", Some(PATIENCE)));
    net.nodes[BOB].kill();
    let wanted: Vec<_> = (0..count).map(|n| format!("offline {n}")).collect();
    let begun = Instant::now();
    for text in &wanted {
        ok(ada.chat_send("@bob", text, "auto", None));
    }
    carried(&net.nodes[ADA], "@bob", &wanted);
    let carried = begun.elapsed();
    // Whoever wrote them is away when they are read.
    net.nodes[ADA].kill();
    ok(net.nodes[BOB].start());
    let back = Instant::now();
    let there = arrived(&net.nodes[BOB], "@ada", &wanted, PATIENCE * 3);
    eprintln!(
        "chat: {count} messages were in mailboxes {:.1} s after the first was written, and all there {:.1} s after the \
         return, their sender being away",
        carried.as_secs_f64(),
        back.elapsed().as_secs_f64()
    );
    let expected: Vec<_> = std::iter::once("before").chain(wanted.iter().map(String::as_str)).collect();
    assert_eq!(texts(&there), expected, "all, once, in order");
    ok(net.nodes[ADA].start());
    let ids = |lines: &[ChatLine]| lines.iter().map(|line| line.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&there), ids(&lines(&net.nodes[ADA], "@bob")));
}

fn what_is_said_in_a_group_waits_for_a_member_who_is_away(net: &mut Testnet) {
    let ada = ok(net.nodes[ADA].client());
    ok(ada.chat_group("&crew"));
    ok(ada.chat_invite("&crew", "bob"));
    ok(until("a member", PATIENCE, || {
        let members = run_in(&net.nodes[ADA].data_dir, &["--json", "chat", "group", "members", "&crew"]).json();
        let roles: Vec<_> = members.as_array().into_iter().flatten().map(|member| member["role"].to_string()).collect();
        if roles.iter().any(|role| role.contains("member")) { Ok(()) } else { Err(format!("{roles:?}")) }
    }));
    net.nodes[BOB].kill();
    let wanted: Vec<_> = (0..3).map(|n| format!("for the crew {n}")).collect();
    for text in &wanted {
        ok(ada.chat_send("&crew", text, "auto", None));
    }
    let begun = Instant::now();
    carried(&net.nodes[ADA], "&crew", &wanted);
    let carried = begun.elapsed();
    // The two never run at the same time from here on.
    net.nodes[ADA].kill();
    ok(net.nodes[BOB].start());
    let there = arrived(&net.nodes[BOB], "&crew", &wanted, PATIENCE * 3);
    assert_eq!(texts(&there), wanted);
    eprintln!(
        "chat: what was said in a group was in mailboxes after {:.1} s, and there, its author being away",
        carried.as_secs_f64()
    );
    ok(net.nodes[ADA].start());
}

/// What one side wrote: what was answered for, and what may have been taken when its node was killed.
#[derive(Default)]
struct Written {
    accepted: Vec<String>,
    unsure: BTreeSet<String>,
}

/// Writes one way until told to stop. Its node may be killed at any time.
fn write(data_dir: &Path, index: usize, to: &str, via: &str, is_over: &AtomicBool) -> Written {
    let mut written = Written::default();
    let mut rng = rand::rng();
    for n in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{via} {n}");
        match Client::open(index, data_dir).and_then(|client| client.chat_send(to, &text, via, None)) {
            Ok(_) => written.accepted.push(text),
            Err(_) => drop(written.unsure.insert(text)),
        }
        thread::sleep(Duration::from_millis(rng.random_range(PAUSE_MS)));
    }
    written
}

/// That `there` has all that one side wrote in the order of writing, and nothing twice.
fn judge(there: &[ChatLine], written: &Written, via: &str) {
    let mine: Vec<_> = texts(there).into_iter().filter(|text| text.starts_with(via)).collect();
    let number = |text: &str| text.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number");
    assert!(mine.windows(2).all(|two| number(two[0]) < number(two[1])), "{mine:?}");
    let expected = mine.iter().filter(|text| !written.unsure.contains(**text)).copied();
    assert!(expected.eq(written.accepted.iter().map(String::as_str)), "{mine:?} of {:?}", written.accepted);
    assert!(there.iter().all(|line| !line.gap_before), "{there:?}");
}

fn what_a_node_answered_for_is_there_after_kill_9_and_arrives(net: &mut Testnet) {
    let mut accepted = Vec::new();
    for round in 0..5 {
        let text = format!("round {round}");
        let sent = ok(ok(net.nodes[ADA].client()).chat_send("@bob", &text, "auto", None));
        net.nodes[ADA].kill();
        ok(net.nodes[ADA].start());
        let kept = lines(&net.nodes[ADA], "@bob");
        assert!(kept.iter().any(|line| line.id == sent.id), "{text}: {sent:?} is not in {kept:?}");
        accepted.push(text);
    }
    let all = arrived(&net.nodes[BOB], "@ada", &accepted, PATIENCE);
    assert!(texts(&all).ends_with(&accepted.iter().map(String::as_str).collect::<Vec<_>>()), "{all:?}");

    // Both are killed, both come back, and one writes at once.
    for round in 0..2 {
        net.nodes[ADA].kill();
        net.nodes[BOB].kill();
        ok(net.nodes[ADA].start());
        ok(net.nodes[BOB].start());
        let text = format!("at once {round}");
        let sent = ok(ok(net.nodes[ADA].client()).chat_send("@bob", &text, "auto", Some(PATIENCE)));
        assert!(matches!(sent.state.as_str(), "delivered" | "read"), "{sent:?}");
        accepted.push(text);
        let all = arrived(&net.nodes[BOB], "@ada", &accepted, PATIENCE);
        assert!(texts(&all).ends_with(&accepted.iter().map(String::as_str).collect::<Vec<_>>()), "{all:?}");
    }
}

#[test]
fn clients_and_mailboxes_that_are_killed_again_and_again_lose_nothing_and_repeat_nothing() {
    let kills = number("FOG_CHAT_KILLS", 8);
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut net = network(&scratch.path().join("net"));
    introduce(&net);
    let dirs = [ADA, BOB].map(|index| net.nodes[index].data_dir.clone());
    let is_over = AtomicBool::new(false);
    let counts = Mutex::new([0; 3]);
    let [by_ada, by_bob] = thread::scope(|scope| {
        let ada = scope.spawn(|| write(&dirs[0], ADA, "@bob", "auto", &is_over));
        let bob = scope.spawn(|| write(&dirs[1], BOB, "@ada", "mix", &is_over));
        let mut rng = rand::rng();
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(rng.random_range(LIFE_MS)));
            // The first relay is everybody's first contact; the others are mailboxes, and mixes.
            let kind = rng.random_range(0..3);
            let victim = [ADA, BOB, rng.random_range(1..RELAYS)][kind];
            net.nodes[victim].kill();
            ok(net.nodes[victim].start());
            counts.lock().expect("counts")[kind] += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        [ada, bob].map(|writer| writer.join().expect("a writer"))
    });
    let began = Instant::now();
    let (accepted, patience) = ([&by_ada.accepted[..], &by_bob.accepted[..]].concat(), PATIENCE * 3);
    let at_ada = arrived(&net.nodes[ADA], "@bob", &accepted, patience);
    let at_bob = arrived(&net.nodes[BOB], "@ada", &accepted, patience);
    eprintln!(
        "chat: sender, recipient, mailbox killed {:?} times; {} + {} messages answered for, {} unsure, all there {:.1} s later",
        counts.lock().expect("counts"),
        by_ada.accepted.len(),
        by_bob.accepted.len(),
        by_ada.unsure.len() + by_bob.unsure.len(),
        began.elapsed().as_secs_f64(),
    );
    for there in [&at_ada, &at_bob] {
        judge(there, &by_ada, "auto");
        judge(there, &by_bob, "mix");
    }
    ok(net.down());
}
