//! The negotiation, exhaustively: the real cores, three workers, and every order in which messages arrive, are lost, come twice, and both
//! sides are killed and restarted, with as many faults and to such a depth as each test says. States are hashed by all that the cores know;
//! what was seen before is not gone into again.
//!
//! A link is a stream: its messages arrive in order. Time passes only when nothing else can happen, or as one of the faults.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::{
    coordinator::{Config, End, ReplicaView, TaskState},
    ids::TaskId,
    pay::price,
    terms::Terms,
    testing::{World, right, work},
};

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    ToWorker(usize),
    FromWorker(usize),
    LoseToWorker(usize),
    LoseFromWorker(usize),
    TwiceToWorker(usize),
    TwiceFromWorker(usize),
    Stage(usize),
    Run(usize),
    KillCoordinator,
    KillWorker(usize),
    Wait,
}

impl Step {
    fn is_fault(self) -> bool {
        !matches!(self, Self::ToWorker(_) | Self::FromWorker(_) | Self::Stage(_) | Self::Run(_) | Self::Wait)
    }
}

#[derive(Clone)]
struct State {
    world: World,
    task: TaskId,
    faults: u32,
    depth: u32,
    waits: u32,
}

impl State {
    fn steps(&self, faults: u32) -> Vec<Step> {
        let mut steps = Vec::new();
        let may_fail = self.faults < faults;
        for (at, host) in self.world.hosts.iter().enumerate() {
            if !host.to_it.is_empty() {
                steps.push(Step::ToWorker(at));
                if may_fail {
                    steps.extend([Step::LoseToWorker(at), Step::TwiceToWorker(at)]);
                }
            }
            if !host.from_it.is_empty() {
                steps.push(Step::FromWorker(at));
                if may_fail {
                    steps.extend([Step::LoseFromWorker(at), Step::TwiceFromWorker(at)]);
                }
            }
            if !host.stages.is_empty() {
                steps.push(Step::Stage(at));
            }
            if !host.runs.is_empty() {
                steps.push(Step::Run(at));
            }
            if may_fail && host.worker.load().executions > 0 {
                steps.push(Step::KillWorker(at));
            }
        }
        if steps.iter().all(|step| step.is_fault()) {
            steps.push(Step::Wait);
        }
        if may_fail {
            steps.push(Step::KillCoordinator);
        }
        steps
    }

    fn take(&mut self, step: Step) {
        self.depth += 1;
        self.faults += u32::from(step.is_fault());
        let world = &mut self.world;
        match step {
            Step::ToWorker(at) => {
                world.hand_to_worker(at);
            }
            Step::FromWorker(at) => {
                world.hand_to_coordinator(at);
            }
            Step::LoseToWorker(at) => {
                world.hosts[at].to_it.pop_front();
            }
            Step::LoseFromWorker(at) => {
                world.hosts[at].from_it.pop_front();
            }
            Step::TwiceToWorker(at) => {
                let message = world.hosts[at].to_it[0].clone();
                world.say_to_worker(at, message);
            }
            Step::TwiceFromWorker(at) => {
                let message = world.hosts[at].from_it[0].clone();
                let _taken = world.say_from_worker(at, message);
            }
            Step::Stage(at) => {
                world.stage(at);
            }
            Step::Run(at) => {
                world.run(at, right);
            }
            Step::KillCoordinator => world.restart_coordinator(),
            Step::KillWorker(at) => world.restart_worker(at),
            Step::Wait => {
                self.waits += 1;
                let next = world.next().map_or(Duration::ZERO, |at| at.saturating_duration_since(world.now.mono));
                world.pass(next.max(Duration::from_millis(1)));
            }
        }
    }

    /// All that decides what can happen from here; faults and depth are budgets, not knowledge.
    fn fingerprint(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        let coordinator = self.world.coordinator.fingerprint();
        hasher.update(coordinator.as_bytes());
        for host in &self.world.hosts {
            let state = format!("{:?}{:?}{:?}{:?}", host.worker.fingerprint(), host.to_it, host.from_it, host.stages);
            hasher.update(state.as_bytes());
            hasher.update(format!("{:?}", host.runs.keys()).as_bytes());
        }
        hasher.update(&self.faults.to_be_bytes());
        let mut fingerprint = [0; 16];
        hasher.finalize_xof().fill(&mut fingerprint);
        fingerprint
    }

