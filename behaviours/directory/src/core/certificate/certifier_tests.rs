//! Transcripts: seats that certify one epoch after the other, with all messages delivered at once.

use std::time::Duration;

use fog_base::Epoch;

use super::*;
use crate::core::certificate::{
    chain::{Link, Standing, verify_chain},
    electorate::Elector,
};

const NETWORK: NetworkId = NetworkId([3; 32]);
const FIRST: Epoch = Epoch(1000);

fn schedule() -> EpochSchedule {
    EpochSchedule::new(Duration::from_secs(480))
}

fn identity(n: usize) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_bytes(&[n as u8 + 1; 32]))
}

fn id(n: usize) -> NodeId {
    NodeId(identity(n).verifying_key().to_bytes())
}

/// Seats of these nodes, in this order, all of one weight.
fn electorate(nodes: impl IntoIterator<Item = usize>) -> Electorate {
    Electorate::new(nodes.into_iter().map(|n| Elector { node: id(n), weight: 5 }).collect()).unwrap()
}

/// The seats of an epoch's set: five of seven nodes, others each time, first of them node `epoch` modulo 7.
fn seats(epoch: Epoch) -> Electorate {
    electorate((0..5).map(|n| (epoch.0 as usize + n) % 7))
}

fn begin() -> Tip {
    let before = Epoch(FIRST.0 - 1);
    let statement = Statement { epoch: before, ..Statement::genesis(seats(before).commitment()) };
    Tip::from_store(&NETWORK, statement, seats(before)).unwrap()
}

fn config(n: usize) -> Config {
    Config { network: NETWORK, schedule: schedule(), identity: identity(n) }
}

fn round(epoch: Epoch, attempt: u8) -> Round {
    Round { epoch, attempt }
}

fn at(round: Round) -> Now {
    let start = crate::core::testing::start();
    Now { unix: Timetable::new(schedule()).start(round), ..start }
}

/// The statement of an epoch after `tip`, which every node holds.
fn statement(epoch: Epoch, tip: &Tip) -> Statement {
    Statement {
        epoch,
        previous: tip.hash(),
        root: [epoch.0 as u8; 32],
        relays: 7,
        electorate: seats(epoch).commitment(),
        state: [5; 32],
    }
}

fn outputs(certifier: &mut Certifier) -> Vec<Output> {
    std::iter::from_fn(|| certifier.poll_output()).collect()
}

fn broadcasts(outputs: &[Output]) -> Vec<Message> {
    outputs.iter().filter_map(|output| if let Output::Broadcast(m) = output { Some(m.clone()) } else { None }).collect()
}

/// All state but the counters.
fn state(of: &Certifier) -> String {
    let known = (&of.own, &of.statements, &of.approved, &of.proposals, &of.ballots, &of.convicted);
    format!("{:?} {:?} {known:?} {:?}", of.tip, of.record, (&of.lock, &of.prepared, &of.certified))
}

struct Seats {
    nodes: Vec<Certifier>,
    records: Vec<Record>,
    /// Those that neither speak nor hear.
    away: BTreeSet<usize>,
    links: Vec<Link>,
    proofs: usize,
}

impl Seats {
    fn new() -> Self {
        let now = at(round(FIRST, 0));
        let nodes = (0..7).map(|n| Certifier::new(config(n), begin(), Record::NEW, now)).collect();
        Self { nodes, records: vec![Record::NEW; 7], away: BTreeSet::new(), links: vec![], proofs: 0 }
    }

    /// Rounds of the epoch before `epoch`, one after the other, as far as `attempts`.
    fn certify(&mut self, epoch: Epoch, attempts: u8) {
        for attempt in 0..attempts {
            let now = at(round(epoch, attempt));
            for n in (0..7).filter(|n| !self.away.contains(n)).collect::<Vec<_>>() {
                self.nodes[n].handle_timeout(now);
                let own = statement(epoch, &self.nodes[n].tip.clone());
                // Refused where the epoch is certified already.
                let _outcome = self.nodes[n].handle_own(own, now);
            }
            self.deliver(now);
        }
    }

