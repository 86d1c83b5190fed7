//! What this node serves, as a pure state machine: peers take turns, what leaves is bounded by token buckets, what waits by the
//! peer's own reading, and every group is verified once more before it leaves.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{BoundedQueue, DropCounters, DropReason, NodeId, Now, TokenBucket};

use super::{
    bitmap::Bitmap,
    blob::{Blob, BlobId, GROUP_BYTES, PIECE_GROUPS},
    reject::Reject,
    slice::{Slice, Step, Steps},
};
use crate::wire::{Ending, FromSource, Holding, RequestId, ToSource};

const MAX_OUTPUTS: usize = 8_192;
/// Groups that are loaded at once: one turn of a peer.
const TURN: u64 = 16;
/// Half the time in which a source that sends nothing has stalled.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a peer may ask without a request, per second, and at once.
const ASK_RATE: (f64, f64) = (4.0, 256.0);

/// What bounds an upload.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes a second to all peers; `None` for no limit.
    pub rate: Option<u64>,
    /// Bytes a second to one peer; `None` for no limit.
    pub peer_rate: Option<u64>,
    /// Blobs that are served.
    pub max_blobs: usize,
    /// Peers that are served.
    pub max_peers: usize,
    /// Blobs of which one peer gets news.
    pub max_wants: usize,
    /// Requests of one peer that wait.
    pub max_requests: usize,
    /// Messages to one peer that its stream did not take yet.
    pub max_unsent: usize,
    /// Groups for one peer that are loaded or unsent: 1 MiB.
    pub max_peer_groups: u64,
    /// Groups for all peers that are loaded or unsent: 8 MiB.
    pub max_groups: u64,
}

impl Config {
    /// With a limit, no more peers have requests than each can get a group in [`PATIENCE`]: the others ask elsewhere.
    fn most_at_once(&self) -> usize {
        let groups = |rate: u64| rate.saturating_mul(PATIENCE.as_secs()) / GROUP_BYTES as u64;
        self.rate.map_or(usize::MAX, |rate| usize::try_from(groups(rate)).unwrap_or(usize::MAX).max(1))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: None,
            peer_rate: None,
            max_blobs: 4_096,
            max_peers: 256,
            max_wants: 64,
            max_requests: 64,
            max_unsent: 256,
            max_peer_groups: 64,
            max_groups: 512,
        }
    }
}

/// What the upload wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message, and then call [`Upload::handle_sent`].
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: FromSource,
    },
    /// Read these steps, and then call [`Upload::handle_loaded`].
    Load {
        /// For whom.
        to: NodeId,
        /// For which request.
        id: RequestId,
        /// Of which blob.
        blob: BlobId,
        /// What, in order.
        steps: Vec<Step>,
    },
    /// What is stored of a blob is not what it was: it is not served any more.
    Broken {
        /// Which blob.
        blob: BlobId,
        /// The group that does not verify, if it could be read.
        group: Option<u64>,
    },
}

/// What came and went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Groups that were sent.
    pub groups: u64,
    /// Bytes of steps that were sent.
    pub bytes: u64,
    /// Requests that were refused because too many wait.
    pub busy: u64,
    /// Requests for what is not there.
    pub missing: u64,
}

#[derive(Debug)]
struct Job {
    id: RequestId,
    blob: BlobId,
    /// What is loaded next.
    steps: Steps,
    /// What is verified next.
    slice: Slice,
    /// The next group to load.
    next: u64,
    end: u64,
}

/// Bytes that may leave.
#[derive(Debug)]
struct Allowance {
    rate: u64,
    bucket: TokenBucket,
    credit: u64,
}

impl Allowance {
    /// A second's worth may leave at once, and one group at least.
    fn new(rate: Option<u64>, now: Instant) -> Option<Self> {
        let rate = rate?;
        let burst = rate.clamp(GROUP_BYTES as u64, u64::from(u32::MAX));
        Some(Self { rate, bucket: TokenBucket::new(rate as f64, burst as f64, now), credit: 0 })
    }

