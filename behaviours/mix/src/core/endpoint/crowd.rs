//! Building packets several at a time. A multiplication costs much less in a crowd ([`fog_sphinx::build_batch`]), so what the next
//! ticks will carry anyway, drop packets and fragments, is built together and waits here.
//!
//! Nothing is remembered of a packet before it leaves: one that was built and is not needed any more is forgotten.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{
    DropReason, Epoch, MessageId, NodeId, Now,
    relay::{PathSelector, RelayHop},
};
use fog_sphinx::{BODY_LEN, Hop, LastHop, Order, Route, SURB_LEN, Surb, SurbKeys, SurbOrder, build_batch, build_surbs};
use rand::RngExt;

use super::{Endpoint, Output, PingJob, paths::Use, send::new_packet};
use crate::{
    core::{PacketBuf, loops::Departure, relay::predicted, seal, surbs::Purpose},
    wire::{Content, Form, Fragment, fragment_count},
};

/// Packets that are built together. With two multiplications each they fill eight lanes.
pub(super) const CROWD: usize = 4;
/// What was built longer ago does not leave: its relays may be suspected by now, and its mailbox another.
pub(super) const AHEAD: Duration = Duration::from_secs(1);

/// A loop is lost for the alarm this much later than an answer would be.
const LOOP_LOST: Duration = Duration::from_secs(5);

/// A path on which a packet leaves, and what its last hop is told.
pub(super) struct Way {
    pub(super) relays: Vec<RelayHop>,
    pub(super) last: LastHop,
    pub(super) form: Form,
    pub(super) epoch: Epoch,
    /// Of the packet, and of the reply blocks in it.
    pub(super) version: u16,
}

/// What a packet is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Matter {
    Reply,
    Drop,
    Loop([u8; 16]),
    Ping(u64),
    Fragment(MessageId, u16),
}

impl Matter {
    /// What the answer to it will mean, if it asks for one.
    fn answer(self) -> Option<Purpose> {
        match self {
            Self::Reply | Self::Drop | Self::Loop(_) => None,
            Self::Ping(id) => Some(Purpose::Pong(id)),
            Self::Fragment(id, index) => Some(Purpose::Ack(id, index)),
        }
    }

    /// What a mailbox's receipt for it will mean, if that is of any use.
    fn receipt(self) -> Option<Purpose> {
        match self {
            Self::Fragment(id, index) => Some(Purpose::Stored(id, index)),
            Self::Reply | Self::Drop | Self::Loop(_) | Self::Ping(_) => None,
        }
    }
}

/// A packet to build.
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) seal_key: [u8; 32],
    /// Relays on the way back.
    pub(super) hops: usize,
    pub(super) matter: Matter,
}

/// A way back, to be made into a reply block.
pub(super) struct BackWay {
    relays: Vec<RelayHop>,
    path: Vec<Hop>,
    last: LastHop,
    epoch: Epoch,
    id: [u8; 16],
}

impl BackWay {
    /// The relay at its end: this node, or its mailbox.
    pub(super) fn end(&self) -> Option<NodeId> {
        self.relays.last().map(|relay| relay.id)
    }
}

/// A reply block that is not given out yet.
pub(super) struct NewBlock {
    pub(super) surb: [u8; SURB_LEN],
    pub(super) keys: SurbKeys,
    pub(super) id: [u8; 16],
    pub(super) predicted: Duration,
    relays: Vec<NodeId>,
}

/// The blocks that a packet carries: for an answer, and for a mailbox's receipt.
struct Blocks {
    answer: Option<NewBlock>,
    receipt: Option<NewBlock>,
}

/// A packet of which only the layers are missing.
struct Sealed {
    plan: Plan,
    blocks: Blocks,
    path: Vec<Hop>,
    body: Box<[u8; BODY_LEN]>,
    packet: PacketBuf,
}

impl Sealed {
    fn order(&mut self) -> Order<'_> {
        let Self { plan: Plan { way, .. }, path, body, packet, .. } = self;
        Order { path, epoch: way.epoch.0, last: way.last, body, packet }
    }
}

/// What is remembered of a reply block once its packet leaves.
#[derive(Debug)]
struct Expected {
    id: [u8; 16],
    keys: SurbKeys,
    purpose: Purpose,
    /// From there to here.
    back: Duration,
}

/// A packet that is built and has not left.
#[derive(Debug)]
pub(super) struct Built {
    first: NodeId,
    packet: PacketBuf,
    matter: Matter,
    epoch: Epoch,
    pub(super) at: Instant,
    /// Waiting for its tick, it is thrown away then: packets are of another epoch from there on.
    until: Instant,
    /// From here to there.
    there: Duration,
    /// There and back.
    relays: Vec<NodeId>,
    expected: Vec<Expected>,
}