    fn deliver(&mut self, now: Now) {
        while let Some((from, output)) = (0..7).find_map(|n| self.nodes[n].poll_output().map(|output| (n, output))) {
            match output {
                Output::Persist(record) => self.records[from] = Record::from_bytes(&record.to_bytes()).unwrap(),
                Output::Broadcast(message) if !self.away.contains(&from) => {
                    for to in (0..7).filter(|to| *to != from && !self.away.contains(to)).collect::<Vec<_>>() {
                        let message = Message::from_bytes(&message.to_bytes()).unwrap();
                        let outcome = self.nodes[to].handle_message(message, now);
                        assert!(
                            outcome.is_ok_and(|_| true) || outcome.is_err_and(|e| !e.is_misbehaviour()),
                            "{outcome:?}"
                        );
                    }
                }
                Output::Broadcast(_) => {}
                Output::FetchSet(statement) => self.nodes[from].handle_judged(&statement, true, now),
                Output::Certified(certificate) => {
                    let electorate = seats(certificate.statement.epoch);
                    if self.links.last().is_none_or(|last| last.certificate.statement != certificate.statement) {
                        self.links.push(Link { certificate, electorate: electorate.clone() });
                    }
                    self.nodes[from].handle_electorate(electorate, now).unwrap();
                }
                Output::Misbehaviour(_) => self.proofs += 1,
            }
        }
    }

    fn epochs(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.tip().statement().epoch.0).collect()
    }
}

#[test]
fn other_seats_certify_each_epoch_and_everybody_follows() {
    let mut seats = Seats::new();
    for epoch in 1000..1010 {
        seats.certify(Epoch(epoch), 1);
        assert_eq!(seats.epochs(), [epoch; 7]);
    }
    let (end, outcome) = verify_chain(&NETWORK, begin(), seats.links.clone());
    assert_eq!((&end, outcome), (seats.nodes[0].tip(), Ok(())));
    assert_eq!(seats.proofs, 0);
}

#[test]
fn when_the_first_proposer_is_away_the_second_proposes() {
    let mut seats = Seats::new();
    // The seats are those of epoch 999: node 5 first, then 6.
    seats.away.insert(5);
    seats.certify(FIRST, 1);
    assert_eq!(seats.epochs(), [999; 7]);
    seats.certify(FIRST, 2);
    assert_eq!(seats.epochs(), [1000, 1000, 1000, 1000, 1000, 999, 1000]);
    assert_eq!(seats.links[0].certificate.round, round(FIRST, 1));
}

#[test]
fn without_two_thirds_nothing_is_certified_and_a_later_epoch_restarts() {
    let mut seats = Seats::new();
    seats.away.extend([5, 6]);
    for epoch in 1000..1004 {
        seats.certify(Epoch(epoch), 4);
    }
    assert_eq!(seats.epochs(), [999; 7]);
    assert_eq!(seats.nodes[0].tip().standing(Epoch(1001)), Standing::Overtime(2));
    assert_eq!(seats.nodes[0].tip().standing(Epoch(1002)), Standing::Stopped { last: Epoch(999) });
    seats.away.clear();
    seats.certify(Epoch(1004), 4);
    assert_eq!(seats.epochs(), [1004; 7], "by the electorate of 999");
    seats.certify(Epoch(1005), 1);
    assert_eq!(seats.epochs(), [1005; 7]);
}

#[test]
fn a_node_that_was_away_for_ten_epochs_follows_the_chain_and_takes_part_again() {
    let mut seats = Seats::new();
    seats.away.insert(0);
    for epoch in 1000..1010 {
        seats.certify(Epoch(epoch), 4);
    }
    seats.away.clear();
    let old = seats.nodes[0].tip().clone();
    assert_eq!(old.statement().epoch, Epoch(999));
    let now = at(round(Epoch(1010), 0));
    let (caught_up, outcome) = verify_chain(&NETWORK, old, seats.links.clone());
    assert_eq!(outcome, Ok(()));
    seats.nodes[0].handle_tip(caught_up, now);
    assert_eq!(seats.records[0], Record::NEW);
    // In 1012's set it has a seat again, and so a vote on 1013's.
    for epoch in 1010..1014 {
        seats.certify(Epoch(epoch), 1);
        assert_eq!(seats.epochs(), [epoch; 7]);
    }
    assert_eq!((seats.records[0].voted, seats.records[0].committed), (round(Epoch(1013), 0), round(Epoch(1013), 0)));
    let tip = seats.nodes[0].tip().clone();
    seats.nodes[0].handle_tip(begin(), now);
    assert_eq!(*seats.nodes[0].tip(), tip, "a tip never goes back");
}