    /// How many groups of `wanted` may leave.
    fn groups(&mut self, wanted: u64, now: Instant) -> u64 {
        let lacking = (wanted * GROUP_BYTES as u64).saturating_sub(self.credit);
        self.credit += u64::from(self.bucket.take(u32::try_from(lacking).unwrap_or(u32::MAX), now));
        (self.credit / GROUP_BYTES as u64).min(wanted)
    }

    fn spend(&mut self, groups: u64) {
        self.credit = self.credit.saturating_sub(groups * GROUP_BYTES as u64);
    }

    /// When a group may leave; `None` for never.
    fn next(&self, now: Instant) -> Option<Instant> {
        let lacking = (GROUP_BYTES as u64).saturating_sub(self.credit) as f64;
        let wait = Duration::try_from_secs_f64(lacking / self.rate as f64).ok()?;
        now.checked_add(wait.max(Duration::from_millis(1)))
    }
}

#[derive(Debug)]
struct Peer {
    wants: BTreeSet<BlobId>,
    jobs: VecDeque<Job>,
    /// The request whose steps are being loaded, and how many.
    loading: Option<(RequestId, u64)>,
    /// Messages that its stream did not take yet, in order: whether each is a step.
    unsent: VecDeque<bool>,
    asks: TokenBucket,
    allowance: Option<Allowance>,
}

impl Peer {
    fn groups(&self) -> u64 {
        let loading = self.loading.map_or(0, |(_, groups)| groups);
        self.unsent.iter().filter(|is_step| **is_step).count() as u64 + loading
    }
}

/// What became of a peer's turn.
enum Turn {
    Taken,
    /// It has as much as it may have.
    Passed,
    /// Nobody gets more now.
    NoneLeft,
}

#[derive(Debug)]
struct Served {
    blob: Blob,
    pieces: Bitmap,
    /// Nodes that are avoided do not get it.
    is_private: bool,
}

impl Served {
    fn is_for(&self, is_avoided: bool) -> bool {
        !(self.is_private && is_avoided)
    }
}

/// Serves blobs to peers.
#[derive(Debug)]
pub struct Upload {
    config: Config,
    blobs: BTreeMap<BlobId, Served>,
    peers: BTreeMap<NodeId, Peer>,
    avoided: BTreeSet<NodeId>,
    /// Whose turn it is; those who have nothing to get are not in it.
    turns: VecDeque<NodeId>,
    groups: u64,
    allowance: Option<Allowance>,
    wakes_at: Option<Instant>,
    outputs: BoundedQueue<Output>,
    counts: Counts,
    drops: DropCounters,
}

impl Upload {
    /// Serves nothing yet.
    pub fn new(config: Config, now: Now) -> Self {
        Self {
            blobs: BTreeMap::new(),
            peers: BTreeMap::new(),
            avoided: BTreeSet::new(),
            turns: VecDeque::new(),
            groups: 0,
            allowance: Allowance::new(config.rate, now.mono),
            config,
            wakes_at: None,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            counts: Counts::default(),
            drops: DropCounters::default(),
        }
    }

    /// Serves these pieces of `blob` to whoever knows its id. `false` if there are too many blobs, or `pieces` is not as long as
    /// the blob has pieces.
    #[must_use]
    pub fn serve(&mut self, blob: Blob, pieces: Bitmap) -> bool {
        let is_room = self.blobs.len() < self.config.max_blobs || self.blobs.contains_key(&blob.id());
        let fits = pieces.len() == blob.pieces();
        if is_room && fits {
            self.blobs.insert(blob.id(), Served { blob, pieces, is_private: false });
        }
        is_room && fits
    }

    /// A blob that is served is not there for whom [`Upload::avoid`] names.
    pub fn make_private(&mut self, id: BlobId) {
        if let Some(served) = self.blobs.get_mut(&id) {
            served.is_private = true;
        }
    }

