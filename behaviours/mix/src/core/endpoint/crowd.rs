//! Building packets several at a time. A multiplication costs a third in a crowd ([`fog_sphinx::build_batch`]), so what will
//! leave at the next ticks anyway, drop packets and the fragments of one message, is built together and waits here.
//!
//! Nothing is remembered of a packet before it leaves: a packet that was built and is not needed any more is forgotten.

use std::{collections::BTreeMap, time::Duration};

use fog_base::{Epoch, MessageId, NodeId, Now, relay::RelayHop};
use fog_sphinx::{
    BODY_LEN, Hop, LastHop, Order, PACKET_LEN, SURB_LEN, Surb, SurbKeys, SurbOrder, build_batch, build_surbs,
};
use rand::RngExt;

use super::{Endpoint, send::Prepared};
use crate::{
    core::{PacketBuf, relay::predicted, seal, surbs::Purpose},
    wire::{Content, Form, Fragment, fragment_count},
};

/// Packets that are built together. With two multiplications each they fill eight lanes.
pub(super) const CROWD: usize = 4;
/// What is built ahead leaves within about this, or it would be old when it leaves.
const AHEAD: Duration = Duration::from_secs(1);
/// Fragments that wait for their ticks; beyond, each is built when it leaves.
const MAX_READY: usize = 256;

/// A path on which a packet leaves, and what its last hop is told.
pub(super) struct Way {
    pub(super) relays: Vec<RelayHop>,
    pub(super) last: LastHop,
    pub(super) form: Form,
    pub(super) epoch: Epoch,
}

/// What a packet is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Matter {
    Drop,
    Loop([u8; 16]),
    Ping(u64),
    Fragment(MessageId, u16),
}

impl Matter {
    /// What the answer to it will mean, if it asks for one.
    fn answer(self) -> Option<Purpose> {
        match self {
            Self::Drop | Self::Loop(_) => None,
            Self::Ping(id) => Some(Purpose::Pong(id)),
            Self::Fragment(id, index) => Some(Purpose::Ack(id, index)),
        }
    }

    /// What a mailbox's receipt for it will mean.
    fn receipt(self) -> Option<Purpose> {
        match self {
            Self::Fragment(id, index) => Some(Purpose::Stored(id, index)),
            Self::Drop | Self::Loop(_) | Self::Ping(_) => None,
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
struct BackWay {
    relays: Vec<RelayHop>,
    path: Vec<Hop>,
    last: LastHop,
    epoch: Epoch,
    id: [u8; 16],
}

/// A reply block that is not given out yet.
struct ReplyBlock {
    surb: Surb,
    keys: SurbKeys,
    id: [u8; 16],
    predicted: Duration,
    relays: Vec<NodeId>,
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
    /// From here to there.
    there: Duration,
    relays: Vec<NodeId>,
    expected: Vec<Expected>,
}

/// What was built ahead.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) drops: Vec<Built>,
    pub(super) fragments: BTreeMap<(MessageId, u16), Built>,
}

impl Ready {
    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.drops.clear();
        self.fragments.clear();
    }

    /// Forgets what would leave by `first`.
    pub(super) fn unreachable(&mut self, first: NodeId) {
        self.drops.retain(|built| built.first != first);
        self.fragments.retain(|_, built| built.first != first);
    }

    /// Forgets the fragments of a message.
    pub(super) fn ended(&mut self, message: &MessageId) {
        self.fragments.retain(|(of, _), _| of != message);
    }
}

impl Endpoint {
    /// A drop packet that leaves now.
    pub(super) fn drop_packet(&mut self, now: Now) -> Option<Prepared> {
        let epoch = self.config.schedule.for_sending(now.unix);
        self.ready.drops.retain(|built| built.epoch == epoch);
        if self.ready.drops.is_empty() {
            let plans = (0..self.crowd()).filter_map(|_| self.plan_drop(epoch, now)).collect();
            self.ready.drops = self.build(plans, now);
        }
        let built = self.ready.drops.pop()?;
        Some(self.leave(built, now))
    }

