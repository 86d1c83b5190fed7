//! `fog status`

use std::{io::IsTerminal, thread, time::Duration};

use clap::Args;

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{duration, fields, size},
};
use crate::node::report::Status;

/// What `fog status` takes.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Print it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Prints the status, once or every second.
pub(super) fn run(context: &Context, flags: Flags) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    if flags.watch {
        super::end_on_signal()?;
    }
    let mut is_first = true;
    loop {
        let asked = client.get("/v1/status", context.timeout(TIMEOUT));
        // A node that has answered before and does not any more stops.
        let stops = |error: CliError| if is_first || error.is_timed_out() { error } else { client.stopped() };
        let status: Status = asked.map_err(stops)?;
        is_first = false;
        if flags.watch && !context.out.is_json() && std::io::stdout().is_terminal() {
            context.out.text("\x1b[H\x1b[2J")?;
        }
        context.out.value(&status, human)?;
        if !flags.watch {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn human(status: &Status) -> String {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(",") };
    let state = serde_json::to_value(status.state).ok().and_then(|state| state.as_str().map(str::to_owned));
    let mix = &status.mix;
    let dropped: u64 = mix.dropped.values().sum();
    let reasons: Vec<_> =
        mix.dropped.iter().filter(|(_, n)| **n > 0).map(|(reason, n)| format!("{reason} {n}")).collect();
    let limits: Vec<_> =
        status.limits.iter().map(|(name, limit)| format!("{name} {}/{}", limit.used, limit.max)).collect();
    let mut lines = vec![
        ("peer id", status.peer_id.clone()),
        ("version", status.version.clone()),
        ("network", format!("{} ({:.16}…)", status.network, status.network_id)),
        ("state", format!("{}, for {}", state.unwrap_or_default(), duration(status.uptime_s))),
        ("epoch", format!("{}, ends in {}", status.epoch.number, duration(status.epoch.ends_in_s))),
        (
            "peers",
            format!(
                "{} ({} lan, {} direct, {} relayed)",
                status.peers.connected, status.peers.lan, status.peers.direct, status.peers.relayed
            ),
        ),
        ("relays", format!("{} known, {} seated", status.relays.known, status.relays.seated)),
        ("roles", list(&status.roles)),
        ("certified", format!("{} (sybil resistance: {})", status.certified, status.sybil_resistance)),
        ("mixnet", if mix.ready { "ready" } else { "not ready: too few relays for a path" }.to_owned()),
        (
            "packets",
            format!(
                "{} received, {} forwarded, {} delivered, {} sent ({} cover), {} wait",
                mix.received, mix.forwarded, mix.delivered, mix.sent, mix.cover_sent, mix.queue
            ),
        ),
        ("dropped", if dropped == 0 { "0".to_owned() } else { format!("{dropped} ({})", reasons.join(", ")) }),
        ("memory", size(status.memory_bytes)),
        ("limits", limits.join(", ")),
    ];
    if !status.roles_waiting.is_empty() {
        lines.insert(8, ("waiting", format!("{} (until others can reach this node)", list(&status.roles_waiting))));
    }
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    fields(&lines)
}
