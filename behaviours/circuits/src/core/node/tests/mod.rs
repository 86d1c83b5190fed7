//! Nodes whose cells are carried from one to the other by the test.

mod hostile;
mod limits;
mod meeting;
mod recovery;
mod usual;

use std::collections::{BTreeMap, HashMap, HashSet};

use fog_base::UnixMillis;

use super::*;
use crate::{
    core::{
        path::{Hop, NoPath},
        types::{End, FirstStream, Isolation, Open, Purpose, StreamRef, VirtualRole},
    },
    wire::{EndReason, StreamId, Target},
};

/// Relays in a fixed order; those that failed as guards come last, and then those that are suspected.
#[derive(Debug, Clone)]
struct Ordered {
    relays: Vec<Hop>,
    own: NodeId,
    failed: Vec<NodeId>,
    suspects: Vec<NodeId>,
    /// Stands second on circuits of services.
    second: Option<NodeId>,
}

impl PathSource for Ordered {
    fn stem(&mut self, hops: usize, end: Option<&Hop>, _: Now) -> Result<Vec<Hop>, NoPath> {
        let mut usable: Vec<_> =
            self.relays.iter().filter(|hop| Some(*hop) != end && hop.relay.id != self.own).cloned().collect();
        usable.sort_by_key(|hop| (self.failed.contains(&hop.relay.id), self.suspects.contains(&hop.relay.id)));
        if usable.len() < hops { Err(NoPath::TooFewRelays) } else { Ok(usable[..hops].to_vec()) }
    }

    fn service_stem(&mut self, hops: usize, end: Option<&Hop>, now: Now) -> Result<Vec<Hop>, NoPath> {
        let mut stem = self.stem(hops, end, now)?;
        if let Some(second) = self.second.filter(|_| hops > 1) {
            stem.retain(|hop| hop.relay.id != second);
            stem.insert(1, self.relays.iter().find(|hop| hop.relay.id == second).cloned().ok_or(NoPath::TooFewRelays)?);
            stem.truncate(hops);
        }
        Ok(stem)
    }

    fn set_suspects(&mut self, relays: Vec<NodeId>) {
        self.suspects = relays;
    }

    fn end(&mut self, stem: &[NodeId], end: &End, _: Now) -> Result<Hop, NoPath> {
        let last = match end {
            End::Relay(hop) => Some(hop.clone()),
            End::Exit { .. } => self.relays.iter().rev().find(|hop| hop.relay.id != self.own).cloned(),
        };
        last.filter(|hop| !stem.contains(&hop.relay.id)).ok_or(NoPath::TooFewRelays)
    }

    fn is_open(&self, exit: &NodeId, _: u16) -> bool {
        self.relays.last().is_some_and(|last| last.relay.id == *exit)
    }

    fn handle_built(&mut self, _: NodeId, _: Now) -> bool {
        true
    }

    fn handle_failed(&mut self, guard: NodeId, _: Now) {
        self.failed.push(guard);
    }
}

struct Node {
    core: Core,
    drops: Arc<DropCounters>,
    outputs: Vec<Output>,
    got: HashMap<StreamRef, Vec<u8>>,
    reads: bool,
    is_up: bool,
}

/// What is done to a cell between two nodes; false if it is lost.
type Tamper = Box<dyn FnMut(usize, usize, &mut Cell) -> bool>;

struct World {
    nodes: Vec<Node>,
    /// Which node is at the other end, and the link there.
    links: BTreeMap<(usize, LinkId), (usize, LinkId)>,
    next_link: u64,
    now: Now,
    tamper: Tamper,
    /// Everything each node received, if it is kept.
    seen: Option<Vec<HashSet<Vec<u8>>>>,
}

fn id(at: usize) -> NodeId {
    NodeId([at as u8 + 1; 32])
}

fn secret(at: usize) -> RelaySecret {
    RelaySecret::new(id(at), &[at as u8 + 101; 32])
}

fn hop(at: usize) -> Hop {
    Hop { relay: secret(at).public(), addresses: vec![vec![at as u8]] }
}

