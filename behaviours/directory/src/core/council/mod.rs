//! This node's part in the certified sets: what it holds of the chain and the last sets, what it makes of its own descriptors at the
//! cut-off, what it lacks, and what paths may be drawn from. README, "Certified snapshot".
//!
//! `certificate/certifier.rs` agrees on statements; here they get their sets, seats and states.

mod links;
mod progress;
mod proposing;
mod restore;
mod rings;
mod snapshots;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{BoundedQueue, DropCounters, DropReason, Epoch, EpochSchedule, Network, NodeId, Now};

use self::{links::Links, rings::Rings};
pub use self::{
    rings::{LEAD, PERIOD, Ring},
    snapshots::Serving,
};
use super::{
    beacon::SetBeacon,
    certificate::{
        Hash, Reject, Statement,
        certifier::{self, Certifier},
        chain::{Link, Tip, verify_link},
        electorate::ElectorateError,
        judgement::Objection,
        message::Message,
        named_set::NamedSet,
        quorum::Quorum,
        record::Record,
        state::State,
        succession::{Certified, Rules, Signed, Tickets},
        timetable::Timetable,
    },
    loops::{LoopBook, SignedLoops},
    relay_set::{Acceptance, RelaySet, Verdict},
    snapshot::Snapshot,
    weight::StakeTable,
};

/// Certified sets that are kept whole: of the next epoch, the running one, and the one before, whose packets are still under way.
const KEPT: usize = 3;
/// Sets that were proposed and fetched, besides.
const MAX_CANDIDATES: usize = 9;
const MAX_OUTPUTS: usize = 2048;
/// Peers are not asked for links more often.
const MIN_ASK_INTERVAL: Duration = Duration::from_secs(2);

/// What the council wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write and sync, then say so with [`Council::handle_recorded`]; nothing that was signed leaves before.
    Record {
        /// What this node signed.
        record: Vec<u8>,
        /// The set that it is bound to from now on ([`NamedSet::to_bytes`]): if all seats lost it, none could go on.
        set: Option<Vec<u8>>,
    },
    /// Send it by gossip.
    Broadcast(Vec<u8>),
    /// Keep a link of the chain for ever.
    KeepLink {
        /// Whose set it certifies.
        epoch: Epoch,
        /// The link.
        bytes: Vec<u8>,
    },
    /// Keep a whole set across restarts, and forget an older one.
    KeepSet {
        /// Whose set it is.
        epoch: Epoch,
        /// [`NamedSet::to_bytes`].
        set: Vec<u8>,
        /// [`State::to_bytes`].
        state: Vec<u8>,
        /// Of another set that was kept, whose it is, if it is of no use any more.
        forget: Option<Epoch>,
    },
    /// Compare the live set with those of some peers, before the set is fixed.
    Reconcile,
    /// What is wanted of peers has changed: [`Council::wants`].
    Wants,
    /// Ask some peers for the links after this epoch.
    WantLinks {
        /// The last certified epoch that is known here.
        after: Epoch,
    },
    /// Snapshots, the lottery or the number of loops that are needed may have changed.
    Changed,
    /// A set is not voted for, or our own not proposed: for the log.
    Objected {
        /// Whose set.
        epoch: Epoch,
        /// What is wrong with it.
        why: Objection,
    },
    /// A peer sent links that do not verify.
    Misbehaved(NodeId),
    /// A seat signed two things in one round, which anybody can check.
    SignedTwice(NodeId),
}

/// What is wanted of peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// The set under a root, of so many relays, for an epoch.
    pub set: Option<(Hash, u32, Epoch)>,
    /// The state with this hash.
    pub state: Option<Hash>,
}

/// What an earlier run has kept. All of it was verified before it was kept.
#[derive(Debug, Default)]
pub struct Restored {
    /// The seat's record, if there is one.
    pub record: Option<Vec<u8>>,
    /// The set that the record binds it to.
    pub bound: Option<Vec<u8>>,
    /// Whether this identity may have signed here although there is no record.
    pub may_have_signed: bool,
    /// The epochs of all links.
    pub links: BTreeSet<Epoch>,
    /// All whole sets that were kept and not to be forgotten, as set and state bytes, by epoch.
    pub sets: BTreeMap<Epoch, (Vec<u8>, Vec<u8>)>,
}

