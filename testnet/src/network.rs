//! A local network: brought up, asked, broken and ended.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Client, Error, Exits, Faults, NodePlan, NodeState, Plan, Process, State, Status, free_port,
    process::{End, without_settings},
    state::{GRACE, end_all},
    until,
};

/// Until a process that was started has written its `node.json`: it opens its store and its sockets before.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const LOG: &str = "fog.log";
/// The stake of each relay.
const STAKE: u64 = 100;

/// One node of a network.
#[derive(Debug)]
pub struct Node {
    /// From 0.
    pub index: usize,
    /// Its keys, its store, its log.
    pub data_dir: PathBuf,
    /// How it runs.
    pub plan: NodePlan,
    program: PathBuf,
    args: Vec<String>,
    process: Option<Process>,
}

impl Node {
    /// Starts its process, unless it runs, and waits until its API answers.
    pub fn start(&mut self) -> Result<(), Error> {
        if self.process.as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        self.process = Some(Process::start(&self.program, &self.args, &self.data_dir.join(LOG))?);
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&mut self) -> Result<(), Error> {
        let index = self.index;
        let deadline = crate::Deadline::after(STARTS_WITHIN);
        loop {
            let Some(process) = self.process.as_mut() else { return Err(self.gone()) };
            let pid = process.pid();
            if !process.is_running() {
                return Err(self.gone());
            }
            // A killed predecessor leaves its node.json behind: only that of this process counts.
            let answer = Client::open(index, &self.data_dir).and_then(|client| {
                let ours = client.pid() == pid;
                client.status().map(|_| ours)
            });
            match answer {
                Ok(true) => return Ok(()),
                Ok(false) | Err(_) if !deadline.passed() => thread::sleep(Duration::from_millis(20)),
                Ok(false) => return Err(self.gone()),
                Err(error) => return Err(error),
            }
        }
    }

    fn gone(&self) -> Error {
        Error::Ended { index: self.index, detail: last_line(&self.data_dir.join(LOG)) }
    }

    /// A client of its API.
    pub fn client(&self) -> Result<Client, Error> {
        Client::open(self.index, &self.data_dir)
    }

    /// Its process, if it was started here.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to end. Yields how long that took and its exit code (`None` if it had to be killed).
    pub fn stop(&mut self) -> (Duration, Option<i32>) {
        let began = Instant::now();
        let end = self.process.take().map_or(End::Exited(Some(0)), |mut process| {
            process.ask_to_end();
            process.await_end(GRACE)
        });
        let code = match end {
            End::Exited(code) => code,
            End::Killed => None,
        };
        (began.elapsed(), code)
    }

    /// What starts it, to be typed by hand.
    pub fn command(&self) -> Vec<String> {
        std::iter::once(self.program.display().to_string()).chain(self.args.iter().cloned()).collect()
    }

    fn state(&self) -> Result<NodeState, Error> {
        let client = self.client()?;
        let process = self.process.as_ref().ok_or_else(|| self.gone())?;
        Ok(NodeState {
            index: self.index,
            peer_id: client.peer_id().to_owned(),
            data_dir: self.data_dir.clone(),
            api: client.api().to_owned(),
            socks: client.socks().map(str::to_owned),
            pid: process.pid(),
            started: process.started(),
            command: self.command(),
        })
    }
}

/// A network of real processes on this machine. Dropping it ends them.
#[derive(Debug)]
pub struct Testnet {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// Its network file.
    pub network: PathBuf,
    /// The program that its nodes run.
    pub program: PathBuf,
    /// The length of its epochs.
    pub epoch_seconds: u64,
    /// Its nodes, in the order of the plan.
    pub nodes: Vec<Node>,
    /// How long it took until all were ready.
    pub ready: Duration,
}

impl Testnet {
    /// Brings up what `plan` says and waits until every node is ready, can build a path and agrees on the snapshot. `tell` gets a line
    /// at each step.
    pub fn up(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        plan.check()?;
        prepare(&plan.dir)?;
        let dir = fs::canonicalize(&plan.dir).map_err(Error::file("find", &plan.dir))?;
        let port = free_port().map_err(Error::file("find a free port for", &dir))?;
        let network = create_network(plan, &dir, port)?;
        let began = Instant::now();
        let (program, epoch_seconds) = (plan.program.clone(), plan.epoch_seconds);
        let mut testnet = Self { dir, network, program, epoch_seconds, nodes: Vec::new(), ready: Duration::ZERO };
        for (index, node) in plan.nodes.iter().enumerate() {
            testnet.add(index, node.clone(), (index == 0).then_some(port))?;
            if index == 0 {
                testnet.nodes[0].wait_until_it_answers()?;
                tell("the first node runs, starting the others");
            }
        }
        for node in &mut testnet.nodes {
            node.wait_until_it_answers()?;
        }
        tell("all processes run, waiting until they agree on the relays");
        let relays = plan.nodes.iter().filter(|node| node.is_relay()).count();
        if relays < Plan::RELAYS_FOR_A_PATH {
            let needed = Plan::RELAYS_FOR_A_PATH;
            tell(&format!("note: {relays} relays are too few for a path of the default length, which takes {needed}"));
        }
        testnet.wait_until_ready(plan.ready_within)?;
        testnet.ready = began.elapsed();
        Ok(testnet)
    }

