//! The small network of `model_tests.rs`: its seats, its messages, and what may happen next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use fog_base::Epoch;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::super::*;
use crate::core::certificate::electorate::Elector;

const NETWORK: NetworkId = NetworkId([3; 32]);
const TARGET: Epoch = Epoch(1000);
/// The root of the set that honest seats hold begins with this.
const HONEST: u8 = 0;
/// A search that grows beyond this is a mistake in the setup.
const MAX_STATES: usize = 4_000_000;

pub(super) fn round(epochs_later: u32, attempt: u8) -> Round {
    Round { epoch: Epoch(TARGET.0 + epochs_later), attempt }
}

/// What is explored.
pub(super) struct Setup {
    /// By rank.
    pub(super) weights: &'static [u64],
    /// Ranks of the liars.
    pub(super) liars: &'static [usize],
    /// The sets that liars made: how many epochs after the first, and the first byte of the root.
    pub(super) lies: &'static [(u32, u8)],
    /// Whether liars sign nothing at all.
    pub(super) silent: bool,
    /// The rounds that clocks show one after the other.
    pub(super) rounds: Vec<Round>,
    /// The rank of the one that may crash once.
    pub(super) crashes: Option<usize>,
    /// Whether records reach the disk.
    pub(super) persists: bool,
    pub(super) grain: Grain,
    /// Whether clocks go on only when everything was delivered.
    pub(super) synchronous: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Grain {
    Fine,
    Coarse,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Input {
    Crash,
    /// The clock goes on to this round, and nothing else happens.
    Tick(usize),
    /// The clock goes on to this round, or stays, and this message comes.
    Deliver(usize, usize),
}

/// One honest seat: its certifier, its disk and its clock.
struct Local {
    certifier: Certifier,
    disk: Record,
    clock: usize,
    has_crashed: bool,
}

/// What a signature speaks of.
type Row = (Phase, Round, Hash);

/// The seats' states by number, and one bit for each message that honest seats sent.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    locals: [u32; 4],
    sent: u128,
}

#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) states: usize,
    pub(super) steps: usize,
    pub(super) local_states: usize,
    /// The most statements for which commits of a quorum exist in one state.
    pub(super) certified: usize,
    /// The same for votes.
    pub(super) prepared: usize,
    /// Whether some honest seat signed two statements in one round.
    pub(super) honest_signed_twice: bool,
    pub(super) honest_accused: bool,
    /// States from which nothing follows, and in how many of them each honest seat has a certificate.
    pub(super) ends: usize,
    pub(super) certified_ends: usize,
}