impl Built {
    /// An answer by somebody's reply block: nothing is expected of it.
    pub(super) fn reply(first: NodeId, packet: PacketBuf, (epoch, until): (Epoch, Instant), now: Now) -> Self {
        let (there, relays, expected) = (Duration::ZERO, vec![first], Vec::new());
        Self { first, packet, matter: Matter::Reply, epoch, at: now.mono, until, there, relays, expected }
    }

    fn is_fresh(&self, epoch: Epoch, now: Now) -> bool {
        self.epoch == epoch && now.mono.saturating_duration_since(self.at) <= AHEAD
    }

    /// Whether all its relays are known.
    fn is_known(&self, paths: &dyn PathSelector) -> bool {
        self.relays.iter().all(|relay| paths.relay(self.epoch, *relay).is_some())
    }
}

/// What was built for a tick and did not leave, other than what is built anew anyway.
#[derive(Debug)]
pub(super) enum Unsent {
    Loop,
    Ping(PingJob),
    Reply,
}

/// What was built ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// With full cover, the packet of the next tick.
    pub(super) next: Option<Built>,
    /// The ping that was built last.
    pub(super) ping: Option<PingJob>,
    pub(super) drops: Vec<Built>,
    pub(super) fragments: BTreeMap<(MessageId, u16), Built>,
}

impl Ahead {
    fn keep(&mut self, keep: impl Fn(&Built) -> bool) -> Option<Unsent> {
        self.drops.retain(&keep);
        self.fragments.retain(|_, built| keep(built));
        self.keep_next(keep)
    }

    fn keep_next(&mut self, keep: impl Fn(&Built) -> bool) -> Option<Unsent> {
        let gone = self.next.take_if(|next| !keep(next))?;
        match gone.matter {
            Matter::Reply => Some(Unsent::Reply),
            Matter::Loop(_) => Some(Unsent::Loop),
            Matter::Ping(id) => self.ping.take().filter(|ping| ping.id == id).map(Unsent::Ping),
            Matter::Drop | Matter::Fragment(..) => None,
        }
    }

    /// Forgets what goes over relays that are no longer known.
    pub(super) fn set_paths(&mut self, paths: &dyn PathSelector) -> Option<Unsent> {
        self.keep(|built| built.is_known(paths))
    }

    /// Forgets what would leave by `first`.
    pub(super) fn unreachable(&mut self, first: NodeId) -> Option<Unsent> {
        self.keep(|built| built.first != first)
    }

    /// Forgets the packet of the next tick if its epoch is over for senders.
    pub(super) fn end_next(&mut self, now: Instant) -> Option<Unsent> {
        self.keep_next(|built| built.until > now)
    }

    /// When the packet of the next tick must be another one.
    pub(super) fn next_ends(&self) -> Option<Instant> {
        self.next.as_ref().map(|built| built.until)
    }

    /// Forgets the fragments of a message. That of the next tick leaves: with full cover no tick stays empty.
    pub(super) fn ended(&mut self, message: &MessageId) {
        self.fragments.retain(|(of, _), _| of != message);
    }
}

impl Endpoint {
    pub(super) fn drop_packet(&mut self, now: Now) -> Option<Built> {
        let epoch = self.sending_epoch(now);
        self.ahead.drops.retain(|built| built.is_fresh(epoch, now));
        if self.ahead.drops.is_empty() {
            let plans = (0..self.crowd()).filter_map(|_| self.plan_drop(epoch, now)).collect();
            self.ahead.drops = self.build(plans, now);
        }
        self.ahead.drops.pop()
    }

    pub(super) fn fragment_packet(&mut self, id: MessageId, index: u16, now: Now) -> Option<Built> {
        self.last_served = id;
        let epoch = self.sending_epoch(now);
        self.ahead.fragments.retain(|_, built| built.is_fresh(epoch, now));
        if !self.ahead.fragments.contains_key(&(id, index)) {
            let coming = self.coming_fragments((id, index), self.crowd(), now);
            let plans = coming.into_iter().filter_map(|(id, index)| self.plan_fragment(id, index, now)).collect();
            for built in self.build(plans, now) {
                if let Matter::Fragment(id, index) = built.matter {
                    self.ahead.fragments.insert((id, index), built);
                }
            }
        }
        self.ahead.fragments.remove(&(id, index))
    }