fn usual_config() -> Config {
    let exit = ExitPolicy::parse("accept 80, accept 443").unwrap();
    Config { exit, spares: 0, ..Config::default() }
}

impl World {
    /// Nodes that are all relays.
    fn new(count: usize) -> Self {
        Self::with(count, |_| usual_config())
    }

    fn with(count: usize, config: impl Fn(usize) -> Config) -> Self {
        Self::with_second(count, config, None)
    }

    fn with_second(count: usize, config: impl Fn(usize) -> Config, second: Option<usize>) -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(1_790_000_000_000) };
        let relays: Vec<_> = (0..count).map(hop).collect();
        let node = |at| {
            let (relays, second) = (relays.clone(), second.map(id));
            let paths = Ordered { relays, own: id(at), failed: vec![], suspects: vec![], second };
            let drops = Arc::new(DropCounters::default());
            let core = Core::new(config(at), secret(at), Box::new(paths), Arc::clone(&drops), [at as u8; 32], now);
            Node { core, drops, outputs: vec![], got: HashMap::new(), reads: true, is_up: true }
        };
        let nodes = (0..count).map(node).collect();
        let tamper: Tamper = Box::new(|_, _, _| true);
        Self { nodes, links: BTreeMap::new(), next_link: 0, now, tamper, seen: None }
    }

    fn core(&mut self, at: usize) -> &mut Core {
        &mut self.nodes[at].core
    }

    fn link(&mut self, from: usize, to: usize) -> (LinkId, LinkId) {
        self.next_link += 2;
        let (a, b) = (LinkId(self.next_link), LinkId(self.next_link + 1));
        self.links.insert((from, a), (to, b));
        self.links.insert((to, b), (from, a));
        let now = self.now;
        self.core(to).handle_link(b, id(from), false, now);
        self.core(from).handle_link(a, id(to), true, now);
        (a, b)
    }

    fn cut(&mut self, at: usize, link: LinkId) {
        if let Some((other, there)) = self.links.remove(&(at, link)) {
            self.links.remove(&(other, there));
            let now = self.now;
            self.core(at).handle_link_down(link, now);
            self.core(other).handle_link_down(there, now);
        }
    }

    /// A node is gone, with all its links.
    fn kill(&mut self, at: usize) {
        self.nodes[at].is_up = false;
        let links: Vec<_> = self.links.keys().filter(|(node, _)| *node == at).copied().collect();
        links.into_iter().for_each(|(node, link)| self.cut(node, link));
    }

    fn do_outputs(&mut self, at: usize) -> bool {
        let mut is_any = false;
        while let Some(output) = self.core(at).poll_output() {
            is_any = true;
            let now = self.now;
            match output {
                Output::Connect { node, .. } => {
                    let to = usize::from(node.0[0]) - 1;
                    if self.nodes.get(to).is_some_and(|node| node.is_up) {
                        self.link(at, to);
                    } else {
                        self.core(at).handle_unreachable(node, now);
                    }
                }
                Output::Disconnect(link) => {
                    self.cut(at, link);
                    self.nodes[at].outputs.push(Output::Disconnect(link));
                }
                Output::Run(job) => self.core(at).handle_answer(job.run(), now),
                Output::Received(stream, bytes) => {
                    let node = &mut self.nodes[at];
                    if node.reads {
                        node.core.handle_consumed(stream, bytes.len() as u64);
                    }
                    node.got.entry(stream).or_default().extend(bytes);
                }
                other => self.nodes[at].outputs.push(other),
            }
        }
        is_any
    }

    /// Carries at most 64 cells of each link.
    fn step(&mut self) -> bool {
        let mut is_any = false;
        for at in 0..self.nodes.len() {
            is_any |= self.do_outputs(at);
            for link in self.nodes[at].core.ready_links() {
                for _ in 0..64 {
                    let now = self.now;
                    let Some(mut cell) = self.core(at).next_cell(link, now) else { break };
                    is_any = true;
                    let Some((to, there)) = self.links.get(&(at, link)).copied() else { break };
                    if let Some(seen) = &mut self.seen {
                        seen[to].insert(cell.to_bytes());
                    }
                    if (self.tamper)(at, to, &mut cell) {
                        self.core(to).handle_cell(there, cell, now);
                    }
                }
            }
        }
        is_any
    }

    fn run(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 100_000);
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.plus(time);
        loop {
            self.run();
            let next = self.nodes.iter().map(|node| node.core.poll_timeout()).min().unwrap();
            let step = next.saturating_duration_since(self.now.mono).max(Duration::from_millis(1));
            if self.now.mono + step > until.mono {
                break;
            }
            self.now = self.now.plus(step);
            let now = self.now;
            self.nodes.iter_mut().for_each(|node| node.core.handle_timeout(now));
        }
        self.now = until;
        self.run();
    }

    fn open(&mut self, at: usize, end: usize, hops: usize) -> CircuitId {
        let now = self.now;
        let open = Open { purpose: Purpose::Probe, end: End::Relay(hop(end)), isolation: Isolation::default(), hops };
        self.core(at).open(open, now)
    }

    fn opened(&mut self, at: usize, end: usize, hops: usize) -> CircuitId {
        let circuit = self.open(at, end, hops);
        self.run();
        assert!(self.is_opened(at, circuit), "{:?}", self.nodes[at].outputs);
        circuit
    }

    fn is_opened(&self, at: usize, id: CircuitId) -> bool {
        self.nodes[at].outputs.iter().any(|output| matches!(output, Output::Opened { circuit, .. } if *circuit == id))
    }

    fn closed(&self, at: usize, id: CircuitId) -> Option<CloseReason> {
        self.nodes[at].outputs.iter().find_map(|output| match output {
            Output::Closed { circuit, reason, .. } if *circuit == id => Some(reason.clone()),
            _ => None,
        })
    }

    fn begin(&mut self, at: usize, circuit: CircuitId, target: Target, early: &[u8]) -> StreamRef {
        let now = self.now;
        self.core(at).open_stream(circuit, target, early.to_vec(), now).unwrap()
    }

    /// The last stream that others began at this node.
    fn inbound(&self, at: usize) -> (StreamRef, Target) {
        let inbound = |output: &Output| match output {
            Output::Inbound { stream, target } => Some((*stream, target.clone())),
            _ => None,
        };
        self.nodes[at].outputs.iter().rev().find_map(inbound).unwrap()
    }

    /// The last message at this node: the circuit, the command, the body and the binding.
    fn message(&self, at: usize) -> (CircuitId, u8, Vec<u8>, [u8; 32]) {
        let message = |output: &Output| match output {
            Output::Message { circuit, command, body, binding, .. } => {
                Some((*circuit, *command, body.clone(), *binding))
            }
            _ => None,
        };
        self.nodes[at].outputs.iter().rev().find_map(message).unwrap()
    }

    fn send(&mut self, at: usize, circuit: CircuitId, command: u8, body: &[u8]) -> bool {
        let now = self.now;
        self.core(at).send_message(circuit, command, body.to_vec(), now)
    }

    fn hop(&mut self, at: usize, circuit: CircuitId, role: VirtualRole, seed: u8) -> bool {
        self.hop_with(at, circuit, role, seed, None)
    }

    fn hop_with(
        &mut self,
        at: usize,
        circuit: CircuitId,
        role: VirtualRole,
        seed: u8,
        first: Option<FirstStream>,
    ) -> bool {
        let now = self.now;
        self.core(at).add_virtual_hop(circuit, role, (&[seed; 64], &[8; 32]), first, now)
    }

    fn drops(&self, at: usize, reason: DropReason) -> u64 {
        self.nodes[at].drops.get(reason)
    }

    /// Circuits of others at all nodes.
    fn relayed(&self) -> usize {
        self.nodes.iter().map(|node| node.core.counts().relayed).sum()
    }
}

fn host() -> Target {
    Target::Host("example.com".into(), 80)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + i / 251) % 256) as u8).collect()
}