    fn add(&mut self, index: usize, plan: NodePlan, port: Option<u16>) -> Result<(), Error> {
        let data_dir = data_dir(&self.dir, index);
        create_private(&data_dir)?;
        let args = arguments(&data_dir, &self.network, &plan, port)?;
        let process = Process::start(&self.program, &args, &data_dir.join(LOG))?;
        let program = self.program.clone();
        self.nodes.push(Node { index, data_dir, plan, program, args, process: Some(process) });
        Ok(())
    }

    /// Starts one more relay, one of the plan's spares; the index of its node.
    pub fn join(&mut self, plan: NodePlan) -> Result<usize, Error> {
        let index = self.nodes.len();
        self.add(index, plan, None)?;
        self.nodes[index].wait_until_it_answers()?;
        Ok(index)
    }

    /// A client of the first node, the others' first contact.
    pub fn first(&self) -> Result<Client, Error> {
        self.nodes.first().ok_or_else(|| Error::Plan("a network without nodes".into()))?.client()
    }

    /// Waits until all running nodes are ready, can build a path, know every running relay, and agree on the snapshot.
    pub fn wait_until_ready(&mut self, allowed: Duration) -> Result<(), Error> {
        let relays = self
            .nodes
            .iter_mut()
            .filter(|node| node.plan.is_relay())
            .filter_map(|node| node.is_running().then_some(()))
            .count();
        until("a network whose nodes agree", allowed, || {
            let statuses = self.statuses()?;
            let behind = statuses.iter().find_map(|(index, status)| {
                let why = not_ready(status, relays)?;
                Some(format!("node {index} {why}"))
            });
            match behind {
                Some(behind) => Err(behind),
                None if statuses.windows(2).any(|two| two[0].1.snapshot_root != two[1].1.snapshot_root) => {
                    Err("the nodes do not agree on the snapshot".into())
                }
                None => Ok(()),
            }
        })
    }

    /// The status of every running node.
    pub fn statuses(&mut self) -> Result<Vec<(usize, Status)>, String> {
        let mut all = Vec::new();
        for node in &mut self.nodes {
            if node.process.is_none() {
                continue; // stopped or killed on purpose
            }
            if !node.is_running() {
                return Err(node.gone().to_string());
            }
            let status = node.client().and_then(|client| client.status()).map_err(|e| e.to_string())?;
            all.push((node.index, status));
        }
        Ok(all)
    }

    /// What runs, for `fog testnet up` to print and for `down` to end.
    pub fn state(&self) -> Result<State, Error> {
        let nodes = self.nodes.iter().map(Node::state).collect::<Result<_, _>>()?;
        let (dir, network) = (self.dir.clone(), self.network.clone());
        Ok(State { dir, network, nodes, ready_s: self.ready.as_secs_f64() })
    }

    /// Writes the state file.
    pub fn save(&self) -> Result<State, Error> {
        let state = self.state()?;
        state.write()?;
        Ok(state)
    }

    /// Leaves the processes running for `down` to end them.
    pub fn detach(mut self) -> Result<State, Error> {
        let state = self.save()?;
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.leave();
        }
        Ok(state)
    }

    /// Asks all processes to end and waits for them. Yields how many there were and how many of them had to be killed or ended with
    /// another code than 0.
    pub fn down(&mut self) -> Result<(usize, usize), Error> {
        let ends = end_all(self.nodes.iter_mut().filter_map(|node| node.process.as_mut()));
        for node in &mut self.nodes {
            node.process = None;
        }
        State::remove(&self.dir)?;
        let bad = ends.iter().filter(|end| **end != End::Exited(Some(0))).count();
        Ok((ends.len(), bad))
    }
}

/// Why a node is not ready, if it is not.
fn not_ready(status: &Status, relays: usize) -> Option<String> {
    if status.state != "ready" {
        return Some(format!("is {}", status.state));
    }
    if status.relays.known < relays {
        return Some(format!("knows {} of {relays} relays", status.relays.known));
    }
    let path_possible = relays >= Plan::RELAYS_FOR_A_PATH;
    (path_possible && !status.mix.ready).then(|| "cannot build a path".to_owned())
}

/// An empty directory, or one with a network that does not run any more.
fn prepare(dir: &Path) -> Result<(), Error> {
    match State::read(dir) {
        Ok(old) => {
            let running = old.running().len();
            if running > 0 {
                return Err(Error::Running { dir: dir.to_owned(), running });
            }
            clear(dir)?;
        }
        Err(Error::Missing { .. }) => {
            let stopped = dir.join("network.json").is_file() && dir.join("node-0").is_dir();
            let empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
            if stopped {
                clear(dir)?;
            } else if !empty {
                return Err(Error::NotEmpty { dir: dir.to_owned() });
            }
        }
        Err(error) => return Err(error),
    }
    create_private(dir)
}

