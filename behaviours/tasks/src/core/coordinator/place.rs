//! Finding workers for tasks that want one, and bidding.

use std::time::Duration;

use fog_base::{NodeId, Now};
use rand_chacha::rand_core::Rng;

use super::{
    Coordinator,
    execution::{Execution, State},
    mixed::resend,
    task::{Parked, Task},
    view::{End, Failed, TaskState},
};
use crate::{
    core::{
        ids::ExecutionId,
        matcher::{self, Match},
        pay,
        terms::MAX_REPLICAS,
        verify::{Step, Voter},
    },
    wire::{
        Phase, ToWorker,
        record::{BID, BidBody},
    },
};

/// How many waiting tasks are looked at in one go.
const LOOKS: usize = 256;
/// How many workers that fit are compared for one execution.
const COMPARED: usize = 32;
/// How soon a task is looked at again that no free worker fits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a task waits for a proven worker that is busy before two newcomers are asked together.
const PROVEN_WAIT: Duration = Duration::from_secs(2);
/// A bid may be answered with a rate that rose by this factor since the offer, within what the user pays.
const RATE_SLACK: u64 = 2;

/// A worker that fits.
#[derive(Debug)]
struct Fit {
    worker: NodeId,
    voter: Voter,
    offer_seq: u64,
    rate: u64,
    speed: u64,
}

/// The least power of two that is not less.
fn coarse(number: u64) -> u64 {
    number.checked_next_power_of_two().unwrap_or(u64::MAX)
}

