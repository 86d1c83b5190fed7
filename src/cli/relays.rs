//! `fog relays` and `fog relays snapshot`

use clap::{Args, Subcommand};

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{fields, printable, table},
};
use crate::node::report::{Relay, Snapshot};

/// What `fog relays` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The snapshot that paths are drawn from now
    Snapshot,
}

/// Prints the relays, or their snapshot.
pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let timeout = context.timeout(TIMEOUT);
    match arguments.command {
        None => {
            let relays: Vec<Relay> = client.get("/v1/relays", timeout)?;
            context.out.value(&relays, |relays| list(relays))
        }
        Some(Command::Snapshot) => {
            let snapshot: Snapshot = client.get("/v1/relays/snapshot", timeout)?;
            context.out.value(&snapshot, describe)
        }
    }
}

fn list(relays: &[Relay]) -> String {
    let rows: Vec<_> = relays
        .iter()
        .map(|relay| {
            [
                relay.peer_id.clone(),
                relay.roles.join(","),
                if relay.seated { "yes" } else { "no" }.into(),
                relay.layer.map_or_else(|| "any".into(), |layer| layer.to_string()),
                relay.weight.to_string(),
                relay.expires_at.clone(),
                printable(&relay.addresses.join(" ")),
            ]
        })
        .collect();
    table(["RELAY", "ROLES", "SEATED", "LAYER", "WEIGHT", "EXPIRES", "ADDRESSES"], &rows)
}

fn describe(snapshot: &Snapshot) -> String {
    let certified = if snapshot.certified {
        format!("by {} relays of weight {} of {}", snapshot.signatures, snapshot.signed_weight, snapshot.total_weight)
    } else {
        "no: the live set, as this node sees it".into()
    };
    fields(&[
        ("epoch", snapshot.epoch.to_string()),
        ("relays", snapshot.relays.to_string()),
        ("root", snapshot.root.clone()),
        ("certified", certified),
    ])
}
