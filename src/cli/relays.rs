//! `fog relays`, `fog relays snapshot` and `fog relays verify`

use clap::{Args, Subcommand};
use fog_base::NodeId;

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{fields, printable, table},
};
use crate::node::report::{Relay, Seat, Snapshot};

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
    /// Check a relay's lottery ticket and seat from public data alone
    Verify {
        /// The relay: its id, its invite, or a contact's name
        peer: String,
    },
}

/// Prints the relays, or their snapshot.
pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let timeout = context.timeout(TIMEOUT);
    match &arguments.command {
        None => {
            let relays: Vec<Relay> = client.get("/v1/relays", timeout)?;
            context.out.value(&relays, |relays| list(relays))
        }
        Some(Command::Snapshot) => {
            let snapshot: Snapshot = client.get("/v1/relays/snapshot", timeout)?;
            context.out.value(&snapshot, describe)
        }
        Some(Command::Verify { peer }) => {
            let peer: NodeId = peer.parse().map_err(|_| {
                CliError::usage(format!("`{}` is not the id of a relay", printable(peer)), "`fog relays` lists relays")
            })?;
            let seat: Seat = client.get(&format!("/v1/relays/{peer}/seat"), timeout)?;
            context.out.value(&seat, describe_seat)?;
            if seat.proof_ok {
                return Ok(());
            }
            Err(CliError::failed(
                format!("the seat of {peer} does not verify"),
                "do not rely on it; `fog status` says more",
            ))
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
                relay.stake.to_string(),
                relay.standing.map_or_else(|| "-".into(), |part| format!("{part:.3}")),
                relay.expires_at.clone(),
                printable(&relay.addresses.join(" ")),
            ]
        })
        .collect();
    table(["RELAY", "ROLES", "SEATED", "LAYER", "WEIGHT", "STAKE", "CARRIES", "EXPIRES", "ADDRESSES"], &rows)
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

fn describe_seat(seat: &Seat) -> String {
    fields(&[
        ("relay", seat.peer_id.clone()),
        ("epoch", seat.epoch.to_string()),
        ("proof", if seat.proof_ok { "valid" } else { "NOT VALID" }.into()),
        ("seated", if seat.seated { "yes" } else { "no" }.into()),
        ("layer", seat.layer.map_or_else(|| "any".into(), |layer| layer.to_string())),
        ("output", seat.output.clone().unwrap_or_else(|| "-".into())),
    ])
}