impl Coordinator {
    /// Gives waiting tasks to free workers, those that matter most first.
    pub(super) fn place_all(&mut self, now: Now) {
        let mut looked = 0;
        let mut from = None;
        let nobody = self.workers.iter().next().is_none();
        while looked < LOOKS && (nobody || !self.workers.free().is_empty()) {
            let next = match from {
                None => self.hungry.first(),
                Some(last) => self.hungry.range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded)).next(),
            };
            let Some(key) = next.copied() else { return };
            from = Some(key);
            looked += 1;
            self.with(key.2, now, |me, task| me.place(task, now));
        }
    }

    /// As many executions as the poll wants and free workers take.
    fn place(&mut self, task: &mut Task, now: Now) {
        while task.is_open() && task.poll.step() == Step::More && !self.is_exhausted(task) {
            let Some(fit) = self.choose(task, now) else {
                self.park(task, now);
                return;
            };
            self.bid(task, fit, now);
        }
        self.set_hungry(task, false);
    }

    /// Nobody fits now: look again, but not for ever.
    fn park(&mut self, task: &mut Task, now: Now) {
        self.set_hungry(task, false);
        let since = task.parked.map_or(now.mono, |parked| parked.since);
        task.parked = Some(Parked { since, until: Some(now.mono + LOOK_AGAIN) });
        let Some(content) = task.content.clone() else { return };
        if !task.poll.replicas().is_empty() {
            let (hoped, trust) = (task.poll.hoped(), task.terms.trust());
            task.waits_for = Some(format!(
                "no other worker is free for it, and those that have it would be believed to {hoped:.3} of {trust}"
            ));
        } else if task.waits_for.is_none() {
            task.waits_for = Some("no worker that fits is free".to_owned());
        }
        let patience = Duration::from_millis(task.terms.clocks.queueing_ms);
        let is_over = now.mono >= since + patience && !task.executions.iter().any(Execution::is_busy);
        let is_beyond = now.mono >= since + PROVEN_WAIT && task.poll.is_doubled();
        // A worker that is only busy is worth waiting for.
        if !(is_over || is_beyond) || self.anybody_fits(task, &content.needs, now) {
            return;
        }
        if task.poll.is_doubled() {
            task.poll.undouble();
        } else if is_over {
            let why = task.waits_for.clone().unwrap_or_default();
            self.finish(task, End::Failed(Failed::NoWorker(why)), now);
        }
    }

    fn anybody_fits(&self, task: &Task, needs: &matcher::Needs, now: Now) -> bool {
        let fits = |(worker, _): (&NodeId, _)| self.fit(task, needs, *worker, true, now).is_some();
        self.workers.iter().any(fits)
    }

    /// One of the free workers that fit, by the task's strategy.
    fn choose(&mut self, task: &mut Task, now: Now) -> Option<Fit> {
        let content = task.content.clone()?;
        if let Some((worker, _)) = task.check {
            return self.fit(task, &content.needs, worker, true, now);
        }
        while let Some(worker) = task.preferred.pop_front() {
            if let Some(fit) = self.fit(task, &content.needs, worker, true, now) {
                return Some(fit);
            }
        }
        let mut start = [0; 32];
        self.rng.fill_bytes(&mut start);
        let free = self.workers.free();
        let around = || free.range(NodeId(start)..).chain(free.range(..NodeId(start)));
        let find = |newcomers: bool| -> Vec<Fit> {
            let fits = around().filter_map(|worker| self.fit(task, &content.needs, *worker, newcomers, now));
            fits.take(COMPARED).collect()
        };
        let mut fits = find(false);
        if fits.is_empty() {
            // A second newcomer is asked only if nobody who proved something is to be had, free or soon.
            let waited = task.parked.is_some_and(|parked| now.mono >= parked.since + PROVEN_WAIT);
            let proven = |(worker, _): (&NodeId, _)| {
                !self.standings.is_newcomer(*worker) && self.fit(task, &content.needs, *worker, false, now).is_some()
            };
            if !waited && self.workers.iter().any(proven) {
                return None;
            }
            fits = find(true);
        }
        let demand = self.demand(&content.work, &task.terms);
        let candidates: Vec<_> = fits.iter().filter_map(|fit| self.candidate(fit.worker, now)).collect();
        let at = self.strategies.choose(task.terms.strategy, &demand, &candidates, start);
        let chosen = at.and_then(|at| candidates.get(at)).map(|candidate| candidate.node);
        let at = fits.iter().position(|fit| Some(fit.worker) == chosen)?;
        Some(fits.swap_remove(at))
    }

    /// A worker that could begin at once.
    pub(super) fn idle_for(&self, task: &Task, newcomers: bool, now: Now) -> Option<NodeId> {
        let needs = &task.content.as_ref()?.needs;
        let fits = |worker: &&NodeId| self.fit(task, needs, **worker, newcomers, now).is_some();
        self.workers.free().iter().filter(|worker| self.is_idle(**worker, now)).take(COMPARED).find(fits).copied()
    }

    /// Whether `worker` may be asked for a replica of `task`.
    fn fit(&self, task: &Task, needs: &matcher::Needs, worker: NodeId, newcomers: bool, now: Now) -> Option<Fit> {
        let listed = self.offers.get(worker, now.unix)?;
        let known = self.workers.get(worker)?;
        let avoided = task.avoided.get(&worker).is_some_and(|until| *until > now.mono);
        let gone = known.gone.is_some() && !self.is_nameless(&task.terms, worker);
        if avoided || gone || self.workers.is_broken(worker, now) || task.of_worker(worker).is_some() {
            return None;
        }
        let (offer, seen) = (listed.offer(), self.known(worker, listed, now));
        let (credibility, newcomer) = (seen.credibility, self.standings.is_newcomer(worker));
        let voter = Voter { worker, credibility, family: offer.family.clone(), newcomer };
        if !task.poll.may_join(&voter, !newcomers) {
            return None;
        }
        if let Match::No(_) = matcher::judge(needs, &seen) {
            return None;
        }
        Some(Fit { worker, voter, offer_seq: listed.seq(), rate: offer.rate(), speed: offer.speed })
    }

    /// What a worker is asked for.
    fn asked_of(&self, fit: &Fit, (task, execution, fuel): (&Task, ExecutionId, u64), nameless: bool) -> BidBody {
        let users = task.terms.max_price.map_or(u64::MAX, |price| pay::highest_rate(price, fuel));
        let is_own = fit.worker == self.signer.me();
        // This node's own worker is not paid, whatever it would ask.
        let highest_rate = if is_own { u64::MAX } else { users.min(fit.rate.saturating_mul(RATE_SLACK)) };
        let running_ms = u64::try_from(task.terms.running(fuel, fit.speed).as_millis()).unwrap_or(u64::MAX);
        let body = BidBody {
            execution,
            worker: fit.worker,
            work: task.work_id,
            offer_seq: fit.offer_seq,
            highest_rate,
            staging_ms: task.terms.clocks.staging_ms,
            queueing_ms: task.terms.clocks.queueing_ms,
            running_ms,
            class: task.terms.class,
            privacy: task.terms.privacy,
            features: task.terms.features.clone(),
        };
        if !nameless {
            return body;
        }
        // A worker may show each peer an offer of its own: what follows from one tells it as little as can be of which it was.
        let running_ms = if task.terms.clocks.running_ms.is_some() { running_ms } else { coarse(running_ms) };
        BidBody { offer_seq: 0, highest_rate: users.min(coarse(highest_rate)), running_ms, ..body }
    }

    /// Asks a worker.
    fn bid(&mut self, task: &mut Task, fit: Fit, now: Now) {
        let Some(content) = task.content.clone() else { return };
        let id = ExecutionId::of(task.id, task.attempt, fit.worker);
        task.attempt += 1;
        let nameless = self.is_nameless(&task.terms, fit.worker);
        let body = self.asked_of(&fit, (task, id, content.work.limits.fuel), nameless);
        let (highest_rate, running_ms) = (body.highest_rate, body.running_ms);
        // How often others were asked is nothing that a worker needs to know.
        let seq = if nameless { 1 } else { u64::from(task.attempt) };
        let Ok(record) = self.signer_of(nameless, id).sign(&BID, seq, now, &body) else { return };
        let first = task.poll.replicas().is_empty();
        let voter = fit.voter;
        if !task.poll.join(voter.clone()) {
            return;
        }
        // Who asked for one replica gets one.
        if first && task.terms.replicas == 0 && task.check.is_none() && task.poll.step() != Step::More {
            let draw = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            if self.standings.is_doubled(fit.worker, draw) {
                task.poll.double();
            }
        }
        task.parked = None;
        task.waits_for = None;
        task.executions.push(Execution {
            id,
            worker: fit.worker,
            nameless,
            voter,
            bid: Some(record.clone()),
            highest_rate,
            staging_ms: task.terms.clocks.staging_ms,
            queueing_ms: task.terms.clocks.queueing_ms,
            running_ms,
            class: task.terms.class,
            agreement: None,
            agreed_at: None,
            rate: 0,
            lease: None,
            lease_seq: 0,
            leased: now.mono,
            renew: now.mono,
            heard: now.mono,
            phase: Phase::Staging,
            staging: None,
            since: now.mono,
            state: State::Bidding(resend(nameless, now.mono)),
            shown: None,
            output: None,
            no_output: false,
        });
        self.executions.insert(id, task.id);
        self.workers.begin(fit.worker, task.id);
        let bid = ToWorker::Bid { record, work: content.encoded.clone() };
        self.outputs.extend(task.executions.last().map(|execution| execution.say(bid)));
    }

    /// Whether a task had as many executions as it may have.
    pub(super) fn is_exhausted(&self, task: &Task) -> bool {
        let counts = |execution: &&Execution| execution.agreement.is_some() && !execution.is_moved();
        let leased = task.executions.iter().filter(counts).count();
        let voted = task.poll.replicas().iter().filter(|replica| replica.result.is_some()).count();
        let most = (self.config.attempts as usize).saturating_mul((voted + 1).min(usize::from(MAX_REPLICAS)));
        leased >= most || task.hosts.len() >= super::decide::HOSTS || task.attempt >= super::decide::MAX_BIDS
    }

    pub(super) fn tell_state(&mut self, task: &mut Task) {
        let state = task.state();
        if state != task.told && task.is_open() {
            task.told = state;
            if task.check.is_none() {
                self.push(super::Output::Event(task.id, super::TaskEvent::State(state)));
            }
        }
        if state >= TaskState::Placed && task.placed.is_none() {
            task.placed = task.executions.iter().find_map(|it| it.agreed_at);
        }
    }
}
