//! Rooms, groups and direct conversations of fog-chat's engines: peers come and go, lines lose, clocks are wrong, authors lie; and nine
//! invariants at each honest peer (the tenth: nobody honest is blamed).

mod accounts;
mod cast;
mod epilogue;
mod invariants;
mod node;
mod plan;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use self::{
    invariants::{Findings, INVARIANTS},
    plan::{END, Plan, Role},
    world::{Counted, World},
};
use super::{CHAT, Run, generator, parallel};
use crate::Check;

/// Peers of a world at most, and with `quick`.
pub(super) const MOST_PEERS: usize = 500;
const QUICK_PEERS: usize = 30;

/// What one world showed.
#[derive(Debug, Clone, Default)]
struct Shown {
    seed: u64,
    findings: Findings,
    counted: Counted,
    conversations: usize,
    honest: usize,
    texts: u64,
    forks: usize,
    refused: BTreeMap<String, u64>,
    /// Of everything that happened.
    digest: [u8; 32],
}

pub(super) fn run(run: &Run<'_>) -> Vec<Check> {
    let most = if run.options.quick { QUICK_PEERS } else { MOST_PEERS };
    let plan = Plan::new(run.options.peers.min(most));
    let seed = |at: usize| run.options.seed.wrapping_add(at as u64);
    let shown = parallel(run.options.seeds as usize, |at| live(plan.clone(), seed(at)));
    checks(run, &plan, &shown)
}

/// A world from its beginning to its end.
fn live(plan: Plan, seed: u64) -> Shown {
    let mut world = World::new(plan, generator(CHAT, seed, 0));
    world.populate();
    world.run_until(END);
    let mut findings = invariants::check(&mut world);
    epilogue::forward_secrecy(&mut world, &mut findings);
    let honest = || world.nodes.iter().filter(|node| node.role == Role::Honest);
    let forks: std::collections::BTreeSet<_> = honest().flat_map(|node| &node.log.forked).collect();
    Shown {
        seed,
        digest: world.digest(),
        findings,
        counted: world.counted,
        conversations: world.talks.len(),
        honest: honest().count(),
        texts: world.talks.iter().map(|talk| talk.texts).sum(),
        forks: forks.len(),
        refused: world.refused.clone(),
    }
}

fn checks(run: &Run<'_>, plan: &Plan, shown: &[Shown]) -> Vec<Check> {
    let mut all = Findings::default();
    let mut failed: Vec<Vec<u64>> = vec![Vec::new(); INVARIANTS.len()];
    for one in shown {
        for (at, failed) in failed.iter_mut().enumerate() {
            if one.findings.faults[at] > 0 {
                failed.push(one.seed);
            }
        }
        all.add(one.findings.clone());
    }
    let mut checks: Vec<_> = INVARIANTS
        .iter()
        .enumerate()
        .map(|(at, (name, about))| {
            let mut wrong = all.examples[at].clone();
            if all.looked_at[at] == 0 {
                wrong.push("nothing was looked at".to_owned());
            }
            Check::judged(&run.name(name), &wrong, *about)
                .with("looked_at", all.looked_at[at])
                .with("faults", all.faults[at])
                .with("seeds_failed", failed[at].clone())
        })
        .collect();
    let loads: BTreeMap<_, Value> =
        all.loads.iter().map(|(name, (held, most))| (*name, json!({ "held": held, "most": most }))).collect();
    if let Some(check) = checks.get_mut(invariants::Invariant::BoundedBuffers as usize) {
        check.figures.insert("loads".to_owned(), json!(loads));
    }
    checks.push(told(run, plan, shown));
    checks
}

/// What happened, which shows that something did.
fn told(run: &Run<'_>, plan: &Plan, shown: &[Shown]) -> Check {
    let sum = |of: &dyn Fn(&Shown) -> u64| shown.iter().map(of).sum::<u64>();
    let (texts, crashes, lost) = (sum(&|s| s.texts), sum(&|s| s.counted.crashes), sum(&|s| s.counted.lost));
    let (forks, blamed) = (sum(&|s| s.forks as u64), sum(&|s| s.counted.blamed));
    let mut wrong = Vec::new();
    for (count, what) in
        [(texts, "texts"), (crashes, "crashes"), (lost, "losses"), (forks, "forks"), (blamed, "lies found")]
    {
        if count == 0 {
            wrong.push(format!("there were no {what}"));
        }
    }
    let mut digest = blake3::Hasher::new();
    for one in shown {
        digest.update(&one.digest);
    }
    let mut refused = BTreeMap::<&str, u64>::new();
    shown.iter().flat_map(|one| &one.refused).for_each(|(what, count)| *refused.entry(what).or_default() += count);
    let detail =
        format!("{} worlds of {} peers: {texts} texts, {crashes} crashes, {forks} forks", shown.len(), plan.peers);
    Check::judged(&run.name("what happened"), &wrong, detail)
        .with("worlds", shown.len())
        .with("honest_devices", sum(&|s| s.honest as u64))
        .with("conversations", sum(&|s| s.conversations as u64))
        .with("texts", texts)
        .with("crashes", crashes)
        .with("forks", forks)
        .with("blamed", blamed)
        .with("events", sum(&|s| s.counted.events))
        .with("envelopes_on_lines", sum(&|s| s.counted.gossip))
        .with("requests", sum(&|s| s.counted.requests))
        .with("lost_on_lines", lost)
        .with("refused", json!(refused))
        .with("digest", digest.finalize().to_string())
}
