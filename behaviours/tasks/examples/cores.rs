//! How many tasks the two cores take from submission to a verified result on one thread, signatures included, with nothing run and
//! nothing written: `cargo run --release -p fog-tasks --no-default-features --example cores -- [tasks]`.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{NetworkId, NodeId, Now, UnixMillis};
use fog_tasks::{
    Content, Coordinator, Ending, Limits, Outcome, Work, Worker,
    coordinator::{self, Submission, TaskEvent},
    core::{
        offer::{Accepts, Offer, Price},
        pay::{Credit, LocalAccounts},
        terms::Terms,
    },
    wire::Source,
    worker::{self, RunEvent},
};

const NETWORK: NetworkId = NetworkId([1; 32]);

fn offer() -> Offer {
    Offer {
        slots: 2,
        free: 2,
        queued: 0,
        speed: 1_000_000_000,
        memory_bytes: 1 << 30,
        staging_bytes: 1 << 30,
        features: Vec::new(),
        price: Price::default(),
        accepts: Accepts::default(),
        family: None,
        milliwatts: 0,
        eligible: true,
    }
}

fn submission(number: u64) -> Submission {
    let module = Content::of(b"module");
    let work = Work {
        version: 1,
        module,
        args: vec![number.to_string()],
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        limits: Limits::default(),
        seed: [0; 32],
    };
    let source = Source::Inline(b"module".to_vec().into());
    Submission { work, terms: Terms::default(), sources: vec![(module, source)] }
}

struct Worked {
    worker: Worker,
    id: NodeId,
}

/// Acts on everything until nothing is left; returns how many tasks ended.
fn turn(coordinator: &mut Coordinator, workers: &mut [Worked], me: NodeId, now: Now) -> usize {
    let mut ended = 0;
    loop {
        let mut moved = false;
        while let Some(output) = coordinator.poll_output() {
            moved = true;
            match output {
                coordinator::Output::Send { to, message } => {
                    if let Some(it) = workers.iter_mut().find(|it| it.id == to) {
                        let _taken = it.worker.handle_message(me, message, now);
                    }
                }
                coordinator::Output::Event(_, TaskEvent::Ended(_)) => ended += 1,
                _ => {}
            }
        }
        for it in workers.iter_mut() {
            while let Some(output) = it.worker.poll_output() {
                moved = true;
                match output {
                    worker::Output::Send { message, .. } => {
                        let _taken = coordinator.handle_message(it.id, message, now);
                    }
                    worker::Output::Publish(record) => {
                        let _taken = coordinator.handle_offer(record.as_bytes(), now);
                    }
                    worker::Output::Stage { execution, .. } => it.worker.handle_staged(execution, Ok(()), now),
                    worker::Output::Run { execution, work, .. } => {
                        let text = work.args.concat().into_bytes();
                        let outcome = Outcome { stdout: text, fuel: 1_000, ..Outcome::ended(Ending::Exit(0), "") };
                        it.worker.handle_run(execution, RunEvent::Started, now);
                        it.worker.handle_run(execution, RunEvent::Done(outcome), now);
                    }
                    _ => {}
                }
            }
        }
        if !moved {
            return ended;
        }
    }
}

fn measure(name: &str, own: bool, workers: u8, tasks: u64) {
    let mut now = Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) };
    let key = Arc::new(SigningKey::from_bytes(&[u8::from(own); 32]));
    let me = NodeId(key.verifying_key().to_bytes());
    let mut coordinator = Coordinator::new(coordinator::Config::default(), key, NETWORK, [7; 32], now);
    let mut workers: Vec<Worked> = (1..=workers)
        .map(|number| {
            let key = Arc::new(SigningKey::from_bytes(&[number; 32]));
            let id = NodeId(key.verifying_key().to_bytes());
            let credit = Credit { limit: u64::MAX / 4, ..Credit::default() };
            let balances = LocalAccounts::new(id, credit);
            let mut worker = Worker::new(worker::Config::default(), key, NETWORK, balances, now);
            worker.set_capacity(offer(), now);
            Worked { worker, id }
        })
        .collect();
    turn(&mut coordinator, &mut workers, me, now);
    let begin = Instant::now();
    let (mut submitted, mut ended) = (0, 0);
    while ended < tasks as usize {
        while submitted < tasks && submitted - ended as u64 <= 512 {
            if coordinator.submit(submission(submitted), now).is_err() {
                break;
            }
            submitted += 1;
        }
        ended += turn(&mut coordinator, &mut workers, me, now);
        now = now.plus(Duration::from_millis(10));
        coordinator.handle_timeout(now);
    }
    let rate = tasks as f64 / begin.elapsed().as_secs_f64();
    eprintln!("{name}: {rate:.0} tasks/s");
}

fn main() {
    let tasks = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5_000);
    measure("own worker", true, 1, tasks);
    measure("8 other workers, trust 0.99", false, 8, tasks);
}
