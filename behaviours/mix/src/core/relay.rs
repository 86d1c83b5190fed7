//! What a relay does with a batch of packets, in the order of cost: epoch, one multiplication and MAC, replay filter, the rest.
//!
//! Batches are as long as what waits; the scalar multiplications of all packets of one key are done together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{DropCounters, DropReason, Epoch, EpochSchedule, NodeId, UnixMillis};
use fog_sphinx::{Opened, Reject, Unwrapped, open_batch, process_batch};

use super::{
    PacketBuf,
    delay::Delays,
    keyring::{EpochKey, Keyring},
    replay::{Fingerprint, fingerprint},
};

/// A packet that came from a peer.
#[derive(Debug)]
pub struct Arrival {
    /// The packet.
    pub packet: PacketBuf,
    /// When its last byte came: its delay counts from here, however long it waited for its turn.
    pub at: Instant,
}

/// What is to be done with a packet.
#[derive(Debug)]
pub enum Outcome {
    /// Send it on at `deadline`.
    Forward {
        /// The packet for the next hop.
        packet: PacketBuf,
        /// The next hop.
        next: NodeId,
        /// When.
        deadline: Instant,
    },
    /// Its body is for this node.
    Deliver {
        /// The packet with its body.
        packet: PacketBuf,
    },
    /// Its payload answers one of this node's reply blocks.
    Reply {
        /// The packet with its payload.
        packet: PacketBuf,
        /// Which reply block.
        surb: [u8; 16],
    },
    /// It is for a slot of this node's mailbox at `deadline`.
    Slot {
        /// The packet with its body or payload.
        packet: PacketBuf,
        /// The slot.
        slot: [u8; 32],
        /// For a reply: the id of its SURB.
        surb: Option<[u8; 16]>,
        /// When.
        deadline: Instant,
    },
}

/// Writes fingerprints down before their packets are processed; false if that was not possible: then they are dropped.
pub trait ReplayLog {
    /// Appends to the log of `epoch`.
    fn append(&self, epoch: Epoch, fingerprints: &[Fingerprint]) -> bool;
}

/// Where a batch ends.
#[derive(Debug, Default)]
pub struct Done {
    /// What is to be done with its packets, in no particular order.
    pub outcomes: Vec<Outcome>,
    /// The buffers of those that were dropped.
    pub spent: Vec<PacketBuf>,
}

impl Done {
    fn drop_packet(&mut self, why: DropReason, packet: PacketBuf, drops: &DropCounters) {
        drops.count(why);
        self.spent.push(packet);
    }
}

/// Processes batches. The same value serves all workers.
#[derive(Debug)]
pub struct Processor {
    /// How UTC is cut into epochs.
    pub schedule: EpochSchedule,
    /// The network's delays.
    pub delays: Delays,
    /// Whether packets are sent on, or only taken as the last hop.
    pub forwards: bool,
}

impl Processor {
    /// Processes `arrivals`.
    pub fn process(
        &self,
        keyring: &Keyring,
        log: &impl ReplayLog,
        arrivals: &mut Vec<Arrival>,
        now: UnixMillis,
        drops: &DropCounters,
        done: &mut Done,
    ) {
        let mut batches: Vec<(&Arc<EpochKey>, Vec<Arrival>)> = Vec::new();
        for arrival in arrivals.drain(..) {
            let key = fog_sphinx::peek(arrival.packet.as_slice())
                .map_err(reason)
                .and_then(|epoch| keyring.accepting(Epoch(epoch), &self.schedule, now).ok_or(DropReason::WrongEpoch));
            match key {
                Ok(key) => match batches.iter_mut().find(|(k, _)| k.epoch == key.epoch) {
                    Some((_, batch)) => batch.push(arrival),
                    None => batches.push((key, vec![arrival])),
                },
                Err(why) => done.drop_packet(why, arrival.packet, drops),
            }
        }
        for (key, batch) in batches {
            self.process_epoch(key, log, batch, drops, done);
        }
    }

