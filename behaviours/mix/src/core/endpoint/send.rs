//! What leaves at a tick of the send clock, and on which path. Data and cover become packets in one place, `crowd.rs`: one size,
//! one code path.

use fog_base::{DropReason, Epoch, MessageId, NodeId, Now, relay::Role};
use fog_sphinx::{PACKET_LEN, Surb};
use rand::RngExt;

use super::{
    Endpoint, PacketBuf, PingJob,
    crowd::{Built, Matter, Plan},
};
use crate::{
    core::{
        cover::Cover,
        outgoing::{Address, Outgoing},
    },
    wire::{Bitmap, ReplyBody},
};

/// What a tick carries.
enum Job {
    Ack(MessageId),
    Pong(Box<Surb>),
    Answer(Box<Surb>, Vec<u8>),
    Ping(PingJob),
    Loop,
    Fragment(MessageId, u16),
    Drop,
}

impl Endpoint {
    /// Lets the ticks that are due carry what waits.
    pub(super) fn run_clock(&mut self, now: Now) {
        let full = self.config.cover == Cover::Full;
        let unsent = self.ahead.end_next(now.mono);
        self.take_back(unsent);
        if full || self.has_work(now) {
            self.clock.wake(now.mono, &mut self.rng);
        }
        let mut left = false;
        while self.clock.tick(now.mono, &mut self.rng) {
            let next = self.ahead.next.take();
            if let Some(built) = next.or_else(|| self.prepare(now)) {
                self.leave(built, now);
                left = true;
            }
            if !full && !self.has_work(now) {
                self.clock.sleep();
            }
        }
        // With full cover the packet of a tick is built before its tick, and after the packet of the tick before has left: the
        // time that it takes differs, and must not be seen.
        self.unprepared = full && self.ahead.next.is_none() && left;
        if full && self.ahead.next.is_none() && !left {
            self.ahead.next = self.prepare(now);
        }
    }

    fn has_work(&self, now: Now) -> bool {
        self.loops_due > 0
            || !self.ack_order.is_empty()
            || !self.pongs.is_empty()
            || !self.answers.is_empty()
            || !self.pings.is_empty()
            || self.next_fragment(now).is_some()
    }

    /// The next fragment, the messages taking turns.
    fn next_fragment(&self, now: Now) -> Option<(MessageId, u16)> {
        self.messages_in_turn(now).find_map(|(id, message)| message.next(now.mono).map(|index| (*id, index)))
    }

    /// The messages that may be served, from the one whose turn it is.
    pub(super) fn messages_in_turn(&self, now: Now) -> impl Iterator<Item = (&MessageId, &Outgoing)> {
        let after = (std::ops::Bound::Excluded(self.last_served), std::ops::Bound::Unbounded);
        let turns = self.messages.range(after).chain(self.messages.range(..=self.last_served));
        turns.filter(move |(id, _)| self.held.get(id).is_none_or(|until| *until <= now.mono))
    }

    /// Answers and own traffic take turns, so that neither can starve the other.
    fn next_job(&mut self, now: Now) -> Option<Job> {
        self.replies_first = !self.replies_first;
        if self.replies_first {
            self.next_reply().or_else(|| self.next_own(now))
        } else {
            self.next_own(now).or_else(|| self.next_reply())
        }
    }

    fn next_reply(&mut self) -> Option<Job> {
        if let Some(message) = self.ack_order.pop_front() {
            return Some(Job::Ack(message));
        }
        if let Some(surb) = self.pongs.pop() {
            return Some(Job::Pong(Box::new(surb)));
        }
        self.answers.pop().map(|(surb, data)| Job::Answer(Box::new(surb), data))
    }

    /// Loops take every second turn: a clock slower than they are serves the others too.
    fn next_own(&mut self, now: Now) -> Option<Job> {
        self.loops_first = !self.loops_first;
        if self.loops_first {
            self.next_loop().or_else(|| self.next_asked(now))
        } else {
            self.next_asked(now).or_else(|| self.next_loop())
        }
    }

    fn next_loop(&mut self) -> Option<Job> {
        self.loops_due = self.loops_due.checked_sub(1)?;
        Some(Job::Loop)
    }

    fn next_asked(&mut self, now: Now) -> Option<Job> {
        if let Some(ping) = self.pings.pop() {
            return Some(Job::Ping(ping));
        }
        self.next_fragment(now).map(|(id, index)| Job::Fragment(id, index))
    }

    /// Builds the next packet: the first job that can become one, or with full cover a drop packet.
    fn prepare(&mut self, now: Now) -> Option<Built> {
        // Each job that cannot be sent is gone or held back, so this ends.
        while let Some(job) = self.next_job(now) {
            if let Some(built) = self.perform(job, now) {
                return Some(built);
            }
        }
        (self.config.cover == Cover::Full).then(|| self.perform(Job::Drop, now)).flatten()
    }