pub(super) struct World {
    setup: Setup,
    schedule: EpochSchedule,
    start: Now,
    identities: Vec<Arc<SigningKey>>,
    tip: Tip,
    honest: Vec<usize>,
    /// Those that liars propose, by epoch, and the one that honest seats hold.
    statements: Vec<Statement>,
    messages: Vec<Message>,
    numbers: HashMap<Vec<u8>, usize>,
    /// Messages that are there from the start.
    lies: Vec<usize>,
    locals: Vec<(usize, Local)>,
    local_numbers: HashMap<String, u32>,
    /// By seat's state: what follows from each input.
    steps: Vec<HashMap<Input, (u32, u128)>>,
    /// By phase, round and statement: one of the messages that show its quorum. Which signatures it has makes no
    /// difference.
    quorum_messages: HashMap<Row, usize>,
    honest_accused: bool,
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let schedule = EpochSchedule::new(Duration::from_secs(600));
        let unix = Timetable::new(schedule).start(setup.rounds[0]);
        let start = Now { mono: crate::core::testing::start().mono, unix };
        // Ranks are what counts, and not the order of keys.
        let identities: Vec<_> = (0..4u8).map(|n| Arc::new(SigningKey::from_bytes(&[n + 1; 32]))).collect();
        let seats = identities.iter().zip(setup.weights);
        let seats =
            seats.map(|(key, weight)| Elector { node: NodeId(key.verifying_key().to_bytes()), weight: *weight });
        let electorate = Electorate::new(seats.collect()).unwrap();
        let before = Statement { epoch: Epoch(TARGET.0 - 1), ..Statement::genesis(electorate.commitment()) };
        let tip = Tip::from_store(&NETWORK, before, electorate).unwrap();
        let epochs: BTreeSet<_> = setup.rounds.iter().map(|round| round.epoch).collect();
        // Of each epoch the set that the honest hold, and those that liars made.
        let statement = |epoch, n| Statement {
            epoch,
            previous: tip.hash(),
            root: [n; 32],
            relays: 9,
            electorate: [n; 32],
            state: [n; 32],
        };
        let own = epochs.iter().map(|epoch| statement(*epoch, HONEST));
        let lies = setup.lies.iter().map(|(later, n)| statement(Epoch(TARGET.0 + later), *n));
        let statements = own.chain(lies).collect();
        let honest = (0..setup.weights.len()).filter(|rank| !setup.liars.contains(rank)).collect();
        let mut world = Self {
            schedule,
            start,
            identities,
            tip: tip.clone(),
            honest,
            statements,
            messages: vec![],
            numbers: HashMap::new(),
            lies: vec![],
            locals: vec![],
            local_numbers: HashMap::new(),
            steps: vec![],
            quorum_messages: HashMap::new(),
            honest_accused: false,
            setup,
        };
        world.add_lies();
        world
    }

    /// Whatever liars can sign: any statement in any round and phase, and proposals where it is their turn.
    fn add_lies(&mut self) {
        let mut lies = vec![];
        if self.setup.silent {
            return;
        }
        for (liar, round) in self.setup.liars.iter().flat_map(|liar| self.setup.rounds.iter().map(move |r| (*liar, *r)))
        {
            let id = NodeId(self.identities[liar].verifying_key().to_bytes());
            for statement in self.statements.iter().filter(|s| s.epoch <= round.epoch) {
                for phase in [Phase::Vote, Phase::Commit] {
                    let ballot = Ballot::sign(phase, round, statement.hash(&NETWORK), &NETWORK, &self.identities[liar]);
                    let is_proposer = self.tip.electorate().proposer(self.tip.statement().epoch, round) == Some(id);
                    if phase == Phase::Vote && is_proposer {
                        lies.push(Message::Proposal(*statement, ballot.ballot().clone()));
                    }
                    if self.setup.grain == Grain::Fine {
                        lies.push(Message::Ballot(ballot.ballot().clone()));
                    }
                }
            }
        }
        self.lies = lies.into_iter().map(|lie| self.number(lie)).collect();
    }

    fn number(&mut self, message: Message) -> usize {
        let next = self.messages.len();
        let number = *self.numbers.entry(message.to_bytes()).or_insert(next);
        if number == next {
            self.messages.push(message);
        }
        assert!(self.messages.len() <= 128, "the bits of a state");
        number
    }

    fn now(&self, clock: usize) -> Now {
        let unix = Timetable::new(self.schedule).start(self.setup.rounds[clock]);
        self.start.plus(unix.since(self.start.unix))
    }

    fn fresh(&mut self, rank: usize, disk: Record, clock: usize, has_crashed: bool) -> (u32, u128) {
        let config = Config { network: NETWORK, schedule: self.schedule, identity: self.identities[rank].clone() };
        let certifier = Certifier::new(config, self.tip.clone(), disk.clone(), self.now(clock));
        let mut local = Local { certifier, disk, clock, has_crashed };
        self.hold_own(&mut local);
        self.settle(rank, local)
    }

    /// Each honest seat holds the same set at the cut-off.
    fn hold_own(&self, local: &mut Local) {
        let epoch = self.setup.rounds[local.clock].epoch;
        let own = self.statements.iter().find(|s| s.epoch == epoch && s.root[0] == HONEST).unwrap();
        // Refused once the place in the chain is taken, which is no concern here.
        let _outcome = local.certifier.handle_own(*own, self.now(local.clock));
    }

    /// Does what the certifier wants done; the state's number and what was sent.
    fn settle(&mut self, rank: usize, mut local: Local) -> (u32, u128) {
        let mut sent = 0;
        while let Some(output) = local.certifier.poll_output() {
            match output {
                Output::Persist(record) => {
                    let record = Record::from_bytes(&record.to_bytes()).unwrap();
                    if self.setup.persists {
                        local.disk = record;
                    }
                }
                // In coarse grain everybody can make these out of what was sent.
                Output::Broadcast(Message::Quorum(_) | Message::DoubleSign(_)) => {}
                Output::Broadcast(message) => sent |= 1 << self.number(message),
                Output::FetchSet(statement) => {
                    let now = self.now(local.clock);
                    local.certifier.handle_judged(&statement, true, now);
                }
                Output::Certified(_) => {}
                Output::Misbehaviour(proof) => {
                    let accused = proof.verify(&NETWORK).unwrap();
                    let accused = self.tip.electorate().rank(accused).unwrap();
                    self.honest_accused |= self.honest.contains(&usize::from(accused));
                }
            }
        }
        let next = self.locals.len() as u32;
        let number = *self
            .local_numbers
            .entry(fingerprint(rank, &local, self.setup.grain, self.setup.rounds[local.clock]))
            .or_insert(next);
        if number == next {
            self.locals.push((rank, local));
            self.steps.push(HashMap::new());
        }
        (number, sent)
    }

    /// What a seat in state `number` does with `input`.
    fn step(&mut self, number: u32, input: Input) -> (u32, u128) {
        if let Some(known) = self.steps[number as usize].get(&input) {
            return *known;
        }
        let (rank, local) = &self.locals[number as usize];
        let rank = *rank;
        let mut local = local.fork();
        let after = match input {
            Input::Crash => self.fresh(rank, local.disk, 0, true),
            Input::Tick(clock) => {
                self.advance(&mut local, clock);
                self.settle(rank, local)
            }
            Input::Deliver(clock, message) => {
                self.advance(&mut local, clock);
                let message = Message::from_bytes(&self.messages[message].to_bytes()).unwrap();
                // Refused or not: the state afterwards is what counts.
                let _outcome = local.certifier.handle_message(message, self.now(clock));
                self.settle(rank, local)
            }
        };
        self.steps[number as usize].insert(input, after);
        after
    }

    fn advance(&self, local: &mut Local, clock: usize) {
        while local.clock < clock {
            local.clock += 1;
            local.certifier.handle_timeout(self.now(local.clock));
            self.hold_own(local);
        }
    }

    /// The signatures of honest seats that exist: by phase, round and statement, the messages that bear them.
    fn signed(&self, sent: u128) -> BTreeMap<Row, Vec<(usize, &Ballot)>> {
        let mut signed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, message) in self.messages.iter().enumerate().filter(|(number, _)| sent >> number & 1 == 1) {
            let (Message::Proposal(_, ballot) | Message::Ballot(ballot)) = message else {
                panic!("{message:?} is in no state")
            };
            let rank = usize::from(self.tip.electorate().rank(ballot.signer).unwrap());
            signed.entry((ballot.phase, ballot.round, ballot.statement)).or_default().push((rank, ballot));
        }
        signed
    }

    /// What can be made of the signatures, those of the liars added: for each phase, round and statement with two
    /// thirds the quorum message. Looks whether an honest seat signed twice, too.
    fn quorums(&mut self, sent: u128, outcome: &mut Outcome) -> Vec<usize> {
        let (mut by_signer, mut reached, mut missing) = (HashMap::new(), BTreeSet::new(), vec![]);
        let signed = self.signed(sent);
        let liars = if self.setup.silent { &[] } else { self.setup.liars };
        let lied: u64 = liars.iter().map(|liar| self.setup.weights[*liar]).sum();
        for (row @ (phase, round, hash), ballots) in &signed {
            for (rank, _) in ballots {
                let before = by_signer.insert((*phase, *round, *rank), *hash);
                outcome.honest_signed_twice |= before.is_some_and(|before| before != *hash);
            }
            let ranks: BTreeSet<_> = ballots.iter().map(|(rank, _)| *rank).collect();
            let weight = lied + ranks.iter().map(|rank| self.setup.weights[*rank]).sum::<u64>();
            if self.tip.electorate().is_quorum(u128::from(weight)) {
                reached.insert(*row);
                if !self.quorum_messages.contains_key(row) {
                    let statement = *self.statements.iter().find(|s| s.hash(&NETWORK) == *hash).unwrap();
                    let sign = |liar: &usize| Ballot::sign(*phase, *round, *hash, &NETWORK, &self.identities[*liar]);
                    let honest = ballots.iter().map(|(_, ballot)| (*ballot).clone().verify(&NETWORK).unwrap());
                    let all: Vec<_> = honest.chain(liars.iter().map(sign)).collect();
                    let rank = |b: &VerifiedBallot| self.tip.electorate().rank(b.ballot().signer).unwrap();
                    let ranked: BTreeMap<_, _> = all.iter().map(|ballot| (rank(ballot), ballot)).collect();
                    let quorum =
                        Quorum::assemble((*phase, *round, statement), self.tip.electorate(), ranked.into_iter());
                    missing.push((*row, Message::Quorum(quorum.unwrap().quorum().clone())));
                }
            }
        }
        for (row, message) in missing {
            let number = self.number(message);
            self.quorum_messages.insert(row, number);
        }
        let count =
            |phase| reached.iter().filter(|(p, ..)| *p == phase).map(|(.., hash)| hash).collect::<BTreeSet<_>>().len();
        outcome.certified = outcome.certified.max(count(Phase::Commit));
        outcome.prepared = outcome.prepared.max(count(Phase::Vote));
        reached.iter().map(|row| self.quorum_messages[row]).collect()
    }

    fn first(&mut self) -> State {
        let mut first = State { locals: [u32::MAX; 4], sent: 0 };
        for (at, rank) in self.honest.clone().into_iter().enumerate() {
            let (number, sent) = self.fresh(rank, Record::NEW, 0, false);
            first.locals[at] = number;
            first.sent |= sent;
        }
        first
    }

    fn network(&self, state: &State, quorums: &[usize]) -> Vec<usize> {
        let sent = (0..128).filter(|bit| state.sent >> bit & 1 == 1);
        sent.chain(self.lies.iter().copied()).chain(quorums.iter().copied()).collect()
    }

    /// All states, breadth first.
    pub(super) fn explore(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let first = self.first();
        let mut seen = HashSet::from([first.clone()]);
        let mut queue = VecDeque::from([first]);
        let mut quorums: HashMap<u128, Vec<usize>> = HashMap::new();
        while let Some(state) = queue.pop_front() {
            let made = quorums.entry(state.sent).or_insert_with(|| self.quorums(state.sent, &mut outcome));
            let network = self.network(&state, made);
            let next = self.successors(&state, &network);
            if next.is_empty() {
                outcome.ends += 1;
                outcome.certified_ends += usize::from(self.all_are_certified(&state));
            }
            outcome.steps += next.len();
            for state in next {
                if seen.insert(state.clone()) {
                    queue.push_back(state);
                }
            }
            assert!(seen.len() <= MAX_STATES, "{} local states", self.locals.len());
        }
        Outcome { states: seen.len(), local_states: self.locals.len(), honest_accused: self.honest_accused, ..outcome }
    }

    fn all_are_certified(&self, state: &State) -> bool {
        let mut seats = state.locals.iter().take(self.honest.len());
        seats.all(|local| self.locals[*local as usize].1.certifier.certified.is_some())
    }

    /// Some states: `walks` random schedules of `length` inputs.
    pub(super) fn wander(mut self, walks: usize, length: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut rng = StdRng::from_seed([walks as u8; 32]);
        for _ in 0..walks {
            let mut state = self.first();
            for _ in 0..length {
                let network = self.network(&state, &[]);
                let at = rng.random_range(0..self.honest.len());
                let inputs = self.inputs(self.honest[at], &self.locals[state.locals[at] as usize].1, &network);
                let input = inputs[rng.random_range(0..inputs.len())];
                let (number, sent) = self.step(state.locals[at], input);
                state.locals[at] = number;
                state.sent |= sent;
                outcome.steps += 1;
            }
            self.quorums(state.sent, &mut outcome);
            outcome.ends += 1;
            outcome.certified_ends += usize::from(self.all_are_certified(&state));
        }
        Outcome { local_states: self.locals.len(), honest_accused: self.honest_accused, ..outcome }
    }

    /// What may happen to a seat. In coarse grain its clock goes on when something comes of that: a message that it
    /// gets in that round (so it may miss any number of rounds before), or its turn to propose. A proposal comes in its
    /// round, and only one; an early one waits for the round, and a late or a second one changes no answer.
    fn inputs(&self, rank: usize, local: &Local, network: &[usize]) -> Vec<Input> {
        let mut inputs = vec![];
        if self.setup.crashes == Some(rank) && !local.has_crashed {
            inputs.push(Input::Crash);
        }
        let stands_still = self.setup.synchronous || self.setup.grain == Grain::Fine;
        let last = if stands_still { local.clock } else { self.setup.rounds.len() - 1 };
        if self.setup.grain == Grain::Fine && local.clock + 1 < self.setup.rounds.len() {
            inputs.push(Input::Tick(local.clock + 1));
        }
        for (clock, round) in self.setup.rounds.iter().enumerate().take(last + 1).skip(local.clock) {
            let is_useful = |message: &&usize| match &self.messages[**message] {
                Message::Quorum(_) if self.setup.grain == Grain::Fine => false,
                _ if self.setup.grain == Grain::Fine => true,
                Message::Proposal(_, vote) => vote.round == *round && !local.certifier.proposals.contains_key(round),
                // A seat that has the certificate signs nothing more; whether one can be made is seen from what was
                // sent.
                Message::Quorum(quorum) => {
                    quorum.round <= *round && (self.setup.synchronous || quorum.phase == Phase::Vote)
                }
                Message::Ballot(_) | Message::DoubleSign(_) => false,
            };
            inputs.extend(network.iter().filter(is_useful).map(|message| Input::Deliver(clock, *message)));
            if clock > local.clock && local.certifier.proposer(*round) == Some(local.certifier.node) {
                inputs.push(Input::Tick(clock));
            }
        }
        inputs
    }

    fn successors(&mut self, state: &State, network: &[usize]) -> Vec<State> {
        let mut next = Vec::new();
        for at in 0..self.honest.len() {
            let inputs = self.inputs(self.honest[at], &self.locals[state.locals[at] as usize].1, network);
            for input in inputs {
                let (number, sent) = self.step(state.locals[at], input);
                let mut after = State { locals: state.locals, sent: state.sent | sent };
                after.locals[at] = number;
                if after != *state {
                    next.push(after);
                }
            }
        }
        let clock = self.locals[state.locals[0] as usize].1.clock;
        if self.setup.synchronous && next.is_empty() && clock + 1 < self.setup.rounds.len() {
            let mut after = state.clone();
            for at in 0..self.honest.len() {
                let (number, sent) = self.step(state.locals[at], Input::Tick(clock + 1));
                after.locals[at] = number;
                after.sent |= sent;
            }
            next.push(after);
        }
        next
    }
}