    fn process_epoch(
        &self,
        key: &EpochKey,
        log: &impl ReplayLog,
        batch: Vec<Arrival>,
        drops: &DropCounters,
        done: &mut Done,
    ) {
        let mut results = Vec::with_capacity(batch.len());
        open_batch(batch.iter().map(|arrival| &*arrival.packet), &key.secret, &mut results);
        let (mut headers, mut arrivals) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (result, arrival) in results.into_iter().zip(batch) {
            match result {
                Ok(header) => {
                    headers.push(header);
                    arrivals.push(arrival);
                }
                Err(reject) => done.drop_packet(reason(reject), arrival.packet, drops),
            }
        }
        keep_first_time(key, log, &mut headers, &mut arrivals, drops, done);
        let mut results = Vec::with_capacity(arrivals.len());
        process_batch(headers.into_iter().zip(arrivals.iter_mut().map(|arrival| &mut *arrival.packet)), &mut results);
        for (result, arrival) in results.into_iter().zip(arrivals) {
            match result {
                Ok(unwrapped) => match self.outcome(key, unwrapped, arrival) {
                    Ok(outcome) => done.outcomes.push(outcome),
                    Err(packet) => done.drop_packet(DropReason::NoRoute, packet, drops),
                },
                Err(reject) => done.drop_packet(reason(reject), arrival.packet, drops),
            }
        }
    }

    fn outcome(&self, key: &EpochKey, unwrapped: Unwrapped, arrival: Arrival) -> Result<Outcome, PacketBuf> {
        let Arrival { packet, at } = arrival;
        let deadline = |seed: &[u8; 32]| at + self.delays.draw(seed, &key.delay_salt);
        Ok(match unwrapped {
            Unwrapped::Forward { next, delay_seed } if self.forwards => {
                Outcome::Forward { packet, next: NodeId(next), deadline: deadline(&delay_seed) }
            }
            Unwrapped::Forward { .. } => return Err(packet),
            Unwrapped::Deliver { .. } => Outcome::Deliver { packet },
            Unwrapped::Reply { surb_id, .. } => Outcome::Reply { packet, surb: surb_id },
            Unwrapped::Slot { slot, delay_seed, .. } => {
                Outcome::Slot { packet, slot, surb: None, deadline: deadline(&delay_seed) }
            }
            Unwrapped::SlotReply { slot, surb_id, delay_seed } => {
                Outcome::Slot { packet, slot, surb: Some(surb_id), deadline: deadline(&delay_seed) }
            }
        })
    }
}

/// Keeps the packets that were not seen before, once their fingerprints are in the log.
fn keep_first_time(
    key: &EpochKey,
    log: &impl ReplayLog,
    headers: &mut Vec<Opened>,
    arrivals: &mut Vec<Arrival>,
    drops: &DropCounters,
    done: &mut Done,
) {
    let mut fingerprints: Vec<_> = headers.iter().map(|header| fingerprint(&header.replay_tag())).collect();
    let fresh = key.first_time(&fingerprints);
    let mut verdicts = fresh.iter();
    fingerprints.retain(|_| verdicts.next() == Some(&true));
    let written = fingerprints.is_empty() || log.append(key.epoch, &fingerprints);
    if written && fingerprints.len() == arrivals.len() {
        return;
    }
    let mut verdicts = fresh.iter();
    headers.retain(|_| written && verdicts.next() == Some(&true));
    for (arrival, fresh) in std::mem::take(arrivals).into_iter().zip(fresh) {
        match (fresh, written) {
            (true, true) => arrivals.push(arrival),
            (true, false) => done.drop_packet(DropReason::QueueFull, arrival.packet, drops),
            (false, _) => done.drop_packet(DropReason::Replayed, arrival.packet, drops),
        }
    }
}

/// The counted reason for a packet that Sphinx refuses.
fn reason(reject: Reject) -> DropReason {
    match reject {
        Reject::Malformed => DropReason::Malformed,
        Reject::UnknownVersion => DropReason::UnknownVersion,
        Reject::BadMac => DropReason::BadMac,
        Reject::BadPayload => DropReason::BadPayload,
    }
}

/// How long a packet with these delay seeds takes through relays with these salts.
pub fn predicted<'a>(delays: &Delays, hops: impl IntoIterator<Item = (&'a [u8; 32], &'a [u8; 32])>) -> Duration {
    hops.into_iter().map(|(seed, salt)| delays.draw(seed, salt)).sum()
}
