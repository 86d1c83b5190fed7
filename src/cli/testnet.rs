//! `fog testnet …`: local networks of real processes of this same program. All of it is in the crate `fog-testnet`; here are its flags and
//! what it prints.

use std::{env, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use fog_testnet::{Check, Error, Interruption, Plan, Report, Testnet, demo::Demo, scenario::Scenario, sim};
use serde_json::json;

use super::{CliError, output::Output};
use crate::config::default_data_dir;

/// What can be done with local networks.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Bring a network up and keep it until Ctrl-C, or until `down` with --detach
    Up(Up),
    /// Bring a network up, show every system on it with real input, take it down
    Demo(DemoFlags),
    /// Do to a network what a file says, or a scenario that `list` names
    Scenario {
        /// A TOML file, or the name of a scenario that comes with the program
        file: String,
    },
    /// The scenarios that come with the program
    List,
    /// Thousands of peers in this process, without sockets, in virtual time
    Sim(SimFlags),
    /// End a network that was left running
    Down {
        #[command(flatten)]
        place: Place,
    },
}

/// Where a network is kept.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The network's directory: its file, its nodes' data and logs [default: `testnet` in the platform's data folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub(super) struct Up {
    /// How many nodes
    #[arg(short, long = "nodes", value_name = "N", default_value_t = 8)]
    nodes: usize,
    #[command(flatten)]
    place: Place,
    /// The length of an epoch
    #[arg(long, value_name = "S", default_value_t = Plan::EPOCH_SECONDS)]
    epoch_seconds: u64,
    /// The mean delay at each mix
    #[arg(long, value_name = "M", default_value_t = Plan::MEAN_DELAY_MS)]
    mean_delay_ms: u64,
    /// Return when all are ready, and leave them running
    #[arg(long)]
    detach: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoFlags {
    /// How many relays; a client without roles is added
    #[arg(short, long = "nodes", value_name = "N", default_value_t = 8)]
    nodes: usize,
}

/// Flags of `sim`.
#[derive(Debug, Args)]
pub(super) struct SimFlags {
    /// How many relays, or people of `chat` (20 to 500) [default: 1000; with --chat 100]
    #[arg(long, value_name = "N")]
    peers: Option<usize>,
    /// Where all randomness comes from: one seed, one report
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Epochs of each run [default: as each scenario needs]
    #[arg(long, value_name = "E")]
    epochs: Option<u32>,
    /// The adversary's shares of the weight
    #[arg(long, value_name = "F", value_delimiter = ',', default_values_t = [0.05, 0.10, 0.20, 0.33])]
    share: Vec<f64>,
    /// What is simulated: `all`, or names; a name that does not exist is answered with those that do
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values_t = ["all".to_owned()])]
    scenario: Vec<String>,
    /// Chat: the same as --scenario chat
    #[arg(long, conflicts_with = "scenario")]
    chat: bool,
    /// VRF keys that `ground-keys` tries (a million take a minute or two)
    #[arg(long, value_name = "K", default_value_t = 20_000)]
    keys: u32,
    /// How many worlds of `chat`, each with the seed after the last one's
    #[arg(long, value_name = "W", default_value_t = 1)]
    seeds: u32,
    /// A tenth of the runs, in a tenth of the time
    #[arg(long)]
    quick: bool,
}

impl Place {
    fn dir(&self) -> Result<PathBuf, CliError> {
        let default = || default_data_dir().map(|data| data.join("testnet"));
        self.dir.clone().or_else(default).ok_or_else(|| {
            CliError::usage("this system has no home directory to keep a testnet in", "name a directory with --dir")
        })
    }
}

/// Runs it. `json` prints the JSON of INTERFACE; `timeout` is how long a network may take to be ready.
pub(super) fn run(command: &Command, json: bool, timeout: Option<Duration>) -> Result<(), CliError> {
    let ready_within = timeout.unwrap_or(Duration::from_secs(60));
    match command {
        Command::Up(flags) => up(flags, json, ready_within),
        Command::Demo(flags) => {
            let _interruption = Interruption::ends_everything();
            let demo = Demo { program: program()?, relays: flags.nodes, ready_within };
            let report = demo.run(&mut progress, &mut shown).map_err(failure)?;
            finish(&report, json)
        }
        Command::Scenario { file } => scenario(file, json),
        Command::List => list(json),
        Command::Sim(flags) => simulate(flags, json),
        Command::Down { place } => {
            let dir = place.dir()?;
            let ended = fog_testnet::down(&dir).map_err(failure)?;
            let text = format!("ended {ended} processes; their data and logs stay in {}\n", dir.display());
            Output::new(json).value(&json!({ "dir": dir, "ended": ended }), |_| text)
        }
    }
}

