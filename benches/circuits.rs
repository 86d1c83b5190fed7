//! Circuits, services and exits beside `tor`, each in a network of its own on loopback, which take turns: eight relays of which five are exits,
//! a client, and a host of services; the same server behind both, the same requests. Where tor is not installed there is no rival. Linux
//! only: processor time and memory are read from `/proc`.
//!
//! Times are in milliseconds to the first byte of 1 KiB: `cold` for a service that this client never asked for, `fresh` for one whose
//! descriptor it knows, on new circuits, `warm` on circuits that are there. Rates are those of downloads, on circuits of their own.
//! Processor time is of all processes of a network while eight downloads run.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod harness;
mod tor;

use std::{
    collections::BTreeMap,
    io, thread,
    time::{Duration, Instant},
};

use fog_testnet::{NodePlan, Plan, Testnet, until};
use harness::{Harness, Target};
use tor::{Tor, traffic};

/// Turns that each network takes.
const RUNS: usize = 5;
const RELAYS: usize = 3;
const EXITS: usize = 5;
const SMALL: usize = 1024;
/// What one stream fetches, and what each of eight does.
const ALONE: usize = 30 << 20;
const TOGETHER: usize = 15 << 20;
const STREAMS: usize = 8;
/// Requests on circuits that are there, in a turn.
const WARM: usize = 4;
/// After the small requests that build circuits.
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(120);

use Target::{AtLeast, AtMost};
/// Every figure, its unit, and what its ratio to tor's must be.
const FIGURES: [(&str, &str, Option<Target>); 11] = [
    ("circuit_cold_ttfb", "ms", Some(AtMost(0.5))),
    ("circuit_fresh_ttfb", "ms", Some(AtMost(0.5))),
    ("circuit_warm_ttfb", "ms", Some(AtMost(0.5))),
    ("circuit_throughput", "MB/s", Some(AtLeast(3.0))),
    ("circuit_throughput_8", "MB/s", Some(AtLeast(1.5))),
    ("circuit_cpu_s_per_gib", "s/GiB", Some(AtMost(0.7))),
    ("exit_ttfb", "ms", Some(AtMost(1.0))),
    ("exit_throughput", "MB/s", Some(AtLeast(1.0))),
    ("exit_throughput_8", "MB/s", Some(AtLeast(1.0))),
    ("exit_cpu_s_per_gib", "s/GiB", Some(AtMost(1.0))),
    ("circuit_relay_rss", "MiB", None),
];

