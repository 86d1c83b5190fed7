//! A direct message between two processes over loopback: from the call to the event at the other one. Both write what they must, with
//! `sync`, before it leaves and before it is told.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod harness;

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fog_testnet::{Client, NodePlan, Plan, Testnet, until};
use harness::{Harness, Target};

const NAMES: [&str; 3] = ["chat_direct_ms", "chat_direct_p99_ms", "chat_direct_call_ms"];
/// The first ones make it warm.
const WARM: usize = 50;
const MESSAGES: usize = 400;
/// So that each message is alone.
const PACE: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let mut harness = Harness::from_env();
    if NAMES.iter().any(|name| harness.wants(name)) {
        let (mut delivered, mut called) = measure();
        let milliseconds = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>();
        delivered.sort_unstable();
        if harness.wants(NAMES[0]) {
            harness.medians(NAMES[0], &mut milliseconds(&delivered), None, "ms", Some(Target::AtMost(5.0)));
        }
        if harness.wants(NAMES[1]) {
            let late = delivered[delivered.len() * 99 / 100];
            harness.medians(NAMES[1], &mut milliseconds(&[late]), None, "ms", None);
        }
        if harness.wants(NAMES[2]) {
            called.sort_unstable();
            harness.medians(NAMES[2], &mut milliseconds(&called), None, "ms", None);
        }
    }
    harness.finish();
}

/// Until the other one is told of a message, and until the call has its answer.
fn measure() -> (Vec<Duration>, Vec<Duration>) {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(env!("CARGO_BIN_EXE_fog"), dir.path().join("net"), 1);
    plan.nodes.push(NodePlan::client());
    let net = Testnet::up(&plan, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let clients: Vec<_> = net.nodes.iter().map(|node| node.client().unwrap()).collect();
    let [ada, bob] = &clients[..] else { panic!("two nodes") };
    introduce(ada, bob, "bob");
    introduce(bob, ada, "ada");
    let (tell, told) = mpsc::sync_channel(1024);
    let listener = bob.clone();
    thread::spawn(move || {
        let ended = listener.chat_events(Duration::from_secs(3600), &mut |event| {
            let came = Instant::now();
            if let Some(text) = event["text"].as_str().filter(|_| event["event"] == "message") {
                let _over = tell.send((text.to_owned(), came));
            }
        });
        drop(ended);
    });
    // Until both know that they have each other's keys, and the listener listens.
    let warm = until("a message that is told", PATIENCE, || {
        send(ada, "warm").map_err(|error| error.to_string())?;
        told.recv_timeout(Duration::from_secs(1)).map(drop).map_err(|error| error.to_string())
    });
    warm.unwrap_or_else(|error| panic!("{error}"));
    let (mut delivered, mut called) = (Vec::new(), Vec::new());
    for number in 0..WARM + MESSAGES {
        let text = format!("{number} {}", "x".repeat(200));
        let begun = Instant::now();
        send(ada, &text).unwrap_or_else(|error| panic!("{error}"));
        let answered = begun.elapsed();
        let came = loop {
            let (told, came) = told.recv_timeout(PATIENCE).unwrap();
            if told == text {
                break came;
            }
        };
        if number >= WARM {
            delivered.push(came.duration_since(begun));
            called.push(answered);
        }
        thread::sleep(PACE);
    }
    drop(net);
    (delivered, called)
}

fn introduce(one: &Client, other: &Client, name: &str) {
    let invite = other.invite().unwrap_or_else(|error| panic!("{error}"));
    one.chat_contact(&invite, name).unwrap_or_else(|error| panic!("{error}"));
}

fn send(from: &Client, text: &str) -> Result<(), fog_testnet::Error> {
    from.chat_send("@bob", text, "auto", None).map(drop)
}