    /// A fragment that leaves now.
    pub(super) fn fragment_packet(&mut self, id: MessageId, index: u16, now: Now) -> Option<Prepared> {
        self.last_served = id;
        let epoch = self.config.schedule.for_sending(now.unix);
        self.ready.fragments.retain(|_, built| built.epoch == epoch);
        if !self.ready.fragments.contains_key(&(id, index)) {
            let room = MAX_READY.saturating_sub(self.ready.fragments.len());
            let mut coming = self.messages.get(&id)?.upcoming(now.mono, self.crowd().min(room));
            if !coming.contains(&index) {
                coming = vec![index];
            }
            let plans = coming.into_iter().filter_map(|index| self.plan_fragment(id, index, now)).collect();
            for built in self.build(plans, now) {
                if let Matter::Fragment(id, index) = built.matter {
                    self.ready.fragments.insert((id, index), built);
                }
            }
        }
        let built = self.ready.fragments.remove(&(id, index))?;
        Some(self.leave(built, now))
    }

    /// A packet of its own kind that leaves now.
    pub(super) fn single_packet(&mut self, plan: Plan, now: Now) -> Option<Prepared> {
        let built = self.build(vec![plan], now).pop()?;
        Some(self.leave(built, now))
    }

    /// How many packets the clock lets leave soon enough to be built now.
    fn crowd(&self) -> usize {
        let soon = self.config.send_per_second * AHEAD.as_secs_f64();
        (soon as usize).clamp(1, CROWD)
    }

