//! `fog connect ADDR|INVITE`

use clap::Args;

use super::{CliError, Context, TIMEOUT, client::Client};
use crate::{api::ConnectRequest, node::report::Connected};

/// What `fog connect` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A multiaddress, such as /ip4/192.0.2.1/tcp/4001, or an invite
    #[arg(value_name = "ADDR|INVITE")]
    target: String,
}

/// Connects.
pub(super) fn run(context: &Context, arguments: Arguments) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    let request = ConnectRequest { target: arguments.target, timeout_s: Some(timeout.as_secs()) };
    let connected: Connected = Client::open(&context.config)?.post("/v1/connect", &request, timeout)?;
    context.out.value(&connected, |connected| format!("{} answers in {:.1} ms\n", connected.peer_id, connected.rtt_ms))
}