/// Node 5 proposes in the first round after epoch 999.
fn proposer() -> Certifier {
    Certifier::new(config(5), begin(), Record::NEW, at(round(FIRST, 0)))
}

#[test]
fn every_signature_is_written_down_before_it_leaves() {
    let mut seats = Seats::new();
    let now = at(round(FIRST, 0));
    for node in &mut seats.nodes {
        node.handle_own(statement(FIRST, &begin()), now).unwrap();
    }
    let mut signed = 0;
    let mut inbox: Vec<Message> = vec![];
    for step in 0..40 {
        let node = &mut seats.nodes[step % 7];
        for message in inbox.clone() {
            let _verdict = node.handle_message(message, now);
        }
        let mut written = node.record.clone();
        written.voted = Round::NEVER;
        written.committed = Round::NEVER;
        for output in outputs(node) {
            match &output {
                Output::Persist(record) => written = record.clone(),
                Output::Broadcast(Message::Proposal(_, ballot) | Message::Ballot(ballot)) => {
                    let of = if ballot.phase == Phase::Vote { written.voted } else { written.committed };
                    assert_eq!(of, ballot.round, "{ballot:?} left before its record");
                    assert!(ballot.phase == Phase::Vote || written.lock.is_some());
                    signed += 1;
                }
                _ => {}
            }
            if let Output::Broadcast(message) = output {
                inbox.push(message);
            }
            if let Some(asked) = node.statements.values().next().copied() {
                node.handle_judged(&asked, true, now);
            }
        }
    }
    assert!(signed >= 9, "{signed}: at least five votes and four commits");
}

#[test]
fn a_seat_that_is_bound_says_so_and_the_next_proposer_proposes_the_same_again() {
    let (now, set) = (at(round(FIRST, 0)), statement(FIRST, &begin()));
    let vote =
        |n| Ballot::sign(Phase::Vote, round(FIRST, 0), set.hash(&NETWORK), &NETWORK, &identity(n)).ballot().clone();
    // Of 999's seats, which are 5, 6, 0, 1 and 2, only node 0 sees the votes, and its commit is lost.
    let mut bound = Certifier::new(config(0), begin(), Record::NEW, now);
    bound.handle_own(set, now).unwrap();
    let votes = [Message::Proposal(set, vote(5)), Message::Ballot(vote(1)), Message::Ballot(vote(2))];
    assert_eq!(votes.map(|vote| bound.handle_message(vote, now)), [Ok(Verdict::New); 3]);
    assert_eq!(bound.lock.as_ref().map(|lock| *lock.statement()), Some(set));
    outputs(&mut bound);
    let late = now.plus(Timetable::new(schedule()).rescue(round(FIRST, 0)).since(now.unix));
    bound.handle_timeout(late);
    let shown = broadcasts(&outputs(&mut bound));
    assert!(matches!(&shown[..], [Message::Quorum(votes)] if votes.statement == set), "{shown:?}");
    bound.handle_timeout(late.plus(Duration::from_secs(1)));
    assert_eq!(broadcasts(&outputs(&mut bound)), [], "once");
    // Node 6, who is next, holds another set and has seen nothing.
    let mut next = Certifier::new(config(6), begin(), Record::NEW, now);
    next.handle_own(Statement { root: [77; 32], ..set }, now).unwrap();
    assert_eq!(next.handle_message(shown[0].clone(), late), Ok(Verdict::New));
    next.handle_timeout(at(round(FIRST, 1)));
    let said = broadcasts(&outputs(&mut next));
    let again = said.iter().find_map(|message| if let Message::Proposal(s, _) = message { Some(*s) } else { None });
    assert_eq!(again, Some(set), "{said:?}");
}

