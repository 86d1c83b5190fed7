//! The way out of the engine: packets that leave in this turn, and those that wait while their next hop is dialled.

use std::{collections::VecDeque, time::Duration};

use fog_base::{DropReason, Epoch, NodeId, Now};

use super::{Engine, Event, Held};
use crate::{
    core::PacketBuf,
    runtime::{links::Refusal, stats::Stats},
};

/// Packets that wait for a connection to their next hop, to one peer and in total.
const WAITING_PER_PEER: usize = 256;
const WAITING_TOTAL: usize = 4096;

impl Engine {
    /// Lets a packet go to its next hop at the end of this turn, with the faults that are injected.
    pub(super) fn link(&mut self, next: NodeId, packet: PacketBuf, now: Now) {
        let Some(faults) = self.parts.faults else { return self.leaving.push((next, packet)) };
        match faults.draw(&mut self.parts.rng) {
            None => {
                Stats::add(&self.parts.stats.faulted, 1);
                self.spent.push(packet);
            }
            Some(Duration::ZERO) => self.leaving.push((next, packet)),
            Some(late) => self.insert(now.mono + late, Held::Faulty(next, packet), now),
        }
    }

    /// Gives what leaves to the links. True if some of it could not go.
    pub(super) fn push(&mut self, now: Now) -> bool {
        if self.leaving.is_empty() {
            return false;
        }
        let mut refused = std::mem::take(&mut self.refused);
        self.parts.links.push(&mut self.leaving, &mut refused);
        let some = !refused.is_empty();
        for (why, (next, packet)) in refused.drain(..) {
            match why {
                Refusal::Full => self.drop_packet(DropReason::QueueFull, packet),
                Refusal::Unsupported => {
                    self.drop_packet(DropReason::NoRoute, packet);
                    self.parts.endpoint.unreachable(next, now);
                }
                // Senders choose the next hop: only relays are dialled for them.
                Refusal::NoLink if !self.is_known(next, now) => self.drop_packet(DropReason::NoRoute, packet),
                Refusal::NoLink => self.wait_for(next, packet, now),
            }
        }
        self.refused = refused;
        some
    }

    /// Whether `node` is a relay whose packets are accepted now.
    fn is_known(&self, node: NodeId, now: Now) -> bool {
        let current = self.parts.schedule.at(now.unix);
        let epochs = [Epoch(current.0.saturating_sub(1)), current, current.next()];
        epochs.into_iter().any(|epoch| self.parts.endpoint.is_relay(epoch, node))
    }

    /// Keeps a packet while its next hop is dialled.
    fn wait_for(&mut self, next: NodeId, packet: PacketBuf, now: Now) {
        self.parts.endpoint.dialling(next);
        let total: usize = self.waiting.values().map(|(_, packets)| packets.len()).sum();
        if total >= WAITING_TOTAL {
            return self.drop_packet(DropReason::QueueFull, packet);
        }
        let (_, packets) = self.waiting.entry(next).or_insert_with(|| (now.mono, VecDeque::new()));
        let first = packets.is_empty();
        if packets.len() >= WAITING_PER_PEER {
            return self.drop_packet(DropReason::QueueFull, packet);
        }
        packets.push_back(packet);
        if first {
            self.emit(Event::Dial(next));
        }
    }

    pub(super) fn connected(&mut self, peer: NodeId) {
        let packets = self.waiting.remove(&peer).map(|(_, packets)| packets).unwrap_or_default();
        self.leaving.extend(packets.into_iter().map(|packet| (peer, packet)));
    }

    pub(super) fn unreachable(&mut self, peer: NodeId, now: Now) {
        if self.parts.links.takes(&peer) {
            return self.connected(peer);
        }
        for packet in self.waiting.remove(&peer).map(|(_, packets)| packets).unwrap_or_default() {
            self.drop_packet(DropReason::NoRoute, packet);
        }
        self.parts.endpoint.unreachable(peer, now);
    }
}
