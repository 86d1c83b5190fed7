//! Nodes in virtual time: each has its circuits and its part as a relay; one has a service and one a client. Nothing takes time but links.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{DropCounters, EpochSchedule, NetworkId, NodeId, Now, UnixMillis};
use fog_circuits::{
    CircuitId, Core, CoreConfig, End, FirstStream, Hop, Isolation, NoPath, Open, PathSource, Purpose, RelaySecret,
    Side, Target, VirtualRole,
    core::{
        cell::Cell,
        types::{LinkId, Output as Told, StreamRef},
    },
};
use fog_services::{
    Address, Client, Service,
    core::{
        blinding::Identity,
        circuit::{Circuit, Purpose as Wanted},
        client::{self, Connect, ConnectionId},
        introduction::{self, MAX_EARLY},
        period::{Calendar, Period},
        pow::{Equihash, Work},
        relay::{self, Relay},
        ring::Ring,
        service::{self, Config},
        view::View,
    },
    wire::{Message, command},
};

/// On each link, one way.
const LINK: Duration = Duration::from_millis(10);
const NODES: u8 = 24;
/// Who asks, and who serves; both are relays too.
const CLIENT: usize = 0;
const SERVICE: usize = 1;
const PORT: u16 = 80;
/// Of a circuit to a rendezvous point; others have one more.
const RELAYS: usize = 3;
const NETWORK: NetworkId = NetworkId([3; 32]);

fn calendar() -> Calendar {
    Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) }
}

fn id(at: usize) -> NodeId {
    NodeId([at as u8 + 1; 32])
}

fn secret(at: usize) -> RelaySecret {
    RelaySecret::new(id(at), &[at as u8 + 101; 32])
}

fn hop(at: usize) -> Hop {
    Hop { relay: secret(at).public(), addresses: vec![] }
}

/// Stems that share no relay, so that a spare circuit may end anywhere but at its own two.
#[derive(Debug)]
struct Turns {
    own: usize,
    next: usize,
}

impl PathSource for Turns {
    fn stem(&mut self, hops: usize, end: Option<&Hop>, _: Now) -> Result<Vec<Hop>, NoPath> {
        let mut stem = Vec::new();
        while stem.len() < hops {
            self.next = (self.next + 1) % usize::from(NODES);
            if self.next != self.own && end.is_none_or(|end| end.relay.id != id(self.next)) {
                stem.push(hop(self.next));
            }
        }
        Ok(stem)
    }

    fn end(&mut self, stem: &[NodeId], end: &End, _: Now) -> Result<Hop, NoPath> {
        match end {
            End::Relay(hop) if !stem.contains(&hop.relay.id) => Ok(hop.clone()),
            _ => Err(NoPath::TooFewRelays),
        }
    }

    fn is_open(&self, _: &NodeId, _: u16) -> bool {
        false
    }

    fn handle_built(&mut self, _: NodeId, _: Now) -> bool {
        true
    }

    fn handle_failed(&mut self, _: NodeId, _: Now) {}
}

