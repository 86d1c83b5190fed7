//! Which groups are requested of whom: rarest first, then what a slower source would send last, then the last groups twice.

use std::{ops::Range, time::Instant};

use fog_base::NodeId;

use super::{Download, seconds};
use crate::core::blob::PIECE_GROUPS;

/// Outputs that are left for what is not a request.
const RESERVED_OUTPUTS: usize = 1_024;

/// Groups that must fit ahead before anything is requested, so that a slow disk does not make for small requests.
const AHEAD_WORTH: u64 = 16;

/// A part of a request that a faster source could take over.
struct Prey {
    peer: NodeId,
    number: u32,
    groups: Range<u64>,
    /// Seconds until its source would have sent all of it.
    takes: f64,
}

impl Download {
    pub(super) fn fill_all(&mut self, now: Instant) {
        let mut last = None;
        while let Some(peer) = self.next_source(last) {
            self.fill_one(peer, now);
            last = Some(peer);
        }
    }

    fn next_source(&self, after: Option<NodeId>) -> Option<NodeId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.sources.range((from, Unbounded)).next().map(|(peer, _)| *peer)
    }

    pub(super) fn fill_one(&mut self, peer: NodeId, now: Instant) {
        while self.request_one(peer, now) {}
    }

    fn request_one(&mut self, peer: NodeId, now: Instant) -> bool {
        if self.is_paused || self.is_done || self.outputs.room() < RESERVED_OUTPUTS {
            return false;
        }
        let Some(source) = self.sources.get(&peer) else { return false };
        let ahead = self.config.max_ahead.saturating_sub(self.ahead());
        if ahead < AHEAD_WORTH.min(self.config.max_ahead) {
            return false;
        }
        let room = source.room(&self.config, now).min(ahead).min(PIECE_GROUPS);
        if room == 0 {
            return false;
        }
        if source.dry != Some(self.generation) {
            if let Some(groups) = self.rarest(peer, room) {
                return self.issue(peer, groups, None, now);
            }
            let generation = self.generation;
            if let Some(source) = self.sources.get_mut(&peer) {
                source.dry = Some(generation);
            }
        }
        self.steal(peer, room, now) || self.double(peer, room, now)
    }

    /// The first free groups of the rarest piece that `peer` has. Among equals the one behind the last one that was requested of
    /// it, so that a source reads its disk in order; then one that is begun; then a random one.
    fn rarest(&self, peer: NodeId, room: u64) -> Option<Range<u64>> {
        let source = self.sources.get(&peer)?;
        let pieces = (0u64..).zip(self.free.iter().zip(&self.rarity));
        let open = pieces.filter(|(piece, (free, _))| **free > 0 && source.has(*piece));
        let (piece, _) = open.min_by_key(|(piece, (free, rarity))| {
            let is_whole = u64::from(**free) == PIECE_GROUPS;
            (**rarity, *piece != source.next_piece, is_whole, mix(self.seed ^ piece))
        })?;
        let groups = self.blob.piece_groups(piece);
        let is_free = |group: &u64| !self.claimed.get(*group);
        let first = groups.clone().find(is_free)?;
        let end = (first..groups.end.min(first + room)).find(|group| !is_free(group));
        Some(first..end.unwrap_or(groups.end.min(first + room)))
    }

    /// The request that will be over last, of those that `thief` could take part of.
    fn prey(&self, thief: NodeId, now: Instant) -> Option<Prey> {
        let source = self.sources.get(&thief)?;
        let mut found: Option<Prey> = None;
        for (peer, other) in self.sources.iter().filter(|(peer, _)| **peer != thief) {
            let mut ahead = 0;
            for request in &other.requests {
                ahead += request.left();
                let takes = other.takes(ahead, now);
                let longer = found.as_ref().is_none_or(|prey| takes > prey.takes);
                if longer && request.twin.is_none() && request.left() > 0 && source.has(request.piece()) {
                    found =
                        Some(Prey { peer: *peer, number: request.number, groups: request.next..request.end, takes });
                }
            }
        }
        found
    }

    /// Takes the end of the request that will be over last from its source, so that both are over at the same time.
    fn steal(&mut self, thief: NodeId, room: u64, now: Instant) -> bool {
        let Some(prey) = self.prey(thief, now) else { return false };
        let (Some(source), Some(other)) = (self.sources.get(&thief), self.sources.get(&prey.peer)) else {
            return false;
        };
        let (ours, theirs) = (source.estimate.rate(now), other.estimate.rate(now));
        let left = prey.groups.end - prey.groups.start;
        // The group that is on its way is not taken. The cast is of a number between 0 and `left`.
        let share = ((left as f64 * ours / (ours + theirs)).ceil() as u64).min(left - 1).min(room);
        let waits = seconds(source.estimate.delay()) + source.takes(source.outstanding() + share, now);
        if share == 0 || prey.takes < 2.0 * waits || prey.takes - waits < seconds(self.config.steal_gain) {
            return false;
        }
        let from = prey.groups.end - share;
        if let Some(other) = self.sources.get_mut(&prey.peer) {
            other.late += share;
            if let Some(request) = other.requests.iter_mut().find(|request| request.number == prey.number) {
                request.end = from;
            }
        }
        self.under_way = self.under_way.saturating_sub(share);
        self.counts.stolen += share;
        self.cut(prey.peer, prey.number, from);
        self.issue(thief, from..prey.groups.end, None, now)
    }

    /// Requests what a slow source was asked for from a faster one as well, when little is left.
    fn double(&mut self, peer: NodeId, room: u64, now: Instant) -> bool {
        if self.have.len() - self.have.count() > self.config.endgame {
            return false;
        }
        let Some(prey) = self.prey(peer, now) else { return false };
        let Some(source) = self.sources.get(&peer) else { return false };
        let groups = prey.groups.start..prey.groups.end.min(prey.groups.start + room);
        let count = groups.end - groups.start;
        let waits = seconds(source.estimate.delay()) + source.takes(source.outstanding() + count, now);
        if prey.takes < 2.0 * waits || prey.takes - waits < seconds(self.config.steal_gain) {
            return false;
        }
        let twin = self.next_number;
        let others = self.sources.get_mut(&prey.peer).into_iter().flat_map(|source| &mut source.requests);
        for request in others.filter(|request| request.number == prey.number) {
            request.twin = Some(twin);
        }
        self.counts.doubled += count;
        self.issue(peer, groups, Some(prey.number), now)
    }

    /// Cuts requests of which everything came from elsewhere.
    pub(super) fn cut_what_came(&mut self) {
        let mut over = Vec::new();
        for (peer, source) in &mut self.sources {
            let have = &self.have;
            let came = |request: &super::Request| request.twin.is_some() && have.has_all(request.next..request.end);
            for request in source.requests.extract_if(.., |request| came(request)) {
                source.late += request.left() + 1;
                self.under_way = self.under_way.saturating_sub(request.left());
                over.push((*peer, request));
            }
        }
        for (peer, request) in over {
            self.part(&request);
            self.cut(peer, request.number, request.next);
        }
    }
}

/// SplitMix64's output function: spreads neighbouring numbers.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
