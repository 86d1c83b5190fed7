//! Both sides together in one process, with everything that goes wrong: every task ends exactly once with the right result, and nobody is
//! paid more than was agreed.

use std::{collections::BTreeMap, time::Duration};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    coordinator::{self, End, TaskState},
    outcome::{Ending, HostEnd, Outcome},
    pay,
    terms::Terms,
    testing::{World, right, work, wrong},
    work::Work,
};

/// What a worker's host is like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Habit {
    Honest,
    /// Gives a wrong result of its own.
    Liar,
    /// Gives what the colluders give.
    Colluder,
    /// Never ends anything.
    Hangs,
    /// Is killed again and again.
    Dies,
    /// Its runs are killed by the host now and then.
    Shaky,
}

struct Simulation {
    world: World,
    habits: Vec<Habit>,
    rng: ChaCha20Rng,
    /// Parts per thousand of messages that are lost, and that come twice.
    lost: u64,
    twice: u64,
    coordinator_dies: bool,
}

impl Simulation {
    fn new(habits: &[Habit], seed: u8) -> Self {
        let config = coordinator::Config { max_ended: 10_000, ..coordinator::Config::default() };
        let world = World::with(habits.len() as u64, false, config);
        let rng = ChaCha20Rng::from_seed([seed; 32]);
        Self { world, habits: habits.to_vec(), rng, lost: 0, twice: 0, coordinator_dies: false }
    }

    fn chance(&mut self, per_thousand: u64) -> bool {
        self.rng.next_u64() % 1_000 < per_thousand
    }

    /// One round of everything, and time.
    fn round(&mut self, passes: Duration) {
        for at in 0..self.habits.len() {
            for _ in 0..64 {
                let message = self.world.hosts[at].to_it.front().cloned();
                let Some(message) = message else { break };
                self.world.hosts[at].to_it.pop_front();
                let (lost, twice) = (self.chance(self.lost), self.chance(self.twice));
                for _ in 0..(usize::from(!lost) + usize::from(!lost && twice)) {
                    self.world.say_to_worker(at, message.clone());
                }
            }
            while self.world.stage(at) {}
            self.host(at);
            for _ in 0..64 {
                let Some(message) = self.world.hosts[at].from_it.pop_front() else { break };
                let (lost, twice) = (self.chance(self.lost), self.chance(self.twice));
                for _ in 0..(usize::from(!lost) + usize::from(!lost && twice)) {
                    let _taken = self.world.say_from_worker(at, message.clone());
                }
                if self.coordinator_dies && self.chance(20) {
                    self.world.restart_coordinator();
                }
            }
        }
        self.world.pass(passes);
        for at in 0..self.habits.len() {
            if let Some(offer) = &self.world.hosts[at].offer {
                let _known = self.world.coordinator.handle_offer(offer, self.world.now);
            }
        }
        self.world.collect();
    }

    fn host(&mut self, at: usize) {
        let habit = self.habits[at];
        match habit {
            Habit::Hangs => {}
            Habit::Dies if self.chance(100) => self.world.restart_worker(at),
            _ => {
                let shaky = habit == Habit::Shaky && self.chance(100);
                let outcome = |work: &Work| match habit {
                    _ if shaky => Outcome::ended(Ending::Host(HostEnd::Killed), ""),
                    Habit::Liar => wrong(work, at as u64),
                    Habit::Colluder => wrong(work, 99),
                    _ => right(work),
                };
                for _ in 0..4 {
                    self.world.run(at, outcome);
                }
            }
        }
    }

    /// Submits so many tasks, a few at a time, and goes on until all have ended.
    fn run(&mut self, tasks: u64) -> BTreeMap<u64, super::ids::TaskId> {
        let mut submitted = BTreeMap::new();
        for rounds in 0..40_000 {
            if rounds % 2 == 0 && (submitted.len() as u64) < tasks {
                let number = submitted.len() as u64;
                submitted.insert(number, self.world.submit(number, Terms::default()));
            }
            self.round(Duration::from_millis(100));
            if submitted.len() as u64 == tasks && self.world.coordinator.open_tasks() == 0 {
                break;
            }
        }
        for _ in 0..400 {
            self.round(Duration::from_millis(500));
        }
        submitted
    }

