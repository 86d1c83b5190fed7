//! A relay under a load of writes that is killed again and again, at random moments. `FOG_KILLS` says how often (10 unless told).

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use fog_testnet::{Batch, Node, Plan, Recipient, Testnet, until};
use rand::RngExt;
use serde_json::Value;

use super::support::{PATIENCE, fog, metric, ok, one_network_at_a_time, run_in};

const RELAYS: usize = 6;
const VICTIM: usize = RELAYS - 1;
/// Lives of the victim, in milliseconds: from before it is ready to a few messages.
const LIFE_MS: std::ops::Range<u64> = 20..2500;

/// Where others say that the victim is, by its newest descriptor.
fn addresses(observer: &Node, victim: &str) -> Vec<Value> {
    let relays = run_in(&observer.data_dir, &["--json", "relays"]).json();
    let line = relays.as_array().expect("relays").iter().find(|relay| relay["peer_id"] == victim).cloned();
    line.and_then(|line| line["addresses"].as_array().cloned()).unwrap_or_default()
}

#[test]
fn a_relay_that_is_killed_again_and_again_loses_nothing_and_takes_nothing_back() {
    let kills: usize = std::env::var("FOG_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let _alone = one_network_at_a_time();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut plan = Plan::new(fog(), scratch.path().join("net"), RELAYS);
    // Epochs so short that keys, descriptors, votes and sets are written all the time.
    plan.epoch_seconds = 12;
    plan.mean_delay_ms = 10;
    let mut testnet = ok(Testnet::up(&plan, &mut |line| eprintln!("{line}")));
    let victim = ok(testnet.nodes[VICTIM].client()).peer_id().to_owned();
    let batch = Batch {
        tag: "load".into(),
        senders: vec![ok(testnet.nodes[0].client())],
        recipients: vec![ok(Recipient::new(&testnet.nodes[VICTIM]))],
        messages: 4 * kills,
        bytes: 400,
        in_flight: 4,
        anonymous: false,
        // A recipient that is hardly ever there is written to for as long as it takes.
        timeout: Duration::from_secs(120 + 4 * kills as u64),
    };
    let (done, is_sent) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcome = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let outcome = batch.send(&done);
            is_sent.store(true, Ordering::Relaxed);
            outcome
        });
        let mut rng = rand::rng();
        for kill in 0..kills {
            thread::sleep(Duration::from_millis(rng.random_range(LIFE_MS)));
            testnet.nodes[VICTIM].kill();
            // The store opens, and the node answers.
            ok(testnet.nodes[VICTIM].start());
            if kill % 5 == 4 {
                comes_back(&testnet, &victim);
            }
        }
        comes_back(&testnet, &victim);
        eprintln!("killed {kills} times; {} messages so far, all sent: {is_sent:?}", done.load(Ordering::Relaxed));
        sending.join().expect("the load")
    });
    let counted = ok(batch.count(PATIENCE));
    assert_eq!(outcome.wrong(&counted, batch.messages), Vec::<String>::new());
    // Its own sequence numbers were never used twice, and it never signed two ballots in one round.
    let (observer, score) = (&testnet.nodes[0], score(&testnet.nodes[0], &victim));
    assert_eq!(metric(&observer.data_dir, "fog_equivocations_total"), 0.0);
    assert!(score > -1.0, "the victim was accused of something: {score}");
    // What the store holds serves: the set is whole, and the chain goes on with the victim's votes.
    let client = ok(testnet.nodes[VICTIM].client());
    let certified = until("a certified set at the victim", PATIENCE, || {
        let ours = client.snapshot().map_err(|e| e.to_string())?;
        let theirs = testnet.first().and_then(|first| first.snapshot()).map_err(|e| e.to_string())?;
        if ours.certified && ours == theirs { Ok(()) } else { Err(format!("{ours:?} {theirs:?}")) }
    });
    ok(certified);
    ok(testnet.down());
}

/// Everybody else's records are there again, and the victim's newest descriptor is believed: its sequence number went on.
fn comes_back(testnet: &Testnet, victim: &str) {
    let node = &testnet.nodes[VICTIM];
    let back = until("the victim as it is now, everywhere", PATIENCE, || {
        let known = node.client().and_then(|client| client.status()).map_err(|e| e.to_string())?.relays.known;
        let own = addresses(node, victim);
        let seen = addresses(&testnet.nodes[0], victim);
        if known == RELAYS && !own.is_empty() && own == seen {
            Ok(())
        } else {
            Err(format!("{known} {own:?} {seen:?}"))
        }
    });
    ok(back);
}

fn score(observer: &Node, peer: &str) -> f64 {
    let peers = run_in(&observer.data_dir, &["--json", "peers"]).json();
    let line = peers.as_array().expect("peers").iter().find(|line| line["peer_id"] == peer).cloned();
    line.and_then(|line| line["score"].as_f64()).expect("the victim is connected")
}
