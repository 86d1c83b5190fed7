//! The task: what comes in goes to the cores, and what they say is done.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fog_base::{NodeId, Now};
use fog_circuits::{CircuitId, Circuits, End, Event, FirstStream, Hop, Isolation, Open, Target, VirtualRole};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Command, Config, Counts, Found, Hosted, Keep, Network, TICK, Wanted,
    circuits::{Owner, Table, purpose},
    clock,
    host::{self, Host},
    sessions::{Key, Making, Sessions, Waiter},
};
use crate::core::{
    circuit::{Circuit, Purpose},
    client::{self, Client, Connect, ConnectionId, Failure},
    descriptor::{ClientKey, ClientSecret},
    handshake::SessionKeys,
    introduction,
    pow::{Equihash, Work},
    service::{self, Service},
    view::View,
};

/// Proofs of work that are made at a time; each has a core.
const SOLVERS: usize = 2;
/// Circuits that wait for the first relay to be known.
const MAX_EARLY: usize = 256;
/// Nonces that are tried for one, ten milliseconds each: a minute, which is all that a connection may take.
const MAX_TRIES: u32 = 6_000;

/// What ended on another thread.
enum Done {
    Written(u64),
    Solved(ConnectionId, Option<Work>),
}

pub(super) struct Task<K> {
    config: Config,
    circuits: Circuits,
    keep: Arc<K>,
    client: Client,
    hosts: BTreeMap<u64, Host>,
    hops: BTreeMap<NodeId, Hop>,
    has_long_paths: bool,
    view: View,
    table: Table,
    sessions: Sessions,
    /// Rendezvous circuits of services whose client is at the other end.
    served: BTreeMap<CircuitId, u64>,
    /// Circuits that could not be asked for.
    unbuilt: VecDeque<(Owner, Circuit)>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Services that are removed, until what they wrote last is written.
    removing: BTreeMap<u64, oneshot::Sender<()>>,
    /// When it looks next, however much comes until then.
    tick: Instant,
    /// What is counted, for the node's metrics.
    told: Arc<Mutex<Counts>>,
    /// Circuits that were asked for before any relay was known.
    early: Vec<Wish>,
    /// Proofs of work at a time.
    solvers: Arc<Semaphore>,
    seeds: u64,
    /// Requests through the mixnet that services of this node were asked.
    served_mixed: u64,
}

/// A circuit that somebody wants.
type Wish = (Owner, Circuit, NodeId, (Purpose, Isolation));

/// Whom a service admits; with anybody, itself too, as it must be able to test itself.
fn admitted(mut clients: Vec<ClientKey>, probe: &ClientSecret) -> Option<Vec<ClientKey>> {
    if clients.is_empty() {
        return None;
    }
    clients.push(probe.public());
    Some(clients)
}

