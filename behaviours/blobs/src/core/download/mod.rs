//! One blob from several sources at once, as a pure state machine.
//!
//! Groups are requested from whoever has the rarest piece, a window ahead of what each source sends; what a slow source would
//! send last goes to a faster one that has nothing else to do; the last groups are asked of two. Every group is verified as it
//! comes, and a source whose bytes do not verify is banned with that one group as the evidence. `choose.rs` has the choice.

mod choose;
mod config;
mod estimate;
mod source;
mod types;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

pub use config::Config;
use fog_base::{BoundedQueue, DropCounters, DropReason, NodeId, Now};
use source::{Request, Source};
pub use types::{Counts, Output, Progress, Report};

use super::{
    bitmap::Bitmap,
    blob::{Blob, GROUP_BYTES, PIECE_GROUPS},
    reject::Reject,
    slice::{Slice, Verified},
};
use crate::wire::{Ending, FromSource, Holding, RequestId, ToSource};

/// More than this waits only if nobody takes it: then requests wait as well, and what cannot wait is dropped and counted.
const MAX_OUTPUTS: usize = 4_096;
/// Sources that are remembered as liars; the reputation remembers more.
const MAX_BANNED: usize = 256;

/// The download of one blob.
#[derive(Debug)]
pub struct Download {
    blob: Blob,
    config: Config,
    tag: u32,
    seed: u64,
    next_number: u32,
    sources: BTreeMap<NodeId, Source>,
    banned: VecDeque<NodeId>,
    /// Groups that were verified.
    have: Bitmap,
    /// Groups that were verified, or are under way.
    claimed: Bitmap,
    /// Groups of each piece that are neither here nor under way.
    free: Vec<u8>,
    /// Sources of each piece.
    rarity: Vec<u16>,
    /// Changes when something becomes free.
    generation: u64,
    under_way: u64,
    unwritten: u64,
    next_tick: Instant,
    /// When it last looked who rests.
    seen: Instant,
    is_paused: bool,
    is_done: bool,
    outputs: BoundedQueue<Output>,
    counts: Counts,
    drops: DropCounters,
}

impl Download {
    /// The download of what `have` lacks. `tag` tells the downloads of this node apart, in [`RequestId::download`]; `seed` is
    /// random: it chooses among equally rare pieces. `None` if `have` is not as long as the blob has groups.
    pub fn new(blob: Blob, have: Bitmap, tag: u32, seed: u64, config: Config, now: Now) -> Option<Self> {
        if have.len() != blob.groups() {
            return None;
        }
        let missing = |piece: u64| blob.piece_groups(piece).filter(|group| !have.get(*group)).count();
        let free = (0..blob.pieces()).map(|piece| u8::try_from(missing(piece)).unwrap_or(u8::MAX)).collect();
        let rarity = (0..blob.pieces()).map(|_| 0).collect();
        let mut download = Self {
            blob,
            tag,
            seed,
            next_number: 0,
            sources: BTreeMap::new(),
            banned: VecDeque::new(),
            claimed: have.clone(),
            have,
            free,
            rarity,
            generation: 0,
            under_way: 0,
            unwritten: 0,
            next_tick: now.mono + config.tick,
            seen: now.mono,
            config,
            is_paused: false,
            is_done: false,
            outputs: BoundedQueue::new(MAX_OUTPUTS),
            counts: Counts::default(),
            drops: DropCounters::default(),
        };
        download.check_done();
        Some(download)
    }

    /// A peer that may have the blob is there: it is asked.
    pub fn handle_source(&mut self, peer: NodeId, now: Now) -> Result<(), Reject> {
        if self.banned.contains(&peer) {
            return self.refuse(Reject::Banned);
        }
        if self.is_done || self.sources.contains_key(&peer) {
            return Ok(());
        }
        if self.sources.len() >= self.config.max_sources {
            return self.refuse(Reject::Full);
        }
        self.sources.insert(peer, Source::new(now.mono, &self.config));
        self.ask(peer, now.mono);
        Ok(())
    }

    /// A peer is gone, or its stream is: whatever was requested of it is free.
    pub fn handle_gone(&mut self, peer: NodeId, now: Now) {
        self.remove(peer);
        self.fill_all(now.mono);
    }

