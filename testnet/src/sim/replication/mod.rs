//! The whole set at every node, and its certificate: gossip, exchange and council of full nodes over virtual lines.
//!
//! Signatures of descriptors are verified once and remembered (`node.rs`), as thousands of descriptors at hundreds of
//! nodes would be millions of verifications. Tickets, ballots and certificates are verified by every node. Left out of
//! gossipsub are its own repairs (announcements cost bytes here and bring nothing: the exchange repairs) and scores.

mod node;
mod world;

use std::{collections::HashSet, time::Duration};

use fog_base::Epoch;
use fog_directory::core::council::Serving;
use serde_json::{Value, json};

use self::world::{GOSSIPSUB, Gossip, Plan, Traffic, World};
use super::{
    Run, parallel,
    relays::EPOCH_LENGTH,
    stats::{digits, spread},
    swarm::Presence,
};
use crate::Check;

/// Full nodes at ten thousand relays.
const FULL_NODES: usize = 300;
/// Bytes per second that a node spends at the default epoch, in and out, and how many times the set's size.
const MOST_PER_SECOND: f64 = 8_192.0;
const MOST_SETS: f64 = 3.0;
/// From so many relays on: in smaller networks a set is small beside what certifies it.
const JUDGED: usize = 1_000;
/// Two lines for each node, no sender and no signature beside the descriptor's own, and one announcement of a short name.
const THRIFTY: Gossip = Gossip { mesh: 2, overhead: 60, announced: 2 * 20 };
/// No gossip of descriptors.
const NONE: Gossip = Gossip { mesh: 0, overhead: 0, announced: 0 };
/// The other ways, of which the figures are shown.
const WAYS: [(&str, Gossip); 3] = [
    ("thrifty gossip, a mesh of 4", Gossip { mesh: 4, ..THRIFTY }),
    ("gossipsub as it comes", GOSSIPSUB),
    ("exchange alone", NONE),
];

fn plan(run: &Run<'_>) -> Plan {
    let relays = if run.options.quick { run.options.peers.min(120) } else { run.options.peers.min(10_000) };
    Plan {
        full_nodes: (relays * FULL_NODES / 10_000).clamp(12, FULL_NODES),
        relays,
        epoch: EPOCH_LENGTH,
        connections: 16,
        gossip: THRIFTY,
        loss: 0.01,
        partitions: Vec::new(),
    }
}

/// For what is about certificates: few nodes, few relays.
fn small(full_nodes: usize) -> Plan {
    Plan {
        full_nodes,
        relays: full_nodes + 20,
        epoch: Duration::from_secs(600),
        connections: 8,
        gossip: GOSSIPSUB,
        loss: 0.01,
        partitions: Vec::new(),
    }
}

/// What an epoch left behind.
#[derive(Debug)]
struct EpochShown {
    epoch: Epoch,
    /// Nodes that hold every descriptor: at the witness time, the cut-off, and the end.
    complete: [usize; 3],
    /// The roots of the set of `epoch` at each node, when it begins.
    roots: Vec<Option<[u8; 32]>>,
}

impl EpochShown {
    /// How many nodes have a certified set, and how many different ones there are.
    fn certified(&self, nodes: &[usize]) -> (usize, usize) {
        let roots: Vec<_> = nodes.iter().filter_map(|node| self.roots[*node]).collect();
        (roots.len(), roots.iter().collect::<HashSet<_>>().len())
    }

    fn json(&self, nodes: &[usize]) -> Value {
        let (certified, roots) = self.certified(nodes);
        json!({ "complete_at_witness": self.complete[0], "complete_at_cut_off": self.complete[1],
            "complete_at_end": self.complete[2], "certified": certified, "roots": roots })
    }
}

/// Epoch number `number` passes. `nodes` are those that are looked at.
fn pass(world: &mut World, number: u32, nodes: &[usize]) -> EpochShown {
    let (begin, end) = (world.plan.epoch * number, world.plan.epoch * (number + 1));
    let next = world.epoch(begin).next();
    let table = world.timetable();
    let since = |moment| begin + fog_base::UnixMillis::since(moment, world.unix(begin));
    let moments = [since(table.witness(next)), since(table.cut_off(next)), end];
    let before = table.cut_off(next).0;
    world.publish_all(begin);
    let mut complete = [0; 3];
    for (complete, moment) in complete.iter_mut().zip(moments) {
        world.run_until(moment);
        let whole = world.published.1;
        let holds = |node: &&usize| {
            world.nodes[**node].live.covering(next, before).filter(|d| d.epoch().next() == next).count() >= whole
        };
        *complete = nodes.iter().filter(holds).count();
    }
    let root = |node: &node::Node| node.council.certified(next).map(|certified| certified.set.root());
    EpochShown { epoch: next, complete, roots: world.nodes.iter().map(root).collect() }
}

