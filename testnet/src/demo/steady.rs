//! Nodes at rest, and the rate that full cover keeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::Stage;
use crate::{Check, Error, report::round};

/// Long enough that the figures mean something.
pub(super) const WINDOW: Duration = Duration::from_secs(6);
/// What a resting node may keep in memory (the figure).
const MEMORY: u64 = 90 * 1024 * 1024;
/// What a relay of the demo may take of one core: loops of eight nodes and a client's full cover pass through it. The figure for a
/// node without cover is held by the scenario `idle`.
const CPU: f64 = 0.10;
/// `--send-per-second`, by default.
const SEND_PER_SECOND: f64 = 50.0;
/// Standard deviations of a Poisson count that a rate may be away from its mean: chance exceeds it once in 15,000 runs.
const DEVIATIONS: f64 = 4.0;

/// What was seen of the nodes while they were left alone.
pub(super) struct Rest {
    memory_max: u64,
    cpu_mean: f64,
    cpu_max: f64,
    pub(super) client_packets_per_s: f64,
}

/// Leaves all nodes alone for a while. A time is what is measured here, so this is no wait for a condition.
pub(super) fn at_rest(stage: &Stage) -> Result<Rest, Error> {
    let usages = || -> Vec<_> {
        stage.testnet.nodes.iter().filter_map(|node| node.process().and_then(crate::Process::usage)).collect()
    };
    let client = stage.testnet.nodes[stage.client()].client()?;
    let (began, before, sent) = (Instant::now(), usages(), client.status()?.mix.sent);
    thread::sleep(WINDOW);
    let (after, sent_after, seconds) = (usages(), client.status()?.mix.sent, began.elapsed().as_secs_f64());
    let cores: Vec<_> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.cpu_ms.saturating_sub(before.cpu_ms) as f64 / 1000.0 / seconds)
        .collect();
    Ok(Rest {
        memory_max: after.iter().map(|usage| usage.memory_bytes).max().unwrap_or(0),
        cpu_mean: cores.iter().sum::<f64>() / cores.len().max(1) as f64,
        cpu_max: cores.iter().copied().fold(0.0, f64::max),
        client_packets_per_s: (sent_after - sent) as f64 / seconds,
    })
}

impl Rest {
    pub(super) fn check(&self) -> Result<Check, Error> {
        let mut wrong = Vec::new();
        if self.memory_max == 0 || self.memory_max > MEMORY {
            wrong.push(format!("a node keeps {} MiB in memory", self.memory_max >> 20));
        }
        if self.cpu_mean > CPU {
            wrong.push(format!("a node takes {:.1} % of a core", self.cpu_mean * 100.0));
        }
        let detail = "memory and CPU of the nodes while they only send cover traffic";
        let percent = |fraction: f64| (fraction * 1000.0).round() / 10.0;
        Ok(Check::judged("idle node", &wrong, detail)
            .with("memory_max_mib", self.memory_max >> 20)
            .with("cpu_percent_mean", percent(self.cpu_mean))
            .with("cpu_percent_max", percent(self.cpu_max)))
    }
}

/// The rate of a sender whose packets leave by the clock alone.
pub(super) struct Rate {
    pub(super) packets: u64,
    pub(super) over: Duration,
}

/// Whether the client with full cover sent as many packets while it had nothing to say as while it sent 1 MiB.
pub(super) fn constant_rate(resting: Option<f64>, busy: Option<Rate>) -> Check {
    const NAME: &str = "full cover";
    let (Some(resting), Some(busy)) = (resting, busy) else {
        return Check::failed(NAME, "the rates could not be measured");
    };
    let seconds = busy.over.as_secs_f64();
    let busy_rate = busy.packets as f64 / seconds;
    let mut wrong = Vec::new();
    for (what, rate, seconds) in [("at rest", resting, WINDOW.as_secs_f64()), ("while sending", busy_rate, seconds)] {
        let allowed = DEVIATIONS * (SEND_PER_SECOND / seconds).sqrt();
        if (rate - SEND_PER_SECOND).abs() > allowed {
            wrong.push(format!("{rate:.1} packets/s {what}, {SEND_PER_SECOND} ± {allowed:.1} expected"));
        }
    }
    let tenth = |rate: f64| (rate * 10.0).round() / 10.0;
    Check::judged(NAME, &wrong, "a client's packets leave at one rate whether it has something to say or not")
        .with("packets_per_s_at_rest", tenth(resting))
        .with("packets_per_s_sending", tenth(busy_rate))
        .with("seconds_sending", round(busy.over))
}
