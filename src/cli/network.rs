//! `fog network create`

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use ed25519_dalek::SigningKey;
use fog_base::{Network, NetworkId, NodeId};
use fog_directory::core::certificate::electorate::Electorate;
use libp2p::Multiaddr;
use serde_json::json;

use super::{CliError, Context, output::fields};
use crate::keys::sealing;

/// What can be done with network files.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the file of a new network: whoever has it can join
    Create {
        /// The file to write; it must not exist
        file: PathBuf,
        /// What people call it [default: the file's name]
        #[arg(long)]
        name: Option<String>,
        /// How long mix keys and the relay snapshot are used
        #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
        epoch_seconds: u64,
        /// How long a packet waits at each mix, on average
        #[arg(long, value_name = "MS", default_value_t = 50)]
        mean_delay_ms: u64,
        /// A genesis relay and its stake
        #[arg(long = "relay", value_name = "PEER=STAKE", num_args = 1.., value_parser = relay)]
        relays: Vec<(NodeId, u64)>,
        /// A first contact
        #[arg(long, value_name = "ADDR", num_args = 1..)]
        bootstrap: Vec<Multiaddr>,
    },
}

fn relay(text: &str) -> Result<(NodeId, u64), String> {
    let (peer, stake) = text.split_once('=').ok_or("it takes PEER=STAKE")?;
    let peer = peer.parse().map_err(|error| format!("{error}"))?;
    let stake = stake.parse().map_err(|_| "the stake is a whole number")?;
    Ok((peer, stake))
}

/// Creates a network file.
pub(super) fn run(context: &Context, command: Command) -> Result<(), CliError> {
    let Command::Create { file, name, epoch_seconds, mean_delay_ms, relays, bootstrap } = command;
    let random = || sealing::random().map_err(|error| CliError::failed(error.to_string(), "try again"));
    let network = Network {
        name: name.unwrap_or_else(|| file.file_stem().unwrap_or_default().to_string_lossy().into_owned()),
        id: NetworkId(random()?),
        epoch_length: Duration::from_secs(epoch_seconds),
        mean_delay: Duration::from_millis(mean_delay_ms),
        genesis: relays,
        bootstrap: bootstrap.iter().map(Multiaddr::to_string).collect(),
    };
    // As every node of it will: a file that none can run is of no use.
    if !network.genesis.is_empty()
        && let Err(error) = Electorate::genesis(&network)
    {
        let message = format!("these relays cannot certify anything: {error}");
        return Err(CliError::usage(
            message,
            "only the proportions of the stakes count: give smaller numbers, each relay once",
        ));
    }
    // The key signs this file and is forgotten: a network's parameters never change.
    let text = network
        .to_file(&SigningKey::from_bytes(&random()?))
        .map_err(|error| CliError::usage(error.to_string(), "`fog network create --help` lists the parameters"))?;
    write_new(&file, &text)?;
    let created = json!({ "network": network.name, "id": network.id.to_string(), "file": file });
    context.out.value(&created, |_| {
        let file = file.display();
        fields(&[
            ("network", network.name.clone()),
            ("id", network.id.to_string()),
            ("file", file.to_string()),
            ("join it", format!("fog run --network {file}")),
        ])
    })
}

fn write_new(file: &Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        let hint = if error.kind() == std::io::ErrorKind::AlreadyExists {
            "a network's file is never overwritten; name another, or move it away"
        } else {
            "see that the directory exists and is yours"
        };
        CliError::failed(format!("`{}` cannot be created: {error}", file.display()), hint)
    };
    let mut created = std::fs::File::create_new(file).map_err(failed)?;
    let written = created.write_all(text.as_bytes()).and_then(|()| created.sync_all());
    written.map_err(|error| {
        // Half a file would be in the way of the next attempt.
        let _left_over = std::fs::remove_file(file);
        failed(error)
    })
}