/// Ten thousand descriptors at three hundred nodes.
pub(super) fn whole_set(run: &Run<'_>) -> Vec<Check> {
    vec![whole_set_with(run, 0, ("thrifty gossip", THRIFTY), true)]
}

/// The same in other ways of gossip, whose bytes are not bounded.
pub(super) fn gossip_ways(run: &Run<'_>) -> Vec<Check> {
    parallel(WAYS.len(), |way| whole_set_with(run, way as u64, WAYS[way], false))
}

/// The last one is looked at: by then the lottery has seated who certifies, and seats report their loops.
const EPOCHS: u32 = 3;

fn whole_set_with(run: &Run<'_>, part: u64, (name, gossip): (&str, Gossip), is_judged: bool) -> Check {
    let mut world = World::new(Plan { gossip, ..plan(run) }, run.rng(part));
    let nodes: Vec<_> = (0..world.plan.full_nodes).collect();
    let (mut shown, mut wrong) = (Vec::new(), Vec::new());
    let mut before = world.traffic.clone();
    for number in 0..run.options.epochs.map_or(EPOCHS, |epochs| epochs.min(EPOCHS)) {
        before.clone_from(&world.traffic);
        world.delays.clear();
        shown.push(pass(&mut world, number, &nodes));
    }
    for (number, epoch) in shown.iter().enumerate() {
        let (certified, roots) = epoch.certified(&nodes);
        if epoch.complete[1] < nodes.len() {
            wrong.push(format!("in epoch {number} {} of {} nodes hold all", epoch.complete[1], nodes.len()));
        }
        if certified < nodes.len() || roots != 1 {
            wrong.push(format!("for epoch {} {certified} nodes hold {roots} certified sets", number + 1));
        }
    }
    let set = world.published.0 as f64;
    let spent: Vec<_> = world.traffic.iter().zip(&before).map(|(now, before)| spent(now, before)).collect();
    let mean = |of: &dyn Fn(&Spent) -> f64| spent.iter().map(of).sum::<f64>() / spent.len() as f64;
    let (taken, total) = (mean(&|spent| spent.total[0]), mean(&|spent| spent.total[0] + spent.total[1]));
    let seconds = world.plan.epoch.as_secs_f64();
    // What ten thousand relays would cost.
    let scale = 10_000.0 / world.plan.relays as f64;
    if is_judged
        && world.plan.relays >= JUDGED
        && (taken > MOST_SETS * set || taken / seconds * scale > MOST_PER_SECOND)
    {
        let per_second = digits(taken / seconds * scale);
        wrong.push(format!("a node takes in {} times the set, {per_second} bytes/s", digits(taken / set)));
    }
    let detail = format!(
        "{} descriptors are whole at {} nodes before the cut-off and certified before their epoch; a node takes in {} \
         times the set, {} bytes/s (in and out {})",
        world.published.1,
        nodes.len(),
        digits(taken / set),
        digits(taken / seconds),
        digits(total / seconds)
    );
    Check::judged(&run.name(name), &wrong, detail)
        .with("full_nodes", nodes.len())
        .with("relays", world.plan.relays)
        .with("set_bytes", set)
        .with("taken_in_per_set", digits(taken / set))
        .with("bytes_per_second_in", digits(taken / seconds))
        .with("bytes_per_second_in_and_out", digits(total / seconds))
        .with("bytes_per_second_in_at_10000_relays", digits(taken / seconds * scale))
        .with("epochs", shown.iter().map(|epoch| epoch.json(&nodes)).collect::<Vec<_>>())
        .with("bytes_in_by_node", spread(spent.iter().map(|spent| spent.total[0])))
        .with("bytes_out_by_node", spread(spent.iter().map(|spent| spent.total[1])))
        .with(
            "mean_bytes_in",
            json!({
                "gossip": digits(mean(&|spent| spent.gossip)),
                "announcements": digits(mean(&|spent| spent.announcements)),
                "ballots": digits(mean(&|spent| spent.ballots)),
                "exchange": digits(mean(&|spent| spent.exchange)),
            }),
        )
        .with("seconds_by_gossip", spread(world.delays.iter().copied()))
}