fn main() {
    let mut harness = Harness::from_env();
    if !FIGURES.iter().any(|(name, ..)| harness.wants(name)) {
        return harness.finish();
    }
    let web = traffic::serve().unwrap();
    eprintln!("    two networks are brought up, which takes a minute or two");
    let mut ours = Side::fog(web);
    let mut rival = tor::version().map(|version| Side::tor(web, version));
    if rival.is_none() {
        println!("    tor is not installed: these figures have no rival (apt-get install tor)");
    }
    let wants = |names: &[&str]| names.iter().any(|name| harness.wants(name));
    for run in 0..RUNS {
        eprintln!("    turn {} of {RUNS}", run + 1);
        let mut take_turns = |names: &[&str], turn: &dyn Fn(&mut Side)| {
            if !wants(names) {
                return;
            }
            let mut sides: Vec<_> = std::iter::once(&mut ours).chain(&mut rival).collect();
            if run % 2 == 1 {
                sides.reverse();
            }
            for side in sides {
                let began = Instant::now();
                turn(side);
                eprintln!("      {} {names:?} {:.1} s", side.name, began.elapsed().as_secs_f64());
            }
        };
        take_turns(&["circuit_cold_ttfb"], &|side| side.cold(run));
        take_turns(&["circuit_warm_ttfb", "circuit_fresh_ttfb"], &|side| side.small("circuit"));
        take_turns(&["circuit_throughput"], &|side| side.alone("circuit"));
        take_turns(&["circuit_throughput_8", "circuit_cpu_s_per_gib", "circuit_relay_rss"], &|side| {
            side.together("circuit")
        });
        take_turns(&["exit_ttfb"], &|side| side.small("exit"));
        take_turns(&["exit_throughput"], &|side| side.alone("exit"));
        take_turns(&["exit_throughput_8", "exit_cpu_s_per_gib"], &|side| side.together("exit"));
    }
    for side in std::iter::once(&mut ours).chain(&mut rival) {
        side.remember_memory();
    }
    for (name, unit, target) in FIGURES {
        if !harness.wants(name) {
            continue;
        }
        let Some(ours) = ours.figures.get_mut(name) else { continue };
        let rival = rival.as_mut().and_then(|side| Some((side.name.as_str(), median(side.figures.get_mut(name)?))));
        let target = target.filter(|_| rival.is_some());
        harness.medians(name, ours, rival, unit, target);
    }
    for side in std::iter::once(&ours).chain(&rival) {
        side.print_shares();
    }
    harness.finish();
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A network and what was measured in it.
struct Side {
    name: String,
    socks: String,
    /// Services that nobody has asked for yet, one for each turn, and one more.
    services: Vec<String>,
    exit_port: u16,
    relays: Vec<u32>,
    /// The client and the host of the services.
    ends: Vec<u32>,
    users: usize,
    failed: usize,
    figures: BTreeMap<String, Vec<f64>>,
    /// Processor seconds per GiB of relays, client and host in each turn with eight streams.
    shares: BTreeMap<&'static str, Vec<[f64; 3]>>,
    _network: Network,
}

#[expect(dead_code, reason = "held until its end")]
enum Network {
    Fog(Testnet, tempfile::TempDir),
    Tor(Tor),
}

impl Side {
    fn fog(web: std::net::SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = Plan::new(env!("CARGO_BIN_EXE_fog"), dir.path().join("net"), RELAYS);
        plan.nodes.extend(vec![NodePlan::exit("accept *"); EXITS]);
        plan.nodes.extend([NodePlan::client().with_private_exits(), NodePlan::client()]);
        plan.epoch_seconds = 300;
        let net = Testnet::up(&plan, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        let pid = |index: usize| net.nodes[index].process().unwrap().pid();
        let host = net.nodes[RELAYS + EXITS + 1].client().unwrap();
        let services: Vec<_> = (0..=RUNS).map(|n| host.service_add(web, &format!("web{n}")).unwrap()).collect();
        until("services that have reached themselves", PATIENCE, || {
            let all = host.services().map_err(|error| error.to_string())?;
            if all.iter().all(|service| service.state == "reachable") { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let socks = net.nodes[RELAYS + EXITS].client().unwrap().socks().unwrap().to_owned();
        let relays = (0..RELAYS + EXITS).map(pid).collect();
        let ends = vec![pid(RELAYS + EXITS), pid(RELAYS + EXITS + 1)];
        Self::new("fog".into(), (socks, services, web.port()), relays, ends, Network::Fog(net, dir))
    }

    fn tor(web: std::net::SocketAddr, version: String) -> Self {
        let tor = Tor::up(web, RUNS + 1).unwrap_or_else(|error| panic!("{error}"));
        let pids = |of: &[fog_testnet::Process]| of.iter().map(fog_testnet::Process::pid).collect::<Vec<_>>();
        let (relays, ends) = (pids(&tor.relays), pids(&tor.ends));
        Self::new(version, (tor.socks.clone(), tor.onions.clone(), web.port()), relays, ends, Network::Tor(tor))
    }

    fn new(
        name: String,
        (socks, services, exit_port): (String, Vec<String>, u16),
        relays: Vec<u32>,
        ends: Vec<u32>,
        network: Network,
    ) -> Self {
        let (figures, shares) = Default::default();
        let mut side = Self {
            name,
            socks,
            services,
            exit_port,
            relays,
            ends,
            users: 0,
            failed: 0,
            figures,
            shares,
            _network: network,
        };
        let (user, target) = (side.user(), side.target("circuit"));
        // From now on the client knows the descriptor of this one.
        let asked = || traffic::get(&side.socks, &user, &target.0, target.1, SMALL).map_err(|error| error.to_string());
        until("a page of a service", PATIENCE, asked).unwrap_or_else(|error| panic!("{error}"));
        side
    }

    fn user(&mut self) -> String {
        self.users += 1;
        format!("user{}", self.users)
    }

    /// Where a path leads: to the last service, or through an exit to the server.
    fn target(&self, path: &str) -> (String, u16) {
        match path {
            "exit" => ("127.0.0.1".into(), self.exit_port),
            _ => (self.services[RUNS].clone(), 80),
        }
    }

    fn note(&mut self, name: &str, value: f64) {
        self.figures.entry(name.to_owned()).or_default().push(value);
    }

    fn get(&mut self, user: &str, (host, port): &(String, u16), bytes: usize) -> Option<traffic::Took> {
        let got = traffic::get(&self.socks, user, host, *port, bytes);
        self.take(got)
    }

    fn take(&mut self, got: io::Result<traffic::Took>) -> Option<traffic::Took> {
        if let Err(error) = &got {
            println!("    {}: a request failed: {error}", self.name);
            self.failed += 1;
        }
        got.ok()
    }

    /// A user with a circuit of its own.
    fn with_circuit(&mut self, path: &str) -> Option<String> {
        let (user, target) = (self.user(), self.target(path));
        let took = self.get(&user, &target, SMALL)?;
        if path == "circuit" {
            self.note("circuit_fresh_ttfb", ms(took.first));
        }
        Some(user)
    }

    fn cold(&mut self, run: usize) {
        let (user, target) = (self.user(), (self.services[run].clone(), 80));
        if let Some(took) = self.get(&user, &target, SMALL) {
            self.note("circuit_cold_ttfb", ms(took.first));
        }
    }

    fn small(&mut self, path: &str) {
        let name = if path == "exit" { "exit_ttfb" } else { "circuit_warm_ttfb" };
        let target = self.target(path);
        for _ in 0..2 {
            let Some(user) = self.with_circuit(path) else { continue };
            for _ in 0..WARM {
                if let Some(took) = self.get(&user, &target, SMALL) {
                    self.note(name, ms(took.first));
                }
            }
        }
    }

    fn alone(&mut self, path: &str) {
        let target = self.target(path);
        let Some(user) = self.with_circuit(path) else { return };
        thread::sleep(PAUSE);
        if let Some(took) = self.get(&user, &target, ALONE) {
            self.note(&format!("{path}_throughput"), ALONE as f64 / 1e6 / took.all.as_secs_f64());
        }
    }

    fn together(&mut self, path: &'static str) {
        let target = self.target(path);
        let users: Vec<_> = (0..STREAMS).filter_map(|_| self.with_circuit(path)).collect();
        thread::sleep(PAUSE);
        let (before, began) = (self.processor_time(), Instant::now());
        let got: Vec<_> = thread::scope(|scope| {
            let (socks, target) = (&self.socks, &target);
            let fetch = |user: String| scope.spawn(move || traffic::get(socks, &user, &target.0, target.1, TOGETHER));
            let running: Vec<_> = users.into_iter().map(fetch).collect();
            running.into_iter().map(|running| running.join().unwrap()).collect()
        });
        let (wall, after) = (began.elapsed(), self.processor_time());
        let moved = got.into_iter().filter_map(|got| self.take(got)).count() * TOGETHER;
        if moved == 0 {
            return;
        }
        let gib = moved as f64 / f64::from(1 << 30);
        let shares = std::array::from_fn(|part| (after[part] - before[part]).as_secs_f64() / gib);
        self.shares.entry(path).or_default().push(shares);
        self.note(&format!("{path}_throughput_8"), moved as f64 / 1e6 / wall.as_secs_f64());
        self.note(&format!("{path}_cpu_s_per_gib"), shares.iter().sum());
    }

    /// Of the relays, the client and the host.
    fn processor_time(&self) -> [Duration; 3] {
        [&self.relays[..], &self.ends[..1], &self.ends[1..]].map(|pids| pids.iter().map(|pid| cpu(*pid)).sum())
    }

    fn remember_memory(&mut self) {
        for pid in self.relays.clone() {
            self.note("circuit_relay_rss", resident_mib(pid));
        }
    }

    /// Where the processor time goes, of the median turn.
    fn print_shares(&self) {
        for (path, shares) in &self.shares {
            let mut shares = shares.clone();
            shares.sort_by(|a, b| a.iter().sum::<f64>().total_cmp(&b.iter().sum()));
            let [relays, client, host] = shares[shares.len() / 2];
            println!(
                "    {}, {path}: of the s/GiB relays have {relays:.1}, the client {client:.1}, the service's host {host:.1}; {} requests failed",
                self.name, self.failed
            );
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Processor time of a process so far.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = |task: io::Result<std::fs::DirEntry>| {
        // A thread may end meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    tasks.filter_map(spent).sum()
}

fn resident_mib(pid: u32) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1_048_576.0
}
