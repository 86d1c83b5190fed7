//! What must hold at each honest device, whatever the others do. Each invariant is looked at from outside: histories as people see
//! them, what they were told, what left and came.

use std::collections::{BTreeMap, BTreeSet};

use fog_base::Now;
use fog_chat::{
    Dag, Message, Verified,
    core::{
        dag::{self, fork},
        engine::{Chat, ConversationId, DeviceId, MessageId, Shown},
        message::KeyCache,
    },
    wire::request::{Request, Response},
};
use rand::seq::SliceRandom;

use super::{
    super::relays::NETWORK,
    cast::Talk,
    node::Node,
    plan::{Fault, Role},
    world::World,
};

/// The invariants, in the order of the report, and what was checked.
pub(super) const INVARIANTS: [(&str, &str); 10] = [
    ("convergence", "all members have the same messages, and everything that honest ones wrote"),
    ("causal-order", "no message is shown before one that its author had seen"),
    ("exactly-once", "no message is shown or told twice, none that was stored is lost"),
    ("forks-found", "every member knows who forked"),
    ("true-clocks", "every clock is the join of the predecessors' clocks and the own number"),
    ("bounded-buffers", "no buffer was ever above its bound"),
    ("one-order", "any order of arrival gives the same history"),
    ("forward-secrecy", "what a device keeps opens nothing that came before"),
    ("states-advance", "no delivery state was told that is behind an earlier one"),
    ("nobody-innocent-blamed", "no honest device blames another one or says that it forked"),
];

/// Where something that must hold is in [`INVARIANTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invariant {
    Convergence,
    CausalOrder,
    ExactlyOnce,
    ForksFound,
    TrueClocks,
    BoundedBuffers,
    OneOrder,
    ForwardSecrecy,
    StatesAdvance,
    NobodyBlamed,
}

/// The most examples of one fault that are told.
const EXAMPLES: usize = 3;

/// What was looked at, and what was wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    pub(super) looked_at: [u64; INVARIANTS.len()],
    pub(super) faults: [u64; INVARIANTS.len()],
    pub(super) examples: [Vec<String>; INVARIANTS.len()],
    /// The fullest that each buffer was, and its bound.
    pub(super) loads: BTreeMap<&'static str, (usize, usize)>,
}

