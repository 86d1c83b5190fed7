//! Epochs of a certified network, while some of its relays leave and others join.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{Check, Deadline, Error, Node, NodePlan, Snapshot, Testnet, report::round, until};

/// A node that joins holds the whole set within this time.
const JOINS_WITHIN: Duration = Duration::from_secs(10);
/// Pings from each node to another one in each epoch.
const PINGS: u32 = 10;
/// How long a ping is waited for.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Of all pings, at most so many per cent may be lost.
const LOSS_PERCENT: f64 = 1.0;

/// Epochs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epochs {
    /// How many.
    pub count: u32,
    /// How many relays leave meanwhile, one after the other, each for one that joins through the first node alone.
    #[serde(default)]
    pub replaced: usize,
    /// Whether every node pings another one all the time.
    #[serde(default)]
    pub pings: bool,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    wrong: Vec<String>,
    certified: u32,
    joined: Vec<Duration>,
    pings: usize,
    lost: usize,
}

impl Seen {
    fn judge_pings(&mut self) {
        if self.pings == 0 {
            self.wrong.push("no node could ping another one".into());
        } else if self.lost as f64 * 100.0 > self.pings as f64 * LOSS_PERCENT {
            self.wrong.push(format!("{} of {} pings were lost", self.lost, self.pings));
        }
    }
}

impl Epochs {
    /// The relays that the network file must name besides those that are started.
    pub fn spares(&self) -> usize {
        self.replaced
    }

    pub(super) fn run(&self, testnet: &mut Testnet) -> Result<Check, Error> {
        let mut seen = Seen::default();
        // The first certified set of a new network comes within its first two epochs.
        until("a certified set", Duration::from_secs(2 * testnet.epoch_seconds + 30), || {
            common_certified_set(testnet).map(drop)
        })?;
        let first = testnet.first()?.status().map(|status| status.epoch.number)?;
        let mut replaced = 0;
        for epoch in first..first + self.count {
            // One leaves and one joins in each of so many epochs.
            let due = (epoch - first + 1) as usize * self.replaced / self.count as usize;
            while replaced < due {
                self.replace(testnet, &mut seen)?;
                replaced += 1;
            }
            if self.pings {
                ping(testnet, &mut seen);
            }
            self.await_next(testnet, epoch, &mut seen)?;
        }
        if self.pings {
            seen.judge_pings();
        }
        let slowest = seen.joined.iter().max().copied().unwrap_or_default();
        let detail = format!("{} epochs: before each all nodes held one certified set", self.count);
        Ok(Check::judged("epochs", &seen.wrong, detail)
            .with("certified", seen.certified)
            .with("replaced", replaced)
            .with("slowest_join_s", round(slowest))
            .with("pings", seen.pings)
            .with("lost", seen.lost))
    }

    /// The oldest relay but the first contact is asked to end; a spare one joins.
    fn replace(&self, testnet: &mut Testnet, seen: &mut Seen) -> Result<(), Error> {
        let leaving = testnet.nodes.iter_mut().skip(1).find(|node| node.plan.is_relay() && node.process().is_some());
        if let Some(node) = leaving {
            node.stop();
        }
        let known = testnet.first()?.status()?.relays.known;
        let began = Instant::now();
        let index = testnet.join(NodePlan::relay())?;
        let client = testnet.nodes[index].client()?;
        let whole = until("a joiner that holds the whole set", JOINS_WITHIN * 2, || {
            let status = client.status().map_err(|error| error.to_string())?;
            let snapshot = client.snapshot().map_err(|error| error.to_string())?;
            let is_whole = status.relays.known >= known && snapshot.certified;
            if is_whole { Ok(()) } else { Err(format!("{status:?} {snapshot:?}")) }
        });
        let took = began.elapsed();
        seen.joined.push(took);
        if whole.is_err() || took > JOINS_WITHIN {
            seen.wrong.push(format!("node {index} did not hold the whole set after {:.1} s", took.as_secs_f64()));
        }
        Ok(())
    }

