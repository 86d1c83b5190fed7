//! `fog testnet demo`: every system of Fog on a network of real processes, with real input, in about two minutes.
//!
//! Each step is a [`Check`]; nothing is shown that was not asked of a running node. The network is `n` relays and one client without
//! roles behind a mailbox that sends at a full, constant rate.

mod chat;
mod directory;
mod faults;
mod messages;
mod reputation;
mod services;
mod steady;
mod tasks;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{Check, Error, NodePlan, Plan, Report, Testnet};

/// The fewest relays with which the demo makes sense: a path of four hops, its sender, and one relay that is killed.
pub const MIN_RELAYS: usize = 6;

/// The demo crosses several epochs.
const EPOCH_SECONDS: u64 = 30;

/// A network on which things are shown.
struct Stage {
    testnet: Testnet,
    /// How many of the nodes are relays; the client comes after them.
    relays: usize,
}

/// How the demo is to run.
#[derive(Debug)]
pub struct Demo {
    /// The program that every node runs.
    pub program: PathBuf,
    /// Relays.
    pub relays: usize,
    /// How long the network may take to be ready.
    pub ready_within: Duration,
}

impl Demo {
    /// Runs it. `tell` gets a line of progress at each step, `shown` each check when it was made. Its directory is removed if everything
    /// held; else its path is in the last check.
    pub fn run(&self, tell: &mut dyn FnMut(&str), shown: &mut dyn FnMut(&Check)) -> Result<Report, Error> {
        if self.relays < MIN_RELAYS {
            return Err(Error::Plan(format!("the demo needs at least {MIN_RELAYS} nodes")));
        }
        let dir = fresh_dir();
        let mut plan = Plan::new(&self.program, &dir, self.relays);
        plan.nodes.push(NodePlan::client().with_cover("full"));
        plan.spares = 1;
        plan.epoch_seconds = EPOCH_SECONDS;
        plan.ready_within = self.ready_within;
        tell(&format!("starting {} relays and a client", self.relays));
        let mut report = Report::default();
        let mut show = |check: Check| {
            shown(&check);
            report.checks.push(check);
        };
        await_room_in_epoch();
        match Testnet::up(&plan, tell) {
            Ok(testnet) => {
                let mut stage = Stage { testnet, relays: self.relays };
                show(stage.network());
                stage.exercise(tell, &mut show);
                show(Check::attempt("shutdown", || stage.shutdown()));
            }
            Err(error) => show(Check::failed("network", error.to_string())),
        }
        if report.ok() {
            std::fs::remove_dir_all(&dir).map_err(Error::file("remove", &dir))?;
        } else {
            tell(&format!("the nodes' logs are kept in {}", dir.display()));
        }
        Ok(report)
    }
}

/// Waits while the set of the next epoch is about to be fixed: relays that begin in that moment are in the set after it, and the demo shows
/// all of them in the first one.
fn await_room_in_epoch() {
    let phase = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % EPOCH_SECONDS;
    while (EPOCH_SECONDS / 3..EPOCH_SECONDS * 5 / 6).contains(&phase()) {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// A directory that nobody has: pid and time are in its name.
fn fresh_dir() -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    std::env::temp_dir().join(format!("fog-demo-{}-{}", std::process::id(), now.as_millis()))
}

impl Stage {
    fn exercise(&mut self, tell: &mut dyn FnMut(&str), show: &mut dyn FnMut(Check)) {
        let seconds = steady::WINDOW.as_secs();
        tell(&format!("measuring the nodes at rest for {seconds} s"));
        let rest = steady::at_rest(self);
        let resting_rate = rest.as_ref().ok().map(|rest| rest.client_packets_per_s);
        show(Check::attempt("idle node", || rest.and_then(|rest| rest.check())));
        tell("until the first set of relays is certified");
        show(Check::attempt("certified relays", || directory::certified(self)));
        tell("messages of one byte, each way, signed and anonymous");
        show(Check::attempt("one byte", || messages::one_byte(self)));
        tell("messages of 1 MiB, four at once, and 50 pings beside them: about half a minute");
        let mut rate = None;
        for check in messages::large_and_pings(self, &mut rate) {
            show(check);
        }
        show(steady::constant_rate(resting_rate, rate));
        tell("a room, direct messages and a file");
        show(Check::attempt("chat room", || chat::room(self)));
        show(Check::attempt("direct messages", || chat::direct(self)));
        show(Check::attempt("file", || chat::file(self)));
        show(Check::attempt("service", || services::service(self)));
        tell("a computation, split over the relays");
        show(Check::attempt("compute", || tasks::mandelbrot(self)));
        tell("a message to a client that is away");
        show(Check::attempt("client away", || messages::client_away(self)));
        tell("200 messages from four senders, and a relay is killed among them");
        show(Check::attempt("relay killed", || faults::relay_killed(self)));
        tell("what the others think of it now");
        show(Check::attempt("reputation", || reputation::killed_relay(self)));
        tell("a node is killed after it accepted a message, and started again");
        show(Check::attempt("inbox survives kill -9", || faults::inbox_survives(self)));
        tell("the killed relay comes back");
        show(Check::attempt("network heals", || faults::heals(self)));
        tell("one more relay joins");
        show(Check::attempt("a relay joins", || directory::joins(self)));
        show(Check::attempt("simulator", directory::simulated));
        show(Check::attempt("second process refused", || faults::second_process(self)));
        show(Check::attempt("no packet was damaged", || faults::nothing_damaged(self)));
    }

    fn network(&self) -> Check {
        let nodes = self.testnet.nodes.len();
        let ready = crate::report::round(self.testnet.ready);
        let detail = format!("{nodes} processes found each other and agree on one snapshot of {} relays", self.relays);
        Check::held("network", detail).with("nodes", nodes).with("ready_s", ready)
    }

    fn shutdown(&mut self) -> Result<Check, Error> {
        let (nodes, bad) = self.testnet.down()?;
        let wrong = if bad == 0 { Vec::new() } else { vec![format!("{bad} of {nodes} did not end with exit code 0")] };
        Ok(Check::judged(
            "shutdown",
            &wrong,
            format!("{nodes} processes ended with exit code 0 when they were asked to"),
        ))
    }

    /// The index of the client without roles.
    fn client(&self) -> usize {
        self.relays
    }
}