/// Removes what a network left: the files that this crate makes, by their names.
fn clear(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let node = name.strip_prefix("node-").is_some_and(|index| index.parse::<usize>().is_ok());
        let removed = match name.as_str() {
            _ if node => fs::remove_dir_all(&path),
            "network.json" | "testnet.json" | "testnet.json.new" => fs::remove_file(&path),
            _ => Ok(()),
        };
        removed.map_err(Error::file("remove", path))?;
    }
    Ok(())
}

fn create_private(dir: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(Error::file("create", dir))
}

/// Makes the network file, with the first node as its bootstrap address; that node's keys are made for it.
/// The network file. Its relays have the same stake each, and so have those that may join later.
fn create_network(plan: &Plan, dir: &Path, port: u16) -> Result<PathBuf, Error> {
    let file = dir.join("network.json");
    let file_text = file.display().to_string();
    let relays = plan.nodes.iter().map(NodePlan::is_relay).chain(std::iter::repeat_n(true, plan.spares));
    let mut stakes = Vec::new();
    for (index, is_relay) in relays.enumerate() {
        if is_relay {
            stakes.push(format!("{}={STAKE}", create_keys(plan, &data_dir(dir, index))?));
        }
    }
    let first = stakes.first().and_then(|stake| stake.split('=').next()).unwrap_or_default();
    let bootstrap = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{first}");
    let (epoch, delay) = (plan.epoch_seconds.to_string(), plan.mean_delay_ms.to_string());
    let create = ["--json", "network", "create", &file_text];
    let parameters = ["--epoch-seconds", &epoch, "--mean-delay-ms", &delay, "--bootstrap", &bootstrap];
    let mut args = [create.as_slice(), &parameters].concat();
    args.extend(stakes.iter().flat_map(|stake| ["--relay", stake.as_str()]));
    run(plan, &args)?;
    Ok(file)
}

/// Makes the keys of a node, and tells its id.
fn create_keys(plan: &Plan, data_dir: &Path) -> Result<String, Error> {
    let printed = run(plan, &["--json", "--data-dir", &data_dir.display().to_string(), "id"])?;
    let id: serde_json::Value = serde_json::from_str(&printed).unwrap_or_default();
    let peer_id = id.get("peer_id").and_then(serde_json::Value::as_str).map(str::to_owned);
    peer_id
        .ok_or_else(|| Error::Command { command: "id".into(), detail: format!("no peer id in `{}`", printed.trim()) })
}

/// A command of the program, to its end; what it printed.
fn run(plan: &Plan, args: &[&str]) -> Result<String, Error> {
    let output = without_settings(&plan.program).args(args).output();
    let output = output.map_err(|source| Error::Start { program: plan.program.clone(), source })?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(Error::Command { command: args.join(" "), detail });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn data_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("node-{index}"))
}

/// What comes after the program's name.
fn arguments(data_dir: &Path, network: &Path, plan: &NodePlan, port: Option<u16>) -> Result<Vec<String>, Error> {
    let port = port.unwrap_or(0);
    let mut args: Vec<String> = ["--data-dir", &data_dir.display().to_string()].map(str::to_owned).into();
    // A node reads this file in its data directory.
    let file = data_dir.join("fog.toml");
    fs::write(&file, settings(plan)).map_err(Error::file("write", &file))?;
    args.extend(["run".into(), "--network".into(), network.display().to_string(), "--no-mdns".into()]);
    args.extend([
        "--listen".into(),
        format!("/ip4/127.0.0.1/tcp/{port}"),
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
    ]);
    args.extend(["--api", "127.0.0.1:0", "--socks", "127.0.0.1:0"].map(str::to_owned));
    let options = [
        ("--roles", plan.roles.clone()),
        ("--cover", plan.cover.clone()),
        ("--send-per-second", plan.send_per_second.map(|rate| rate.to_string())),
        ("--probe-root", plan.probe_root.as_ref().map(|root| root.display().to_string())),
    ];
    for (flag, value) in options {
        args.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    Ok(args)
}

/// What of a plan has no flag.
fn settings(plan: &NodePlan) -> String {
    let mut text = format!("[worker]\n{}", plan.worker.as_deref().unwrap_or(crate::plan::SHARED_HOST));
    if let Some(Faults { loss, delay_ms, reorder, record, results, circuits }) = &plan.faults {
        text += "\n# Faults for a test: this node harms its own links, or lies.\n";
        text += &format!("[faults]\nloss = {loss:?}\ndelay_ms = {delay_ms}\nreorder = {reorder:?}\n");
        text += &format!("record = {record}\ncircuits = {circuits:?}\nresults = {results:?}\n");
    }
    let Exits { policy, private } = &plan.exits;
    if policy.is_some() || *private {
        text += &format!("\n[exit]\nprivate = {private}\n");
    }
    if let Some(policy) = policy {
        text += &format!("policy = {policy:?}\n");
    }
    text
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The hint comes after the error; both are wanted.
    let error = text.lines().rev().find(|line| line.starts_with("error:"));
    error.or_else(|| text.lines().next_back()).unwrap_or("its log is empty").to_owned()
}