    /// From five sixths of an epoch on, nodes answer with the next epoch's snapshot: all must have the same, certified.
    fn await_next(&self, testnet: &mut Testnet, epoch: u32, seen: &mut Seen) -> Result<(), Error> {
        let allowed = Duration::from_secs(testnet.epoch_seconds * 2);
        let deadline = Deadline::after(allowed);
        let mut last = "nothing was asked".to_owned();
        while !deadline.passed() {
            let status = testnet.first()?.status()?;
            if status.epoch.number > epoch {
                break;
            }
            match common_certified_set(testnet) {
                Ok(snapshot) if snapshot.epoch == epoch + 1 => {
                    seen.certified += 1;
                    return wait_for(testnet, epoch + 1);
                }
                Ok(snapshot) => last = format!("the snapshot of epoch {} still serves", snapshot.epoch),
                Err(why) => last = why,
            }
            thread::sleep(Duration::from_millis(100));
        }
        seen.wrong.push(format!("no common certified set before epoch {}: {last}", epoch + 1));
        wait_for(testnet, epoch + 1)
    }
}

fn wait_for(testnet: &Testnet, epoch: u32) -> Result<(), Error> {
    let client = testnet.first()?;
    until("the next epoch", Duration::from_secs(testnet.epoch_seconds * 2), || {
        let status = client.status().map_err(|error| error.to_string())?;
        if status.epoch.number >= epoch { Ok(()) } else { Err(format!("epoch {}", status.epoch.number)) }
    })
}

/// The snapshot of all running nodes, if it is one, and certified.
pub(crate) fn common_certified_set(testnet: &Testnet) -> Result<Snapshot, String> {
    let mut common: Option<Snapshot> = None;
    for node in testnet.nodes.iter().filter(|node| node.process().is_some()) {
        let snapshot = node.client().and_then(|client| client.snapshot()).map_err(|error| error.to_string())?;
        if !snapshot.certified {
            return Err(format!("node {} has no certified set of epoch {}", node.index, snapshot.epoch));
        }
        match &common {
            Some(common) if common.root != snapshot.root || common.epoch != snapshot.epoch => {
                return Err(format!("node {} has another set", node.index));
            }
            _ => common = Some(snapshot),
        }
    }
    common.ok_or_else(|| "no node runs".to_owned())
}

/// Every node that runs pings the next one that stands in the set.
fn ping(testnet: &Testnet, seen: &mut Seen) {
    // One that has just joined stands in the next set, or finds a mailbox: until then nothing can be answered to it.
    let is_ready = |node: &&Node| node.client().and_then(|client| client.status()).is_ok_and(|status| status.mix.ready);
    let running: Vec<_> = testnet.nodes.iter().filter(|node| node.process().is_some()).filter(is_ready).collect();
    let known = |peer: &str| testnet.first().and_then(|client| client.is_seated(peer)).unwrap_or(false);
    let targets: Vec<_> = running
        .iter()
        .filter_map(|node| Some(node.client().ok()?.peer_id().to_owned()))
        .filter(|id| known(id))
        .collect();
    let results: Vec<_> = thread::scope(|scope| {
        let asked = running.iter().enumerate().map(|(at, node)| {
            let targets = &targets;
            scope.spawn(move || {
                let client = node.client()?;
                let others: Vec<_> = targets.iter().filter(|id| *id != client.peer_id()).collect();
                let Some(to) = others.get(at % others.len().max(1)) else { return Ok((0, 0)) };
                let lines = client.ping(to, PINGS, PING_TIMEOUT)?;
                Ok((lines.len(), lines.iter().filter(|line| line.rtt_ms.is_none()).count()))
            })
        });
        asked.collect::<Vec<_>>().into_iter().map(|thread| thread.join()).collect()
    });
    for result in results {
        match result {
            Ok(Ok((pings, lost))) => {
                seen.pings += pings;
                seen.lost += lost;
            }
            Ok(Err(error)) => seen.wrong.push(Error::to_string(&error)),
            Err(_) => seen.wrong.push("a thread that pinged ended early".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_that_were_lost_or_never_sent_are_wrong() {
        let is_wrong = |pings, lost| {
            let mut seen = Seen { pings, lost, ..Seen::default() };
            seen.judge_pings();
            !seen.wrong.is_empty()
        };
        assert!(is_wrong(0, 0) && is_wrong(100, 2));
        assert!(!is_wrong(100, 1) && !is_wrong(100, 0));
    }
}