    /// Everything that must hold of ended tasks. Returns executions per task.
    fn check(&self, submitted: &BTreeMap<u64, super::ids::TaskId>) -> f64 {
        let mut executions = 0;
        let mut promised: u64 = 0;
        for (number, task) in submitted {
            let view = self.world.coordinator.task(*task).unwrap();
            assert_eq!(view.state, TaskState::Done, "{number}: {view:?}");
            let Some(End::Done { result, .. }) = &view.end else { panic!() };
            assert_eq!(Some(*result), right(&work(*number)).hash(), "{number}: {view:?}");
            if self.world.restarts == 0 {
                assert_eq!(self.world.ends[task].len(), 1, "{number}: once");
            } else {
                // The event may come again if the node died between the row and it; what it says is the same.
                let same =
                    self.world.ends[task].iter().all(|end| matches!(end, End::Done { result: r, .. } if r == result));
                assert!(same, "{number}");
            }
            let paid = view.replicas.iter().filter_map(|replica| replica.paid).filter(|paid| *paid > 0).count();
            assert!(paid <= 7, "{view:?}");
            executions += view.replicas.iter().filter(|replica| replica.rate.is_some()).count();
            promised += view.price;
            for replica in &view.replicas {
                let agreed = replica.rate.map_or(0, |rate| pay::price(1_000_000, rate));
                assert!(replica.paid.unwrap_or(0) <= agreed, "{replica:?}");
            }
        }
        let claims: u64 = self.world.hosts.iter().flat_map(|host| host.claims.values()).sum();
        // Spot checks are paid too, and are in no task that is shown.
        let checks = self.world.verdicts.iter().map(|(_, _, _, value)| value).sum::<u64>();
        assert!(claims <= promised.max(checks), "{claims} claimed, {promised} promised, {checks} with checks");
        let debts: Vec<_> = (0..self.habits.len()).map(|at| self.world.debts(at)).collect();
        let owed: i64 = debts.iter().map(|(owed, _)| owed).sum();
        assert_eq!(owed, self.world.coordinator.spent() as i64, "what is owed is what was promised");
        for ((owed, earned), host) in debts.iter().zip(&self.world.hosts) {
            assert!(earned <= owed && *earned == host.worker.earned() as i64, "{owed} owed, {earned} earned");
        }
        executions as f64 / submitted.len() as f64
    }
}

use Habit::{Colluder, Dies, Hangs, Honest, Liar, Shaky};

#[test]
fn every_task_ends_once_with_the_right_result_whatever_workers_do() {
    let habits = [Honest, Honest, Honest, Honest, Honest, Honest, Liar, Colluder, Dies, Shaky, Honest, Honest];
    let mut simulation = Simulation::new(&habits, 1);
    (simulation.lost, simulation.twice) = (10, 10);
    let submitted = simulation.run(400);
    let executions = simulation.check(&submitted);
    println!("400 tasks, 12 workers: {executions:.2} executions each, {} drops", simulation.world.drops);
    for (at, habit) in habits.iter().enumerate() {
        let id = simulation.world.hosts[at].id;
        let wrong =
            simulation.world.verdicts.iter().filter(|(w, _, v, _)| *w == id && *v == pay::Verdict::Wrong).count();
        assert!(matches!(habit, Liar | Colluder) || wrong == 0, "{habit:?} {at} was called wrong {wrong} times");
    }
}

#[test]
fn workers_that_hang_cost_time_and_not_the_task() {
    let mut simulation = Simulation::new(&[Honest, Honest, Honest, Hangs], 2);
    let terms = |number| {
        let mut terms = Terms::default();
        terms.clocks.queueing_ms = 2_000;
        (number, terms)
    };
    let submitted: BTreeMap<_, _> =
        (0..20).map(terms).map(|(number, terms)| (number, simulation.world.submit(number, terms))).collect();
    for _ in 0..3_000 {
        simulation.round(Duration::from_millis(100));
    }
    simulation.check(&submitted);
}

#[test]
fn a_coordinator_that_is_killed_again_and_again_loses_nothing() {
    let mut simulation = Simulation::new(&[Honest, Honest, Honest, Honest, Liar, Dies], 3);
    (simulation.lost, simulation.twice, simulation.coordinator_dies) = (5, 5, true);
    let submitted = simulation.run(150);
    let executions = simulation.check(&submitted);
    assert!(simulation.world.restarts > 3, "{}", simulation.world.restarts);
    println!("150 tasks, {} restarts: {executions:.2} executions each", simulation.world.restarts);
}
