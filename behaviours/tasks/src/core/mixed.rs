//! Tasks that are submitted through the mixnet: what stands for the coordinator, how patient both sides are, the reply blocks that a worker
//! has, and the answers that come in pieces. The README has the rules.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use fog_base::{MessageId, NodeId};

use super::ids::ExecutionId;
use crate::wire::{
    ToWorker,
    mixed::{MAX_PIECES, Piece, name},
};

/// Whom a worker's accounts have for all coordinators without a name together: they share the credit of one peer. Nobody has a key to
/// these bytes.
pub const NOBODY: NodeId = NodeId([0xff; 32]);
/// How long a lease lasts.
pub(crate) const LEASE: Duration = Duration::from_secs(180);
/// How often it is renewed: each time with new reply blocks, as those of an epoch end with it.
pub(crate) const RENEW: Duration = Duration::from_secs(30);
/// How often a worker says that it lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long the first repetition of anything waits.
pub(crate) const RESEND: Duration = Duration::from_secs(8);
/// How long an agreement waits for its lease.
pub(crate) const AGREEMENT_WAIT: Duration = Duration::from_secs(90);
/// How long a winner may take to show its output.
pub(crate) const SHOWING: Duration = Duration::from_secs(60);

/// Reply blocks of one coordinator that a worker keeps.
const MAX_BLOCKS: usize = 96;
/// Coordinators without a name that a worker knows.
const MAX_NAMELESS: usize = 4_096;
/// For so long after its last request a coordinator is known: longer than any lease, result or answer is kept.
const KNOWN: Duration = Duration::from_secs(1_200);
/// Answers of which not all pieces are there; the oldest give way.
const MAX_PARTIAL: usize = 256;
/// Messages to which answers may come: as many as the mixnet remembers reply blocks.
const MAX_ASKED: usize = 16_384;

/// The key that stands for the coordinator in one execution: from a secret of its node, so that it is the same after a restart, and nobody
/// else can tell whose it is, or that two are one node's.
pub(crate) fn key(secret: &[u8; 32], execution: ExecutionId) -> Arc<SigningKey> {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    Arc::new(SigningKey::from_bytes(hasher.update(&execution.0).finalize().as_bytes()))
}

/// How many reply blocks go with a message: what it may be answered with, and a few to lose.
pub fn blocks(message: &ToWorker) -> usize {
    match message {
        ToWorker::Bid { .. } | ToWorker::Voucher(_) => 3,
        ToWorker::Lease(_) => 6,
        ToWorker::Stage { .. } | ToWorker::Cancel(_) => 0,
        ToWorker::Reveal { want_output: false, .. } => 3,
        ToWorker::Reveal { want_output: true, .. } => MAX_PIECES + 2,
    }
}

#[derive(Debug)]
struct Pool<B> {
    blocks: VecDeque<B>,
    until: Instant,
}

/// The reply blocks that a worker has, by whose they are.
#[derive(Debug)]
pub struct Blocks<B>(BTreeMap<NodeId, Pool<B>>);

impl<B> Default for Blocks<B> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<B> Blocks<B> {
    /// A request brought these. False if too many coordinators are known: then it is not to be answered at all.
    pub fn add(&mut self, coordinator: NodeId, blocks: Vec<B>, now: Instant) -> bool {
        if self.0.len() >= MAX_NAMELESS && !self.0.contains_key(&coordinator) {
            self.0.retain(|_, pool| pool.until > now);
            if self.0.len() >= MAX_NAMELESS {
                return false;
            }
        }
        let fresh = || Pool { blocks: VecDeque::new(), until: now };
        let pool = self.0.entry(coordinator).or_insert_with(fresh);
        pool.until = now + KNOWN;
        pool.blocks.extend(blocks);
        let over = pool.blocks.len().saturating_sub(MAX_BLOCKS);
        pool.blocks.drain(..over);
        true
    }

    /// Whether this is a coordinator that is reached by reply blocks, and by nothing else.
    pub fn knows(&self, coordinator: &NodeId) -> bool {
        self.0.contains_key(coordinator)
    }

    /// So many blocks, the newest first: they work longest. `None` if there are fewer.
    pub fn take(&mut self, coordinator: &NodeId, count: usize) -> Option<Vec<B>> {
        let pool = self.0.get_mut(coordinator)?;
        let rest = pool.blocks.len().checked_sub(count)?;
        Some(pool.blocks.split_off(rest).into_iter().rev().collect())
    }
}

#[derive(Debug)]
struct Partial {
    length: u32,
    pieces: BTreeMap<u8, Vec<u8>>,
}

/// What a coordinator asked through the mixnet, and what has come of the answers.
#[derive(Debug, Default)]
pub struct Answers {
    /// By the message that brought the reply blocks.
    asked: BTreeMap<MessageId, (NodeId, ExecutionId)>,
    order: VecDeque<MessageId>,
    partial: BTreeMap<(ExecutionId, u64), Partial>,
    oldest: VecDeque<(ExecutionId, u64)>,
}