fn up(flags: &Up, json: bool, ready_within: Duration) -> Result<(), CliError> {
    let interruption = Interruption::ends_everything();
    let mut plan = Plan::new(program()?, flags.place.dir()?, flags.nodes);
    plan.epoch_seconds = flags.epoch_seconds;
    plan.mean_delay_ms = flags.mean_delay_ms;
    plan.ready_within = ready_within;
    let mut testnet = Testnet::up(&plan, &mut progress).map_err(failure)?;
    let state = testnet.save().map_err(failure)?;
    let mut text =
        format!("{} nodes are ready after {:.1} s in {}\n", state.nodes.len(), state.ready_s, state.dir.display());
    for node in &state.nodes {
        text += &format!("  {}  {}  {}  pid {}\n", node.index, node.peer_id, node.api, node.pid);
    }
    if let [first, second, ..] = state.nodes.as_slice() {
        let dir = |node: &fog_testnet::NodeState| node.data_dir.display().to_string();
        text += &format!("try: fog --data-dir {} mix send {} hello\n", dir(first), second.peer_id);
        text += &format!("     fog --data-dir {} mix recv\n", dir(second));
    }
    Output::new(json).value(&state, |_| text)?;
    drop(interruption);
    if flags.detach {
        testnet.detach().map_err(failure)?;
        return Ok(());
    }
    progress("Ctrl-C ends the network");
    fog_testnet::wait_for_interrupt().map_err(failure)?;
    let (nodes, bad) = testnet.down().map_err(failure)?;
    if bad > 0 {
        let message = format!("{bad} of {nodes} nodes did not end with exit code 0");
        return Err(CliError::failed(message, "read fog.log in their data directories"));
    }
    Ok(())
}

fn scenario(file: &str, json: bool) -> Result<(), CliError> {
    let _interruption = Interruption::ends_everything();
    let scenario = Scenario::load(file).map_err(failure)?;
    let dir = env::temp_dir().join(format!("fog-scenario-{}-{}", scenario.name, std::process::id()));
    let report = scenario.run(&program()?, &dir, &mut progress, &mut shown).map_err(failure)?;
    if report.ok() {
        std::fs::remove_dir_all(&dir)
            .map_err(|e| CliError::failed(format!("cannot remove {}: {e}", dir.display()), ""))?;
    } else {
        progress(&format!("the nodes' logs are kept in {}", dir.display()));
    }
    finish(&report, json)
}

fn list(json: bool) -> Result<(), CliError> {
    let scenarios = Scenario::list().map_err(failure)?;
    let text: String = scenarios.iter().map(|(name, about)| format!("{name:18}{about}\n")).collect();
    let value: Vec<_> = scenarios.iter().map(|(name, about)| json!({ "name": name, "about": about })).collect();
    Output::new(json).value(&value, |_| text)
}

fn simulate(flags: &SimFlags, json: bool) -> Result<(), CliError> {
    let scenarios = if flags.chat { vec![sim::CHAT.to_owned()] } else { flags.scenario.clone() };
    let options = sim::Options {
        peers: flags.peers.unwrap_or(if flags.chat { 100 } else { 1_000 }),
        seed: flags.seed,
        epochs: flags.epochs,
        shares: flags.share.clone(),
        scenarios,
        keys: flags.keys,
        seeds: flags.seeds,
        quick: flags.quick,
    };
    let report = sim::run(&options, &mut shown).map_err(failure)?;
    Output::new(json).value(&report, sim::Report::table)?;
    if report.report.ok() {
        return Ok(());
    }
    Err(CliError::failed("a bound did not hold", "the table says which; with --json are all figures"))
}

fn program() -> Result<PathBuf, CliError> {
    env::current_exe().map_err(|e| CliError::failed(format!("cannot find this program: {e}"), ""))
}

/// Progress goes to standard error, as data is on standard output.
fn progress(line: &str) {
    eprintln!("{line}");
}

fn shown(check: &Check) {
    let mark = if check.ok { "ok" } else { "FAILED" };
    progress(&format!("  {}: {mark}", check.name));
}

fn finish(report: &Report, json: bool) -> Result<(), CliError> {
    Output::new(json).value(report, Report::table)?;
    if report.ok() {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|check| !check.ok).count();
    let message = format!("{failed} of {} checks did not hold", report.checks.len());
    Err(CliError::failed(message, "the table says which; the nodes' logs were kept"))
}

fn failure(error: Error) -> CliError {
    let (message, hint) = (error.to_string(), error.hint());
    match error {
        _ if error.is_timeout() => CliError::timed_out(message, hint),
        Error::Plan(_) => CliError::usage(message, hint),
        _ => CliError::failed(message, hint),
    }
}
