//! Introductions: opened, queued by effort, and answered at the client's rendezvous point.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::{Epoch, Now};

use super::{
    Output,
    points::Points,
    saved::{Row, Seeds},
    shell::Shell,
};
use crate::{
    core::{
        blinding::{BlindedKey, Subcredential},
        circuit::{Circuit, Purpose},
        descriptor::PuzzleOffer,
        handshake::{Opened, Responder},
        introduction::Request,
        mixed,
        pow::{EffortLoop, Placed, Puzzle, Work, WorkQueue},
        reject::Reject,
        replay,
        view::View,
    },
    wire::{Introduction, Message, mixed::SealedRequest},
};

use super::exchanges::{Exchange, Exchanges, Origin};

/// Introductions that wait.
const QUEUE: usize = 1024;
/// How long one waits.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// Rendezvous circuits in the making.
const IN_FLIGHT: usize = 64;
/// Circuits for one introduction.
const ATTEMPTS: u32 = 2;
/// From the first circuit on.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Nonces that are remembered of one seed. Then there is a new one, or whoever pays for so many would keep all others out.
const MAX_NONCES: usize = 1 << 17;
/// Epochs that a seed is offered.
const SEED_EPOCHS: (u32, u32) = (4, 6);

/// What a client wants.
#[derive(Debug)]
enum Wish {
    /// To be met.
    Meeting(Request),
    /// An answer through the mixnet.
    Answer(Origin, mixed::Request),
}

/// A wish that was opened and waits.
#[derive(Debug)]
struct Waiting {
    point: [u8; 32],
    tag: replay::Tag,
    wish: Wish,
    responder: Responder,
}

/// An introduction that is being answered.
#[derive(Debug)]
struct Job {
    request: Request,
    responder: Responder,
    attempts: u32,
    deadline: Instant,
}

/// Under what an introduction may be opened.
pub(super) struct Keys {
    pub(super) subcredentials: Vec<Subcredential>,
    /// Of the same periods, in the same order.
    pub(super) blinded: Vec<BlindedKey>,
}

#[derive(Debug)]
pub(super) struct Answers {
    puzzle: Option<Box<dyn Puzzle>>,
    seeds: Option<Seeds>,
    nonces: BTreeSet<([u8; 4], [u8; 16])>,
    /// How many of them are of the current seed.
    spent: usize,
    queue: WorkQueue<Box<Waiting>>,
    effort: EffortLoop,
    jobs: BTreeMap<Circuit, Job>,
    pub(super) exchanges: Exchanges,
    pub(super) answered: u64,
    /// The offer changed in a way that clients must hear of.
    pub(super) news: bool,
}

impl Answers {
    pub(super) fn new(puzzle: Option<Box<dyn Puzzle>>, seeds: Option<Seeds>, now: Instant) -> Self {
        Self {
            seeds: seeds.filter(|_| puzzle.is_some()),
            puzzle,
            nonces: BTreeSet::new(),
            spent: 0,
            queue: WorkQueue::new(QUEUE, MAX_WAIT),
            effort: EffortLoop::new(now),
            jobs: BTreeMap::new(),
            exchanges: Exchanges::default(),
            answered: 0,
            news: false,
        }
    }

    pub(super) fn offer(&self) -> Option<PuzzleOffer> {
        let Seeds { current, last_epoch, .. } = self.seeds?;
        Some(PuzzleOffer { seed: current, effort: self.effort.suggested(), last_epoch })
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.jobs.len()
    }

    /// An introduction came from the point with this key.
    pub(super) fn introduced(
        &mut self,
        (key, introduction): ([u8; 32], &Introduction),
        keys: &Keys,
        points: &mut Points,
        view: &View,
        shell: &mut Shell,
        now: Now,
    ) -> Result<(), Reject> {
        let point = points.get_mut(&key).ok_or(Reject::Unexpected)?;
        if introduction.auth_key != key {
            return Err(Reject::Malformed);
        }
        let tag = replay::tag(&introduction.x, &introduction.ciphertext);
        point.log.check(&tag).map_err(not_fresh)?;
        let opened = point.keys.open(&shell.network, &keys.subcredentials, introduction);
        let opened = opened.map_err(|_| Reject::Undecryptable)?;
        let request = Request::decode(&opened.plaintext).ok_or(Reject::Malformed)?;
        if !view.has(&request.rendezvous) {
            return Err(Reject::NoSuchRelay);
        }
        let effort = self.effort(request.work, &opened, keys)?;
        point.log.note(tag);
        let waiting = Waiting { point: key, tag, wish: Wish::Meeting(request), responder: opened.responder };
        self.wait(effort, waiting, shell, now)
    }

