//! What the nodes think of each other: evidence of their own, and a killed relay that falls behind the others.

use std::time::Duration;

use super::{Stage, faults::victim};
use crate::{Check, Error, until};

/// How long the end of a link and the dials that fail may take to be noticed.
const PATIENCE: Duration = Duration::from_secs(30);
/// What everybody begins with (fog-reputation's README).
const PRIOR: f64 = 1.0 / 3.0;

/// The means of availability that one node sees: of the killed relay, and the least of all others.
struct View {
    killed: f64,
    least: f64,
    relays: usize,
}

/// Every running relay has evidence on every other one, and ranks those that run above the one that was killed.
pub(super) fn killed_relay(stage: &mut Stage) -> Result<Check, Error> {
    let victim = victim(stage);
    let killed = stage.testnet.nodes[victim].client()?.peer_id().to_owned();
    let watchers: Vec<_> = (0..stage.relays).filter(|index| *index != victim).collect();
    let views = until("evidence about every relay", PATIENCE, || {
        let view = |index: &usize| view(stage, *index, &killed);
        watchers.iter().map(view).collect::<Result<Vec<_>, String>>()
    })?;
    let least = views.iter().map(|view| view.least).fold(1.0, f64::min);
    let most = views.iter().map(|view| view.killed).fold(0.0, f64::max);
    let relays = views.iter().map(|view| view.relays).min().unwrap_or(0);
    let tenth = |mean: f64| (mean * 1000.0).round() / 1000.0;
    let detail = "every relay has evidence about every other, and ranks the killed one below those that run";
    Ok(Check::judged("reputation", &[], detail)
        .with("known_by_each", relays)
        .with("running_mean_least", tenth(least))
        .with("killed_mean_most", tenth(most)))
}

fn view(stage: &Stage, index: usize, killed: &str) -> Result<View, String> {
    let lines =
        stage.testnet.nodes[index].client().and_then(|client| client.reputation()).map_err(|e| e.to_string())?;
    let known: Vec<_> = lines.iter().filter(|line| line.kind == "availability" && line.evidence > 0.0).collect();
    let of_killed = known.iter().find(|line| line.peer_id == killed).map(|line| line.mean);
    let others = known.iter().filter(|line| line.peer_id != killed).map(|line| line.mean);
    let (relays, least) = (known.len(), others.fold(1.0, f64::min));
    let Some(of_killed) = of_killed else { return Err(format!("node {index} knows nothing of the killed relay")) };
    if relays < stage.relays - 1 {
        return Err(format!("node {index} has evidence about {relays} relays"));
    }
    if least <= PRIOR || of_killed >= least {
        return Err(format!("node {index}: killed {of_killed:.3}, the least of the others {least:.3}"));
    }
    Ok(View { killed: of_killed, least, relays })
}
