//! The command line: one file per command. All but `run`, `network create`, `doctor`, `backup`, `restore`, `completions` and `testnet`
//! are clients of a running node's local API.
//!
//! Data goes to standard output, everything else to standard error; with `--json` the data is JSON and nothing else. After an error there is
//! one line that says what is wrong and one that says what to do.

mod archive;
mod backup;
mod chat;
mod circuits;
mod client;
mod completions;
mod connect;
mod doctor;
mod error;
mod id;
mod logging;
mod mix;
mod network;
mod output;
mod peers;
mod progress;
mod relays;
mod reputation;
mod restore;
mod run;
mod service;
mod status;
mod task;
mod testnet;
mod worker;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use self::error::CliError;
use self::output::Output;
use crate::{
    config::{Config, Layers, key},
    platform::signals::StopSignals,
};

const AFTER_HELP: &str = "\
Each flag has a variable (--send-per-second: FOG_SEND_PER_SECOND) and a key in fog.toml (send_per_second); flags win over
variables, variables over the file. fog.example.toml shows every key.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no node is running for this data directory, 4 timed out.
Fog is not audited.";

/// A peer-to-peer node: mixnet, messaging, hidden services and compute among peers
#[derive(Debug, Parser)]
#[command(name = "fog", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Keys, store and node.json [default: the platform's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Read this file [default: fog.toml in the data directory, if there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON on standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// off, error, warn, info, debug, trace, or directives such as fog=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How logs are written
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["human", "json"])]
    log_format: Option<String>,
    /// When to give up [default: 30; `mix send` and `task run`: 120]
    #[arg(long, global = true, value_name = "SECONDS")]
    timeout: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground; the first run creates its keys
    Run(Box<run::Flags>),
    /// Network files
    #[command(subcommand)]
    Network(network::Command),
    /// Who this node is, and an invite to it
    Id(id::Flags),
    /// How the running node fares
    Status(status::Flags),
    /// The running node's peers
    Peers,
    /// Connect to a peer
    Connect(connect::Arguments),
    /// Messages through the mixnet
    #[command(subcommand)]
    Mix(mix::Command),
    /// Rooms, groups and direct messages; without a subcommand the terminal interface
    Chat(chat::Arguments),
    /// Servers reachable by name while nobody learns where they are
    #[command(subcommand)]
    Service(service::Command),
    /// The circuits that the running node built
    Circuits,
    /// Computation on other nodes, checked and paid
    #[command(subcommand)]
    Task(task::Command),
    /// This node as a worker for others
    #[command(subcommand)]
    Worker(worker::Command),
    /// What runs modules for a node; started by it alone
    #[command(hide = true)]
    TaskProcess,
    /// The relays that the running node knows
    Relays(relays::Arguments),
    /// What the running node thinks of its peers, by evidence
    Reputation(reputation::Arguments),
    /// Check this host, and say how to mend what is wrong
    Doctor(doctor::Flags),
    /// Write keys and state into a file, sealed with a passphrase
    Backup(backup::Arguments),
    /// Read a backup into a data directory that has no keys
    Restore(restore::Arguments),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Local networks of real processes
    #[command(subcommand)]
    Testnet(testnet::Command),
}

/// What a command works with.
#[derive(Debug)]
struct Context {
    config: Config,
    out: Output,
}

impl Context {
    /// The time limit that the user named, or a command's own.
    fn timeout(&self, default: Duration) -> Duration {
        self.config.timeout.unwrap_or(default)
    }
}

/// When most commands give up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// From now on Ctrl-C ends the program with exit code 0, as it ends `fog run`: for what goes on until then.
fn end_on_signal() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("signals cannot be heard: {error}"), "try again");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = {
        let _inside = runtime.enter();
        StopSignals::listen().map_err(failed)?
    };
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        // Each line was written whole; nothing else is kept.
        std::process::exit(0);
    });
    Ok(())
}

/// Parses the command line, does what it says, and returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output with exit code 0, wrong usage to standard error with 2. A closed pipe needs no word.
            let _closed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // It confines itself before anything else of this program runs.
    if let Command::TaskProcess = &cli.command {
        return task::process();
    }
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    if let Command::Completions(arguments) = &cli.command {
        return completions::run(Output::new(cli.globals.json), arguments, Cli::command());
    }
    let config = Config::load(layers(&cli), cli.globals.config.as_deref())?;
    let context = Context { out: Output::new(config.json), config };
    // A log line would spoil the screen of the terminal interface.
    let level = match &cli.command {
        Command::Run(_) => "info",
        Command::Chat(arguments) if arguments.is_interface() => "off",
        _ => "warn",
    };
    logging::init(&context.config, level);
    match cli.command {
        Command::Run(_) => run::run(context),
        Command::Network(command) => network::run(&context, command),
        Command::Id(_) => id::run(&context),
        Command::Status(flags) => status::run(&context, flags),
        Command::Peers => peers::run(&context),
        Command::Connect(arguments) => connect::run(&context, arguments),
        Command::Mix(command) => mix::run(&context, command),
        Command::Chat(arguments) => chat::run(&context, arguments),
        Command::Service(command) => service::run(&context, command),
        Command::Circuits => circuits::run(&context),
        Command::Task(command) => task::run(&context, command),
        Command::Worker(command) => worker::run(&context, &command),
        Command::TaskProcess => Ok(()),
        Command::Relays(arguments) => relays::run(&context, &arguments),
        Command::Reputation(arguments) => reputation::run(&context, &arguments),
        Command::Doctor(_) => doctor::run(&context),
        Command::Backup(arguments) => backup::run(&context, &arguments),
        Command::Restore(arguments) => restore::run(&context, &arguments),
        Command::Completions(_) => Ok(()),
        Command::Testnet(command) => testnet::run(&command, context.config.json, context.config.timeout),
    }
}

/// The flags as the strongest layer of the configuration.
fn layers(cli: &Cli) -> Layers {
    let mut layers = Layers::default();
    let globals = &cli.globals;
    let mut path = |key, path: &Option<PathBuf>| {
        if let Some(path) = path {
            layers.flag(key, [path.to_string_lossy().into_owned()]);
        }
    };
    path(key::DATA_DIR, &globals.data_dir);
    match &cli.command {
        Command::Run(flags) => flags.add_to(&mut layers),
        Command::Id(flags) => path(key::NETWORK, &flags.network),
        Command::Doctor(flags) => path(key::NETWORK, &flags.network),
        _ => {}
    }
    let texts = [
        (key::LOG_LEVEL, &globals.log_level),
        (key::LOG_FORMAT, &globals.log_format),
        (key::TIMEOUT, &globals.timeout),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            layers.flag(key, [text.clone()]);
        }
    }
    if globals.json {
        layers.flag(key::JSON, ["true".to_owned()]);
    }
    layers
}

#[cfg(test)]
mod tests;
