//! The reply blocks that this node has given out, and what it asked each one to answer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use fog_base::MessageId;
use fog_sphinx::{SURB_LEN, SurbKeys};

use crate::wire::Application;

/// Reply blocks outstanding at one time; beyond, the oldest is forgotten.
pub const CAPACITY: usize = 16_384;

/// In a reply block: first hop (32), version (1), epoch (4), then the group element.
const ELEMENT_AT: usize = 37;

/// What a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The acknowledgement of a fragment, by the recipient.
    Ack(MessageId, u16),
    /// The receipt for a fragment, by a mailbox.
    Stored(MessageId, u16),
    /// A pong.
    Pong(u64),
    /// An answer to a message of an application, which brought it.
    Answer(Application, MessageId),
}

/// A reply block that may come back.
#[derive(Debug)]
pub struct Outstanding {
    /// Opens the reply.
    pub keys: SurbKeys,
    /// What it answers.
    pub purpose: Purpose,
    /// When the packet that carried it left.
    pub sent: Instant,
    /// The sum of the delays, there and back, that the sender knows.
    pub predicted: Duration,
    expires: Instant,
}

/// The reply blocks of others that this node has taken lately. A block works once: a second packet with its header is a replay at
/// its first hop, and would tell that both answers were one node's. A mailbox that pushes a packet twice hands its block in twice.
#[derive(Debug, Default)]
pub struct UsedSurbs {
    known: BTreeSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl UsedSurbs {
    /// True if the block was not taken before. What tells blocks apart is the group element in their header.
    pub fn take(&mut self, surb: &[u8; SURB_LEN]) -> bool {
        let Some(element) = surb.get(ELEMENT_AT..).and_then(|rest| rest.first_chunk::<16>()) else { return false };
        if !self.known.insert(*element) {
            return false;
        }
        self.order.push_back(*element);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// All reply blocks that may come back.
#[derive(Debug, Default)]
pub struct SurbTable {
    by_id: BTreeMap<[u8; 16], Outstanding>,
    order: VecDeque<[u8; 16]>,
}

impl SurbTable {
    /// Remembers a reply block until `expires`, the end of its epoch's grace.
    pub fn insert(
        &mut self,
        id: [u8; 16],
        keys: SurbKeys,
        purpose: Purpose,
        sent: Instant,
        times: (Duration, Instant),
    ) {
        let (predicted, expires) = times;
        self.by_id.insert(id, Outstanding { keys, purpose, sent, predicted, expires });
        self.order.push_back(id);
        while self.order.len() > CAPACITY {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    /// Takes the block with `id`: it works once.
    pub fn take(&mut self, id: &[u8; 16]) -> Option<Outstanding> {
        self.by_id.remove(id)
    }

    /// Forgets what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        // Blocks are inserted in the order of their epochs, so the expired ones and those already used stand in front.
        while let Some(id) = self.order.front() {
            if self.by_id.get(id).is_some_and(|block| block.expires > now) {
                break;
            }
            self.by_id.remove(id);
            self.order.pop_front();
        }
    }

    /// How many may come back.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none may.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
