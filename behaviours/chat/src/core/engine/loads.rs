//! How full the engine's buffers are: what a peer can fill is bounded, and this shows it.

use super::{Chat, MAX_PARKED, disk, ingest::MAX_SOURCES, links::MAX_REQUESTS, owed::MAX_OWED, window};
use crate::core::{carrier, dag, limits, seen};

/// How much a buffer holds, and how much it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Which.
    pub name: &'static str,
    /// How much is in it now: the fullest, where there is one for each conversation or device.
    pub held: usize,
    /// The most.
    pub most: usize,
}

impl Chat {
    /// What others can fill, and how full it is.
    pub fn loads(&self) -> Vec<Load> {
        let dags = || self.talks.values().map(|talk| &talk.dag);
        let (carried, carried_bytes) = self.carrier.load();
        let (owed, owed_devices, owed_mixing) = self.owed.load();
        let waiting = self.waiting.values().chain(self.short.values()).map(std::collections::VecDeque::len);
        let load = |name, held, most| Load { name, held, most };
        vec![
            load("waiting_messages", dags().map(|dag| dag.len().1).max().unwrap_or(0), dag::MAX_WAITING),
            load("waiting_bytes", dags().map(dag::Dag::waiting_bytes).max().unwrap_or(0), dag::MAX_WAITING_BYTES),
            load("authors", dags().map(|dag| dag.authors().count()).max().unwrap_or(0), dag::MAX_AUTHORS),
            load("parked_envelopes", self.parked.len(), MAX_PARKED),
            load("seen_envelopes", self.seen.len(), seen::MAX_SEEN),
            load("carried_envelopes", carried, carrier::MAX_CARRIED.0),
            load("carried_bytes", carried_bytes, carrier::MAX_CARRIED.1),
            load("requests", self.requests.len(), MAX_REQUESTS),
            load("waiting_frames", waiting.max().unwrap_or(0), window::MAX_WAITING),
            load("owed_acknowledgements", owed, MAX_OWED.0),
            load("owed_devices", owed_devices, MAX_OWED.1),
            load("mixing", self.mixing.len().max(owed_mixing), disk::MAX_OUTPUTS),
            load("publishing", self.publishing.len(), disk::MAX_OUTPUTS),
            load("outputs", self.disk.longest(), disk::MAX_OUTPUTS),
            load("sources", self.sources.len(), MAX_SOURCES),
            load("rated_authors", self.limits.authors.len(), limits::MAX_KEYS),
            load("rated_peers", self.limits.hellos.len().max(self.limits.lists.len()), limits::MAX_KEYS),
        ]
    }
}