    fn perform(&mut self, job: Job, now: Now) -> Option<Built> {
        match job {
            Job::Ack(message) => self.acknowledgement(message, now),
            Job::Pong(surb) => self.reply(*surb, &ReplyBody::Pong, now),
            Job::Answer(surb, data) => self.reply(*surb, &ReplyBody::Answer(data), now),
            Job::Ping(ping) => {
                let built = self.ping_packet(&ping, now);
                self.ahead.ping = Some(ping);
                built
            }
            Job::Loop => self.loop_packet(now),
            Job::Drop => self.drop_packet(now),
            Job::Fragment(message, index) => {
                let sent = self.fragment_packet(message, index, now);
                if sent.is_none() {
                    self.wait_after_no_path(message, now.mono);
                }
                sent
            }
        }
    }

    fn reply(&mut self, surb: Surb, body: &ReplyBody, now: Now) -> Option<Built> {
        let body = body.to_body().ok()?;
        let mut packet = new_packet();
        let epoch = Epoch(surb.epoch());
        let first = NodeId(surb.reply(&body, &mut packet));
        // Whoever made the block chose its first hop: only relays are sent to.
        if !self.is_relay(epoch, first) {
            self.drops.count(DropReason::NoRoute);
            return None;
        }
        let until = self.deadline_of(epoch, now);
        Some(Built::reply(first, packet, (epoch, until), now))
    }

    fn acknowledgement(&mut self, message: MessageId, now: Now) -> Option<Built> {
        let state = self.acks.get_mut(&message)?;
        state.queued = false;
        let schedule = self.config.schedule;
        // The one that works longest; of those the newest.
        state.surbs.retain(|surb| !schedule.is_over(Epoch(surb.epoch()), now.unix));
        let best = state.surbs.iter().enumerate().max_by_key(|(_, surb)| surb.epoch()).map(|(at, _)| at);
        let surb = best.and_then(|at| state.surbs.remove(at));
        let count = state.count;
        let accepted = self.seen.contains_key(&message);
        // After the last acknowledgement nothing spare is needed.
        if accepted || state.surbs.is_empty() {
            self.acks.remove(&message);
        }
        let (incarnation, fragments) = match self.completing.get(&message) {
            Some(completing) => (completing.incarnation, Bitmap::all(count)),
            None if accepted => ([0; 8], Bitmap::all(count)),
            // Nothing is left of it: a new number tells its sender so.
            None => self.reassembly.fragments(&message).unwrap_or_else(|| (self.rng.random(), Bitmap::none(count))),
        };
        self.reply(surb?, &ReplyBody::Ack { message, incarnation, accepted, count, fragments }, now)
    }

    fn ping_packet(&mut self, ping: &PingJob, now: Now) -> Option<Built> {
        let way = self.way_to(&ping.to, ping.hops, None, now).ok()?;
        let plan = Plan { way, seal_key: ping.to.seal_key, hops: ping.hops, matter: Matter::Ping(ping.id) };
        self.single_packet(plan, now)
    }

    fn loop_packet(&mut self, now: Now) -> Option<Built> {
        let hops = self.config.hops;
        let way = self.loop_way(hops, now).ok()?;
        let matter = Matter::Loop(self.rng.random());
        self.single_packet(Plan { way, seal_key: self.seal_public, hops, matter }, now)
    }

    pub(super) fn plan_drop(&mut self, epoch: Epoch, now: Now) -> Option<Plan> {
        let others: Vec<_> =
            self.paths.with_role(epoch, Role::Mix).into_iter().filter(|r| *r != self.config.me).collect();
        let node = Self::pick(&mut self.rng, &others)?;
        let seal_key = self.paths.relay(epoch, node)?.seal_key;
        let to = Address { node, seal_key, mailboxes: Vec::new() };
        let hops = self.config.hops;
        let way = self.way_to(&to, hops, None, now).ok()?;
        Some(Plan { way, seal_key, hops, matter: Matter::Drop })
    }

    pub(super) fn plan_fragment(&mut self, id: MessageId, index: u16, now: Now) -> Option<Plan> {
        let message = self.messages.get_mut(&id)?;
        let (to, hops, form) = (message.to.clone(), message.hops, message.form);
        let lost = message.lose(index);
        self.suspects.lost(&lost, now.mono);
        let way = self.way_to(&to, hops, Some(form), now).ok()?;
        Some(Plan { way, seal_key: to.seal_key, hops, matter: Matter::Fragment(id, index) })
    }
}

pub(super) fn new_packet() -> PacketBuf {
    Box::new([0; PACKET_LEN])
}