impl Local {
    fn fork(&self) -> Self {
        let of = &self.certifier;
        let certifier = Certifier {
            network: of.network,
            timetable: of.timetable,
            identity: of.identity.clone(),
            node: of.node,
            tip: of.tip.clone(),
            record: of.record.clone(),
            lock: of.lock.clone(),
            own: of.own,
            statements: of.statements.clone(),
            approved: of.approved.clone(),
            proposals: of.proposals.clone(),
            ballots: of.ballots.clone(),
            convicted: of.convicted.clone(),
            prepared: of.prepared.clone(),
            certified: of.certified.clone(),
            shown: of.shown,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
            deadline: of.deadline,
        };
        Self { certifier, disk: self.disk.clone(), clock: self.clock, has_crashed: self.has_crashed }
    }
}

/// A seat's state, as far as its answers depend on it. Which signatures make up a quorum is not among it; in coarse
/// grain nor are ballots, of which it has its own alone, nor what it knows of other rounds' proposals, which it is told
/// anew with every proposal.
fn fingerprint(rank: usize, local: &Local, grain: Grain, round: Round) -> String {
    let of = &local.certifier;
    let quorum =
        |q: &Option<VerifiedQuorum>| q.as_ref().map(|q| (q.round(), q.statement().epoch, q.statement().root[0]));
    let lock = |r: &Record| r.lock.as_ref().map(|q| (q.round, q.statement.epoch, q.statement.root[0]));
    let record = |r: &Record| (r.height, r.voted, r.committed, lock(r));
    let records = (record(&local.disk), record(&of.record));
    let quorums = (quorum(&of.lock), quorum(&of.prepared), quorum(&of.certified));
    let seat = format!("{rank} {} {} {records:?} {quorums:?}", local.clock, local.has_crashed);
    match grain {
        Grain::Coarse => format!("{seat} {:?}", of.proposals.get(&round).filter(|_| of.record.voted < round)),
        Grain::Fine => {
            let row =
                |row: &BTreeMap<u16, VerifiedBallot>| row.iter().map(|(r, b)| (*r, b.ballot().statement)).collect();
            let ballots: Vec<(_, Vec<_>)> = of.ballots.iter().map(|(key, ballots)| (key, row(ballots))).collect();
            let known: Vec<_> = of.statements.keys().collect();
            format!("{seat} {ballots:?} {known:?} {:?} {:?} {:?}", of.approved, of.proposals, of.convicted)
        }
    }
}