/// Reads a link out of the store.
pub type ReadLink = Box<dyn Fn(Epoch) -> Option<Vec<u8>> + Send + Sync>;

/// The last certified statement, of which the set or the state is not here yet.
#[derive(Debug, Clone)]
struct Incomplete {
    tip: Tip,
    certificate: Quorum,
    signed: Signed,
    state: Option<State>,
}

/// What the certifier found certified and whose seats are not computed yet.
#[derive(Debug)]
struct Awaited {
    certificate: Quorum,
    /// The set is here and other seats follow from it, or our own last set is not whole: only a link helps.
    needs_link: bool,
}

/// See the module.
pub struct Council {
    schedule: EpochSchedule,
    timetable: Timetable,
    node: NodeId,
    rules: Rules,
    genesis: BTreeMap<NodeId, u64>,
    /// The statement that the chain begins with.
    beginning: Hash,
    tickets: Tickets,
    certifier: Certifier,
    certified: BTreeMap<Epoch, Arc<Certified>>,
    /// What paths of their epochs are drawn from.
    built: BTreeMap<Epoch, Snapshot>,
    incomplete: Option<Incomplete>,
    awaited: Option<Awaited>,
    links: Links,
    rings: Rings,
    /// By root.
    candidates: VecDeque<Arc<NamedSet>>,
    judging: VecDeque<Statement>,
    reconciled: Option<Epoch>,
    witnessed: Option<(Epoch, BTreeSet<NodeId>)>,
    /// Of which epoch, and after which statement, our own set was stated.
    stated: Option<(Epoch, Hash)>,
    book: LoopBook,
    /// The epoch in which this node began.
    since: Epoch,
    /// Whether a peer has told what it knows of the chain.
    has_heard: bool,
    wants: Wants,
    ask_again: Option<Instant>,
    next_warm: Instant,
    /// A record is being written.
    recording: bool,
    /// Records that are not on the disk yet.
    unrecorded: usize,
    /// The root of the set that was written with the last record.
    bound: Option<Hash>,
    /// The last record could not be written: nothing leaves until one is.
    is_mute: bool,
    outputs: BoundedQueue<Output>,
    drops: DropCounters,
}

impl fmt::Debug for Council {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certifier, certified, wants, .. } = self;
        let epochs: Vec<_> = certified.keys().collect();
        f.debug_struct("Council")
            .field("certifier", certifier)
            .field("certified", &epochs)
            .field("wants", wants)
            .finish_non_exhaustive()
    }
}

impl Council {
    /// Of a network whose file names relays; an error where it names none.
    pub fn new(
        network: &Network,
        identity: Arc<SigningKey>,
        (restored, read_link): (Restored, ReadLink),
        now: Now,
    ) -> Result<Self, ElectorateError> {
        let (schedule, genesis) = (network.schedule(), Tip::genesis(network)?);
        let stakes: BTreeMap<_, _> = network.genesis.iter().copied().collect();
        let record = match restored.record.as_deref().map(Record::from_bytes) {
            Some(Ok(record)) => record,
            None if !restored.may_have_signed => Record::NEW,
            _ => Record::lost(schedule.at(now.unix)),
        };
        let node = NodeId(identity.verifying_key().to_bytes());
        let config = certifier::Config { network: network.id, schedule, identity };
        let mut council = Self {
            schedule,
            timetable: Timetable::new(schedule),
            node,
            rules: Rules {
                network: network.id,
                stakes: Box::new(stakes.clone()) as Box<dyn StakeTable>,
                beacon: Box::new(SetBeacon),
            },
            genesis: stakes,
            beginning: genesis.hash(),
            tickets: Tickets::default(),
            certifier: Certifier::new(config, genesis, record, now),
            certified: BTreeMap::new(),
            built: BTreeMap::new(),
            incomplete: None,
            awaited: None,
            links: Links::new(restored.links, read_link),
            rings: Rings::new(restored.sets.keys().copied().collect()),
            candidates: VecDeque::new(),
            judging: VecDeque::new(),
            reconciled: None,
            witnessed: None,
            stated: None,
            book: LoopBook::default(),
            since: schedule.at(now.unix),
            has_heard: false,
            wants: Wants::default(),
            ask_again: None,
            next_warm: now.mono,
            recording: false,
            unrecorded: 0,
            bound: None,
            is_mute: false,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            drops: DropCounters::default(),
        };
        council.restore(restored.sets, restored.bound, now);
        Ok(council)
    }