/// Bytes of one epoch.
#[derive(Debug, Clone, Copy)]
struct Spent {
    total: [f64; 2],
    gossip: f64,
    announcements: f64,
    ballots: f64,
    exchange: f64,
}

fn spent(now: &Traffic, before: &Traffic) -> Spent {
    let (total, old) = (now.total(), before.total());
    Spent {
        total: [0, 1].map(|way| (total[way] - old[way]) as f64),
        gossip: (now.gossip[0] - before.gossip[0]) as f64,
        announcements: (now.announcements[0] - before.announcements[0]) as f64,
        ballots: (now.ballots[0] - before.ballots[0]) as f64,
        exchange: (now.exchange[0] - before.exchange[0]) as f64,
    }
}

/// A quarter of the seats takes no descriptors of a sixth of the relays, proposes sets without them, and passes no gossip
/// on.
pub(super) fn lying_snapshots(run: &Run<'_>) -> Vec<Check> {
    let mut world = World::new(small(24), run.rng(0));
    let (hostile, honest): (Vec<_>, Vec<_>) = (0..24).partition(|node| node % 4 == 0);
    let victims: HashSet<_> = honest.iter().take(7).map(|node| world.relays[*node].id).collect();
    for node in &hostile {
        world.nodes[*node].censor.silence(victims.clone());
        world.nodes[*node].conduct.is_mute = true;
    }
    let (mut shown, mut lacking) = (Vec::new(), 0);
    for number in 0..8 {
        let epoch = pass(&mut world, number, &honest);
        let certified = world.nodes[honest[0]].council.certified(epoch.epoch);
        lacking += certified
            .map_or(0, |certified| victims.iter().filter(|victim| certified.set.find(victim).is_none()).count());
        shown.push(epoch);
    }
    let objections: u64 = honest.iter().map(|node| world.nodes[*node].objections).sum();
    let mut wrong = uncertified(&shown, &honest);
    if lacking > 0 {
        wrong.push(format!("victims are missing {lacking} times in certified sets"));
    }
    if objections == 0 {
        wrong.push("no forged set was ever proposed".into());
    }
    let detail = format!(
        "{} of 24 seats propose sets without {} relays: none is certified ({objections} objections), and every epoch has \
         its set in time",
        hostile.len(),
        victims.len()
    );
    vec![
        Check::judged(&run.name("a quarter of the seats censors"), &wrong, detail)
            .with("epochs", shown.len())
            .with("objections", objections)
            .with("victims_missing", lacking),
    ]
}

/// What is wrong with the certificates of these epochs: everybody is to have the same set.
fn uncertified(shown: &[EpochShown], nodes: &[usize]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, epoch) in shown.iter().enumerate() {
        let (certified, roots) = epoch.certified(nodes);
        if certified < nodes.len() || roots != 1 {
            wrong.push(format!("for epoch {} {certified} of {} nodes hold {roots} sets", number + 1, nodes.len()));
        }
    }
    wrong
}

/// Two halves for three epochs.
pub(super) fn partition(run: &Run<'_>) -> Vec<Check> {
    let length = small(24).epoch;
    let plan = Plan { partitions: vec![length * 2..length * 5], ..small(24) };
    let mut world = World::new(plan, run.rng(0));
    let nodes: Vec<_> = (0..24).collect();
    let shown: Vec<_> = (0..9).map(|number| pass(&mut world, number, &nodes)).collect();
    let (mut wrong, mut two) = (Vec::new(), 0);
    for (number, epoch) in shown.iter().enumerate() {
        let (certified, roots) = epoch.certified(&nodes);
        two += usize::from(roots > 1);
        let is_parted = (2..5).contains(&number);
        if is_parted && certified > 0 {
            wrong.push(format!("a half certified the set of epoch {}", number + 1));
        }
        if !(2..=5).contains(&number) && (certified, roots) != (nodes.len(), 1) {
            wrong.push(format!("for epoch {} {certified} nodes hold {roots} sets", number + 1));
        }
    }
    if two > 0 {
        wrong.push(format!("{two} epochs have two certified sets"));
    }
    let detail = "no half certifies anything in three epochs, and a whole epoch after it heals all hold one set again";
    vec![
        Check::judged(&run.name("two halves"), &wrong, detail)
            .with("epochs_with_two_sets", two)
            .with("epochs", shown.iter().map(|epoch| epoch.json(&nodes)).collect::<Vec<_>>()),
    ]
}