    /// `first`, and the fragments that the ticks after it will carry and that are not built yet: the messages take turns.
    fn coming_fragments(&self, first: (MessageId, u16), count: usize, now: Now) -> Vec<(MessageId, u16)> {
        let missing = |id: MessageId, indices: Vec<u16>| -> Vec<_> {
            let all = indices.into_iter().map(|index| (id, index));
            all.filter(|fragment| *fragment != first && !self.ahead.fragments.contains_key(fragment)).collect()
        };
        let known = count + self.ahead.fragments.len() + 1;
        let turns = self.messages_in_turn(now).map(|(id, message)| missing(*id, message.upcoming(now.mono, known)));
        // So many messages at most have a turn in the crowd.
        let lists: Vec<_> = turns.filter(|list| !list.is_empty()).take(count).collect();
        let in_turn = (0..count).flat_map(|round| lists.iter().filter_map(move |list| list.get(round).copied()));
        std::iter::once(first).chain(in_turn).take(count).collect()
    }

    /// A packet that nothing else is built with.
    pub(super) fn single_packet(&mut self, plan: Plan, now: Now) -> Option<Built> {
        self.build(vec![plan], now).pop()
    }

    /// How many packets the clock lets leave soon enough to be built now.
    fn crowd(&self) -> usize {
        let soon = self.config.send_per_second * AHEAD.as_secs_f64();
        (soon as usize).clamp(1, CROWD)
    }

    /// The packet leaves: from now on its answers are expected.
    pub(super) fn leave(&mut self, built: Built, now: Now) {
        let Built { first, packet, matter, epoch, there, relays, expected, .. } = built;
        let expires = self.deadline_of(epoch, now);
        let mut back = Duration::ZERO;
        for Expected { id, keys, purpose, back: way_back } in expected {
            if Some(purpose) == matter.answer() {
                back = way_back;
            }
            self.surbs.insert(id, keys, purpose, now.mono, (there + way_back, expires));
        }
        match matter {
            Matter::Loop(id) => {
                let hops: Vec<_> = relays.into_iter().filter(|relay| *relay != self.config.me).collect();
                self.measure.sent(epoch, &hops);
                let expires = now.mono + there + self.late.allowance() + LOOP_LOST;
                self.loops.sent(Departure { id, epoch, hops, known: there, expires }, now.mono);
            }
            Matter::Fragment(id, index) => {
                let wait = there + back + self.late.allowance();
                if let Some(message) = self.messages.get_mut(&id) {
                    message.sent(index, relays, now.mono, wait);
                }
            }
            Matter::Reply | Matter::Drop | Matter::Ping(_) => {}
        }
        let cover = matches!(matter, Matter::Drop | Matter::Loop(_));
        self.outputs.push_back(Output::Send { first, packet, cover });
    }

    /// Builds all that can be built.
    fn build(&mut self, plans: Vec<Plan>, now: Now) -> Vec<Built> {
        #[cfg(test)]
        {
            self.built += plans.len();
        }
        let mut sealed = self.sealed(plans, now);
        let mut orders: Vec<_> = sealed.iter_mut().map(Sealed::order).collect();
        let Ok(routes) = build_batch(&mut orders, &mut self.rng) else {
            self.drops.count(DropReason::NoRoute);
            return Vec::new();
        };
        let built = |(sealed, route): (Sealed, Route)| {
            let Sealed { plan: Plan { way, matter, .. }, blocks, packet, .. } = sealed;
            let there = self.predict(&route.delay_seeds, &way.relays, &way.last);
            let back = blocks.answer.iter().flat_map(|block| block.relays.iter().copied());
            let relays = way.relays.iter().map(|relay| relay.id).chain(back).collect();
            let expected = expected(matter, blocks);
            let (first, epoch, at) = (NodeId(route.first), way.epoch, now.mono);
            let until = self.sends_until(epoch, now);
            Built { first, packet, matter, epoch, at, until, there, relays, expected }
        };
        sealed.into_iter().zip(routes).map(built).collect()
    }

    /// Makes the reply blocks, all together, and seals what carries them.
    fn sealed(&mut self, plans: Vec<Plan>, now: Now) -> Vec<Sealed> {
        let (mut planned, mut back_ways) = (Vec::with_capacity(plans.len()), Vec::new());
        for plan in plans {
            let answer = plan.matter.answer().map(|_| self.back_way(&plan.way, plan.hops, now));
            // Every packet for a slot asks for a receipt, cover too: the mailbox cannot tell them apart.
            let slot = plan.way.form == Form::Slot;
            let receipt = slot.then(|| self.back_way(&plan.way, plan.way.relays.len(), now));
            let asks = (answer.is_some(), receipt.is_some());
            if let Some(found) = answer.into_iter().chain(receipt).collect::<Option<Vec<_>>>() {
                back_ways.extend(found);
                planned.push((plan, asks));
            }
        }
        let mut made = self.reply_blocks(&back_ways).into_iter();
        let mut sealed = Vec::with_capacity(planned.len());
        for (plan, (answer, receipt)) in planned {
            let mut next = |asked: bool| if asked { made.next() } else { None };
            let blocks = Blocks { answer: next(answer), receipt: next(receipt) };
            if let (Some(body), Some(path)) = (self.body(&plan, &blocks), self.sphinx_path(&plan.way.relays)) {
                sealed.push(Sealed { plan, blocks, path, body, packet: new_packet() });
            }
        }
        sealed
    }