    /// Takes a message of a source. What is refused is counted, and an error with a weight is for the peer's score.
    pub fn handle_message(&mut self, from: NodeId, message: FromSource, now: Now) -> Result<(), Reject> {
        if !self.sources.contains_key(&from) {
            let reject = if self.banned.contains(&from) { Reject::Banned } else { Reject::UnknownPeer };
            return self.refuse(reject);
        }
        let taken = match message {
            FromSource::Have(id, holding) if id == self.blob.id() => self.take_have(from, &holding, now.mono),
            FromSource::Gained(id, piece) if id == self.blob.id() => self.take_gained(from, u64::from(piece), now.mono),
            FromSource::Step(id, bytes) if id.download == self.tag => self.take_step(from, id.number, bytes, now.mono),
            FromSource::End(id, ending) if id.download == self.tag => self.take_end(from, id.number, ending, now.mono),
            _ => Err(Reject::Unrequested),
        };
        taken.or_else(|reject| self.refuse(reject))
    }

    /// A group was written, or could not be: then the download pauses, and the group is requested again after
    /// [`Download::resume`].
    pub fn handle_written(&mut self, group: u64, is_written: bool, now: Now) {
        self.unwritten = self.unwritten.saturating_sub(1);
        if is_written {
            self.check_done();
            self.fill_all(now.mono);
        } else if self.have.clear(group) {
            self.counts.unwritten += 1;
            self.set_free(group);
            self.pause();
        }
    }

    /// Nothing more is requested, and what is under way is cut.
    pub fn pause(&mut self) {
        self.is_paused = true;
        let peers: Vec<_> = self.sources.keys().copied().collect();
        for peer in peers {
            self.release_all(peer);
        }
    }

    /// Goes on after a pause.
    pub fn resume(&mut self, now: Now) {
        self.is_paused = false;
        self.fill_all(now.mono);
    }