    /// To these nodes, and no others, private blobs are not served: they hear that they are not here.
    pub fn avoid(&mut self, nodes: BTreeSet<NodeId>) {
        self.avoided = nodes;
        let is_private = |id: &BlobId| self.blobs.get(id).is_some_and(|served| served.is_private);
        let mut ended = Vec::new();
        for (to, peer) in self.peers.iter_mut().filter(|(to, _)| self.avoided.contains(to)) {
            ended.extend(peer.jobs.iter().filter(|job| is_private(&job.blob)).map(|job| (*to, job.id)));
            peer.jobs.retain(|job| !is_private(&job.blob));
            peer.wants.retain(|id| !is_private(id));
        }
        for (to, id) in ended {
            self.send(to, FromSource::End(id, Ending::Missing));
        }
    }

    /// A piece was written: whoever wants the blob is told.
    pub fn handle_gained(&mut self, id: BlobId, piece: u64) {
        let Some(served) = self.blobs.get_mut(&id) else { return };
        let Ok(number) = u32::try_from(piece) else { return };
        if !served.pieces.set(piece) {
            return;
        }
        let wanting: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.wants.contains(&id)).map(|(peer, _)| *peer).collect();
        for peer in wanting {
            self.send(peer, FromSource::Gained(id, number));
        }
    }

    /// Serves a blob no more.
    pub fn stop_serving(&mut self, id: BlobId) {
        self.blobs.remove(&id);
        let mut ended = Vec::new();
        for (to, peer) in &mut self.peers {
            ended.extend(peer.jobs.iter().filter(|job| job.blob == id).map(|job| (*to, job.id)));
            peer.jobs.retain(|job| job.blob != id);
        }
        for (to, id) in ended {
            self.send(to, FromSource::End(id, Ending::Missing));
        }
    }

    /// Takes a message of a peer.
    pub fn handle_message(&mut self, from: NodeId, message: ToSource, now: Now) -> Result<(), Reject> {
        let taken = self.take(from, message, now.mono);
        if let Err(reject) = taken {
            self.drops.count(reject.drop_reason());
        }
        self.schedule(now.mono);
        taken
    }

    /// The steps of a request were read, or could not be.
    pub fn handle_loaded(&mut self, to: NodeId, id: RequestId, steps: Option<Vec<Vec<u8>>>, now: Now) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let Some((_, groups)) = peer.loading.take_if(|(loading, _)| *loading == id) else { return };
        self.groups = self.groups.saturating_sub(groups);
        self.take_loaded(to, id, steps);
        self.schedule(now.mono);
    }

    /// The stream of `to` took the oldest message that was not taken.
    pub fn handle_sent(&mut self, to: NodeId, now: Now) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.unsent.pop_front() == Some(true) {
            self.groups = self.groups.saturating_sub(1);
        }
        self.schedule(now.mono);
    }

    /// A peer, or its stream, is gone.
    pub fn handle_gone(&mut self, peer: NodeId, now: Now) {
        if let Some(peer) = self.peers.remove(&peer) {
            self.groups = self.groups.saturating_sub(peer.groups());
        }
        self.turns.retain(|turn| *turn != peer);
        self.schedule(now.mono);
    }

    /// What the limit held back may leave.
    pub fn handle_timeout(&mut self, now: Now) {
        self.schedule(now.mono);
    }

    /// When [`Upload::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wakes_at
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// What came and went.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Groups that are loaded or unsent.
    pub fn groups(&self) -> u64 {
        self.groups
    }

    fn take(&mut self, from: NodeId, message: ToSource, now: Instant) -> Result<(), Reject> {
        if !self.peers.contains_key(&from) && self.peers.len() >= self.config.max_peers {
            return Err(Reject::Full);
        }
        let (rate, burst) = ASK_RATE;
        let peer = self.peers.entry(from).or_insert_with(|| Peer {
            wants: BTreeSet::new(),
            jobs: VecDeque::new(),
            loading: None,
            unsent: VecDeque::new(),
            asks: TokenBucket::new(rate, burst, now),
            allowance: Allowance::new(self.config.peer_rate, now),
        });
        match message {
            ToSource::Want(id) => {
                if !peer.asks.try_take(now) {
                    return Err(Reject::Full);
                }
                let is_avoided = self.avoided.contains(&from);
                let served = self.blobs.get(&id).filter(|served| served.is_for(is_avoided));
                let holding = served.map_or(Holding::Nothing, holding);
                if served.is_some() && peer.wants.len() < self.config.max_wants {
                    peer.wants.insert(id);
                }
                self.send(from, FromSource::Have(id, holding));
            }
            ToSource::Forget(id) => {
                peer.wants.remove(&id);
                peer.jobs.retain(|job| job.blob != id);
            }
            ToSource::Request { id, blob, first, count } => {
                return self.take_request(from, id, blob, u64::from(first), u64::from(count));
            }
            ToSource::Cut { id, end } => {
                for job in peer.jobs.iter_mut().filter(|job| job.id == id) {
                    job.end = job.end.min(u64::from(end));
                }
                peer.jobs
                    .retain(|job| job.next < job.end || peer.loading.is_some_and(|(loading, _)| loading == job.id));
            }
        }
        Ok(())
    }

    fn take_request(
        &mut self,
        from: NodeId,
        id: RequestId,
        blob: BlobId,
        first: u64,
        count: u64,
    ) -> Result<(), Reject> {
        let is_avoided = self.avoided.contains(&from);
        let Some(served) = self.blobs.get(&blob).filter(|served| served.is_for(is_avoided)) else {
            self.counts.missing += 1;
            self.send(from, FromSource::End(id, Ending::Missing));
            return Ok(());
        };
        let groups = first..first + count;
        if count > PIECE_GROUPS || groups.end > served.blob.groups() {
            return Err(Reject::Malformed);
        }
        let mut pieces = groups.start / PIECE_GROUPS..=(groups.end - 1) / PIECE_GROUPS;
        let is_there = pieces.all(|piece| served.pieces.get(piece));
        let Some(peer) = self.peers.get_mut(&from) else { return Err(Reject::UnknownPeer) };
        if peer.jobs.iter().any(|job| job.id == id) {
            return Err(Reject::Malformed);
        }
        let is_crowded = self.turns.len() >= self.config.most_at_once() && !self.turns.contains(&from);
        if !is_there || is_crowded || peer.jobs.len() >= self.config.max_requests {
            let ending = if is_there { Ending::Busy } else { Ending::Missing };
            *(if is_there { &mut self.counts.busy } else { &mut self.counts.missing }) += 1;
            self.send(from, FromSource::End(id, ending));
            return Ok(());
        }
        let (steps, slice) = (Steps::new(&served.blob, groups.clone()), Slice::new(&served.blob, groups.clone()));
        peer.jobs.push_back(Job { id, blob, steps, slice, next: groups.start, end: groups.end });
        if !self.turns.contains(&from) {
            self.turns.push_back(from);
        }
        Ok(())
    }

    fn take_loaded(&mut self, to: NodeId, id: RequestId, steps: Option<Vec<Vec<u8>>>) {
        let Some(job) = self.peers.get_mut(&to).and_then(|peer| peer.jobs.iter_mut().find(|job| job.id == id)) else {
            return;
        };
        let (blob, mut broken) = (job.blob, steps.is_none().then_some(None));
        let mut sent = Vec::new();
        for bytes in steps.into_iter().flatten() {
            match job.slice.accept(bytes) {
                Ok(verified) if verified.group() < job.end => sent.push(verified.into_bytes()),
                Ok(_) => {}
                Err(mismatch) => {
                    broken = Some(Some(mismatch.group));
                    break;
                }
            }
        }
        let is_over = job.next >= job.end;
        for bytes in sent {
            let len = bytes.len() as u64;
            if self.send(to, FromSource::Step(id, bytes)) {
                self.counts.groups += 1;
                self.counts.bytes += len;
            }
        }
        if let Some(group) = broken {
            self.blobs.remove(&blob);
            self.send(to, FromSource::End(id, Ending::Broken));
            self.push(Output::Broken { blob, group });
        }
        let peer = self.peers.get_mut(&to).filter(|_| is_over || broken.is_some());
        if let Some(peer) = peer {
            peer.jobs.retain(|job| job.id != id);
        }
        if broken.is_some() {
            self.stop_serving(blob);
        }
    }

    fn push(&mut self, output: Output) -> bool {
        let pushed = self.outputs.push(output).is_ok();
        if !pushed {
            self.drops.count(DropReason::QueueFull);
        }
        pushed
    }

    /// Sends, unless too much waits for that peer: a peer that asks and does not read is not answered.
    fn send(&mut self, to: NodeId, message: FromSource) -> bool {
        let is_step = matches!(message, FromSource::Step(..));
        let max = self.config.max_unsent;
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        if peer.unsent.len() >= max && !is_step {
            self.drops.count(DropReason::QueueFull);
            return false;
        }
        peer.unsent.push_back(is_step);
        self.groups += u64::from(is_step);
        let sent = self.push(Output::Send { to, message });
        if !sent {
            self.groups -= u64::from(is_step);
            if let Some(peer) = self.peers.get_mut(&to) {
                peer.unsent.pop_back();
            }
        }
        sent
    }

    /// Gives turns until nothing more may be loaded.
    fn schedule(&mut self, now: Instant) {
        self.wakes_at = None;
        let mut passed = 0;
        while passed < self.turns.len() {
            let Some(peer) = self.turns.pop_front() else { return };
            if self.peers.get(&peer).is_none_or(|peer| peer.jobs.is_empty()) {
                continue;
            }
            match self.give_turn(peer, now) {
                Turn::Taken => passed = 0,
                Turn::Passed => passed += 1,
                // Whoever comes next when there is room is who was refused now.
                Turn::NoneLeft => return self.turns.push_front(peer),
            }
            self.turns.push_back(peer);
        }
    }

    fn give_turn(&mut self, to: NodeId, now: Instant) -> Turn {
        let outputs = self.outputs.room() as u64;
        let room = self.config.max_groups.saturating_sub(self.groups).min(outputs / 2);
        if room == 0 {
            return Turn::NoneLeft;
        }
        let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.loading.is_none()) else { return Turn::Passed };
        let room = room.min(self.config.max_peer_groups.saturating_sub(peer.groups()));
        let Some(job) = peer.jobs.front_mut() else { return Turn::Passed };
        let wanted = TURN.min(room).min(job.end.saturating_sub(job.next));
        if wanted == 0 {
            return Turn::Passed;
        }
        let mut allowed = wanted;
        for (allowance, turn) in [(&mut peer.allowance, Turn::Passed), (&mut self.allowance, Turn::NoneLeft)] {
            let Some(allowance) = allowance else { continue };
            allowed = allowance.groups(allowed, now);
            if allowed == 0 {
                self.wakes_at = [self.wakes_at, allowance.next(now)].into_iter().flatten().min();
                return turn;
            }
        }
        for allowance in [&mut peer.allowance, &mut self.allowance].into_iter().flatten() {
            allowance.spend(allowed);
        }
        let steps: Vec<_> = job.steps.by_ref().take(usize::try_from(allowed).unwrap_or(0)).collect();
        job.next += allowed;
        peer.loading = Some((job.id, allowed));
        self.groups += allowed;
        let (id, blob) = (job.id, job.blob);
        self.push(Output::Load { to, id, blob, steps });
        Turn::Taken
    }
}

fn holding(served: &Served) -> Holding {
    match &served.pieces {
        pieces if pieces.is_full() => Holding::All(served.blob.size()),
        pieces if pieces.is_empty() => Holding::Nothing,
        pieces => Holding::Some(served.blob.size(), pieces.to_bytes()),
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
