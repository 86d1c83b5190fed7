//! Nodes that talk without a network: requests and answers are bytes, delivered at once.

use std::collections::BTreeMap;

use super::*;
use crate::core::{
    descriptor::Descriptor,
    relay_set::Source,
    testing::{NETWORK, node, relay, schedule, set, start},
};

/// An archive of whatever a test put in.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) sets: BTreeMap<[u8; 32], Arc<NamedSet>>,
    pub(super) links: Vec<Vec<u8>>,
    pub(super) states: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Archive for Shelf {
    fn set(&self, root: &[u8; 32]) -> Option<Arc<NamedSet>> {
        self.sets.get(root).cloned()
    }

    fn links(&self, _: Epoch, max_bytes: usize) -> (Vec<Vec<u8>>, bool) {
        let mut room = max_bytes;
        let fits = |link: &&Vec<u8>| room.checked_sub(link.len()).inspect(|rest| room = *rest).is_some();
        let links: Vec<_> = self.links.iter().take_while(fits).cloned().collect();
        let more = links.len() < self.links.len();
        (links, more)
    }

    fn state(&self, hash: &[u8; 32], offset: u32, max: usize) -> Option<(u32, Vec<u8>)> {
        let bytes = self.states.get(hash)?;
        let part = bytes.get(offset as usize..)?;
        Some((bytes.len() as u32, part[..part.len().min(max)].to_vec()))
    }
}

type Lie = Box<dyn FnMut(&Request) -> Option<Response>>;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) exchange: Exchange,
    pub(super) set: RelaySet,
    pub(super) shelf: Shelf,
    /// What came out, but for requests.
    pub(super) told: Vec<Output>,
    /// What it answers instead of the truth.
    pub(super) lie: Option<Lie>,
    /// Whether requests to it fail.
    pub(super) is_silent: bool,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Now,
    pub(super) requests: usize,
    /// Who was asked, in order.
    pub(super) asked: Vec<usize>,
    pub(super) bytes: usize,
}

pub(super) fn exchange(seed: u8, now: Now) -> Exchange {
    Exchange::new(NETWORK, schedule(), [seed; 32], now)
}

pub(super) fn named(relays: impl IntoIterator<Item = u16>) -> Arc<NamedSet> {
    Arc::new(NamedSet::new(relays.into_iter().map(|n| Arc::new(relay(n))).collect()))
}

impl World {
    pub(super) fn new(sets: &[&[u16]]) -> Self {
        let now = start();
        let nodes = sets.iter().enumerate().map(|(i, relays)| {
            let mut set = set(now);
            for n in *relays {
                set.handle_descriptor(relay(*n).as_bytes(), Source::Store, now).unwrap();
            }
            let id = node(1000 + i as u16);
            let (shelf, told) = (Shelf::default(), vec![]);
            Node { id, exchange: exchange(i as u8, now), set, shelf, told, lie: None, is_silent: false }
        });
        Self { nodes: nodes.collect(), now, requests: 0, asked: vec![], bytes: 0 }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let peer = self.nodes[to].id;
            let Node { exchange, set, .. } = &mut self.nodes[from];
            exchange.handle_connected(peer, set, self.now);
        }
        self.run();
    }

    pub(super) fn run(&mut self) {
        while let Some((from, output)) =
            (0..self.nodes.len()).find_map(|from| self.nodes[from].exchange.poll_output().map(|output| (from, output)))
        {
            match output {
                Output::Send { to, request } => self.deliver(from, to, &request),
                other => self.nodes[from].told.push(other),
            }
        }
    }

    fn deliver(&mut self, from: usize, to: NodeId, request: &Request) {
        self.requests += 1;
        assert!(self.requests < 200_000, "does not end");
        let request = request.encode().unwrap();
        self.bytes += request.len();
        let request = Request::decode(&request).unwrap();
        let asker = self.nodes[from].id;
        let at = self.nodes.iter().position(|node| node.id == to).unwrap();
        self.asked.push(at);
        let Node { exchange, set, shelf, lie, is_silent, .. } = &mut self.nodes[at];
        if *is_silent {
            return self.nodes[from].exchange.handle_failure(to, self.now);
        }
        let lie = lie.as_mut().and_then(|lie| lie(&request));
        let response = lie.unwrap_or_else(|| exchange.handle_request(asker, request, set, shelf, self.now));
        let response = response.encode().unwrap();
        self.bytes += response.len();
        let response = Response::decode(&response).unwrap();
        let Node { exchange, set, .. } = &mut self.nodes[from];
        exchange.handle_response(to, response, set, self.now);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        for Node { exchange, set, .. } in &mut self.nodes {
            exchange.handle_timeout(set, self.now);
        }
        self.run();
    }

    /// Lets everybody's timeouts come when they are due.
    pub(super) fn live(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now.mono < end.mono {
            let due = self.nodes.iter().filter_map(|node| node.exchange.poll_timeout()).min().unwrap_or(end.mono);
            let step = due.min(end.mono).saturating_duration_since(self.now.mono);
            self.pass(step.max(Duration::from_millis(1)));
        }
    }

    pub(super) fn insert(&mut self, at: usize, descriptor: &Descriptor) {
        let now = self.now;
        self.nodes[at].set.handle_descriptor(descriptor.as_bytes(), Source::Own, now).unwrap();
    }

    pub(super) fn sizes(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.set.len()).collect()
    }

    pub(super) fn misbehaved(&self, at: usize) -> Vec<NodeId> {
        let told = self.nodes[at].told.iter();
        told.filter_map(|output| if let Output::Misbehaved { peer } = output { Some(*peer) } else { None }).collect()
    }

    pub(super) fn nobody_misbehaved(&self) -> bool {
        let is_ill = |output: &Output| matches!(output, Output::Misbehaved { .. } | Output::Flooding { .. });
        !self.nodes.iter().any(|node| node.told.iter().any(is_ill))
    }
}