    /// What the packet carries, sealed, with its reply blocks in it.
    fn body(&mut self, plan: &Plan, blocks: &Blocks) -> Option<Box<[u8; BODY_LEN]>> {
        let form = plan.way.form;
        let surb = blocks.answer.as_ref().map(|block| &block.surb);
        let content = match plan.matter {
            Matter::Reply => return None,
            Matter::Drop => Content::Drop,
            Matter::Loop(id) => Content::Loop { id },
            Matter::Ping(_) => Content::Ping { surb: surb? },
            Matter::Fragment(id, index) => {
                let message = self.messages.get(&id)?;
                let (created, length) = (message.created, message.length());
                let count = fragment_count(length as usize, form);
                let data = message.data(index);
                Content::Fragment(Fragment { message: id, created, length, index, count, surb: surb?, data })
            }
        };
        let mut body = Box::new([0u8; BODY_LEN]);
        let sealed_at = if form == Form::Slot { SURB_LEN } else { 0 };
        let sealed = body.get_mut(sealed_at..)?;
        let content_end = 32 + form.content_len();
        content.write(sealed.get_mut(32..content_end)?).ok()?;
        seal::seal(sealed, &plan.seal_key, &self.config.network, &mut self.rng).ok()?;
        if form == Form::Slot {
            body.get_mut(..SURB_LEN)?.copy_from_slice(&blocks.receipt.as_ref()?.surb);
        }
        Some(body)
    }

    /// A way by which whoever ends `way` can answer.
    pub(super) fn back_way(&mut self, way: &Way, hops: usize, now: Now) -> Option<BackWay> {
        let exclude: Vec<_> = way.relays.last().map(|relay| relay.id).into_iter().collect();
        let (relays, mut last) = self.return_path((way.epoch, way.version), hops, &exclude, Use::Carry, now).ok()?;
        let id: [u8; 16] = self.rng.random();
        match &mut last {
            LastHop::Deliver { reference } | LastHop::Slot { reference, .. } => *reference = id,
        }
        let path = self.sphinx_path(&relays)?;
        Some(BackWay { relays, path, last, epoch: way.epoch, id })
    }

    pub(super) fn reply_blocks<'a>(&mut self, ways: &'a [BackWay]) -> Vec<NewBlock> {
        let order = |way: &'a BackWay| SurbOrder { path: &way.path, epoch: way.epoch.0, last: way.last };
        let orders: Vec<_> = ways.iter().map(order).collect();
        let Ok(made) = build_surbs(&orders, &mut self.rng) else {
            self.drops.count(DropReason::NoRoute);
            return Vec::new();
        };
        let block = |(way, (surb, keys, route)): (&'a BackWay, (Surb, SurbKeys, Route))| NewBlock {
            surb: surb.to_bytes(),
            keys,
            id: way.id,
            predicted: self.predict(&route.delay_seeds, &way.relays, &way.last),
            relays: way.relays.iter().map(|relay| relay.id).collect(),
        };
        ways.iter().zip(made).map(block).collect()
    }

    fn sphinx_path(&mut self, relays: &[RelayHop]) -> Option<Vec<Hop>> {
        relays.iter().map(|relay| Some(Hop { id: relay.id.0, key: self.mix_key(&relay.mix_key)? })).collect()
    }

    /// The sum of the delays on a path. A last hop that is the recipient delays nothing.
    fn predict(&self, seeds: &[[u8; 32]], relays: &[RelayHop], last: &LastHop) -> Duration {
        let mixing = match last {
            LastHop::Deliver { .. } => relays.len().saturating_sub(1),
            LastHop::Slot { .. } => relays.len(),
        };
        let hops = seeds.iter().zip(relays.iter().map(|relay| &relay.delay_salt)).take(mixing);
        predicted(&self.config.delays, hops)
    }
}

/// What the answers will mean.
fn expected(matter: Matter, blocks: Blocks) -> Vec<Expected> {
    let answer = matter.answer().zip(blocks.answer);
    let receipt = matter.receipt().zip(blocks.receipt);
    let expect = |(purpose, block): (Purpose, NewBlock)| {
        let NewBlock { id, keys, predicted: back, .. } = block;
        Expected { id, keys, purpose, back }
    };
    answer.into_iter().chain(receipt).map(expect).collect()
}