    /// A request came through the mixnet and the point with this key.
    pub(super) fn asked(
        &mut self,
        (key, circuit, number): ([u8; 32], Circuit, u64),
        sealed: &SealedRequest,
        keys: &Keys,
        points: &mut Points,
        shell: &mut Shell,
        now: Now,
    ) -> Result<(), Reject> {
        let point = points.get_mut(&key).ok_or(Reject::Unexpected)?;
        if sealed.auth_key != key {
            return Err(Reject::Malformed);
        }
        let tag = replay::tag(&sealed.x, &sealed.ciphertext);
        point.log.check(&tag).map_err(not_fresh)?;
        let opened = point.keys.open_request(&shell.network, &keys.subcredentials, sealed);
        let opened = opened.map_err(|_| Reject::Undecryptable)?;
        let request = mixed::Request::decode(&opened.plaintext).ok_or(Reject::Malformed)?;
        let effort = self.effort(request.work, &opened, keys)?;
        let from = self.exchanges.admit(circuit, number, &request.nonce)?;
        point.log.note(tag);
        let waiting = Waiting { point: key, tag, wish: Wish::Answer(from, request), responder: opened.responder };
        self.wait(effort, waiting, shell, now)
    }

    fn effort(&mut self, work: Option<Work>, opened: &Opened, keys: &Keys) -> Result<u32, Reject> {
        let blinded = keys.blinded.get(opened.which).ok_or(Reject::Undecryptable)?;
        work.map_or(Ok(0), |work| self.check_work(&work, blinded))
    }

    fn wait(&mut self, effort: u32, waiting: Waiting, shell: &mut Shell, now: Now) -> Result<(), Reject> {
        let placed = self.queue.push(effort, Box::new(waiting), now.mono);
        if self.queue.is_half_full() {
            self.pressed(now);
        }
        match placed {
            Placed::Waits => Ok(()),
            Placed::Dropped(lower, _) => {
                self.effort.dropped(lower);
                shell.rejects.count(Reject::Full);
                Ok(())
            }
            Placed::Refused(_) => {
                self.effort.dropped(effort);
                Err(Reject::Full)
            }
        }
    }

    /// The effort of a proof that was not used before.
    fn check_work(&mut self, work: &Work, key: &BlindedKey) -> Result<u32, Reject> {
        let (puzzle, seeds) = self.puzzle.as_deref().zip(self.seeds).ok_or(Reject::BadWork)?;
        let seed = [seeds.current, seeds.before].into_iter().find(|seed| seed.starts_with(&work.seed_head));
        let seed = seed.ok_or(Reject::BadWork)?;
        let nonce = (work.seed_head, work.nonce);
        let is_current = seed == seeds.current;
        let room = self.nonces.len() < 2 * MAX_NONCES && (!is_current || self.spent < MAX_NONCES);
        if !room || self.nonces.contains(&nonce) || !work.verify(puzzle, key, &seed) {
            return Err(Reject::BadWork);
        }
        self.nonces.insert(nonce);
        self.spent += usize::from(is_current);
        Ok(work.effort)
    }

    /// Half of the room is taken: the effort is looked at now, if none is suggested yet.
    fn pressed(&mut self, now: Now) {
        self.effort.left_over();
        if self.effort.suggested() == 0 || self.effort.due() <= now.mono {
            self.news |= self.effort.update(self.queue.top(), now.mono);
        }
    }