#[test]
fn a_restarted_seat_does_not_sign_in_that_round_again() {
    let now = at(round(FIRST, 0));
    let mut first = proposer();
    first.handle_own(statement(FIRST, &begin()), now).unwrap();
    let told = outputs(&mut first);
    let [Output::Persist(record), Output::Broadcast(Message::Proposal(..))] = &told[..] else { panic!("{told:?}") };
    let mut again = Certifier::new(config(5), begin(), record.clone(), now);
    let other = Statement { root: [77; 32], ..statement(FIRST, &begin()) };
    again.handle_own(other, now).unwrap();
    assert_eq!(outputs(&mut again), []);
    let later = at(round(Epoch(1001), 1));
    let mut forgetful = Certifier::new(config(6), begin(), Record::lost(FIRST), later);
    forgetful.handle_own(statement(Epoch(1001), &begin()), later).unwrap();
    assert_eq!(outputs(&mut forgetful), [], "it may be bound by what it no longer knows");
}

#[test]
fn a_seat_whose_tip_fell_behind_its_record_signs_nothing_until_it_caught_up() {
    let now = at(round(Epoch(1001), 0));
    let after = Tip::from_store(&NETWORK, statement(FIRST, &begin()), seats(FIRST)).unwrap();
    // Node 1 has a seat in both electorates.
    let record = Record { height: FIRST, voted: round(Epoch(1001), 0), ..Record::NEW };
    let later = at(round(Epoch(1001), 3));
    for (tip, may_sign) in [(begin(), false), (after, true)] {
        let mut seat = Certifier::new(config(1), tip.clone(), record.clone(), now);
        let proposer = tip.electorate().proposer(tip.statement().epoch, round(Epoch(1001), 3)).unwrap();
        let proposer = (0..7).find(|n| id(*n) == proposer).unwrap();
        let own = statement(Epoch(1001), &tip);
        seat.handle_own(own, later).unwrap();
        let vote = Ballot::sign(Phase::Vote, round(Epoch(1001), 3), own.hash(&NETWORK), &NETWORK, &identity(proposer));
        let outcome = seat.handle_message(Message::Proposal(own, vote.ballot().clone()), later);
        assert_eq!(outcome, Ok(Verdict::New));
        let signed = broadcasts(&outputs(&mut seat));
        assert_eq!(signed.len(), usize::from(may_sign), "{signed:?}");
    }
}

#[test]
fn a_seat_votes_only_for_a_set_that_it_holds_and_approves_of() {
    let now = at(round(FIRST, 0));
    let mut voter = Certifier::new(config(6), begin(), Record::NEW, now);
    let mut first = proposer();
    first.handle_own(statement(FIRST, &begin()), now).unwrap();
    let proposal = broadcasts(&outputs(&mut first)).remove(0);
    assert_eq!(voter.handle_message(proposal.clone(), now), Ok(Verdict::New));
    assert_eq!(outputs(&mut voter), [Output::FetchSet(statement(FIRST, &begin()))]);
    voter.handle_judged(&statement(FIRST, &begin()), false, now);
    assert_eq!(outputs(&mut voter), []);
    assert_eq!(voter.handle_message(proposal, now), Ok(Verdict::Known));
    voter.handle_judged(&statement(FIRST, &begin()), true, now);
    assert!(matches!(&outputs(&mut voter)[..], [Output::Persist(_), Output::Broadcast(Message::Ballot(_))]));
}

#[test]
fn a_known_ballot_under_a_false_signature_is_refused_and_not_passed_on() {
    let (now, set) = (at(round(FIRST, 0)), statement(FIRST, &begin()));
    let vote = Ballot::sign(Phase::Vote, round(FIRST, 0), set.hash(&NETWORK), &NETWORK, &identity(5)).ballot().clone();
    let mut node = Certifier::new(config(0), begin(), Record::NEW, now);
    assert_eq!(node.handle_message(Message::Ballot(vote.clone()), now), Ok(Verdict::New));
    let mut forged = vote.clone();
    forged.signature[0] ^= 1;
    assert_eq!(node.handle_message(Message::Proposal(set, forged), now), Err(Reject::BadSignature));
    assert_eq!(node.handle_message(Message::Ballot(vote.clone()), now), Ok(Verdict::Known));
    assert_eq!(node.handle_message(Message::Proposal(set, vote), now), Ok(Verdict::New), "the statement is news");
}

