//! What is known of one source, and what is requested of it.

use std::time::{Duration, Instant};

use fog_base::TokenBucket;

use super::{Config, estimate::Estimate};
use crate::core::{
    bitmap::Bitmap,
    blob::{GROUP_BYTES, PIECE_GROUPS},
    slice::Slice,
};

/// How often a source may say anew what it has, per second, and at once.
const HAVE_RATE: (f64, f64) = (0.1, 8.0);

/// Groups of one piece that are under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: u32,
    pub(super) slice: Slice,
    /// The next group to come.
    pub(super) next: u64,
    /// The first group that is not wanted.
    pub(super) end: u64,
    /// The request by which another source was asked for some of it as well.
    pub(super) twin: Option<u32>,
    /// When it was sent, if nothing else was under way then.
    pub(super) sent_at: Option<Instant>,
}

impl Request {
    pub(super) fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    pub(super) fn piece(&self) -> u64 {
        self.next / PIECE_GROUPS
    }
}

/// One source.
#[derive(Debug)]
pub(super) struct Source {
    /// What it has; `None` until it said so.
    pub(super) pieces: Option<Bitmap>,
    /// In the order in which they were sent.
    pub(super) requests: Vec<Request>,
    pub(super) estimate: Estimate,
    /// When it is asked what it has.
    pub(super) want_at: Option<Instant>,
    pub(super) haves: TokenBucket,
    /// Nothing is requested before.
    pub(super) rests_until: Instant,
    rest: Duration,
    /// Since when nothing came while something was requested.
    pub(super) waits_since: Instant,
    /// Steps that may still come of what was requested and is not wanted any more.
    pub(super) late: u64,
    /// The generation of the download in which it had nothing to offer.
    pub(super) dry: Option<u64>,
    /// The piece after the last one that was requested of it.
    pub(super) next_piece: u64,
    pub(super) bytes: u64,
}

impl Source {
    pub(super) fn new(now: Instant, config: &Config) -> Self {
        let (rate, burst) = HAVE_RATE;
        Self {
            pieces: None,
            requests: Vec::new(),
            estimate: Estimate::new(now),
            want_at: Some(now),
            haves: TokenBucket::new(rate, burst, now),
            rests_until: now,
            rest: config.rest.0,
            waits_since: now,
            late: 0,
            dry: None,
            next_piece: u64::MAX,
            bytes: 0,
        }
    }

    pub(super) fn has(&self, piece: u64) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.get(piece))
    }

    /// Groups under way.
    pub(super) fn outstanding(&self) -> u64 {
        self.requests.iter().map(Request::left).sum()
    }

    /// Groups that may be under way.
    pub(super) fn window(&self, config: &Config, now: Instant) -> u64 {
        if !self.estimate.is_known() {
            return config.first_window;
        }
        let horizon = (config.horizon + self.estimate.delay()).as_secs_f64();
        let (least, most) = config.window;
        // The cast saturates.
        ((self.estimate.rate(now) * horizon / GROUP_BYTES as f64) as u64).clamp(least, most)
    }

    /// Groups that may be requested now; 0 unless that is worth a request.
    pub(super) fn room(&self, config: &Config, now: Instant) -> u64 {
        if self.pieces.is_none() || now < self.rests_until || self.requests.len() >= config.max_requests {
            return 0;
        }
        let window = self.window(config, now);
        let room = window.saturating_sub(self.outstanding());
        let worth = (window / 4).clamp(1, PIECE_GROUPS);
        if room >= worth { room } else { 0 }
    }

    /// How long until `groups` came, behind nothing else.
    pub(super) fn takes(&self, groups: u64, now: Instant) -> f64 {
        groups as f64 * GROUP_BYTES as f64 / self.estimate.rate(now)
    }

    /// Nothing is requested for a while; each time for longer.
    pub(super) fn take_rest(&mut self, config: &Config, now: Instant) {
        self.rests_until = now + self.rest;
        self.rest = (self.rest * 2).min(config.rest.1);
    }

    /// It is of use.
    pub(super) fn has_delivered(&mut self, bytes: u64, config: &Config, now: Instant) {
        self.rest = config.rest.0;
        self.waits_since = now;
        self.bytes += bytes;
        self.estimate.add(bytes, now);
    }

    /// When it will have stalled.
    pub(super) fn stalls_at(&self, config: &Config) -> Option<Instant> {
        (!self.requests.is_empty()).then(|| self.waits_since + config.stall)
    }
}