    /// What holds in every state.
    fn check(&self, path: &[Step]) {
        let ends = self.world.ends.get(&self.task);
        for end in ends.into_iter().flatten() {
            let End::Done { result, .. } = end else { panic!("{end:?} after {path:?}") };
            assert_eq!(Some(*result), right(&work(1)).hash(), "{path:?}");
        }
        assert!(ends.map_or(0, Vec::len) <= 1, "it ended twice: {path:?}");
        let view = self.world.coordinator.task(self.task).unwrap_or_else(|| panic!("the task is lost: {path:?}"));
        assert!(ends.is_none() || view.state == TaskState::Done, "it ended, and did not: {path:?}");
        // Nobody is paid for two executions, nobody more than was agreed, and nobody holds vouchers for more than the task says.
        for (at, host) in self.world.hosts.iter().enumerate() {
            let claim: u64 = host.claims.values().sum();
            let paid: Vec<_> = view.replicas.iter().filter(|it| it.worker == host.id && it.paid > Some(0)).collect();
            let agreed = |it: &&ReplicaView| it.paid.unwrap_or(0) <= price(1_000_000, it.rate.unwrap_or(0));
            assert!(paid.len() <= 1 && paid.iter().all(agreed), "{paid:?}: {path:?}");
            let promised: u64 = paid.iter().filter_map(|it| it.paid).sum();
            assert!(claim <= promised, "claims {claim}, {paid:?}: {path:?}");
            // Both nodes' balances are those of the vouchers, whoever was killed when.
            let (owed, earned) = self.world.debts(at);
            assert_eq!((owed, earned), (promised as i64, host.worker.earned() as i64), "{paid:?}: {path:?}");
        }
    }
}

struct Explored {
    states: usize,
    steps: usize,
    ended: usize,
}

/// Everything that can happen in `depth` steps with at most `faults` faults; from each state at that depth on, everything goes well, and
/// the task must end.
fn explore(terms: Terms, depth: u32, faults: u32) -> Explored {
    let mut world = World::with(3, false, Config { max_snapshots: 0, ..Config::default() });
    let task = world.submit(1, terms);
    let first = State { world, task, faults: 0, depth: 0, waits: 0 };
    let mut seen = HashSet::from([first.fingerprint()]);
    let mut queue = VecDeque::from([(first, Vec::new())]);
    let mut explored = Explored { states: 1, steps: 0, ended: 0 };
    while let Some((state, path)) = queue.pop_front() {
        if state.depth >= depth {
            goes_well(state, &path);
            explored.ended += 1;
            continue;
        }
        for step in state.steps(faults) {
            let mut next = state.clone();
            next.take(step);
            explored.steps += 1;
            let mut path = path.clone();
            path.push(step);
            next.check(&path);
            if seen.insert(next.fingerprint()) {
                explored.states += 1;
                queue.push_back((next, path));
            }
        }
    }
    explored
}

/// From here on nothing is lost: the task ends, and is paid.
fn goes_well(mut state: State, path: &[Step]) {
    for _ in 0..200 {
        state.world.settle();
        if state.world.coordinator.task(state.task).is_some_and(|view| view.state == TaskState::Done) {
            state.world.settle();
            state.check(path);
            return;
        }
        state.take(Step::Wait);
    }
    panic!("it does not end: {path:?} {:?}", state.world.coordinator.task(state.task));
}

fn single() -> Terms {
    Terms { trust_ppm: 500_000, replicas: 1, ..Terms::default() }
}

#[test]
fn one_replica_whatever_fails_twice() {
    let Explored { states, steps, ended } = explore(single(), 9, 2);
    println!("one replica, depth 9, two faults: {states} states, {steps} steps, {ended} continued to the end");
    assert!(states > 400);
}

#[test]
fn two_replicas_whatever_fails_once() {
    let Explored { states, steps, ended } = explore(Terms::default(), 8, 1);
    println!("two replicas, depth 8, one fault: {states} states, {steps} steps, {ended} continued to the end");
    assert!(states > 400);
}

#[test]
#[ignore = "takes minutes"]
fn deep() {
    for (name, terms, depth, faults) in [("one", single(), 13, 2), ("two", Terms::default(), 11, 2)] {
        let Explored { states, steps, ended } = explore(terms, depth, faults);
        println!("{name}, depth {depth}, {faults} faults: {states} states, {steps} steps, {ended} continued");
        assert!(states > 1_000 && ended > 100);
    }
}