#[test]
fn whoever_signs_twice_is_convicted_once_and_everybody_is_told() {
    let now = at(round(FIRST, 0));
    let mut node = Certifier::new(config(0), begin(), Record::NEW, now);
    let ballot = |n: u8| {
        Message::Ballot(Ballot::sign(Phase::Vote, round(FIRST, 0), [n; 32], &NETWORK, &identity(6)).ballot().clone())
    };
    assert_eq!(node.handle_message(ballot(1), now), Ok(Verdict::New));
    assert_eq!(node.handle_message(ballot(2), now), Err(Reject::SignedTwice));
    let told = outputs(&mut node);
    let [Output::Misbehaviour(proof), Output::Broadcast(message)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((proof.verify(&NETWORK), message), (Ok(id(6)), &Message::DoubleSign(proof.clone())));
    assert_eq!(node.handle_message(ballot(3), now), Err(Reject::SignedTwice));
    assert_eq!(node.handle_message(message.clone(), now), Ok(Verdict::Known));
    assert_eq!(outputs(&mut node), []);
    let mut other = Certifier::new(config(1), begin(), Record::NEW, now);
    assert_eq!(other.handle_message(message.clone(), now), Ok(Verdict::New));
    assert_eq!(outputs(&mut other), [Output::Misbehaviour(proof.clone())]);
}

#[test]
fn what_is_false_is_refused_and_changes_nothing() {
    let now = at(round(FIRST, 0));
    let mut node = Certifier::new(config(0), begin(), Record::NEW, now);
    let good = statement(FIRST, &begin());
    let propose = |n: usize, round: Round, statement: Statement| {
        let ballot = Ballot::sign(Phase::Vote, round, statement.hash(&NETWORK), &NETWORK, &identity(n));
        Message::Proposal(statement, ballot.ballot().clone())
    };
    let ballot = |n: usize, round| {
        Message::Ballot(Ballot::sign(Phase::Commit, round, [1; 32], &NETWORK, &identity(n)).ballot().clone())
    };
    let elsewhere = Statement { previous: [1; 32], ..good };
    let past = Statement { epoch: Epoch(999), ..good };
    let future = Statement { epoch: Epoch(1001), ..good };
    let before = state(&node);
    for (message, reject) in [
        (propose(6, round(FIRST, 0), good), Reject::NotProposer),
        (propose(5, round(FIRST, 0), elsewhere), Reject::OtherHeight),
        (propose(5, round(FIRST, 0), past), Reject::WrongEpoch),
        (propose(5, round(FIRST, 0), future), Reject::Malformed),
        (propose(0, round(FIRST, 2), good), Reject::WrongRound),
        (ballot(6, round(FIRST, 2)), Reject::WrongRound),
        (ballot(6, round(Epoch(998), 0)), Reject::WrongRound),
        (ballot(4, round(FIRST, 0)), Reject::NotSeated),
        (ballot(99, round(FIRST, 0)), Reject::NotSeated),
    ] {
        assert_eq!(node.handle_message(message, now), Err(reject));
    }
    assert_eq!((state(&node), node.drops().total()), (before, 9));
    assert_eq!(outputs(&mut node), []);
}

#[test]
fn every_flipped_bit_of_a_message_is_refused_and_changes_nothing() {
    let now = at(round(FIRST, 0));
    let good = statement(FIRST, &begin());
    let sign = |n, phase| Ballot::sign(phase, round(FIRST, 0), good.hash(&NETWORK), &NETWORK, &identity(n));
    let votes: Vec<_> =
        begin().electorate().seats().iter().map(|seat| (0..7).find(|n| id(*n) == seat.node).unwrap()).collect();
    let votes: Vec<_> = votes.into_iter().map(|n| sign(n, Phase::Commit)).collect();
    let place = (Phase::Commit, round(FIRST, 0), good);
    let quorum = Quorum::assemble(place, begin().electorate(), (0..).zip(&votes)).unwrap().quorum().clone();
    let messages = [
        Message::Proposal(good, sign(5, Phase::Vote).ballot().clone()),
        Message::Ballot(sign(6, Phase::Commit).ballot().clone()),
        Message::Quorum(quorum),
    ];
    for message in messages {
        let mut node = Certifier::new(config(0), begin(), Record::NEW, now);
        let before = state(&node);
        let bytes = message.to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = Message::from_bytes(&changed).and_then(|message| node.handle_message(message, now));
            assert!(outcome.is_err(), "bit {bit} of {message:?}");
        }
        assert_eq!(state(&node), before);
        assert_eq!(node.handle_message(message, now), Ok(Verdict::New));
        assert_ne!(state(&node), before);
    }
}
