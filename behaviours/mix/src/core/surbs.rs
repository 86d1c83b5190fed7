//! The reply blocks that this node has given out, and what it asked each one to answer.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use fog_base::MessageId;
use fog_sphinx::SurbKeys;

/// Reply blocks outstanding at one time; beyond, the oldest is forgotten.
pub const CAPACITY: usize = 16_384;

/// What a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The acknowledgement of a fragment, by the recipient.
    Ack(MessageId, u16),
    /// The receipt for a fragment, by a mailbox.
    Stored(MessageId, u16),
    /// A pong.
    Pong(u64),
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

/// All reply blocks that may come back.
#[derive(Debug, Default)]
pub struct SurbTable {
    by_id: BTreeMap<[u8; 16], Outstanding>,
    order: VecDeque<[u8; 16]>,
}

impl SurbTable {
    /// Remembers a reply block until `expires`, the end of its epoch's grace.
    pub fn insert(&mut self, id: [u8; 16], keys: SurbKeys, purpose: Purpose, sent: Instant, times: (Duration, Instant)) {
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