impl Answers {
    /// Something is asked of a worker with this message.
    pub fn ask(&mut self, message: MessageId, worker: NodeId, execution: ExecutionId) {
        if self.asked.insert(message, (worker, execution)).is_none() {
            self.order.push_back(message);
        }
        while self.order.len() > MAX_ASKED {
            self.order.pop_front().map(|message| self.asked.remove(&message));
        }
    }

    /// A piece has come; the whole answer if it is the last one, with whose it is and of which execution.
    pub fn take(&mut self, message: MessageId, piece: &[u8]) -> Option<(NodeId, ExecutionId, Vec<u8>)> {
        let (worker, execution) = *self.asked.get(&message)?;
        let piece = Piece::read(piece).ok()?;
        let key = (execution, piece.answer);
        if !self.partial.contains_key(&key) {
            self.oldest.push_back(key);
        }
        let partial =
            self.partial.entry(key).or_insert_with(|| Partial { length: piece.length, pieces: BTreeMap::new() });
        if partial.length == piece.length {
            partial.pieces.insert(piece.index, piece.data.to_vec());
        }
        let have: usize = partial.pieces.values().map(Vec::len).sum();
        let whole = (have == partial.length as usize).then(|| self.partial.remove(&key)).flatten();
        if whole.is_some() {
            self.oldest.retain(|other| *other != key);
        }
        while self.oldest.len() > MAX_PARTIAL {
            self.oldest.pop_front().map(|key| self.partial.remove(&key));
        }
        let answer: Vec<u8> = whole?.pieces.into_values().flatten().collect();
        (name(&answer) == piece.answer).then_some((worker, execution, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mixed::{PIECE, pieces};

    #[test]
    fn blocks_are_used_once_the_newest_first_and_bounded() {
        let now = Instant::now();
        let mut blocks = Blocks::default();
        let who = NodeId([1; 32]);
        assert!(!blocks.knows(&who) && blocks.take(&who, 0).is_none());
        assert!(blocks.add(who, (0..200).collect(), now));
        assert_eq!(blocks.take(&who, 2), Some(vec![199, 198]));
        assert_eq!(blocks.take(&who, MAX_BLOCKS - 1), None, "too few: none of them is spent");
        assert_eq!(blocks.take(&who, MAX_BLOCKS - 2).map(|rest| rest.last().copied()), Some(Some(200 - MAX_BLOCKS)));
        let id = |at: usize| {
            let mut id = [2; 32];
            id[..8].copy_from_slice(&at.to_be_bytes());
            NodeId(id)
        };
        assert!((1..MAX_NAMELESS).all(|at| blocks.add(id(at), vec![0], now)));
        assert!(!blocks.add(id(MAX_NAMELESS), vec![0], now));
        assert!(blocks.knows(&who), "nobody who waits for an answer is forgotten for a newer one");
        assert!(blocks.add(id(MAX_NAMELESS), vec![0], now + KNOWN));
    }

    #[test]
    fn answers_are_put_together_in_any_order_over_repetitions_and_not_beyond_bounds() {
        let (mut answers, worker, execution) = (Answers::default(), NodeId([1; 32]), ExecutionId([2; 16]));
        let answer = vec![7; 3 * PIECE + 5];
        let all = pieces(&answer).unwrap();
        let (first, again) = (MessageId([1; 16]), MessageId([2; 16]));
        assert_eq!(answers.take(first, &all[0]), None, "nothing was asked so");
        answers.ask(first, worker, execution);
        for at in [3, 1, 1, 0] {
            assert_eq!(answers.take(first, &all[at]), None);
        }
        assert_eq!(answers.take(again, &all[2]), None, "that was not asked");
        answers.ask(again, worker, execution);
        assert_eq!(answers.take(again, &all[2]), Some((worker, execution, answer)));
        for number in 0..2 * MAX_PARTIAL {
            let other = pieces(&[&number.to_be_bytes()[..], &[0; PIECE]].concat()).unwrap();
            assert_eq!(answers.take(first, &other[0]), None);
        }
        assert!(answers.partial.len() <= MAX_PARTIAL && answers.oldest.len() <= MAX_PARTIAL);
        assert_eq!(answers.take(first, b"nonsense"), None);
    }

    #[test]
    fn keys_are_of_one_execution_and_the_same_after_a_restart() {
        let secret = [4; 32];
        assert_eq!(key(&secret, ExecutionId([1; 16])), key(&secret, ExecutionId([1; 16])));
        assert_ne!(key(&secret, ExecutionId([1; 16])), key(&secret, ExecutionId([2; 16])));
        assert_ne!(key(&[5; 32], ExecutionId([1; 16])), key(&secret, ExecutionId([1; 16])));
    }
}