    /// Does what is due, and answers as many as may be in the making.
    pub(super) fn tick(&mut self, epoch: Epoch, shell: &mut Shell, now: Now) {
        self.turn_seeds(epoch, shell);
        for _ in 0..self.queue.expire(now.mono) {
            self.effort.left_over();
            shell.rejects.count(Reject::TimedOut);
        }
        self.jobs.retain(|circuit, job| {
            let late = job.deadline <= now.mono;
            if late {
                shell.close(*circuit);
                shell.rejects.count(Reject::TimedOut);
            }
            !late
        });
        while self.jobs.len() < IN_FLIGHT {
            let Some((effort, waiting)) = self.queue.pop() else { break };
            self.effort.handled(effort);
            // On disk before anything is done that could be done twice.
            let Waiting { point, tag, wish, responder } = *waiting;
            shell.persist([Row::answered(&point, &tag)]);
            match wish {
                Wish::Meeting(request) => {
                    self.begin(Job { request, responder, attempts: 0, deadline: now.mono + TIMEOUT }, shell);
                }
                Wish::Answer(from, request) => self.serve(from, request, &responder, shell),
            }
        }
        if !self.queue.is_empty() {
            self.effort.left_over();
        }
        if self.effort.due() <= now.mono {
            self.news |= self.effort.update(self.queue.top(), now.mono);
        }
    }

    fn turn_seeds(&mut self, epoch: Epoch, shell: &mut Shell) {
        let over = self.seeds.is_none_or(|seeds| epoch >= seeds.last_epoch) || self.spent >= MAX_NONCES;
        if self.puzzle.is_none() || !over {
            return;
        }
        let epochs = SEED_EPOCHS.0 + u32::from(shell.random.below(2) == 1) * (SEED_EPOCHS.1 - SEED_EPOCHS.0);
        let before = self.seeds.map_or([0; 32], |seeds| seeds.current);
        let last_epoch = Epoch(epoch.0.saturating_add(epochs));
        let seeds = Seeds { current: shell.random.bytes(), last_epoch, before };
        let heads = [seeds.current, seeds.before];
        self.nonces.retain(|(head, _)| heads.iter().any(|seed| seed.starts_with(head)));
        shell.persist([Row::seeds(&seeds)]);
        self.spent = 0;
        (self.seeds, self.news) = (Some(seeds), true);
    }

    fn begin(&mut self, mut job: Job, shell: &mut Shell) {
        job.attempts += 1;
        let circuit = shell.open(job.request.rendezvous, Purpose::ServiceRendezvous);
        self.jobs.insert(circuit, job);
    }

    fn serve(&mut self, from: Origin, request: mixed::Request, responder: &Responder, shell: &mut Shell) {
        match responder.respond(&mut shell.random) {
            Ok((reply, keys)) => {
                let answerer = mixed::Answerer::new(reply, keys);
                shell.outputs.push_back(Output::Exchange(Box::new(Exchange::new(from, request, answerer))));
                self.answered += 1;
            }
            Err(_) => {
                shell.rejects.count(Reject::Malformed);
            }
        }
    }

    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let jobs = self.jobs.values().map(|job| job.deadline);
        let queue = (!self.queue.is_empty()).then(|| now + Duration::from_secs(1));
        jobs.chain(queue).chain([self.effort.due()]).min()
    }

    /// A circuit was opened: the answer leaves on it, and it is the caller's from then on. False if it is none of these.
    pub(super) fn opened(&mut self, circuit: Circuit, shell: &mut Shell) -> bool {
        let Some(Job { request, responder, .. }) = self.jobs.remove(&circuit) else { return false };
        let Ok((reply, keys)) = responder.respond(&mut shell.random) else {
            shell.close(circuit);
            shell.rejects.count(Reject::Malformed);
            return true;
        };
        shell.send(circuit, Message::Rendezvous1(request.cookie, reply));
        shell.outputs.push_back(Output::Accept { circuit, keys, stream: request.stream });
        self.answered += 1;
        true
    }

    /// A circuit is gone; false if it was none of these.
    pub(super) fn closed(&mut self, circuit: Circuit, shell: &mut Shell) -> bool {
        let Some(job) = self.jobs.remove(&circuit) else { return false };
        if job.attempts < ATTEMPTS {
            self.begin(job, shell);
        } else {
            shell.rejects.count(Reject::TimedOut);
        }
        true
    }
}

fn not_fresh(why: replay::NotFresh) -> Reject {
    match why {
        replay::NotFresh::Seen => Reject::Replayed,
        replay::NotFresh::Full => Reject::Full,
    }
}
