//! One node's part in certifying: it takes ballots, assembles quorums, and votes and commits if it has a seat.
//!
//! This is the agreement of Tendermint (Buchman, Kwon, Milosevic: "The latest gossip on BFT consensus", arXiv
//! 1807.04938, algorithm 1) with three simplifications: rounds begin by the clock, so there are no votes for nothing; a
//! proposal is its proposer's vote; and votes that bind somebody travel as a message of their own instead of inside the
//! next proposal. One vote per epoch would not do: see the README on why there are two phases.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Instant,
};

use ed25519_dalek::SigningKey;
use fog_base::{BoundedQueue, DropCounters, DropReason, EpochSchedule, NetworkId, NodeId, Now, UnixMillis};

use super::{
    Hash, Reject, Statement,
    ballot::{Ballot, DoubleSign, Phase, Round, VerifiedBallot},
    chain::Tip,
    electorate::{ATTEMPTS, Electorate},
    message::Message,
    quorum::{Quorum, VerifiedQuorum},
    record::Record,
    timetable::Timetable,
};
use crate::core::relay_set::Verdict;

/// One for each round of two epochs, and one of our own.
const MAX_STATEMENTS: usize = 2 * ATTEMPTS as usize + 1;
const MAX_OUTPUTS: usize = 1024;
/// What one input can cause at most: two signatures, each with its record and its message, a lock that is shown, and
/// news.
const ROOM: usize = 16;

/// What the certifier wants done, in this order: a record is on disk before a later output leaves the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write the record and sync.
    Persist(Record),
    /// Send it by gossip.
    Broadcast(Message),
    /// Get the whole set of this root, look at it (`judgement.rs`), and say what came out with
    /// [`Certifier::handle_judged`].
    FetchSet(Statement),
    /// It is certified: keep the certificate, get the set, and hand over its seats with
    /// [`Certifier::handle_electorate`].
    Certified(Quorum),
    /// A seat signed twice in one round. The proof is broadcast, too.
    Misbehaviour(DoubleSign),
}

/// Whose part this is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network.
    pub network: NetworkId,
    /// Its epochs.
    pub schedule: EpochSchedule,
    /// Signs as this node, when it has a seat.
    pub identity: Arc<SigningKey>,
}

/// Agrees with the other seats on the next set.
pub struct Certifier {
    network: NetworkId,
    timetable: Timetable,
    identity: Arc<SigningKey>,
    node: NodeId,
    tip: Tip,
    record: Record,
    /// The votes on which we committed after this tip.
    lock: Option<VerifiedQuorum>,
    /// What we would propose.
    own: Option<Statement>,
    /// Statements after the tip that are known, whether approved of or not.
    statements: BTreeMap<Hash, Statement>,
    approved: BTreeSet<Hash>,
    /// What each round's proposer voted for.
    proposals: BTreeMap<Round, Hash>,
    /// By rank.
    ballots: BTreeMap<(Phase, Round), BTreeMap<u16, VerifiedBallot>>,
    /// Those of this electorate that signed twice.
    convicted: BTreeSet<NodeId>,
    /// The votes of the latest round in which some statement got two thirds.
    prepared: Option<VerifiedQuorum>,
    /// What follows the tip, from when it is certified until its seats are known.
    certified: Option<VerifiedQuorum>,
    /// The last moment at which the lock was shown.
    shown: Option<UnixMillis>,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
    deadline: Instant,
}

impl fmt::Debug for Certifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, tip, record, .. } = self;
        f.debug_struct("Certifier")
            .field("node", node)
            .field("tip", tip)
            .field("record", record)
            .finish_non_exhaustive()
    }
}

impl Certifier {
    /// Goes on after `tip`, bound by `record`.
    pub fn new(config: Config, tip: Tip, record: Record, now: Now) -> Self {
        let mut certifier = Self {
            network: config.network,
            timetable: Timetable::new(config.schedule),
            node: NodeId(config.identity.verifying_key().to_bytes()),
            identity: config.identity,
            lock: None,
            tip: tip.clone(),
            record,
            own: None,
            statements: BTreeMap::new(),
            approved: BTreeSet::new(),
            proposals: BTreeMap::new(),
            ballots: BTreeMap::new(),
            convicted: BTreeSet::new(),
            prepared: None,
            certified: None,
            shown: None,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
            deadline: now.mono,
        };
        certifier.adopt(tip);
        certifier
    }

    /// What the proposer of the running round proposes, as far as is known.
    pub fn proposed(&self, now: Now) -> Option<Statement> {
        let hash = self.proposals.get(&self.timetable.round(now.unix)?)?;
        self.statements.get(hash).copied()
    }

    /// The last certified statement whose seats are known.
    pub fn tip(&self) -> &Tip {
        &self.tip
    }