impl Findings {
    pub(super) fn look(&mut self, at: Invariant, holds: bool, example: impl FnOnce() -> String) {
        let at = at as usize;
        self.looked_at[at] += 1;
        if !holds {
            self.faults[at] += 1;
            if self.examples[at].len() < EXAMPLES {
                self.examples[at].push(example());
            }
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for at in 0..INVARIANTS.len() {
            self.looked_at[at] += other.looked_at[at];
            self.faults[at] += other.faults[at];
            let room = EXAMPLES.saturating_sub(self.examples[at].len());
            self.examples[at].extend(other.examples[at].iter().take(room).cloned());
        }
        for (name, (held, most)) in other.loads {
            let load = self.loads.entry(name).or_insert((0, most));
            load.0 = load.0.max(held);
        }
    }
}

/// A history without what waits for predecessors: those are not the same at all, and change nothing else.
fn complete(history: &[Shown]) -> Vec<MessageId> {
    history.iter().filter(|shown| !shown.clock.is_empty()).map(|shown| shown.id).collect()
}

/// Looks at a world at its end.
pub(super) fn check(world: &mut World) -> Findings {
    let mut findings = Findings::default();
    let talks = std::mem::take(&mut world.talks);
    for (number, talk) in talks.iter().enumerate() {
        check_talk(world, number, talk, &mut findings);
    }
    world.talks = talks;
    let honest = world.nodes.iter().filter(|node| node.is_honest());
    let honest: BTreeSet<_> = honest.filter_map(|node| node.chat.as_ref()).map(Chat::device).collect();
    for n in 0..world.nodes.len() {
        if world.nodes[n].is_honest() {
            check_node(world, n, &honest, &mut findings);
        }
    }
    check_permutations(world, &mut findings);
    findings
}

fn history(world: &World, n: usize, id: ConversationId) -> Vec<Shown> {
    let Some(chat) = &world.nodes[n].chat else { return Vec::new() };
    let mut history = chat.history(id, None).unwrap_or_default();
    if world.plan.fault == Some(Fault::OrderedByTime) {
        history.sort_by_key(|shown| shown.sent_at);
    }
    if world.plan.breaks(Fault::ForgottenDot, n) {
        for shown in &mut history {
            shown.clock.remove(&shown.author);
        }
    }
    history
}

fn check_talk(world: &World, number: usize, talk: &Talk, findings: &mut Findings) {
    let Some(id) = talk.id else {
        findings.look(Invariant::Convergence, false, || format!("{} never began", talk.name));
        return;
    };
    let members: Vec<_> = talk.members.iter().copied().filter(|n| world.nodes[*n].is_honest()).collect();
    // A newcomer may have nothing yet of what it joined in a world that is not whole.
    let Some(first) = members.first().map(|n| complete(&history(world, *n, id))) else { return };
    let forked = forks(world, id, &members);
    for n in &members {
        let history = history(world, *n, id);
        let ids = complete(&history);
        findings.look(Invariant::Convergence, ids == first, || {
            let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (ids.iter().collect(), first.iter().collect());
            let (more, less) = (ours.difference(&theirs).count(), theirs.difference(&ours).count());
            format!("{} at {n}: {} messages, {more} more and {less} less than at {}", talk.name, ids.len(), members[0])
        });
        let known: BTreeSet<_> = ids.iter().collect();
        let log = &world.nodes[*n].log;
        let missing = log.written.iter().find(|(message, of)| **of == id && !known.contains(message));
        findings.look(Invariant::Convergence, missing.is_none(), || {
            format!("{} at {n}: an own message is gone", talk.name)
        });
        findings.look(Invariant::ExactlyOnce, known.len() == ids.len(), || format!("{} at {n}: twice", talk.name));
        if let Some(chat) = &world.nodes[*n].chat {
            check_order(chat, (*n, number), &history, findings);
            for author in &forked {
                let is_blind = world.plan.breaks(Fault::BlindToForks, *n);
                let warns = || !is_blind && is_disputed(chat, &history, *author);
                let knows = log.forked.contains(&(id, *author)) || warns();
                findings.look(Invariant::ForksFound, knows, || format!("{} at {n}: not of {author}", talk.name));
            }
        }
    }
}

/// A device that begins after a proof came is told of it by the warnings alone.
fn is_disputed(chat: &Chat, history: &[Shown], author: DeviceId) -> bool {
    let by_author = history.iter().filter(|shown| shown.author == author);
    by_author.filter_map(|shown| chat.why(&shown.id)).any(|why| why.order.disputed_from.is_some())
}

/// Devices that wrote twice under one number here, as far as both messages came to somebody honest.
fn forks(world: &World, id: ConversationId, members: &[usize]) -> BTreeSet<DeviceId> {
    let mut by_number: BTreeMap<(DeviceId, u32), BTreeSet<MessageId>> = BTreeMap::new();
    for node in world.nodes.iter().filter(|node| node.role == Role::Twin) {
        for (message, of) in &node.log.written {
            let came = |n: &&usize| world.nodes[**n].chat.as_ref().and_then(|chat| chat.why(message));
            if *of == id
                && let Some(why) = members.iter().find_map(|n| came(&n))
            {
                by_number.entry((why.order.author, why.order.seq)).or_default().insert(*message);
            }
        }
    }
    // What honest members were told counts as well: then all must have been.
    let told = members.iter().flat_map(|n| &world.nodes[*n].log.forked).filter(|(of, _)| *of == id);
    let told: BTreeSet<_> = told.map(|(_, author)| *author).collect();
    by_number.into_iter().filter(|(_, ids)| ids.len() > 1).map(|((author, _), _)| author).chain(told).collect()
}

/// No child before a parent, and clocks that follow from the parents'.
fn check_order(chat: &Chat, (n, talk): (usize, usize), history: &[Shown], findings: &mut Findings) {
    let shown: BTreeSet<_> = history.iter().map(|shown| shown.id).collect();
    let mut before: BTreeMap<MessageId, &BTreeMap<DeviceId, u32>> = BTreeMap::new();
    for message in history {
        let is_early = |parent: &&MessageId| shown.contains(*parent) && !before.contains_key(*parent);
        let early = message.parents.iter().find(is_early);
        findings
            .look(Invariant::CausalOrder, early.is_none(), || format!("conversation {talk} at {n}: {}", message.id));
        if !message.clock.is_empty() {
            let mut clock: BTreeMap<DeviceId, u32> = BTreeMap::new();
            for parent in &message.parents {
                let other =
                    if before.contains_key(parent) { None } else { chat.why(parent).map(|why| why.order.clock) };
                let of_parent = before.get(parent).copied().or(other.as_ref());
                for (device, seq) in of_parent.into_iter().flatten() {
                    let entry = clock.entry(*device).or_default();
                    *entry = (*entry).max(*seq);
                }
            }
            clock.insert(message.author, message.seq);
            let is_true = clock == message.clock;
            findings.look(Invariant::TrueClocks, is_true, || format!("conversation {talk} at {n}: {}", message.id));
        }
        before.insert(message.id, &message.clock);
    }
}

fn check_node(world: &World, n: usize, honest: &BTreeSet<DeviceId>, findings: &mut Findings) {
    let Node { log, chat, .. } = &world.nodes[n];
    let is_honest = |id: &MessageId| {
        let author = chat.as_ref().and_then(|chat| chat.shown(id)).map(|shown| shown.author);
        // A forked author's message can leave the history and come back.
        !log.forked.iter().any(|(_, forked)| Some(*forked) == author)
    };
    let twice = log.twice.iter().filter(|id| is_honest(id)).count();
    findings.look(Invariant::ExactlyOnce, twice == 0, || format!("{n} was told {twice} messages twice"));
    findings.look(Invariant::ExactlyOnce, log.lost.is_empty(), || format!("{n} lost {} messages", log.lost.len()));
    let divisor = if world.plan.fault == Some(Fault::Overfull) { 1_000 } else { 1 };
    for (name, (held, most)) in &log.loads {
        findings.look(Invariant::BoundedBuffers, *held <= most / divisor, || format!("{n}: {held} of {most} {name}"));
        let load = findings.loads.entry(name).or_insert((0, *most));
        load.0 = load.0.max(*held);
    }
    findings.look(Invariant::StatesAdvance, log.fell.is_empty(), || format!("{n}: {:?}", log.fell));
    let innocent = log.blamed.iter().find(|(peer, _)| world.nodes.get(*peer).is_some_and(Node::is_honest));
    findings.look(Invariant::NobodyBlamed, innocent.is_none(), || format!("{n} blames {innocent:?}"));
    // A message that left before it was on disk: after a crash the device writes another one under its number.
    let forked = log.forked.iter().find(|(_, author)| honest.contains(author));
    findings.look(Invariant::NobodyBlamed, forked.is_none(), || format!("{n} says that {forked:?} forked"));
}

/// What the newcomer was answered, put together in other orders: messages and proofs by conversation.
fn check_permutations(world: &mut World, findings: &mut Findings) {
    let (mut messages, mut proofs) = (BTreeMap::<_, BTreeMap<MessageId, Verified>>::new(), Vec::new());
    let mut keys = KeyCache::default();
    for bytes in &world.heard {
        let brought = match (Request::decode(bytes), Response::decode(bytes)) {
            (Ok(Request::Push { messages, .. }), _) | (_, Ok(Response::Messages(messages))) => Some(messages),
            (_, Ok(Response::Ranges(answer))) => {
                proofs.extend(answer.0.into_iter().flat_map(|(_, ranges)| ranges.proofs));
                None
            }
            _ => None,
        };
        let bytes = brought.iter().flat_map(|brought| &brought.messages);
        for message in bytes.filter_map(|bytes| Message::parse(bytes, &NETWORK).ok()) {
            let of = message.header().conversation;
            if let Ok(message) = message.verify(&of, &mut keys) {
                messages.entry(of).or_default().insert(message.id(), message);
            }
        }
    }
    let Some(witness) = world.witness else { return };
    let now = world.now(witness);
    for number in 0..world.talks.len() {
        let Some(id) = world.talks[number].id.filter(|_| world.talks[number].members.contains(&witness)) else {
            continue;
        };
        let Some(messages) = messages.remove(&id) else { continue };
        let expected = complete(&history(world, witness, id));
        let mut order: Vec<_> = messages.into_values().collect();
        for _ in 0..3 {
            order.shuffle(&mut world.rng);
            let (history, arrived) = rebuilt(id, &order, &proofs, now);
            let found = if world.plan.fault == Some(Fault::OrderOfArrival) { arrived } else { history };
            let name = &world.talks[number].name;
            findings.look(Invariant::OneOrder, found == expected, || {
                format!("{name}: {} of {} in another order", found.len(), expected.len())
            });
        }
    }
}

/// The history that follows from messages as they come, and the order in which they were shown.
fn rebuilt(id: ConversationId, order: &[Verified], proofs: &[Vec<u8>], now: Now) -> (Vec<MessageId>, Vec<MessageId>) {
    let (mut dag, mut keys, mut arrived) = (Dag::new(id, NETWORK), KeyCache::default(), Vec::new());
    let by_id: BTreeMap<_, _> = order.iter().map(|message| (message.id(), message)).collect();
    let mut proofs = proofs.iter();
    loop {
        let mut taken = 0;
        for message in order {
            taken += usize::from(dag.handle_message(message, None, now).is_ok());
            if let Some(proof) = proofs.next() {
                // Those of other conversations are refused.
                let _other = dag.handle_proof(proof, &mut keys);
            }
            while let Some(output) = dag.poll_output() {
                match output {
                    dag::Output::Show { id, .. } => arrived.push(id),
                    dag::Output::Conflict { known, other } => {
                        if let Some(known) = by_id.get(&known) {
                            let proof = fork::prove(known.signed_header(), &other);
                            let _known = dag.handle_proof(&proof, &mut keys);
                        }
                    }
                    _ => {}
                }
            }
        }
        // What found no room among what waits comes again, as it does by reconciliation.
        if taken == 0 {
            break;
        }
    }
    proofs.for_each(|proof| drop(dag.handle_proof(proof, &mut keys)));
    (dag.history().filter(|id| dag.is_complete(id)).collect(), arrived)
}