struct Node {
    core: Core,
    relay: Relay,
    /// Circuits as the client's or the service's core names them, both ways.
    own: BTreeMap<Circuit, CircuitId>,
    names: BTreeMap<CircuitId, Circuit>,
    next: u64,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Links that were passed, one after another, until the first byte was there.
    pub(crate) links: u32,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Net {
    now: Now,
    nodes: Vec<Node>,
    client: Client,
    service: Service,
    address: Address,
    links: HashMap<(usize, LinkId), (usize, LinkId)>,
    next_link: u64,
    cells: BTreeMap<(Instant, u64), (usize, LinkId, Cell)>,
    next_cell: u64,
    probes: Vec<ConnectionId>,
    /// What is asked, and whether the introduction takes it.
    asked: Option<(ConnectionId, Vec<u8>, bool)>,
    stream: Option<StreamRef>,
    first_byte: Option<Instant>,
    got: Vec<u8>,
}

impl Net {
    /// With a service that is reachable, and spare circuits everywhere.
    pub(crate) fn new(seed: u8) -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(86_400_000 * 20_000 + 36_000_000) };
        let ids: Vec<_> = (0..usize::from(NODES)).map(id).collect();
        let period = Period::at(calendar().epoch(now.unix));
        let ring = Ring::new(NETWORK, period, &[seed; 32], ids.iter().copied());
        let nodes = (0..usize::from(NODES)).map(|at| {
            let spares = if at == CLIENT || at == SERVICE { 10 } else { 0 };
            let service_spares = vec![(RELAYS - 1, spares), (RELAYS, spares)];
            let config = CoreConfig { spares: 0, service_spares, ..CoreConfig::default() };
            let (paths, drops) = (Box::new(Turns { own: at, next: at }), Arc::<DropCounters>::default());
            let mut core = Core::new(config, secret(at), paths, drops, [at as u8 ^ seed; 32], now);
            core.hold_after(vec![command::RENDEZVOUS1, command::RENDEZVOUS2]);
            let mut relay = Relay::new(NETWORK, id(at), now);
            relay.set_rings(vec![ring.clone()]);
            Node { core, relay, own: BTreeMap::new(), names: BTreeMap::new(), next: 1 }
        });
        let identity = Identity::from_seed([seed; 32]).unwrap();
        let address = Address::new(*identity.key());
        let view = View::new(ids, None, [ring.clone()]);
        let mut client = Client::new(calendar(), [seed; 32]);
        client.set_view(view.clone());
        let mut net = Self {
            now,
            nodes: nodes.collect(),
            client,
            service: Service::new(Config::default(), identity, calendar(), [], [seed; 32], now),
            address,
            links: HashMap::new(),
            next_link: 0,
            cells: BTreeMap::new(),
            next_cell: 0,
            probes: Vec::new(),
            asked: None,
            stream: None,
            first_byte: None,
            got: Vec::new(),
        };
        net.run(Duration::from_secs(3));
        net.service.set_view(view, net.now);
        net.run(Duration::from_secs(30));
        let status = net.service.status(net.now.unix);
        assert!(status.last_probe.as_ref().is_some_and(|probe| probe.ok), "{status:?}");
        net
    }

    /// Asks the service on a new connection, with the request in the introduction or behind it, and waits for the whole answer. A cold one
    /// fetches the descriptor.
    pub(crate) fn ask(&mut self, request: &[u8], is_early: bool, is_cold: bool) -> Answered {
        let said = request.len().min(MAX_EARLY);
        let stream = introduction::FirstStream { port: PORT, early: request[..said].to_vec() };
        let connect = Connect { fresh: is_cold, ..Connect::to(self.address, is_early.then_some(stream)) };
        (self.first_byte, self.stream) = (None, None);
        self.got.clear();
        let began = self.now.mono;
        let connection = self.client.connect(connect, self.now);
        self.asked = Some((connection, request.to_vec(), is_early));
        self.run(Duration::from_secs(5));
        let took = self.first_byte.expect("no answer") - began;
        assert_eq!(took.as_millis() % LINK.as_millis(), 0, "something took time that is no link");
        let links = (took.as_millis() / LINK.as_millis()) as u32;
        Answered { links, body: self.got.clone() }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.plus(time).mono;
        loop {
            self.settle();
            let cores = self.nodes.iter().map(|node| node.core.poll_timeout());
            let others = [self.client.poll_timeout(), self.service.poll_timeout(self.now)];
            let cell = self.cells.keys().next().map(|(at, _)| *at);
            let timers = cores
                .chain(others.into_iter().flatten())
                .min()
                .map(|at| at.max(self.now.mono + Duration::from_millis(1)));
            let Some(next) = cell.into_iter().chain(timers).min().filter(|next| *next <= end) else { break };
            self.now = self.now.plus(next.saturating_duration_since(self.now.mono));
            while let Some(entry) = self.cells.first_entry().filter(|entry| entry.key().0 <= self.now.mono) {
                let (to, link, cell) = entry.remove();
                self.nodes[to].core.handle_cell(link, cell, self.now);
            }
            self.nodes.iter_mut().for_each(|node| node.core.handle_timeout(self.now));
            self.client.handle_timeout(self.now);
            self.service.handle_timeout(self.now);
        }
        self.now = self.now.plus(end.saturating_duration_since(self.now.mono));
    }

    /// Does all that takes no time.
    fn settle(&mut self) {
        // All of them, also when the first had something to do.
        while (0..self.nodes.len()).map(|at| self.settle_node(at)).filter(|acted| *acted).count() > 0 {}
    }

    fn settle_node(&mut self, at: usize) -> bool {
        let mut is_any = false;
        while let Some(output) = self.nodes[at].core.poll_output() {
            is_any = true;
            self.told(at, output);
        }
        while let Some(output) = self.nodes[at].relay.poll_output() {
            is_any = true;
            self.relayed(at, output);
        }
        if at == CLIENT {
            while let Some(output) = self.client.poll_output() {
                is_any = true;
                self.attend(output);
            }
        }
        if at == SERVICE {
            while let Some(output) = self.service.poll_output() {
                is_any = true;
                self.serve(output);
            }
        }
        for link in self.nodes[at].core.ready_links() {
            while let Some(cell) = self.nodes[at].core.next_cell(link, self.now) {
                is_any = true;
                if let Some((to, there)) = self.links.get(&(at, link)) {
                    self.next_cell += 1;
                    self.cells.insert((self.now.mono + LINK, self.next_cell), (*to, *there, cell));
                }
            }
        }
        is_any
    }

    fn told(&mut self, at: usize, output: Told) {
        let now = self.now;
        match output {
            Told::Connect { node, .. } => {
                let to = usize::from(node.0[0]) - 1;
                self.next_link += 2;
                let (a, b) = (LinkId(self.next_link), LinkId(self.next_link + 1));
                self.links.extend([((at, a), (to, b)), ((to, b), (at, a))]);
                self.nodes[to].core.handle_link(b, id(at), false, now);
                self.nodes[at].core.handle_link(a, node, true, now);
            }
            Told::Run(job) => self.nodes[at].core.handle_answer(job.run(), now),
            Told::Opened { circuit, binding, .. } => {
                let Some(own) = self.nodes[at].names.get(&circuit).copied() else { return };
                if at == CLIENT {
                    self.client.handle_opened(own, now)
                } else {
                    self.service.handle_opened(own, &binding, now)
                }
            }
            Told::Closed { circuit, side: Side::Relay, .. } => self.nodes[at].relay.handle_closed(Circuit(circuit.0)),
            Told::Closed { circuit, .. } => {
                let Some(own) = self.nodes[at].names.remove(&circuit) else { return };
                self.nodes[at].own.remove(&own);
                if at == CLIENT { self.client.handle_closed(own, now) } else { self.service.handle_closed(own, now) }
            }
            Told::Message { circuit, side, command, body, binding } => {
                let epoch = calendar().epoch(now.unix);
                let own = self.nodes[at].names.get(&circuit).copied();
                // What comes for a connection that has just ended is refused.
                let _refused = match (side, own) {
                    (Side::Relay, _) => {
                        self.nodes[at].relay.handle_message(Circuit(circuit.0), &binding, command, &body, epoch, now)
                    }
                    (Side::Client, Some(own)) if at == CLIENT => self.client.handle_message(own, command, &body, now),
                    (Side::Client, Some(own)) => self.service.handle_message(own, command, &body, now),
                    (Side::Client, None) => Ok(()),
                };
            }
            // The server says its word at once, and then what it was told.
            Told::Inbound { stream, target } => {
                assert_eq!((at, target), (SERVICE, Target::Service(PORT)));
                self.nodes[at].core.accept(stream);
                self.nodes[at].core.write(stream, b"served ".to_vec());
            }
            Told::Received(stream, bytes) => {
                self.nodes[at].core.handle_consumed(stream, bytes.len() as u64);
                if at == SERVICE {
                    self.nodes[at].core.write(stream, bytes);
                } else {
                    assert_eq!(Some(stream), self.stream);
                    self.first_byte.get_or_insert(now.mono);
                    self.got.extend(bytes);
                }
            }
            _ => {}
        }
    }

    fn relayed(&mut self, at: usize, output: relay::Output) {
        let (now, Node { core, relay, .. }) = (self.now, &mut self.nodes[at]);
        match output {
            relay::Output::Send(circuit, message) => {
                let (command, body) = message.encode();
                core.send_message(CircuitId(circuit.0), command, body, now);
            }
            relay::Output::Offer { service, client, introduction } => {
                let (command, body) = Message::Introduce2(introduction).encode();
                let is_taken = core.offer_message(CircuitId(service.0), command, body, now);
                relay.handle_offered(client, is_taken);
            }
            relay::Output::Join(a, b) => assert!(core.join(CircuitId(a.0), CircuitId(b.0), now)),
            relay::Output::Close(circuit) => core.close(CircuitId(circuit.0), now),
            relay::Output::Pass { .. } | relay::Output::Answer { .. } => {
                unreachable!("nobody asks through a mixnet here")
            }
        }
    }

    fn open(&mut self, at: usize, own: Circuit, relay: NodeId, wanted: Wanted) {
        let purpose = match wanted {
            Wanted::ServiceRendezvous => Purpose::ServiceRendezvous,
            Wanted::Rendezvous => Purpose::Rendezvous,
            _ => Purpose::Probe,
        };
        let node = &mut self.nodes[at];
        node.next += 2;
        let circuit = CircuitId(node.next);
        node.own.insert(own, circuit);
        node.names.insert(circuit, own);
        let end = End::Relay(hop(usize::from(relay.0[0]) - 1));
        let hops = if wanted == Wanted::Rendezvous { RELAYS } else { RELAYS + 1 };
        node.core.open_as(circuit, Open { purpose, end, isolation: Isolation::default(), hops }, self.now);
    }

    fn send(&mut self, at: usize, own: Circuit, message: &Message) {
        let (now, node) = (self.now, &mut self.nodes[at]);
        if let Some(circuit) = node.own.get(&own) {
            let (command, body) = message.encode();
            assert!(node.core.send_message(*circuit, command, body, now));
        }
    }

    fn close(&mut self, at: usize, own: Circuit) {
        if let Some(circuit) = self.forget(at, own) {
            self.nodes[at].core.close(circuit, self.now);
        }
    }

    /// It is its core's no more.
    fn forget(&mut self, at: usize, own: Circuit) -> Option<CircuitId> {
        let circuit = self.nodes[at].own.remove(&own)?;
        self.nodes[at].names.remove(&circuit);
        Some(circuit)
    }

    fn attend(&mut self, output: client::Output) {
        match output {
            client::Output::Open { circuit, relay, purpose, .. } => self.open(CLIENT, circuit, relay, purpose),
            client::Output::Send(circuit, message) => self.send(CLIENT, circuit, &message),
            client::Output::Close(circuit) => self.close(CLIENT, circuit),
            client::Output::Solve { connection, key, seed, effort, nonce } => {
                let work = Work::make(&Equihash, &key, &seed, effort, nonce, 1000);
                self.client.handle_work(connection, work, self.now);
            }
            client::Output::Connected { connection, circuit, keys } => {
                let circuit = self.forget(CLIENT, circuit).unwrap();
                let keys = (connection, (&*keys.seed, &keys.transcript));
                self.connected(circuit, keys);
            }
            client::Output::Failed(connection, failure) if self.probes.contains(&connection) => {
                self.service.handle_probe(Err(failure), self.now);
            }
            client::Output::Failed(_, failure) => panic!("{failure}"),
            client::Output::Stage(..) | client::Output::Found { .. } => {}
        }
    }

    fn connected(&mut self, circuit: CircuitId, (connection, keys): (ConnectionId, (&[u8; 64], &[u8; 32]))) {
        let (now, core) = (self.now, &mut self.nodes[CLIENT].core);
        let Some((_, early, is_early)) = self.asked.take_if(|(asked, ..)| *asked == connection) else {
            core.close(circuit, now);
            return self.service.handle_probe(Ok(()), now);
        };
        let said = early.len().min(MAX_EARLY);
        let target = Target::Service(PORT);
        let first = is_early.then(|| FirstStream { target: target.clone(), early: early.clone(), said });
        assert!(core.add_virtual_hop(circuit, VirtualRole::Client, keys, first, now));
        let known = StreamRef { circuit, stream: fog_circuits::core::types::FIRST_STREAM };
        self.stream = if is_early { Some(known) } else { core.open_stream(circuit, target, early, now) };
    }

    fn serve(&mut self, output: service::Output) {
        match output {
            service::Output::Open { circuit, relay, purpose } => self.open(SERVICE, circuit, relay, purpose),
            service::Output::Send(circuit, message) => self.send(SERVICE, circuit, &message),
            service::Output::Close(circuit) => self.close(SERVICE, circuit),
            service::Output::Persist(_) | service::Output::Exchange(_) => {}
            service::Output::Accept { circuit, keys, stream } => {
                let circuit = self.forget(SERVICE, circuit).unwrap();
                let first = stream.map(|introduction::FirstStream { port, early }| FirstStream {
                    target: Target::Service(port),
                    said: early.len(),
                    early,
                });
                let (core, keys) = (&mut self.nodes[SERVICE].core, (&*keys.seed, &keys.transcript));
                assert!(core.add_virtual_hop(circuit, VirtualRole::Service, keys, first, self.now));
            }
            service::Output::Probe(address, point) => {
                let connect = Connect { fresh: true, through: Some(point), ..Connect::to(address, None) };
                let probe = self.client.connect(connect, self.now);
                self.probes.push(probe);
            }
        }
    }
}