    /// What was refused, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Takes a gossip message. New ones are forwarded, known ones are not, and of the refused ones those that
    /// [`Reject::is_misbehaviour`] names are held against the sender.
    pub fn handle_message(&mut self, message: Message, now: Now) -> Result<Verdict, Reject> {
        let outcome = match message {
            Message::Proposal(statement, vote) => self.take_proposal(statement, vote, now),
            Message::Ballot(ballot) => self.take_ballot(ballot, now),
            Message::Quorum(quorum) => self.take_quorum(quorum, now),
            Message::DoubleSign(proof) => self.take_double_sign(proof),
        };
        if let Err(reject) = outcome {
            self.drops.count(reject.drop_reason());
        }
        self.act(now);
        outcome
    }

    /// The statement about the set that this node holds at the cut-off: what it proposes when it is its turn, and
    /// approves of.
    pub fn handle_own(&mut self, statement: Statement, now: Now) -> Result<(), Reject> {
        self.check_place(&statement)?;
        let hash = statement.hash(&self.network);
        self.own = Some(statement);
        self.statements.insert(hash, statement);
        self.approved.insert(hash);
        self.tally_all(hash);
        self.act(now);
        Ok(())
    }

    /// The answer to [`Output::FetchSet`]: this node holds the whole set, and whether it approves of it.
    pub fn handle_judged(&mut self, statement: &Statement, approves: bool, now: Now) {
        let hash = statement.hash(&self.network);
        if approves && self.statements.contains_key(&hash) {
            self.approved.insert(hash);
        }
        self.act(now);
    }

    /// The seats of the set that [`Output::Certified`] told of: it becomes the tip.
    pub fn handle_electorate(&mut self, electorate: Electorate, now: Now) -> Result<(), Reject> {
        let certified = self.certified.as_ref().ok_or(Reject::OtherHeight)?;
        let tip = Tip::after(&self.network, *certified.statement(), electorate)?;
        self.adopt(tip);
        self.act(now);
        Ok(())
    }

    /// A tip that was reached by the chain of certificates. One that is not ahead of ours is ignored.
    pub fn handle_tip(&mut self, tip: Tip, now: Now) {
        if tip.statement().epoch > self.tip.statement().epoch {
            self.adopt(tip);
            self.act(now);
        }
    }