    /// Takes a gossip message and says what gossip does with it.
    pub fn handle_gossip(&mut self, bytes: &[u8], now: Now) -> Acceptance {
        let outcome = Message::from_bytes(bytes).and_then(|message| self.certifier.handle_message(message, now));
        self.go_on(now);
        match outcome {
            Ok(Verdict::New) => Acceptance::Accept,
            Err(reject) if reject.is_misbehaviour() => Acceptance::Reject,
            Ok(Verdict::Known) | Err(_) => Acceptance::Ignore,
        }
    }

    /// A set that was wanted; its root was checked.
    pub fn handle_set(&mut self, set: Arc<NamedSet>, now: Now) {
        self.hold(set);
        self.go_on(now);
    }

    /// A state that was wanted; its hash was checked.
    pub fn handle_state(&mut self, bytes: &[u8], now: Now) {
        let hash = State::hash_of(bytes);
        if let (Some(incomplete), Ok(state)) = (&mut self.incomplete, State::from_bytes(bytes))
            && incomplete.tip.statement().state == hash
        {
            incomplete.state = Some(state);
        }
        self.rings.handle_state(bytes);
        self.go_on(now);
    }

    /// Links that `peer` sent; whether it has more.
    pub fn handle_links(&mut self, peer: NodeId, links: Vec<Link>, more: bool, now: Now) {
        let mut tip = self.certifier.tip().clone();
        let mut last = None;
        // Who knows no link at all knows that nothing was certified; what others say must verify.
        let hears_first = links.is_empty() && !more && !self.has_heard;
        if hears_first {
            self.has_heard = true;
            self.push(Output::Changed);
        }
        let known = tip.statement().epoch;
        for link in links.into_iter().filter(|link| link.certificate.statement.epoch > known) {
            let (certificate, bytes) = (link.certificate.clone(), link.to_bytes());
            match verify_link(&self.rules.network, &tip, link) {
                Ok(next) => {
                    let signed = Signed::new(&certificate, tip.electorate());
                    self.keep_link(next.statement().epoch, bytes);
                    last = Some((certificate, signed));
                    tip = next;
                }
                Err(reject) => {
                    self.drops.count(reject.drop_reason());
                    if reject.is_misbehaviour() || reject == Reject::WrongElectorate {
                        self.push(Output::Misbehaved(peer));
                    }
                    break;
                }
            }
        }
        if last.is_some() && more {
            self.ask_again = Some(now.mono);
        }
        if let Some((certificate, signed)) = last {
            self.awaited = None;
            self.certifier.handle_tip(tip.clone(), now);
            self.incomplete = Some(Incomplete { tip, certificate, signed, state: None });
        }
        self.go_on(now);
    }

    /// A peer was met: it may know links that nobody else has told of.
    pub fn handle_connected(&mut self, now: Now) {
        if self.is_behind(now) {
            self.ask_again = Some(now.mono);
        }
    }

    /// Whether the record is on disk. If it is not, nothing leaves until a later one is: what was signed is in memory alone.
    pub fn handle_recorded(&mut self, is_kept: bool) {
        self.recording = false;
        self.unrecorded = self.unrecorded.saturating_sub(1);
        self.is_mute = !is_kept;
    }

