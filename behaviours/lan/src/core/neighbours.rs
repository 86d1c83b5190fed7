//! Who was heard, and where.
//!
//! Anybody makes keys for nothing, so a beacon alone earns little: there is room for so many neighbours, for fewer at one address,
//! and if there is none left, of those that never connected the one that waited longest goes. Who connected has proved its key.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::NodeId;

use super::{
    local::{Endpoint, Heard, Ports, Source},
    reject::Reject,
};

/// Neighbours in all.
pub(super) const MAX_NEIGHBOURS: usize = 256;
/// At one address, besides connected ones: several nodes on one host.
pub(super) const MAX_AT_ONE: usize = 32;
/// Addresses of one neighbour.
const MAX_ENDPOINTS: usize = 4;
/// Two beacons may be missed.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(75);

#[derive(Debug, Clone)]
struct Neighbour {
    endpoints: BTreeMap<Source, (Ports, Instant)>,
    since: Instant,
}

/// What a beacon changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It is new, or somewhere else; the neighbour that made room for it.
    Found(Option<NodeId>),
}

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    by_node: BTreeMap<NodeId, Neighbour>,
    /// Everybody who is connected, heard or not: as many as the swarm allows.
    connected: BTreeSet<NodeId>,
}

impl Neighbours {
    /// Takes a verified beacon.
    pub(super) fn hear(&mut self, heard: &Heard, now: Instant) -> Result<Change, Reject> {
        let Endpoint { at, ports } = heard.endpoint;
        let mut evicted = None;
        if !self.by_node.contains_key(&heard.node) {
            evicted = self.make_room(heard.node, at)?;
        }
        let neighbour =
            self.by_node.entry(heard.node).or_insert_with(|| Neighbour { endpoints: BTreeMap::new(), since: now });
        let is_known = neighbour.endpoints.get(&at).is_some_and(|(known, _)| *known == ports);
        if heard.is_restarted && !is_known {
            // Where it listened before it was restarted, it does no more.
            neighbour.endpoints.clear();
        }
        if !neighbour.endpoints.contains_key(&at) && neighbour.endpoints.len() >= MAX_ENDPOINTS {
            let oldest = neighbour.endpoints.iter().min_by_key(|(_, (_, heard))| *heard).map(|(at, _)| *at);
            oldest.map(|at| neighbour.endpoints.remove(&at));
        }
        neighbour.endpoints.insert(at, (ports, now));
        Ok(if is_known && !heard.is_restarted { Change::None } else { Change::Found(evicted) })
    }

    fn make_room(&mut self, node: NodeId, at: Source) -> Result<Option<NodeId>, Reject> {
        if self.connected.contains(&node) && self.by_node.len() < MAX_NEIGHBOURS {
            return Ok(None);
        }
        let strangers = || self.by_node.iter().filter(|(id, _)| !self.connected.contains(id));
        if !self.connected.contains(&node)
            && strangers().filter(|(_, stranger)| stranger.endpoints.contains_key(&at)).count() >= MAX_AT_ONE
        {
            return Err(Reject::Crowded);
        }
        if self.by_node.len() < MAX_NEIGHBOURS {
            return Ok(None);
        }
        let longest = strangers().min_by_key(|(_, stranger)| stranger.since).map(|(id, _)| *id);
        let gone = longest.ok_or(Reject::Crowded)?;
        self.by_node.remove(&gone);
        Ok(Some(gone))
    }

    pub(super) fn handle_connected(&mut self, node: NodeId) {
        self.connected.insert(node);
    }

    pub(super) fn handle_disconnected(&mut self, node: NodeId) {
        self.connected.remove(&node);
    }

    /// Whether no neighbour is connected.
    pub(super) fn is_alone(&self) -> bool {
        !self.by_node.keys().any(|node| self.connected.contains(node))
    }

    /// Forgets what was not heard for long, and says who is gone.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        for neighbour in self.by_node.values_mut() {
            neighbour.endpoints.retain(|_, (_, heard)| now < *heard + LOST_AFTER);
        }
        let gone = self.by_node.iter().filter(|(_, neighbour)| neighbour.endpoints.is_empty());
        let gone: Vec<_> = gone.map(|(node, _)| *node).collect();
        self.by_node.retain(|_, neighbour| !neighbour.endpoints.is_empty());
        gone
    }

    /// When something is forgotten next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let heard = self.by_node.values().flat_map(|neighbour| neighbour.endpoints.values());
        heard.map(|(_, heard)| *heard + LOST_AFTER).min()
    }

    /// Where a neighbour can be dialled.
    pub(super) fn endpoints(&self, node: NodeId) -> impl Iterator<Item = Endpoint> + '_ {
        let endpoints = self.by_node.get(&node).into_iter().flat_map(|neighbour| &neighbour.endpoints);
        endpoints.map(|(at, (ports, _))| Endpoint { at: *at, ports: *ports })
    }

    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }
}
