//! `fog peers`

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{duration, printable, table},
};
use crate::node::report::Peer;

/// Prints the peers.
pub(super) fn run(context: &Context) -> Result<(), CliError> {
    let peers: Vec<Peer> = Client::open(&context.config)?.get("/v1/peers", context.timeout(TIMEOUT))?;
    context.out.value(&peers, |peers| human(peers))
}

fn human(peers: &[Peer]) -> String {
    let rows: Vec<_> = peers
        .iter()
        .map(|peer| {
            [
                peer.peer_id.clone(),
                peer.path.clone(),
                peer.rtt_ms.map_or_else(|| "-".into(), |rtt| format!("{rtt:.1} ms")),
                format!("{:.0}", peer.score),
                duration(peer.connected_s),
                printable(&peer.agent),
                printable(&peer.address),
            ]
        })
        .collect();
    table(["PEER", "PATH", "RTT", "SCORE", "SINCE", "AGENT", "ADDRESS"], &rows)
}