    /// A loop of ours through `hops` has come back in time, or has not.
    pub fn handle_loop(&mut self, hops: &[NodeId], is_delivered: bool) {
        self.book.record(hops, is_delivered);
    }

    /// Does what is due. `live` are the descriptors that are known.
    pub fn handle_timeout(&mut self, live: &RelaySet, now: Now) {
        let next = self.schedule.at(now.unix).next();
        self.warm(live, next, now);
        if now.unix >= self.timetable.reconcile(next) && self.reconciled != Some(next) {
            self.reconciled = Some(next);
            self.push(Output::Reconcile);
        }
        if now.unix >= self.timetable.witness(next) && self.witnessed.as_ref().is_none_or(|(of, _)| *of != next) {
            // Those without stake are as many as somebody likes, and no two nodes hold the same of them.
            let held = live.covering(next, self.timetable.cut_off(next).0).map(|descriptor| descriptor.relay());
            let staked = held.filter(|relay| self.rules.stakes.stake(relay) > 0);
            self.witnessed = Some((next, staked.collect()));
        }
        if now.unix >= self.timetable.cut_off(next) {
            self.state_own(live, next, now);
        }
        self.certifier.handle_timeout(now);
        self.go_on(now);
    }

    /// When [`Council::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.certifier.poll_timeout(), self.ask_again, Some(self.next_warm)].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        while !self.recording {
            match self.outputs.pop()? {
                Output::Broadcast(_) if self.is_mute => self.drops.count(DropReason::Expired),
                output => {
                    self.recording = matches!(output, Output::Record { .. });
                    return Some(output);
                }
            }
        }
        None
    }

    /// What is wanted of peers.
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// What was refused, by reason: messages, and links.
    pub fn drops(&self) -> impl Iterator<Item = &DropCounters> {
        [&self.drops, self.certifier.drops()].into_iter()
    }

    /// The beacon that tickets for the set of `epoch` are made over, if it is known.
    pub fn beacon(&self, epoch: Epoch) -> Option<[u8; 32]> {
        let parent = self.certified.range(..epoch).next_back().map(|(_, certified)| certified);
        match parent {
            Some(parent) => Some(self.rules.beacon(epoch, Some(parent))),
            None => self.is_genesis().then(|| self.rules.beacon(epoch, None)),
        }
    }

    /// What this node signs about the seats that serve in `epoch`.
    pub fn loops(&self, epoch: Epoch) -> Option<SignedLoops> {
        let (of, certified) = self.certified.range(..=epoch).next_back()?;
        self.book.report(self.node, (*of, certified.tip.electorate()))
    }

    /// Whether this node has a seat in the set that serves in `epoch`.
    pub fn has_seat(&self, epoch: Epoch) -> bool {
        let serving = self.certified.range(..=epoch).next_back();
        serving.is_some_and(|(_, certified)| certified.tip.electorate().rank(self.node).is_some())
    }

    /// The rules by which everybody computes seats.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether nothing was ever certified, as far as is known here.
    fn is_genesis(&self) -> bool {
        self.certifier.tip().statement().epoch == Epoch(0)
    }

    /// Whether no set is older than `epoch`, and so the relays of the network file are those of `epoch`: nothing was certified,
    /// or only the first set, which is of a later epoch.
    fn is_before_first(&self, epoch: Epoch) -> bool {
        let tip = self.certifier.tip().statement();
        self.is_genesis() || (tip.previous == self.beginning && epoch < tip.epoch)
    }

    /// The certified set after which the next one is agreed on: `None` if it is not whole, `Some(None)` for the first.
    fn parent(&self) -> Option<Option<Arc<Certified>>> {
        if self.is_genesis() {
            return Some(None);
        }
        let tip = self.certifier.tip();
        let certified = self.certified.get(&tip.statement().epoch)?;
        (certified.tip.hash() == tip.hash()).then(|| Some(certified.clone()))
    }

    fn hold(&mut self, set: Arc<NamedSet>) {
        self.candidates.retain(|candidate| candidate.root() != set.root());
        if self.candidates.len() >= MAX_CANDIDATES {
            self.candidates.pop_front();
        }
        self.candidates.push_back(set);
    }

    fn candidate(&self, statement: &Statement) -> Option<Arc<NamedSet>> {
        let whole = self.certified.values().map(|certified| &certified.set);
        let mut sets = self.candidates.iter().chain(whole);
        sets.find(|set| set.root() == statement.root && set.count() == statement.relays).cloned()
    }

    /// Goes on wherever what was lacking is here now.
    fn go_on(&mut self, now: Now) {
        loop {
            let mut has_moved = false;
            while let Some(output) = self.certifier.poll_output() {
                has_moved = true;
                self.pass_on(output);
            }
            has_moved |= self.complete(now) | self.succeed(now) | self.judge(now) | self.turn_rings(now);
            if !has_moved {
                break;
            }
        }
        self.want(now);
    }

    fn pass_on(&mut self, output: certifier::Output) {
        match output {
            certifier::Output::Persist(record) => self.record(&record),
            certifier::Output::Broadcast(message) => self.push(Output::Broadcast(message.to_bytes())),
            certifier::Output::FetchSet(statement) => {
                if self.judging.len() >= MAX_CANDIDATES {
                    self.judging.pop_front();
                }
                self.judging.push_back(statement);
            }
            certifier::Output::Certified(certificate) => {
                self.awaited = Some(Awaited { certificate, needs_link: false });
            }
            certifier::Output::Misbehaviour(proof) => {
                if let Some(signer) = proof.accused() {
                    self.push(Output::SignedTwice(signer));
                }
            }
        }
    }

    fn record(&mut self, record: &Record) {
        let lock = record.lock.as_ref().map(|lock| lock.statement);
        let bound = lock.filter(|lock| self.bound != Some(lock.root)).and_then(|lock| self.candidate(&lock));
        if let Some(set) = &bound {
            self.bound = Some(set.root());
        }
        self.unrecorded += 1;
        self.push(Output::Record { record: record.to_bytes(), set: bound.map(|set| set.to_bytes()) });
    }

    /// Brings what is wanted of peers up to date.
    fn want(&mut self, now: Now) {
        let lacking = [
            self.incomplete.as_ref().map(|incomplete| *incomplete.tip.statement()),
            self.awaited.as_ref().map(|awaited| awaited.certificate.statement),
            // A proposer who speaks too early must not keep us from the set of the running round.
            self.certifier.proposed(now).filter(|statement| self.judging.contains(statement)),
            self.judging.back().copied(),
            self.rings.lacking().map(|source| *source.tip.statement()),
        ];
        let set = lacking.into_iter().flatten().find(|statement| self.candidate(statement).is_none());
        let stateless = [self.incomplete.as_ref(), self.rings.lacking()].into_iter().flatten();
        let state = stateless.into_iter().find(|incomplete| incomplete.state.is_none());
        let wants = Wants {
            set: set.map(|statement| (statement.root, statement.relays, statement.epoch)),
            state: state.map(|incomplete| incomplete.tip.statement().state),
        };
        if wants != self.wants {
            self.wants = wants;
            self.push(Output::Wants);
        }
        if !self.is_behind(now) {
            self.ask_again = None;
        } else if self.ask_again.is_none_or(|at| at <= now.mono) {
            self.ask_again = Some(now.mono + (self.timetable.length() / 2).max(MIN_ASK_INTERVAL));
            self.push(Output::WantLinks { after: self.certifier.tip().statement().epoch });
        }
    }

    fn is_behind(&self, now: Now) -> bool {
        let (tip, running) = (self.certifier.tip().statement().epoch, self.schedule.at(now.unix));
        let needs_link = self.awaited.as_ref().is_some_and(|awaited| awaited.needs_link);
        let is_late = now.unix >= self.timetable.ask(running.next()) && tip < running.next();
        needs_link || tip < running || is_late
    }

    fn push(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "first_set_tests.rs"]
mod first_set_tests;
