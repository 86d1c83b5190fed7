//! A world in memory: relays, services and clients, circuits between them that take time, and relays that misbehave.

mod fault;
pub(crate) mod mixed;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fog_base::{Epoch, EpochSchedule, NetworkId, NodeId, Now, UnixMillis};

pub(crate) use self::fault::Fault;
use super::{
    blinding::Identity,
    circuit::Circuit,
    client::{self, Client, Connect, ConnectionId, Failure},
    handshake::SessionKeys,
    introduction::FirstStream,
    period::{Calendar, Period},
    pow::{Equihash, Work},
    random::Random,
    relay::{self, Relay},
    ring::Ring,
    service::{self, Config, Row, Service},
    view::View,
};
use crate::wire::{Message, command};

pub(crate) const NETWORK: NetworkId = NetworkId([42; 32]);

pub(crate) fn calendar() -> Calendar {
    Calendar { network: NETWORK, schedule: EpochSchedule::new(Duration::from_secs(1800)) }
}

pub(crate) fn relay_id(n: u8) -> NodeId {
    NodeId([n; 32])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Service,
    Client,
}

#[derive(Debug)]
enum Event {
    Opened(u64),
    Failed(End, Circuit),
    ToRelay(u64, u8, Vec<u8>),
    ToEnd(u64, u8, Vec<u8>),
    EndClosed(u64),
    RelayClosed(u64),
    Solved(ConnectionId, Option<Work>),
}

struct Link {
    end: End,
    local: Circuit,
    relay: NodeId,
}

/// A service that was met: what it was given.
pub(crate) struct Met {
    pub(crate) keys: SessionKeys,
    pub(crate) stream: Option<FirstStream>,
}

/// What became of legitimate clients in a flood.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    pub(crate) legitimate: u32,
    pub(crate) within_5s: u32,
}

pub(crate) struct World {
    pub(crate) now: Now,
    random: Random,
    pub(crate) relays: BTreeMap<NodeId, Relay>,
    pub(crate) faults: BTreeMap<NodeId, Fault>,
    first_stored: BTreeMap<(NodeId, [u8; 32]), Vec<u8>>,
    pub(crate) service: Option<Service>,
    pub(crate) client: Client,
    pub(crate) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    links: BTreeMap<u64, Link>,
    by_local: BTreeMap<(End, Circuit), u64>,
    next_link: u64,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    /// Parts in a thousand of all messages are swallowed.
    pub(crate) loss: u64,
    /// The service's rendezvous circuits take this much longer, and nothing is recorded.
    flooded: bool,
    is_out: bool,
    pub(crate) accepted: Vec<Met>,
    exchanges: Vec<service::Exchange>,
    pub(crate) ended: BTreeMap<ConnectionId, Result<SessionKeys, Failure>>,
    pub(crate) found: Vec<ConnectionId>,
    probes: BTreeSet<ConnectionId>,
    view_epoch: Option<Epoch>,
    /// All messages that relays got: who, and which.
    pub(crate) seen: Vec<(NodeId, u8, Vec<u8>)>,
    /// Rows of answered introductions on disk when each rendezvous circuit was asked for.
    pub(crate) rows_at_rendezvous: Vec<usize>,
}