    /// Looks for what stalled, and for what can go faster.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        self.seen = self.seen.max(now);
        let stalled = |source: &Source| source.stalls_at(&self.config).is_some_and(|at| at <= now);
        let late: Vec<_> = self.sources.iter().filter(|(_, source)| stalled(source)).map(|(peer, _)| *peer).collect();
        for peer in late {
            self.release_all(peer);
            self.push(Output::Report(Report::Stalled { peer }));
            if let Some(source) = self.sources.get_mut(&peer) {
                source.take_rest(&self.config, now);
            }
        }
        let due = |source: &Source| source.want_at.is_some_and(|at| at <= now);
        let due: Vec<_> = self.sources.iter().filter(|(_, source)| due(source)).map(|(peer, _)| *peer).collect();
        for peer in due {
            self.ask(peer, now);
        }
        if now >= self.next_tick {
            self.next_tick = now + self.config.tick;
        }
        self.fill_all(now);
    }

    /// When [`Download::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_done {
            return None;
        }
        let tick = (self.under_way > 0).then_some(self.next_tick);
        let rests = |source: &Source| (source.rests_until > self.seen).then_some(source.rests_until);
        let of_source = |source: &Source| [source.want_at, source.stalls_at(&self.config), rests(source)];
        self.sources.values().flat_map(of_source).flatten().chain(tick).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// The blob.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The groups that were verified.
    pub fn have(&self) -> &Bitmap {
        &self.have
    }

    /// Groups that were requested and did not come, or came and are not written; at most [`Config::max_ahead`].
    pub fn ahead(&self) -> u64 {
        self.under_way + self.unwritten
    }

    /// What came and went.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// How far it is.
    pub fn progress(&self, now: Now) -> Progress {
        let last = self.blob.groups() - 1;
        let short = if self.have.get(last) { GROUP_BYTES - self.blob.group_len(last) } else { 0 };
        let active = || self.sources.values().filter(|source| !source.requests.is_empty());
        let known = self.sources.values().filter(|source| source.pieces.is_some());
        let starved = |(free, rarity): (&u8, &u16)| *free > 0 && *rarity == 0;
        Progress {
            bytes: (self.have.count() * GROUP_BYTES as u64).saturating_sub(short as u64),
            total_bytes: self.blob.size(),
            // The cast saturates.
            bytes_per_second: active().map(|source| source.estimate.rate(now.mono) as u64).sum(),
            sources: known.count(),
            active: active().count(),
            is_starved: self.free.iter().zip(&self.rarity).any(starved),
            is_paused: self.is_paused,
        }
    }

    fn refuse(&self, reject: Reject) -> Result<(), Reject> {
        self.drops.count(reject.drop_reason());
        Err(reject)
    }

    fn push(&mut self, output: Output) -> bool {
        let pushed = self.outputs.push(output).is_ok();
        if !pushed {
            self.drops.count(DropReason::QueueFull);
        }
        pushed
    }

    fn ask(&mut self, peer: NodeId, now: Instant) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let is_new = source.pieces.is_none();
        source.want_at = Some(now + if is_new { self.config.want } else { self.config.rest.1 });
        let message = ToSource::Want(self.blob.id());
        self.push(Output::Send { to: peer, message });
    }

    fn check_done(&mut self) {
        if self.is_done || !self.have.is_full() || self.unwritten > 0 {
            return;
        }
        self.is_done = true;
        for to in std::mem::take(&mut self.sources).into_keys() {
            let message = ToSource::Forget(self.blob.id());
            self.push(Output::Send { to, message });
        }
        self.under_way = 0;
        if !self.push(Output::Done) {
            self.is_done = false;
        }
    }

    fn take_have(&mut self, from: NodeId, holding: &Holding, now: Instant) -> Result<(), Reject> {
        let pieces = self.blob.pieces();
        let (size, held) = match holding {
            Holding::Nothing => (self.blob.size(), Some(Bitmap::new(pieces))),
            Holding::All(size) => (*size, Some(Bitmap::full(pieces))),
            Holding::Some(size, bits) => (*size, Bitmap::from_bytes(pieces, bits)),
        };
        if size != self.blob.size() {
            self.remove(from);
            self.fill_all(now);
            return Err(Reject::OtherSize);
        }
        let held = held.ok_or(Reject::Malformed)?;
        let source = self.sources.get_mut(&from).ok_or(Reject::UnknownPeer)?;
        if !source.haves.try_take(now) {
            return Err(Reject::Full);
        }
        // A source that has all tells nothing new; one that has less tells what it gains, and is asked now and then.
        source.want_at = (!held.is_full()).then(|| now + self.config.rest.1);
        source.dry = None;
        for piece in held.iter() {
            self.offered(piece, true);
        }
        let before = self.sources.get_mut(&from).and_then(|source| source.pieces.replace(held));
        for piece in before.iter().flat_map(Bitmap::iter) {
            self.offered(piece, false);
        }
        self.fill_one(from, now);
        Ok(())
    }

    fn take_gained(&mut self, from: NodeId, piece: u64, now: Instant) -> Result<(), Reject> {
        let source = self.sources.get_mut(&from).ok_or(Reject::UnknownPeer)?;
        let pieces = source.pieces.as_mut().ok_or(Reject::Unrequested)?;
        if piece >= pieces.len() {
            return Err(Reject::Malformed);
        }
        if pieces.set(piece) {
            let is_free = usize::try_from(piece).ok().and_then(|at| self.free.get(at)).is_some_and(|free| *free > 0);
            if is_free {
                source.dry = None;
            }
            self.offered(piece, true);
            if is_free {
                self.fill_one(from, now);
            }
        }
        Ok(())
    }

    /// Counts the sources of a piece.
    fn offered(&mut self, piece: u64, is_offered: bool) {
        let Some(rarity) = usize::try_from(piece).ok().and_then(|at| self.rarity.get_mut(at)) else { return };
        *rarity = if is_offered { rarity.saturating_add(1) } else { rarity.saturating_sub(1) };
    }

    fn take_step(&mut self, from: NodeId, number: u32, bytes: Vec<u8>, now: Instant) -> Result<(), Reject> {
        let next_number = self.next_number;
        let source = self.sources.get_mut(&from).ok_or(Reject::UnknownPeer)?;
        let Some(at) = source.requests.iter().position(|request| request.number == number) else {
            if number >= next_number || source.late == 0 {
                return Err(Reject::Unrequested);
            }
            source.late -= 1;
            return Err(Reject::Late);
        };
        let Some(request) = source.requests.get_mut(at) else { return Err(Reject::Late) };
        let group = request.next;
        let len = bytes.len() as u64;
        let Ok(verified) = request.slice.accept(bytes) else {
            self.push(Output::Report(Report::Lied { peer: from, group }));
            self.remove(from);
            if self.banned.len() >= MAX_BANNED {
                self.banned.pop_front();
            }
            self.banned.push_back(from);
            self.fill_all(now);
            return Err(Reject::Lie);
        };
        request.next += 1;
        let is_twin = request.twin.is_some();
        if let Some(sent_at) = request.sent_at.take() {
            source.estimate.round_trip(now.saturating_duration_since(sent_at));
        }
        source.has_delivered(len, &self.config, now);
        let over = take_if_over(source, at);
        if source.requests.is_empty() {
            source.estimate.stop(now);
        }
        self.under_way = self.under_way.saturating_sub(1);
        self.keep(group, verified);
        if is_twin {
            self.cut_what_came();
            if let Some(request) = over {
                self.part(&request);
            }
        }
        self.fill_one(from, now);
        Ok(())
    }

    fn keep(&mut self, group: u64, verified: Verified) {
        if self.have.get(group) {
            self.counts.duplicates += 1;
            return;
        }
        self.claim(group);
        self.have.set(group);
        if self.push(Output::Persist(verified)) {
            self.unwritten += 1;
        } else {
            self.have.clear(group);
            self.set_free(group);
        }
    }

    fn take_end(&mut self, from: NodeId, number: u32, ending: Ending, now: Instant) -> Result<(), Reject> {
        let source = self.sources.get_mut(&from).ok_or(Reject::UnknownPeer)?;
        let Some(at) = source.requests.iter().position(|request| request.number == number) else {
            if number >= self.next_number || source.late == 0 {
                return Err(Reject::Unrequested);
            }
            source.late -= 1;
            return Err(Reject::Late);
        };
        let request = source.requests.remove(at);
        let piece = request.piece();
        match ending {
            Ending::Busy => source.take_rest(&self.config, now),
            Ending::Missing | Ending::Broken => {
                if source.pieces.as_mut().is_some_and(|pieces| pieces.clear(piece)) {
                    // Whoever offered all and lacks something is asked again what it has.
                    source.want_at.get_or_insert(now + self.config.rest.1);
                    self.offered(piece, false);
                }
            }
        }
        self.release(&request);
        self.fill_all(now);
        Ok(())
    }

    fn remove(&mut self, peer: NodeId) {
        let Some(source) = self.sources.remove(&peer) else { return };
        for request in &source.requests {
            self.release(request);
        }
        for piece in source.pieces.iter().flat_map(Bitmap::iter) {
            self.offered(piece, false);
        }
    }

    /// Cuts all that is under way with a source.
    fn release_all(&mut self, peer: NodeId) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let requests = std::mem::take(&mut source.requests);
        source.late += requests.iter().map(|request| request.left() + 1).sum::<u64>();
        for request in &requests {
            self.release(request);
            self.cut(peer, request.number, request.next);
        }
    }

    fn cut(&mut self, to: NodeId, number: u32, end: u64) {
        let id = RequestId { download: self.tag, number };
        let message = ToSource::Cut { id, end: u32::try_from(end).unwrap_or(u32::MAX) };
        self.push(Output::Send { to, message });
    }

    /// What is left of a request that is over, and that no other request covers, is free.
    fn release(&mut self, request: &Request) {
        self.under_way = self.under_way.saturating_sub(request.left());
        let twin = self.part(request).unwrap_or(0..0);
        for group in request.next..request.end {
            if !twin.contains(&group) && !self.have.get(group) {
                self.counts.released += 1;
                self.set_free(group);
            }
        }
    }

    /// A request is over: the one that was sent for the same groups stands alone. Says what is left of that.
    fn part(&mut self, request: &Request) -> Option<Range<u64>> {
        let twin = request.twin?;
        let mut others = self.sources.values_mut().flat_map(|source| &mut source.requests);
        let other = others.find(|other| other.number == twin)?;
        other.twin = None;
        Some(other.next..other.end)
    }

    fn set_free(&mut self, group: u64) {
        if self.claimed.clear(group) {
            let piece = usize::try_from(group / PIECE_GROUPS).ok();
            if let Some(free) = piece.and_then(|at| self.free.get_mut(at)) {
                *free = free.saturating_add(1);
            }
            self.generation += 1;
        }
    }

    fn claim(&mut self, group: u64) {
        if self.claimed.set(group) {
            let piece = usize::try_from(group / PIECE_GROUPS).ok();
            if let Some(free) = piece.and_then(|at| self.free.get_mut(at)) {
                *free = free.saturating_sub(1);
            }
        }
    }

    /// Sends a request for `groups`, which lie in one piece.
    fn issue(&mut self, peer: NodeId, groups: Range<u64>, twin: Option<u32>, now: Instant) -> bool {
        let (Ok(first), Ok(count)) = (u32::try_from(groups.start), u16::try_from(groups.end - groups.start)) else {
            return false;
        };
        let Some(source) = self.sources.get_mut(&peer) else { return false };
        let is_first = source.requests.is_empty();
        if is_first {
            source.waits_since = now;
            source.estimate.start(now);
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        source.next_piece = groups.start / PIECE_GROUPS + 1;
        source.requests.push(Request {
            number,
            slice: Slice::new(&self.blob, groups.clone()),
            next: groups.start,
            end: groups.end,
            twin,
            sent_at: is_first.then_some(now),
        });
        for group in groups {
            self.claim(group);
        }
        self.under_way += u64::from(count);
        self.counts.requested += u64::from(count);
        let id = RequestId { download: self.tag, number };
        let message = ToSource::Request { id, blob: self.blob.id(), first, count };
        self.push(Output::Send { to: peer, message })
    }
}

/// The request at `at`, if nothing is left of it.
fn take_if_over(source: &mut Source, at: usize) -> Option<Request> {
    let is_over = source.requests.get(at).is_some_and(|request| request.left() == 0);
    is_over.then(|| source.requests.remove(at))
}

/// A duration as seconds that can be compared with an estimate.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