    /// Votes, commits and shows what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let epoch = self.timetable.schedule().at(now.unix);
        self.ballots.retain(|(_, round), _| round.epoch >= epoch);
        self.proposals.retain(|round, _| round.epoch >= epoch);
        self.own = self.own.filter(|own| own.epoch > epoch);
        let kept: BTreeSet<_> = {
            let quorums = [&self.lock, &self.prepared].into_iter().flatten().map(|quorum| quorum.hash(&self.network));
            let own = self.own.iter().map(|own| own.hash(&self.network));
            self.proposals.values().copied().chain(quorums).chain(own).collect()
        };
        self.statements.retain(|hash, _| kept.contains(hash));
        self.approved.retain(|hash| kept.contains(hash));
        self.show_lock(now);
        self.act(now);
    }

    /// When [`Certifier::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.deadline)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    fn adopt(&mut self, tip: Tip) {
        self.lock = self.record.verified_lock(&self.network, &tip);
        self.prepared = self.lock.clone();
        self.own = None;
        self.certified = None;
        self.statements.clear();
        self.approved.clear();
        self.proposals.clear();
        self.ballots.clear();
        self.convicted.clear();
        if let Some(lock) = &self.lock {
            self.statements.insert(lock.hash(&self.network), *lock.statement());
        }
        self.tip = tip;
    }

    fn check_place(&self, statement: &Statement) -> Result<(), Reject> {
        if statement.previous != self.tip.hash() {
            return Err(Reject::OtherHeight);
        }
        if statement.epoch > self.tip.statement().epoch { Ok(()) } else { Err(Reject::WrongEpoch) }
    }

    fn proposer(&self, round: Round) -> Option<NodeId> {
        self.tip.electorate().proposer(self.tip.statement().epoch, round)
    }

    fn take_proposal(&mut self, statement: Statement, vote: Ballot, now: Now) -> Result<Verdict, Reject> {
        let (hash, round) = (statement.hash(&self.network), vote.round);
        if vote.phase != Phase::Vote || vote.statement != hash || statement.epoch > round.epoch {
            return Err(Reject::Malformed);
        }
        self.check_place(&statement)?;
        if self.proposer(round) != Some(vote.signer) {
            return Err(Reject::NotProposer);
        }
        let is_new = !self.statements.contains_key(&hash);
        if is_new && self.statements.len() >= MAX_STATEMENTS {
            return Err(Reject::Full);
        }
        let verdict = self.take_ballot(vote, now)?;
        self.proposals.entry(round).or_insert(hash);
        if is_new {
            self.learn(hash, statement);
        }
        Ok(if is_new { Verdict::New } else { verdict })
    }

    fn take_ballot(&mut self, ballot: Ballot, now: Now) -> Result<Verdict, Reject> {
        let Ballot { phase, round, signer, .. } = ballot;
        let rank = self.tip.electorate().rank(signer).ok_or(Reject::NotSeated)?;
        if !self.timetable.is_current(round, now.unix) {
            return Err(Reject::WrongRound);
        }
        let before = self.ballots.get(&(phase, round)).and_then(|ballots| ballots.get(&rank));
        match before {
            Some(before) if *before.ballot() == ballot => return Ok(Verdict::Known),
            // One proof is enough; no further signature of this seat is looked at.
            Some(_) if self.convicted.contains(&signer) => return Err(Reject::SignedTwice),
            _ => {}
        }
        let verified = ballot.verify(&self.network)?;
        if let Some(before) = before {
            // The same once more, under another signature that is as good.
            let Some(proof) = DoubleSign::new(before, &verified) else { return Ok(Verdict::Known) };
            self.convict(signer, proof.clone());
            self.push(Output::Broadcast(Message::DoubleSign(proof)));
            return Err(Reject::SignedTwice);
        }
        self.insert(rank, verified);
        Ok(Verdict::New)
    }

    fn take_quorum(&mut self, quorum: Quorum, now: Now) -> Result<Verdict, Reject> {
        let Quorum { phase, round, .. } = quorum;
        let is_older = self.prepared.as_ref().is_some_and(|prepared| prepared.round() >= round);
        if self.certified.is_some() || (phase == Phase::Vote && is_older) {
            return Ok(Verdict::Known);
        }
        if self.timetable.start(round) > now.unix.plus(self.timetable.length()) {
            return Err(Reject::WrongRound);
        }
        let verified = quorum.verify(&self.network, &self.tip)?;
        let statement = *verified.statement();
        match phase {
            Phase::Commit => self.certify(verified),
            Phase::Vote => {
                let hash = verified.hash(&self.network);
                self.prepared = Some(verified);
                if !self.statements.contains_key(&hash) {
                    self.learn(hash, statement);
                }
            }
        }
        Ok(Verdict::New)
    }

    fn take_double_sign(&mut self, proof: DoubleSign) -> Result<Verdict, Reject> {
        let signer = proof.accused().ok_or(Reject::Malformed)?;
        self.tip.electorate().rank(signer).ok_or(Reject::NotSeated)?;
        // What was signed before this tip was punished then.
        if proof.epoch() <= self.tip.statement().epoch {
            return Err(Reject::WrongRound);
        }
        if self.convicted.contains(&signer) {
            return Ok(Verdict::Known);
        }
        proof.verify(&self.network)?;
        self.convict(signer, proof);
        Ok(Verdict::New)
    }

    fn convict(&mut self, signer: NodeId, proof: DoubleSign) {
        self.convicted.insert(signer);
        self.push(Output::Misbehaviour(proof));
    }

    /// A statement that was not known: its set is needed, and ballots for it may have come before.
    fn learn(&mut self, hash: Hash, statement: Statement) {
        self.statements.insert(hash, statement);
        self.push(Output::FetchSet(statement));
        self.tally_all(hash);
    }

    fn insert(&mut self, rank: u16, verified: VerifiedBallot) {
        let Ballot { phase, round, statement, .. } = *verified.ballot();
        self.ballots.entry((phase, round)).or_default().insert(rank, verified);
        self.tally(phase, round, statement);
    }

    fn tally_all(&mut self, hash: Hash) {
        let rows: Vec<_> = self.ballots.keys().copied().collect();
        for (phase, round) in rows {
            self.tally(phase, round, hash);
        }
    }

    fn tally(&mut self, phase: Phase, round: Round, hash: Hash) {
        let is_older = self.prepared.as_ref().is_some_and(|prepared| prepared.round() >= round);
        if self.certified.is_some() || (phase == Phase::Vote && is_older) {
            return;
        }
        let (Some(statement), Some(row)) = (self.statements.get(&hash), self.ballots.get(&(phase, round))) else {
            return;
        };
        let electorate = self.tip.electorate();
        let ballots = || row.iter().filter(|(_, b)| b.ballot().statement == hash).map(|(rank, ballot)| (*rank, ballot));
        if !electorate.is_quorum(ballots().map(|(rank, _)| u128::from(electorate.weight(rank))).sum()) {
            return;
        }
        let Some(quorum) = Quorum::assemble((phase, round, *statement), electorate, ballots()) else { return };
        match phase {
            Phase::Vote => self.prepared = Some(quorum),
            Phase::Commit => self.certify(quorum),
        }
    }

    fn certify(&mut self, certificate: VerifiedQuorum) {
        let quorum = certificate.quorum().clone();
        // Whoever missed commits gets them from one seat, not from all.
        if self.proposer(certificate.round()) == Some(self.node) {
            self.push(Output::Broadcast(Message::Quorum(quorum.clone())));
        }
        self.push(Output::Certified(quorum));
        self.certified = Some(certificate);
    }

    /// Signs whatever may be signed now, and sets the next deadline.
    fn act(&mut self, now: Now) {
        self.deadline = now.mono + self.timetable.next(now.unix).since(now.unix);
        let Some(round) = self.timetable.round(now.unix) else { return };
        if self.outputs.room() < ROOM {
            return self.drops.count(DropReason::QueueFull);
        }
        self.propose(round);
        self.vote(round);
        self.commit(round);
    }

    /// Our rank, if we may sign: what follows the tip is open, and we signed nothing after a later tip.
    fn signing_rank(&self) -> Option<u16> {
        let is_open = self.certified.is_none() && self.tip.statement().epoch >= self.record.height;
        if is_open { self.tip.electorate().rank(self.node) } else { None }
    }

    fn propose(&mut self, round: Round) {
        if self.proposer(round) != Some(self.node) || self.proposals.contains_key(&round) {
            return;
        }
        let prepared = self.prepared.as_ref();
        let own = self.own.filter(|own| own.epoch == round.epoch);
        let Some(statement) = prepared.map(|prepared| *prepared.statement()).or(own) else { return };
        let shown = prepared.map(|prepared| prepared.quorum().clone());
        let Some(vote) = self.sign_vote(round, &statement) else { return };
        if let Some(votes) = shown {
            self.push(Output::Broadcast(Message::Quorum(votes)));
        }
        self.push(Output::Broadcast(Message::Proposal(statement, vote.ballot().clone())));
        self.proposals.insert(round, vote.ballot().statement);
        self.insert_own(vote);
    }

    fn vote(&mut self, round: Round) {
        let Some(statement) = self.proposals.get(&round).and_then(|hash| self.statements.get(hash)).copied() else {
            return;
        };
        let Some(vote) = self.sign_vote(round, &statement) else { return };
        self.push(Output::Broadcast(Message::Ballot(vote.ballot().clone())));
        self.insert_own(vote);
    }

    /// A vote for `statement`, if it may be given; the record of it goes first.
    fn sign_vote(&mut self, round: Round, statement: &Statement) -> Option<VerifiedBallot> {
        self.signing_rank()?;
        if round <= self.record.voted {
            return None;
        }
        let hash = statement.hash(&self.network);
        // Votes of two thirds vouch for a set as well as our own look at it, and those of a later round than our lock's
        // free us from it: `prepared` is never of an earlier round than the lock.
        let is_backed = [&self.prepared, &self.lock].into_iter().flatten().any(|votes| votes.statement() == statement);
        let is_approved = statement.epoch == round.epoch && self.approved.contains(&hash);
        if !is_backed && (self.lock.is_some() || !is_approved) {
            return None;
        }
        self.record.voted = round;
        self.persist();
        Some(Ballot::sign(Phase::Vote, round, hash, &self.network, &self.identity))
    }

    fn commit(&mut self, round: Round) {
        let Some(votes) = self.prepared.clone().filter(|prepared| prepared.round() == round) else { return };
        if self.signing_rank().is_none() || round <= self.record.committed || round < self.record.voted {
            return;
        }
        let hash = votes.hash(&self.network);
        self.lock = Some(votes);
        self.record.committed = round;
        self.persist();
        let ballot = Ballot::sign(Phase::Commit, round, hash, &self.network, &self.identity);
        self.push(Output::Broadcast(Message::Ballot(ballot.ballot().clone())));
        self.insert_own(ballot);
    }

    fn persist(&mut self) {
        self.record.height = self.tip.statement().epoch;
        self.record.lock = self.lock.as_ref().map(|lock| lock.quorum().clone());
        self.push(Output::Persist(self.record.clone()));
    }

    fn insert_own(&mut self, ballot: VerifiedBallot) {
        if let Some(rank) = self.signing_rank() {
            self.insert(rank, ballot);
        }
    }

    /// Before the first round and late in every round without a certificate: the next proposer must know what binds us.
    fn show_lock(&mut self, now: Now) {
        let epoch = self.timetable.schedule().at(now.unix).next();
        let moment = match self.timetable.round(now.unix) {
            Some(round) => self.timetable.rescue(round),
            None => self.timetable.cut_off(epoch),
        };
        let is_due = now.unix >= moment && self.shown != Some(moment) && self.signing_rank().is_some();
        if let (true, Some(lock)) = (is_due, &self.lock) {
            let lock = lock.quorum().clone();
            self.shown = Some(moment);
            self.push(Output::Broadcast(Message::Quorum(lock)));
        }
    }

    fn push(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }
}

#[cfg(test)]
#[path = "certifier_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model;