impl World {
    /// With so many relays, all of them directories.
    pub(crate) fn new(relays: u8, seed: u8) -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(86_400_000 * 20_000 + 36_000_000) };
        let ids = (1..=relays).map(relay_id);
        let mut world = Self {
            now,
            random: Random::new([seed; 32]),
            relays: ids.map(|id| (id, Relay::new(NETWORK, id, now))).collect(),
            faults: BTreeMap::new(),
            first_stored: BTreeMap::new(),
            service: None,
            client: Client::new(calendar(), [seed ^ 0xff; 32]),
            disk: BTreeMap::new(),
            links: BTreeMap::new(),
            by_local: BTreeMap::new(),
            next_link: 0,
            events: BTreeMap::new(),
            next_event: 0,
            loss: 0,
            flooded: false,
            is_out: false,
            accepted: Vec::new(),
            exchanges: Vec::new(),
            ended: BTreeMap::new(),
            found: Vec::new(),
            probes: BTreeSet::new(),
            view_epoch: None,
            seen: Vec::new(),
            rows_at_rendezvous: Vec::new(),
        };
        world.turn_epoch();
        world
    }

    pub(crate) fn identity() -> Identity {
        Identity::from_seed([77; 32]).unwrap()
    }

    /// Starts the service, or starts it again from what is on disk.
    pub(crate) fn start(&mut self, config: Config) {
        let seed = self.random.bytes();
        let rows = self.disk.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let mut service = Service::new(config, Self::identity(), calendar(), rows, seed, self.now);
        service.set_view(self.view(), self.now);
        self.service = Some(service);
        self.drain();
    }

    /// The service's process ends; its circuits close.
    pub(crate) fn kill_service(&mut self) {
        self.service = None;
        let links: Vec<_> = self.links.iter().filter(|(_, l)| l.end == End::Service).map(|(id, _)| *id).collect();
        links.into_iter().for_each(|link| self.close(link));
    }

    pub(crate) fn epoch(&self) -> Epoch {
        calendar().epoch(self.now.unix)
    }

    pub(crate) fn view(&self) -> View {
        View::new(self.relays.keys().copied().collect(), None, self.rings())
    }

    fn rings(&self) -> Vec<Ring> {
        let epoch = self.epoch();
        let current = Period::at(epoch);
        let open = [current.previous(), current, current.next()].into_iter().filter(|period| period.is_open(epoch));
        let ring = |period: Period| Ring::new(NETWORK, period, &[period.0 as u8; 32], self.relays.keys().copied());
        open.map(ring).collect()
    }

    pub(crate) fn ring(&self) -> Ring {
        let period = Period::at(self.epoch());
        self.rings().into_iter().find(|ring| ring.period() == period).unwrap()
    }

    pub(crate) fn turn_epoch(&mut self) {
        self.view_epoch = Some(self.epoch());
        let (rings, view, epoch) = (self.rings(), self.view(), self.epoch());
        for relay in self.relays.values_mut() {
            relay.set_rings(rings.clone());
            relay.handle_timeout(epoch, self.now);
        }
        self.client.set_view(view.clone());
        if let Some(service) = &mut self.service {
            service.set_view(view, self.now);
        }
    }

    /// A relay leaves the network for good: its circuits close.
    pub(crate) fn kill_relay(&mut self, relay: NodeId) {
        self.faults.insert(relay, Fault::Refuses);
        let links: Vec<_> = self.links.iter().filter(|(_, link)| link.relay == relay).map(|(id, _)| *id).collect();
        links.into_iter().for_each(|link| self.later(Event::EndClosed(link)));
    }

    fn later(&mut self, event: Event) {
        self.after(Duration::ZERO, event);
    }

    fn after(&mut self, wait: Duration, event: Event) {
        let at = self.now.mono + wait + self.random.between(Duration::from_millis(10), Duration::from_millis(60));
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn close(&mut self, id: u64) {
        if let Some(link) = self.links.remove(&id) {
            self.by_local.remove(&(link.end, link.local));
            self.relays.get_mut(&link.relay).unwrap().handle_closed(Circuit(id));
        }
    }

    /// Runs for this long.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.step(end.mono) {}
        self.advance(end.mono);
        self.tick();
    }

    /// Runs until `done`, for at most this long.
    pub(crate) fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.plus(time).mono;
        while !done(self) {
            if !self.step(end) {
                return done(self);
            }
        }
        true
    }

    fn advance(&mut self, to: Instant) {
        self.now = self.now.plus(to.saturating_duration_since(self.now.mono));
    }

    fn step(&mut self, end: Instant) -> bool {
        self.drain();
        let timeouts = [
            self.events.keys().next().map(|(at, _)| *at),
            self.client.poll_timeout(),
            self.service.as_ref().and_then(|service| service.poll_timeout(self.now)),
            self.relays.values().filter_map(Relay::poll_timeout).min(),
            Some(self.now.mono + calendar().schedule.end(self.epoch()).since(self.now.unix)),
        ];
        let Some(next) = timeouts.into_iter().flatten().min().filter(|next| *next <= end) else { return false };
        // Time moves by a millisecond at least, or a timeout that is due for ever would hold the test up.
        self.advance(next.max(self.now.mono + Duration::from_millis(1)));
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now.mono) {
            let event = entry.remove();
            self.handle(event);
            self.drain();
        }
        self.tick();
        true
    }

    fn tick(&mut self) {
        if self.view_epoch != Some(self.epoch()) {
            self.turn_epoch();
        }
        self.client.handle_timeout(self.now);
        if let Some(service) = &mut self.service {
            service.handle_timeout(self.now);
        }
        let epoch = self.epoch();
        self.relays.values_mut().for_each(|relay| relay.handle_timeout(epoch, self.now));
        self.drain();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened(id) => {
                let Some(Link { end, local, .. }) = self.links.get(&id) else { return };
                match (end, &mut self.service) {
                    (End::Client, _) => self.client.handle_opened(*local, self.now),
                    (End::Service, Some(service)) => service.handle_opened(*local, &binding(id), self.now),
                    _ => {}
                }
            }
            Event::Failed(end, local) => self.closed(end, local),
            Event::ToRelay(id, command, body) => self.at_relay(id, command, &body),
            Event::ToEnd(id, command, body) => {
                let Some(Link { end, local, .. }) = self.links.get(&id) else { return };
                let _ = match (end, &mut self.service) {
                    (End::Client, _) => self.client.handle_message(*local, command, &body, self.now),
                    (End::Service, Some(service)) => service.handle_message(*local, command, &body, self.now),
                    _ => Ok(()),
                };
            }
            Event::EndClosed(id) => {
                let Some(Link { end, local, .. }) = self.links.get(&id) else { return };
                let (end, local) = (*end, *local);
                self.close(id);
                self.closed(end, local);
            }
            Event::RelayClosed(id) => self.close(id),
            Event::Solved(id, work) => self.client.handle_work(id, work, self.now),
        }
    }

    fn closed(&mut self, end: End, local: Circuit) {
        match (end, &mut self.service) {
            (End::Client, _) => self.client.handle_closed(local, self.now),
            (End::Service, Some(service)) => service.handle_closed(local, self.now),
            _ => {}
        }
    }

    fn at_relay(&mut self, id: u64, command: u8, body: &[u8]) {
        let Some(Link { relay, .. }) = self.links.get(&id) else { return };
        let relay = *relay;
        if !self.flooded {
            self.seen.push((relay, command, body.to_vec()));
        }
        let fault = self.faults.get(&relay).copied();
        let answer = match (fault, Message::decode(command, body)) {
            (Some(Fault::Silent), _) => return,
            (Some(Fault::Stale), Some(Message::Fetch(key))) => {
                Some(Message::FetchAnswer(self.first_stored.get(&(relay, key)).cloned()))
            }
            (Some(Fault::Forgets), Some(Message::Fetch(_))) => Some(Message::FetchAnswer(None)),
            (Some(Fault::Garbage), Some(Message::Fetch(_))) => {
                let mut bytes = vec![1; 8192];
                self.random.fill(&mut bytes);
                bytes[0] = 1;
                Some(Message::FetchAnswer(Some(bytes)))
            }
            (_, Some(Message::Store(bytes))) => {
                let key = bytes[22..54].try_into().unwrap();
                self.first_stored.entry((relay, key)).or_insert(bytes);
                None
            }
            _ => None,
        };
        if let Some(answer) = answer {
            let (command, body) = answer.encode();
            return self.later(Event::ToEnd(id, command, body));
        }
        let (epoch, now) = (self.epoch(), self.now);
        let core = self.relays.get_mut(&relay).unwrap();
        let _ = core.handle_message(Circuit(id), &binding(id), command, body, epoch, now);
        while let Some(output) = self.relays.get_mut(&relay).unwrap().poll_output() {
            match output {
                relay::Output::Send(circuit, message) => {
                    let (command, body) = message.encode();
                    self.pass_on(relay, circuit.0, command, body);
                }
                relay::Output::Offer { service, client, introduction } => {
                    let (command, body) = Message::Introduce2(introduction).encode();
                    self.pass_on(relay, service.0, command, body);
                    self.relays.get_mut(&relay).unwrap().handle_offered(client, true);
                }
                relay::Output::Join(..) | relay::Output::Pass { .. } | relay::Output::Answer { .. } => {}
                relay::Output::Close(circuit) => self.later(Event::EndClosed(circuit.0)),
            }
        }
    }

    /// What a relay sends, as far as it is honest.
    fn pass_on(&mut self, relay: NodeId, circuit: u64, command: u8, mut body: Vec<u8>) {
        let fault = self.faults.get(&relay).copied();
        let passed_on = matches!(command, command::INTRODUCE2 | command::RENDEZVOUS2);
        if fault == Some(Fault::Flips) && passed_on {
            let bit = self.random.below(body.len() as u64 * 8) as usize;
            body[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if fault == Some(Fault::Replays) && command == command::INTRODUCE2 { 5 } else { 1 };
        for _ in 0..copies {
            self.later(Event::ToEnd(circuit, command, body.clone()));
        }
    }

    /// The service's own link is gone, or back.
    pub(crate) fn set_outage(&mut self, is_out: bool) {
        self.is_out = is_out;
        let links: Vec<_> = self.links.iter().filter(|(_, link)| link.end == End::Service).map(|(id, _)| *id).collect();
        if is_out {
            links.into_iter().for_each(|link| self.later(Event::EndClosed(link)));
        }
    }

    fn open(&mut self, end: End, local: Circuit, relay: NodeId) {
        let is_out = self.is_out && end == End::Service;
        if is_out || self.faults.get(&relay) == Some(&Fault::Refuses) || !self.relays.contains_key(&relay) {
            return self.later(Event::Failed(end, local));
        }
        self.next_link += 1;
        let id = self.next_link;
        self.links.insert(id, Link { end, local, relay });
        self.by_local.insert((end, local), id);
        if self.faults.get(&relay) == Some(&Fault::Hangs) {
            return;
        }
        // 64 circuits in the making, 400 ms each: 160 a second.
        let slow = self.flooded && end == End::Service;
        self.after(Duration::from_millis(if slow { 400 } else { 0 }), Event::Opened(id));
    }

    fn send(&mut self, end: End, local: Circuit, message: &Message) {
        let Some(id) = self.by_local.get(&(end, local)).copied() else { return };
        let (command, body) = message.encode();
        if self.random.below(1000) >= self.loss {
            self.later(Event::ToRelay(id, command, body));
        }
    }

    fn shut(&mut self, end: End, local: Circuit) {
        if let Some(id) = self.by_local.get(&(end, local)).copied() {
            self.later(Event::RelayClosed(id));
        }
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.service.as_mut().and_then(Service::poll_output) {
            self.serve(output);
        }
        while let Some(output) = self.client.poll_output() {
            self.attend(output);
        }
    }

    fn serve(&mut self, output: service::Output) {
        match output {
            service::Output::Open { circuit, relay, purpose } => {
                if purpose == super::circuit::Purpose::ServiceRendezvous {
                    self.rows_at_rendezvous.push(self.disk.keys().filter(|key| key[0] == b'r').count());
                }
                self.open(End::Service, circuit, relay);
            }
            service::Output::Send(circuit, message) => self.send(End::Service, circuit, &message),
            service::Output::Close(circuit) => self.shut(End::Service, circuit),
            service::Output::Persist(rows) => rows.into_iter().for_each(|row| self.write(row)),
            service::Output::Accept { keys, stream, .. } => self.accepted.push(Met { keys, stream }),
            service::Output::Exchange(exchange) => self.exchanges.push(*exchange),
            service::Output::Probe(address, through) => {
                let connect = Connect { fresh: true, through: Some(through), ..Connect::to(address, None) };
                let id = self.client.connect(connect, self.now);
                self.probes.insert(id);
            }
        }
    }

    fn write(&mut self, row: Row) {
        match row {
            Row::Put(key, value) => _ = self.disk.insert(key, value.to_vec()),
            Row::DeletePrefix(prefix) => self.disk.retain(|key, _| !key.starts_with(&prefix)),
        }
    }

    fn attend(&mut self, output: client::Output) {
        match output {
            client::Output::Open { circuit, relay, .. } => self.open(End::Client, circuit, relay),
            client::Output::Send(circuit, message) => self.send(End::Client, circuit, &message),
            client::Output::Close(circuit) => self.shut(End::Client, circuit),
            client::Output::Solve { connection, key, seed, effort, nonce } => {
                let work = Work::make(&Equihash, &key, &seed, effort, nonce, 1000);
                self.later(Event::Solved(connection, work));
            }
            client::Output::Stage(..) => {}
            client::Output::Connected { connection, keys, .. } => self.end(connection, Ok(keys)),
            client::Output::Found { connection, .. } => self.found.push(connection),
            client::Output::Failed(connection, failure) => self.end(connection, Err(failure)),
        }
    }

    fn end(&mut self, id: ConnectionId, result: Result<SessionKeys, Failure>) {
        if self.probes.remove(&id) {
            if let Some(service) = &mut self.service {
                service.handle_probe(result.map(drop), self.now);
            }
        } else {
            self.ended.insert(id, result);
        }
    }

    /// Connects, and waits for the end.
    pub(crate) fn connect(&mut self, connect: Connect) -> Result<SessionKeys, Failure> {
        let id = self.client.connect(connect, self.now);
        assert!(self.run_until(Duration::from_secs(70), |world| world.ended.contains_key(&id)), "it never ended");
        self.ended.remove(&id).unwrap()
    }

    /// An introduction from nobody: somebody who recorded it sends it again.
    pub(crate) fn inject_introduction(&mut self, relay: NodeId, body: &[u8]) {
        self.next_link += 1;
        let id = self.next_link;
        self.links.insert(id, Link { end: End::Client, local: Circuit(u64::MAX - id), relay });
        self.at_relay(id, command::INTRODUCE1, body);
        self.later(Event::RelayClosed(id));
    }

    /// `per_second` worthless introductions a second for so many seconds, each well formed, and a client each second.
    pub(crate) fn flood(
        &mut self,
        seconds: u32,
        per_second: u32,
        legitimate: impl Fn(&mut Self) -> ConnectionId,
    ) -> Flood {
        let mut began = BTreeMap::new();
        let mut flood = Flood::default();
        self.flooded = true;
        for second in 0..seconds {
            let id = legitimate(self);
            began.insert(id, (second, self.now.mono));
            for _ in 0..100 {
                for _ in 0..per_second / 100 {
                    self.attack();
                }
                self.run(Duration::from_millis(10));
                let ended: Vec<_> = self.ended.keys().copied().collect();
                for id in ended {
                    let result = self.ended.remove(&id);
                    let Some((second, since)) = began.remove(&id) else { continue };
                    // The queue is full by then.
                    if second >= 3 {
                        flood.legitimate += 1;
                        let quick = self.now.mono - since < Duration::from_secs(5);
                        flood.within_5s += u32::from(quick && result.is_some_and(|result| result.is_ok()));
                    }
                }
            }
        }
        flood.legitimate += began.values().filter(|(second, _)| (3..seconds - 5).contains(second)).count() as u32;
        flood
    }

    fn attack(&mut self) {
        let service = self.service.as_ref().unwrap();
        let Some((point, subcredential)) = service.target(&mut self.random) else { return };
        let request = super::introduction::Request {
            cookie: self.random.bytes(),
            rendezvous: relay_id(1),
            work: None,
            stream: None,
        };
        let random = &mut self.random;
        let started = super::handshake::Initiator::start(&NETWORK, &subcredential, &point, &request.encode(), random);
        let (_, introduction) = started.unwrap();
        let (_, body) = Message::Introduce1(introduction).encode();
        self.inject_introduction(point.relay, &body);
    }

    /// Waits until a probe went through.
    pub(crate) fn reachable(&mut self, time: Duration) -> bool {
        let since = self.now.unix;
        self.run_until(time, |world| {
            let status = world.service.as_ref().unwrap().status(world.now.unix);
            status.last_probe.is_some_and(|probe| probe.ok && probe.at > since)
        })
    }

    pub(crate) fn status(&self) -> service::Status {
        self.service.as_ref().unwrap().status(self.now.unix)
    }
}

fn binding(id: u64) -> [u8; 32] {
    *blake3::hash(&id.to_be_bytes()).as_bytes()
}