impl<K: Keep> Task<K> {
    pub(super) fn new(config: Config, circuits: Circuits, keep: Arc<K>, told: Arc<Mutex<Counts>>) -> Self {
        let client = Client::new(config.calendar, *blake3::keyed_hash(&config.seed, b"client").as_bytes());
        Self {
            client,
            config,
            circuits,
            keep,
            hosts: BTreeMap::new(),
            hops: BTreeMap::new(),
            has_long_paths: true,
            view: View::default(),
            table: Table::default(),
            sessions: Sessions::default(),
            served: BTreeMap::new(),
            unbuilt: VecDeque::new(),
            running: FuturesUnordered::new(),
            removing: BTreeMap::new(),
            tick: clock().mono,
            told,
            early: Vec::new(),
            solvers: Arc::new(Semaphore::new(SOLVERS)),
            seeds: 0,
            served_mixed: 0,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>, waiting: Arc<AtomicUsize>) {
        loop {
            self.pump();
            let due = self.due(clock());
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => {
                        if matches!(command, Command::Event(Event::Message { .. })) {
                            waiting.fetch_sub(1, Ordering::Relaxed);
                        }
                        self.handle(command);
                    }
                    None => return,
                },
                Some(done) = self.running.next(), if !self.running.is_empty() => self.handle_done(done),
                () = tokio::time::sleep_until(due.into()) => self.handle_timeout(),
            }
        }
    }

    fn due(&self, now: Now) -> Instant {
        let hosts = self.hosts.values().filter_map(|host| host.service.poll_timeout(now));
        hosts.chain(self.client.poll_timeout()).chain([self.tick]).min().unwrap_or(self.tick)
    }

    fn handle_timeout(&mut self) {
        let now = clock();
        self.tick = now.mono + TICK;
        for id in self.sessions.abandoned() {
            self.sessions.end(id);
            self.client.cancel(id);
        }
        self.client.handle_timeout(now);
        self.hosts.values_mut().for_each(|host| host.service.handle_timeout(now));
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = self.counts();
    }

    fn handle(&mut self, command: Command) {
        let now = clock();
        match command {
            Command::Event(event) => self.handle_event(event, now),
            Command::Network(network) => self.set_network(network, now),
            Command::Connect(wanted, reply) => self.connect(wanted, reply, now),
            Command::Lookup { address, client, reply } => {
                let connect = Connect { client, lookup: true, fresh: true, ..Connect::to(address, None) };
                let id = self.client.connect(connect, now);
                self.sessions.begin(id, Making::Lookup(reply));
            }
            Command::Host(hosted) => self.host(*hosted, now),
            Command::Renew { address, isolation, client } => {
                self.sessions.renew(&Key::new(&address, isolation, client.as_ref()));
            }
            Command::Remove(number, reply) => {
                let is_writing = self.hosts.remove(&number).is_some_and(|host| host.is_writing());
                if is_writing {
                    self.removing.insert(number, reply);
                } else {
                    // Whoever asked may have left.
                    let _left = reply.send(());
                }
                let served: Vec<_> = self.served.iter().filter(|(_, of)| **of == number).map(|(id, _)| *id).collect();
                for id in self.table.remove_all(Owner::Service(number)).into_iter().chain(served) {
                    self.served.remove(&id);
                    self.circuits.close(id);
                }
            }
            Command::Admit(number, clients) => {
                if let Some(host) = self.hosts.get_mut(&number) {
                    let clients = admitted(clients, &host.probe);
                    host.service.set_clients(clients, now);
                }
            }
            Command::Status(reply) => {
                let all = self.hosts.iter().map(|(number, host)| (*number, host.service.status(now.unix))).collect();
                // Whoever asked may have left.
                let _left = reply.send(all);
            }
        }
    }

    fn counts(&self) -> Counts {
        let all = self.hosts.values().map(|host| host.service.rejects()).chain([self.client.rejects()]);
        let mut rejects = BTreeMap::new();
        for counted in all {
            counted.iter().for_each(|(reason, n)| *rejects.entry(reason).or_default() += n);
        }
        let (sessions, served) = (self.sessions.len(), self.served_mixed);
        Counts { rejects: rejects.into_iter().collect(), sessions, mixed_served: served, ..Counts::default() }
    }

    fn seed(&mut self) -> [u8; 32] {
        self.seeds += 1;
        *blake3::keyed_hash(&self.config.seed, &self.seeds.to_be_bytes()).as_bytes()
    }

    fn set_network(&mut self, network: Network, now: Now) {
        self.view = network.view(self.config.us);
        self.has_long_paths = network.has_long_paths;
        self.client.set_view(self.view.clone());
        self.hosts.values_mut().for_each(|host| host.service.set_view(self.view.clone(), now));
        self.hops = network.relays.into_iter().map(|hop| (hop.relay.id, hop)).collect();
        if !self.hops.is_empty() {
            for (owner, circuit, relay, wanted) in std::mem::take(&mut self.early) {
                self.open(owner, circuit, &relay, wanted);
            }
        }
    }

    fn host(&mut self, hosted: Hosted, now: Now) {
        let Hosted { number, identity, target, port, clients, rows } = hosted;
        let probe = ClientSecret::from_bytes(self.seed());
        let config = service::Config { clients: admitted(clients, &probe), ..service::Config::default() };
        let rows = rows.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let seed = self.seed();
        let mut service = Service::new(config, identity, self.config.calendar, rows, seed, now);
        service.set_view(self.view.clone(), now);
        self.hosts.insert(number, Host::new(service, target, port, probe));
    }

    fn connect(
        &mut self,
        wanted: Wanted,
        reply: tokio::sync::oneshot::Sender<Result<fog_circuits::Stream, Failure>>,
        now: Now,
    ) {
        let client = wanted.client.clone();
        let public = client.as_ref().map(ClientSecret::public);
        let key = Key::new(&wanted.address, wanted.isolation, public.as_ref());
        let address = wanted.address;
        let waiter = Waiter::new(wanted, reply);
        if let Some(circuit) = self.sessions.open(&key) {
            return self.give(circuit, waiter);
        }
        let Some(waiter) = self.sessions.join(&key, waiter) else { return };
        // The first stream travels with the introduction, and as much of what it says as fits.
        let early = waiter.early.get(..waiter.said()).unwrap_or_default().to_vec();
        let stream = Some(introduction::FirstStream { port: waiter.port, early });
        let id = self.client.connect(Connect { client, ..Connect::to(address, stream) }, now);
        self.sessions.begin(id, Making::Session(key, vec![waiter]));
    }

    /// The service is at the other end, and knows of the stream of the first who waits.
    fn meet(&self, circuit: CircuitId, keys: &SessionKeys, waiters: Vec<Waiter>) {
        let mut waiters = waiters.into_iter();
        if let Some(waiter) = waiters.next() {
            let (target, said) = (Target::Service(waiter.port), waiter.said());
            let first = FirstStream { target, early: waiter.early, said };
            let keys = (&*keys.seed, &keys.transcript);
            let stream = self.circuits.add_virtual_hop_with_stream(circuit, keys, first);
            let _left = waiter.reply.send(Ok(stream));
        }
        waiters.for_each(|waiter| self.give(circuit, waiter));
    }

    fn give(&self, circuit: CircuitId, waiter: Waiter) {
        let stream = self.circuits.open_stream(circuit, Target::Service(waiter.port), waiter.early);
        // Whoever left drops the stream, which ends it.
        let _left = waiter.reply.send(Ok(stream));
    }

    fn handle_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Opened { circuit, binding, .. } => match self.table.owner(circuit) {
                Some((Owner::Client, own)) => self.client.handle_opened(own, now),
                Some((Owner::Service(number), own)) => {
                    if let Some(host) = self.hosts.get_mut(&number) {
                        host.service.handle_opened(own, &binding, now);
                    }
                }
                None => {}
            },
            Event::Closed { circuit, .. } => self.handle_closed(circuit, now),
            Event::Message { circuit, command, body, .. } => self.handle_message(circuit, command, &body, now),
            Event::Inbound { circuit, target, request } => {
                // Dropped, it refuses.
                if let Some(host) = self.served.get(&circuit).and_then(|number| self.hosts.get(number)) {
                    host.serve(&target, request);
                }
            }
            Event::Blame { .. } | Event::Recorded(_) | Event::Experience(_) | Event::Stopped => {}
        }
    }

    fn handle_closed(&mut self, circuit: CircuitId, now: Now) {
        self.sessions.closed(circuit);
        self.served.remove(&circuit);
        if let Some((owner, own)) = self.table.remove(circuit) {
            self.tell_closed(owner, own, now);
        }
    }

    fn tell_closed(&mut self, owner: Owner, circuit: Circuit, now: Now) {
        match owner {
            Owner::Client => self.client.handle_closed(circuit, now),
            Owner::Service(number) => {
                if let Some(host) = self.hosts.get_mut(&number) {
                    host.service.handle_closed(circuit, now);
                }
            }
        }
    }

    fn handle_message(&mut self, circuit: CircuitId, command: u8, body: &[u8], now: Now) {
        let outcome = match self.table.owner(circuit) {
            Some((Owner::Client, own)) => self.client.handle_message(own, command, body, now),
            Some((Owner::Service(number), own)) => match self.hosts.get_mut(&number) {
                Some(host) => host.service.handle_message(own, command, body, now),
                None => Ok(()),
            },
            None => Ok(()),
        };
        if let Err(reject) = outcome {
            tracing::debug!(?reject, "a message of a circuit is refused");
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Written(number) => {
                if let Some(reply) = self.removing.remove(&number) {
                    let _left = reply.send(());
                }
                if let Some(host) = self.hosts.get_mut(&number) {
                    host.handle_written();
                }
            }
            Done::Solved(id, work) => self.client.handle_work(id, work, clock()),
        }
    }

    /// Does what the cores say, until they say nothing.
    fn pump(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some(output) = self.client.poll_output() {
                is_idle = false;
                self.do_client(output);
            }
            let numbers: Vec<_> = self.hosts.keys().copied().collect();
            for number in numbers {
                while let Some(output) = self.hosts.get_mut(&number).and_then(Host::poll) {
                    is_idle = false;
                    self.do_service(number, output);
                }
            }
            while let Some((owner, circuit)) = self.unbuilt.pop_front() {
                is_idle = false;
                self.tell_closed(owner, circuit, clock());
            }
            if is_idle {
                return;
            }
        }
    }

    fn open(&mut self, owner: Owner, circuit: Circuit, relay: &NodeId, (wanted, isolation): (Purpose, Isolation)) {
        if self.hops.is_empty() && self.early.len() < MAX_EARLY {
            // Nothing is known yet, which is no relay's fault.
            return self.early.push((owner, circuit, *relay, (wanted, isolation)));
        }
        let Some(hop) = self.hops.get(relay).cloned() else { return self.unbuilt.push_back((owner, circuit)) };
        // A client's rendezvous point sees nothing but the relay before it, and meets a new one each time.
        let is_longer = self.has_long_paths && wanted != Purpose::Rendezvous;
        let hops = self.config.hops + usize::from(is_longer);
        let open = Open { purpose: purpose(wanted), end: End::Relay(hop), isolation, hops };
        let id = self.circuits.open(open);
        self.table.insert(owner, circuit, id);
    }

    fn send(&self, owner: Owner, circuit: Circuit, message: &crate::wire::Message) {
        if let Some(id) = self.table.id(owner, circuit) {
            let (command, body) = message.encode();
            self.circuits.send_message(id, command, body);
        }
    }

    fn close(&mut self, owner: Owner, circuit: Circuit) {
        if let Some(id) = self.table.id(owner, circuit) {
            self.table.remove(id);
            self.circuits.close(id);
        }
    }

    fn do_client(&mut self, output: client::Output) {
        use client::Output;
        match output {
            Output::Open { circuit, relay, purpose, connection } => {
                let isolation = self.sessions.isolation(connection);
                self.open(Owner::Client, circuit, &relay, (purpose, isolation));
            }
            Output::Send(circuit, message) => self.send(Owner::Client, circuit, &message),
            Output::Close(circuit) => self.close(Owner::Client, circuit),
            Output::Solve { connection, key, seed, effort, nonce } => {
                let tries = effort.saturating_mul(32).clamp(256, MAX_TRIES);
                let solve = move || Work::make(&Equihash, &key, &seed, effort, nonce, tries);
                let solvers = Arc::clone(&self.solvers);
                self.running.push(Box::pin(async move {
                    // Never closed.
                    let _permit = solvers.acquire_owned().await;
                    Done::Solved(connection, tokio::task::spawn_blocking(solve).await.ok().flatten())
                }));
            }
            Output::Stage(id, stage) => self.sessions.set_stage(id, stage),
            Output::Connected { connection, circuit, keys } => {
                let Some(id) = self.table.id(Owner::Client, circuit) else { return };
                self.table.remove(id);
                match self.sessions.end(connection) {
                    Some(Making::Session(key, waiters)) => {
                        self.meet(id, &keys, waiters);
                        self.sessions.opened(key, id);
                    }
                    Some(Making::Probe(number)) => {
                        self.circuits.close(id);
                        self.handle_probe(number, Ok(()));
                    }
                    _ => self.circuits.close(id),
                }
            }
            Output::Found { connection, points, last_epoch, revision } => {
                if let Some(Making::Lookup(reply)) = self.sessions.end(connection) {
                    let _left = reply.send(Ok(Found { points, last_epoch, revision }));
                }
            }
            Output::Failed(connection, failure) => match self.sessions.end(connection) {
                Some(Making::Session(_, waiters)) => {
                    waiters.into_iter().for_each(|waiter| drop(waiter.reply.send(Err(failure))));
                }
                Some(Making::Lookup(reply)) => drop(reply.send(Err(failure))),
                Some(Making::Probe(number)) => self.handle_probe(number, Err(failure)),
                None => {}
            },
        }
    }

    fn handle_probe(&mut self, number: u64, result: Result<(), Failure>) {
        if let Some(host) = self.hosts.get_mut(&number) {
            host.service.handle_probe(result, clock());
        }
    }

    fn do_service(&mut self, number: u64, output: service::Output) {
        use service::Output;
        let owner = Owner::Service(number);
        match output {
            Output::Open { circuit, relay, purpose } => {
                // A service's circuits are linked by what they are for, and with nothing else.
                let isolation = Isolation(*blake3::keyed_hash(&[1; 32], &number.to_be_bytes()).as_bytes());
                self.open(owner, circuit, &relay, (purpose, isolation));
            }
            Output::Send(circuit, message) => self.send(owner, circuit, &message),
            Output::Close(circuit) => self.close(owner, circuit),
            Output::Persist(rows) => {
                let keep = Arc::clone(&self.keep);
                self.running.push(Box::pin(async move {
                    host::write(&*keep, number, rows).await;
                    Done::Written(number)
                }));
            }
            Output::Accept { circuit, keys, stream } => {
                let Some(id) = self.table.id(owner, circuit) else { return };
                self.table.remove(id);
                self.served.insert(id, number);
                match stream {
                    Some(introduction::FirstStream { port, early }) => {
                        let first = FirstStream { target: Target::Service(port), said: early.len(), early };
                        self.circuits.add_virtual_hop_with_request(id, (&*keys.seed, &keys.transcript), first);
                    }
                    None => {
                        let role = VirtualRole::Service;
                        self.circuits.add_virtual_hop(id, role, &keys.seed, &keys.transcript);
                    }
                }
            }
            Output::Exchange(exchange) => {
                let circuit = self.table.id(owner, exchange.circuit);
                if let Some((circuit, host)) = circuit.zip(self.hosts.get(&number)) {
                    host.exchange(*exchange, (self.circuits.clone(), circuit));
                    self.served_mixed += 1;
                }
            }
            Output::Probe(address, point) => {
                // For a service that admits everybody the key opens nothing.
                let client = self.hosts.get(&number).map(|host| host.probe.clone());
                let connect = Connect { client, fresh: true, through: Some(point), ..Connect::to(address, None) };
                let id = self.client.connect(connect, clock());
                self.sessions.begin(id, Making::Probe(number));
            }
        }
    }
}
