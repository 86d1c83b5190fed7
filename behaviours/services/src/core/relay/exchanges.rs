//! Requests that came through the mixnet for services that are introduced here, and their answers.
//!
//! The attack: whoever answers by a reply block sends to a first hop that the client chose. A service that did so would show its address to any client that runs
//! a relay. So the service answers on its circuit, and this relay, which is known anyway, uses the blocks.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::TokenBucket;

use crate::{
    core::{circuit::Circuit, mixed::Assembly, reject::Reject},
    wire::mixed::{Denial, MAX_LENGTH, Part, Piece, pieces},
};

/// Exchanges at one relay, with the answers that are kept for who missed pieces.
pub const MAX_EXCHANGES: usize = 256;
/// Those of one service that are not answered yet.
pub const MAX_OPEN: usize = 16;
/// How long an exchange is remembered.
pub const KEPT: Duration = Duration::from_secs(120);
/// Descriptors that are asked for through the mixnet, a second and at once.
const FETCHES: (f64, f64) = (50.0, 200.0);

/// A reply block; what is in it is the mixnet's business.
pub type Block = Vec<u8>;
/// What is said by a block.
pub(super) type Answer = (Block, Piece);

#[derive(Debug)]
struct Exchange {
    number: u64,
    point: [u8; 32],
    service: Circuit,
    blocks: Vec<Block>,
    parts: Assembly,
    answer: Option<Vec<u8>>,
    deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Exchanges {
    by_id: BTreeMap<[u8; 16], Exchange>,
    next: u64,
    fetches: TokenBucket,
}

/// One block for each piece of `answer` that `has` does not mark.
pub(super) fn answers(answer: &[u8], has: &[u8], blocks: impl IntoIterator<Item = Block>) -> Vec<Answer> {
    let is_wanted = |index: &u16| has.get(usize::from(index / 8)).is_none_or(|byte| byte & (1 << (index % 8)) == 0);
    let count = u16::try_from(pieces(answer.len())).unwrap_or(u16::MAX);
    let wanted = (0..count).filter(is_wanted).filter_map(|index| Piece::of(answer, index));
    blocks.into_iter().zip(wanted).collect()
}

impl Exchanges {
    pub(super) fn new(now: Instant) -> Self {
        Self { by_id: BTreeMap::new(), next: 0, fetches: TokenBucket::new(FETCHES.0, FETCHES.1, now) }
    }

    /// Whether another descriptor may be asked for.
    pub(super) fn may_fetch(&mut self, now: Instant) -> bool {
        self.fetches.try_take(now)
    }

    /// Whether this request came before.
    pub(super) fn has(&self, id: &[u8; 16]) -> bool {
        self.by_id.contains_key(id)
    }

    /// A request for the service on this circuit: its number. The blocks come back if there is no room.
    pub(super) fn begin(
        &mut self,
        id: [u8; 16],
        (point, service): ([u8; 32], Circuit),
        blocks: Vec<Block>,
        now: Instant,
    ) -> Result<u64, Vec<Block>> {
        let open = self.by_id.values().filter(|one| one.point == point && one.answer.is_none()).count();
        if self.by_id.len() >= MAX_EXCHANGES {
            let done = self.by_id.iter().filter(|(_, one)| one.answer.is_some());
            let oldest = done.min_by_key(|(_, one)| one.deadline).map(|(id, _)| *id);
            oldest.map(|oldest| self.by_id.remove(&oldest));
        }
        if open >= MAX_OPEN || self.by_id.len() >= MAX_EXCHANGES {
            return Err(blocks);
        }
        self.next += 1;
        let (number, parts, deadline) = (self.next, Assembly::default(), now + KEPT);
        self.by_id.insert(id, Exchange { number, point, service, blocks, parts, answer: None, deadline });
        Ok(number)
    }

    /// The service's circuit did not take the request.
    pub(super) fn refused(&mut self, number: u64) -> Vec<Answer> {
        self.end(|one| one.number == number, Denial::Limited)
    }

    /// A part of an answer.
    pub(super) fn part(&mut self, circuit: Circuit, part: &Part) -> Result<Vec<Answer>, Reject> {
        let of = |one: &&mut Exchange| one.number == part.exchange && one.service == circuit;
        let exchange = self.by_id.values_mut().find(of).filter(|one| one.answer.is_none()).ok_or(Reject::Unknown)?;
        let Some((_, answer)) = exchange.parts.push(part)? else { return Ok(Vec::new()) };
        if answer.len() > MAX_LENGTH {
            return Err(Reject::Malformed);
        }
        let leaving = answers(&answer, &[], std::mem::take(&mut exchange.blocks));
        exchange.answer = Some(answer);
        Ok(leaving)
    }

    /// The client gives new blocks: for the pieces that it misses, or for all, if the answer is not there yet.
    pub(super) fn more(&mut self, id: &[u8; 16], has: &[u8], blocks: Vec<Block>) -> Result<Vec<Answer>, Vec<Block>> {
        let Some(exchange) = self.by_id.get_mut(id) else { return Err(blocks) };
        match &exchange.answer {
            Some(answer) => Ok(answers(answer, has, blocks)),
            None => {
                // Blocks end with their epoch: the newest will work for longest.
                exchange.blocks = blocks;
                Ok(Vec::new())
            }
        }
    }

    /// A service's circuit is gone: who waits for an answer is told.
    pub(super) fn closed(&mut self, circuit: Circuit) -> Vec<Answer> {
        self.end(|one| one.service == circuit && one.answer.is_none(), Denial::Gone)
    }

    fn end(&mut self, which: impl Fn(&Exchange) -> bool, why: Denial) -> Vec<Answer> {
        let ended: Vec<_> = self.by_id.iter().filter(|(_, one)| which(one)).map(|(id, _)| *id).collect();
        let blocks = ended.into_iter().filter_map(|id| self.by_id.remove(&id)?.blocks.pop());
        blocks.map(|block| (block, Piece::Denied(why))).collect()
    }

    /// Forgets what is too old, and says how many of them were never answered.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let open = |all: &BTreeMap<_, Exchange>| all.values().filter(|one| one.answer.is_none()).count();
        let before = open(&self.by_id);
        self.by_id.retain(|_, one| one.deadline > now);
        before - open(&self.by_id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
