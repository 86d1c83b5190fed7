//! What each source may send: how much of it is read, and from where on it is a flood.
//!
//! An honest peer passes on what it read itself from many sources, so it may well exceed what is read from one source;
//! that is no fault of its. Beyond the second rate no honest peer comes.

use std::{collections::HashMap, time::Instant};

use fog_base::{NodeId, TokenBucket};

use super::reject::Reject;

const MAX_SOURCES: usize = 1024;

#[derive(Debug)]
struct Source {
    read: TokenBucket,
    sent: TokenBucket,
}

/// All sources that sent something lately.
#[derive(Debug)]
pub struct Sources {
    table: HashMap<NodeId, Source>,
    read: (f64, f64),
    sent: (f64, f64),
}

impl Sources {
    /// None yet. Each rate is messages per second, and at once: `read` of one source, `sent` by one before it floods.
    pub fn new(read: (f64, f64), sent: (f64, f64)) -> Self {
        Self { table: HashMap::new(), read, sent }
    }

    /// Whether a message of `from` is read.
    pub fn admit(&mut self, from: NodeId, now: Instant) -> Result<(), Reject> {
        if self.table.len() >= MAX_SOURCES && !self.table.contains_key(&from) {
            // Connections are limited far below this, so these are peers of the past. A new bucket is full, hence so
            // many sources must have come and gone before one gains by it.
            self.table.clear();
        }
        let bucket = |(rate, burst)| TokenBucket::new(rate, burst, now);
        let source =
            self.table.entry(from).or_insert_with(|| Source { read: bucket(self.read), sent: bucket(self.sent) });
        if !source.sent.try_take(now) {
            return Err(Reject::Flood);
        }
        if source.read.try_take(now) { Ok(()) } else { Err(Reject::RateLimited) }
    }

    /// How many messages of `from` would be read now.
    pub fn quota(&self, from: NodeId, now: Instant) -> usize {
        let burst = self.read.1 as u32;
        // Looks at a copy: nothing is taken yet.
        self.table.get(&from).map_or(burst, |source| source.read.clone().take(burst, now)) as usize
    }
}