/// A node that joins and meets only peers that show it an old network; and one that meets one honest peer besides.
pub(super) fn eclipse(run: &Run<'_>) -> Vec<Check> {
    let mut world = World::new(small(24), run.rng(0));
    let nodes: Vec<_> = (4..24).collect();
    let hostile: Vec<_> = (0..4).collect();
    (0..4).for_each(|number| drop(pass(&mut world, number, &nodes)));
    for node in &hostile {
        world.nodes[*node].conduct.frozen_at = Some(world.epoch(world.plan.epoch * 4));
    }
    let joined = world.plan.epoch * 4 + Duration::from_secs(1);
    world.run_until(joined);
    let (eclipsed, lucky) = (world.join(&hostile, joined), world.join(&[0, 1, 2, 10], joined));
    let mut seconds = None;
    for second in 1..=60 {
        world.run_until(joined + Duration::from_secs(second));
        let epoch = world.epoch(joined);
        if world.nodes[lucky].council.serving(epoch) == Serving::Certified {
            seconds.get_or_insert(second);
        }
    }
    let mut serving = Vec::new();
    for number in 4..8 {
        pass(&mut world, number, &nodes);
        let epoch = world.epoch(world.plan.epoch * (number + 1));
        let shown = match world.nodes[eclipsed].council.serving(epoch) {
            Serving::Certified => "certified",
            Serving::Overtime(_) => "overtime",
            Serving::Genesis => "genesis",
            Serving::Joining => "joining",
            Serving::Stopped { .. } => "stopped",
        };
        serving.push(shown);
    }
    let freed = world.plan.epoch * 8 + Duration::from_secs(1);
    world.run_until(freed);
    world.connect(eclipsed, 12, freed);
    world.run_until(freed + Duration::from_secs(60));
    let after = world.nodes[eclipsed].council.serving(world.epoch(freed));
    let mut wrong = Vec::new();
    if seconds.is_none_or(|seconds| seconds > 10) {
        wrong.push(format!("with one honest peer in four a joiner has its set after {seconds:?} s"));
    }
    // The hostile peers still took part when the first of these sets was certified.
    if serving != ["certified", "overtime", "overtime", "stopped"] {
        wrong.push(format!("the eclipsed node serves: {serving:?}"));
    }
    if after != Serving::Certified {
        wrong.push(format!("a minute after it met an honest peer it serves {after:?}"));
    }
    let detail = format!(
        "shown only old links a joiner stops ({}); with one honest peer in four it has its set after {} s",
        serving.join(", "),
        seconds.unwrap_or(0)
    );
    vec![
        Check::judged(&run.name("a joining node"), &wrong, detail)
            .with("serving_by_epoch", serving)
            .with("seconds_with_one_honest_peer", seconds),
    ]
}

/// A third of the full nodes come and go, away for minutes at a time.
pub(super) fn churn(run: &Run<'_>) -> Vec<Check> {
    let mut world = World::new(small(30), run.rng(0));
    let steady: Vec<_> = (0..20).collect();
    let (end, epoch) = (world.plan.epoch * 8, world.plan.epoch);
    for node in 20..30 {
        world.presence[node] = Presence::churning(epoch * 2, epoch / 2, end, &mut world.rng);
    }
    let shown: Vec<_> = (0..8).map(|number| pass(&mut world, number, &steady)).collect();
    let wrong = uncertified(&shown, &steady);
    let there = |node: &usize| world.presence[*node].is_there(end - Duration::from_secs(1));
    let moving: Vec<_> = (20..30).filter(there).collect();
    let (certified, _) = shown.last().map_or((0, 0), |epoch| epoch.certified(&moving));
    let detail = format!(
        "every epoch has its set in time while a third of the nodes come and go; {certified} of {} of these that are there \
         hold it too",
        moving.len()
    );
    vec![
        Check::judged(&run.name("a third of the nodes"), &wrong, detail)
            .with("epochs", shown.iter().map(|epoch| epoch.json(&steady)).collect::<Vec<_>>())
            .with("moving_that_hold_it", certified)
            .with("moving_that_are_there", moving.len()),
    ]
}
