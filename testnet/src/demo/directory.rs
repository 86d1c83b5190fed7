//! Who the relays are: a set that the seats of the last one certified, seats that anybody can verify, a relay that joins, and the
//! same cores with a thousand relays in virtual time.

use std::time::{Duration, Instant};

use super::Stage;
use crate::{Check, Error, NodePlan, report::round, scenario, sim, until};

/// A node that joins through one other holds the whole set within this time.
const JOINS_WITHIN: Duration = Duration::from_secs(10);
/// What is simulated here; `fog testnet sim` has more.
const SIMULATED: [&str; 2] = ["captured-paths", "loop-droppers"];

/// All nodes hold one certified set, and every seat of it is valid.
pub(super) fn certified(stage: &Stage) -> Result<Check, Error> {
    let began = Instant::now();
    // The first set of a network is certified within its first two epochs.
    let allowed = Duration::from_secs(2 * stage.testnet.epoch_seconds + 30);
    let snapshot =
        until("one certified set at every node", allowed, || scenario::common_certified_set(&stage.testnet))?;
    let waited = began.elapsed();
    let client = stage.testnet.nodes[stage.client()].client()?;
    let (mut wrong, mut valid) = (Vec::new(), 0);
    for relay in client.relays()? {
        match client.verify_seat(&relay) {
            Ok(seat) if seat.proof_ok && seat.seated => valid += 1,
            Ok(seat) => wrong.push(format!("the seat of {relay}: {seat:?}")),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    let detail =
        "all nodes hold one set that more than two thirds of the seats signed, and every ticket and seat verifies";
    Ok(Check::judged("certified relays", &wrong, detail)
        .with("epoch", snapshot.epoch)
        .with("signatures", snapshot.signatures)
        .with("signed_weight", snapshot.signed_weight)
        .with("total_weight", snapshot.total_weight)
        .with("valid_seats", valid)
        .with("waited_s", round(waited)))
}

/// A relay joins through the first node alone.
pub(super) fn joins(stage: &mut Stage) -> Result<Check, Error> {
    let known = stage.testnet.first()?.status()?.relays.known;
    let began = Instant::now();
    let index = stage.testnet.join(NodePlan::relay())?;
    let client = stage.testnet.nodes[index].client()?;
    until("a joiner that holds the whole set", JOINS_WITHIN * 3, || {
        let status = client.status().map_err(|error| error.to_string())?;
        let snapshot = client.snapshot().map_err(|error| error.to_string())?;
        let is_whole = status.relays.known >= known && snapshot.certified;
        if is_whole { Ok(()) } else { Err(format!("{status:?} {snapshot:?}")) }
    })?;
    let took = began.elapsed();
    let wrong = if took <= JOINS_WITHIN { Vec::new() } else { vec![format!("it took {:.1} s", took.as_secs_f64())] };
    stage.testnet.nodes[index].stop();
    Ok(Check::judged("a relay joins", &wrong, "it knows one address, and holds the chain and the certified set")
        .with("relays", known)
        .with("seconds", round(took)))
}

/// A thousand relays without sockets.
pub(super) fn simulated() -> Result<Check, Error> {
    let scenarios = SIMULATED.map(str::to_owned).to_vec();
    let report = sim::run(&sim::Options { quick: true, scenarios, ..sim::Options::default() }, &mut |_| {})?.report;
    let failed = report.checks.iter().filter(|check| !check.ok);
    let wrong: Vec<_> = failed.map(|check| format!("{}: {}", check.name, check.detail)).collect();
    let detail = "a thousand relays in virtual time: paths captured by hostile weight, relays that drop packets and lose their seats";
    Ok(Check::judged("simulator", &wrong, detail).with("checks", report.checks.len()))
}