    /// The packet leaves: from now on its answers are expected.
    fn leave(&mut self, built: Built, now: Now) -> Prepared {
        let Built { first, packet, matter, epoch, there, relays, expected } = built;
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
                self.loops.sent(id, now.mono + there + self.late.allowance() + Duration::from_secs(5));
            }
            Matter::Fragment(id, index) => {
                let wait = there + back + self.late.allowance();
                if let Some(message) = self.messages.get_mut(&id) {
                    message.sent(index, relays, now.mono, wait);
                }
            }
            Matter::Drop | Matter::Ping(_) => {}
        }
        Prepared { first, packet, cover: matches!(matter, Matter::Drop | Matter::Loop(_)) }
    }

    /// Builds all that can be built.
    fn build(&mut self, plans: Vec<Plan>, now: Now) -> Vec<Built> {
        // Per packet: the block for its answer, if it asks for one, then the block for a mailbox's receipt. Every packet for a
        // slot asks for a receipt, cover too: the mailbox cannot tell them apart.
        let mut planned = Vec::with_capacity(plans.len());
        let mut back_ways = Vec::new();
        for plan in plans {
            let answer = plan.matter.answer().map(|_| self.back_way(&plan.way, plan.hops, now));
            let slot = plan.way.form == Form::Slot;
            let receipt = slot.then(|| self.back_way(&plan.way, plan.way.relays.len(), now));
            let wanted = usize::from(answer.is_some()) + usize::from(receipt.is_some());
            let made: Vec<_> = answer.into_iter().chain(receipt).flatten().collect();
            if made.len() == wanted {
                back_ways.extend(made);
                planned.push((plan, wanted));
            }
        }
        let mut blocks = self.reply_blocks(&back_ways).into_iter();
        let mut sealed = Vec::with_capacity(planned.len());
        for (plan, wanted) in planned {
            let blocks: Vec<_> = blocks.by_ref().take(wanted).collect();
            if let (Some(body), Some(path)) = (self.body(&plan, &blocks), self.sphinx_path(&plan.way.relays)) {
                sealed.push((plan, blocks, body, path));
            }
        }
        let mut packets: Vec<PacketBuf> = sealed.iter().map(|_| Box::new([0; PACKET_LEN])).collect();
        let mut orders: Vec<_> = sealed
            .iter()
            .zip(&mut packets)
            .map(|((plan, _, body, path), packet)| Order {
                path,
                epoch: plan.way.epoch.0,
                last: plan.way.last,
                body,
                packet,
            })
            .collect();
        // Paths have one to five hops; it could fail for no other reason.
        let routes = build_batch(&mut orders, &mut self.rng).unwrap_or_default();
        let built = sealed.into_iter().zip(packets).zip(routes);
        built
            .map(|(((plan, blocks, _, _), packet), route)| {
                let Plan { way, matter, .. } = plan;
                let there = self.predict(&route.delay_seeds, &way.relays, &way.last);
                let on_way = way.relays.iter().map(|relay| relay.id);
                let relays = on_way.chain(blocks.first().into_iter().flat_map(|b| b.relays.clone())).collect();
                let expected = expected(matter, blocks);
                Built { first: NodeId(route.first), packet, matter, epoch: way.epoch, there, relays, expected }
            })
            .collect()
    }

    /// What the packet carries, sealed, with its reply blocks in it.
    fn body(&mut self, plan: &Plan, blocks: &[ReplyBlock]) -> Option<Box<[u8; BODY_LEN]>> {
        let form = plan.way.form;
        let answer = plan.matter.answer().and_then(|_| blocks.first()).map(|block| block.surb.to_bytes());
        let content = match (plan.matter, &answer) {
            (Matter::Drop, _) => Content::Drop,
            (Matter::Loop(id), _) => Content::Loop { id },
            (Matter::Ping(_), surb) => Content::Ping { surb: surb.as_ref()? },
            (Matter::Fragment(id, index), surb) => {
                let message = self.messages.get(&id)?;
                let (created, length) = (message.created, message.length());
                let count = fragment_count(length as usize, form);
                let (surb, data) = (surb.as_ref()?, message.data(index));
                Content::Fragment(Fragment { message: id, created, length, index, count, surb, data })
            }
        };
        let mut body = Box::new([0u8; BODY_LEN]);
        let sealed_at = if form == Form::Slot { SURB_LEN } else { 0 };
        let sealed = body.get_mut(sealed_at..)?;
        let content_end = 32 + form.content_len();
        content.write(sealed.get_mut(32..content_end)?).ok()?;
        seal::seal(sealed, &plan.seal_key, &self.config.network, &mut self.rng).ok()?;
        if form == Form::Slot {
            body.get_mut(..SURB_LEN)?.copy_from_slice(&blocks.last()?.surb.to_bytes());
        }
        Some(body)
    }

    /// A way by which whoever ends `way` can answer.
    fn back_way(&mut self, way: &Way, hops: usize, now: Now) -> Option<BackWay> {
        let exclude: Vec<_> = way.relays.last().map(|relay| relay.id).into_iter().collect();
        let (relays, mut last) = self.return_path(way.epoch, hops, &exclude, now).ok()?;
        let id: [u8; 16] = self.rng.random();
        match &mut last {
            LastHop::Deliver { reference } | LastHop::Slot { reference, .. } => *reference = id,
        }
        let path = self.sphinx_path(&relays)?;
        Some(BackWay { relays, path, last, epoch: way.epoch, id })
    }

    fn reply_blocks(&mut self, ways: &[BackWay]) -> Vec<ReplyBlock> {
        let orders: Vec<_> =
            ways.iter().map(|way| SurbOrder { path: &way.path, epoch: way.epoch.0, last: way.last }).collect();
        let made = build_surbs(&orders, &mut self.rng).unwrap_or_default();
        let block = |(way, (surb, keys, route)): (&BackWay, (Surb, SurbKeys, fog_sphinx::Route))| ReplyBlock {
            surb,
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

/// What the answers will mean: of the blocks, the answer's stands first and the receipt's last.
fn expected(matter: Matter, blocks: Vec<ReplyBlock>) -> Vec<Expected> {
    // The receipt for cover and pings is of no use.
    let purposes = matter.answer().into_iter().chain(matter.receipt());
    let expect = |(purpose, block): (Purpose, ReplyBlock)| Expected {
        id: block.id,
        keys: block.keys,
        purpose,
        back: block.predicted,
    };
    purposes.zip(blocks).map(expect).collect()
}
