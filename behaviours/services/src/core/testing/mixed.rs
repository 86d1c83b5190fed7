//! The world with a mixnet: messages to relays and answers by reply blocks that take time, and a service that answers.

use std::{collections::BTreeMap, time::Duration};

use fog_base::{MessageId, NodeId};

use super::{End, World, binding, calendar};
use crate::{
    core::{
        circuit::Circuit,
        mixed::{Asker, Asking, Failure, JobId, NotServed, Output, Sent},
        pow::{Equihash, Work},
        relay::{self, Relay},
        service::{Config, Service},
    },
    wire::{
        Message,
        mixed::{Ask, PIECE, Part},
    },
};

type Served = fn(&[u8]) -> Result<Vec<u8>, NotServed>;

pub(crate) struct Mixed {
    pub(crate) world: World,
    pub(crate) asker: Asker,
    pub(crate) answer: Served,
    /// Every so many-th piece of an answer is lost.
    pub(crate) loses_every: usize,
    /// Relays that do not get what is sent to them.
    pub(crate) unreachable: Vec<NodeId>,
    /// An introduction point passes each request on and says that it knew nobody.
    pub(crate) points_lie: bool,
    pub(crate) asked: Vec<(NodeId, Ask)>,
    pub(crate) served: Vec<Vec<u8>>,
    pub(crate) done: BTreeMap<JobId, Result<Vec<u8>, Failure>>,
    pub(crate) pieces: usize,
    /// What relays sent to the service, to be sent again.
    pub(crate) passed: Vec<(NodeId, Circuit, Message)>,
}

impl Mixed {
    pub(crate) fn new(config: Config) -> Self {
        let mut world = World::new(12, 3);
        world.start(config);
        world.run(Duration::from_secs(30));
        let mut asker = Asker::new(calendar(), [9; 32]);
        asker.set_view(world.view());
        Self {
            world,
            asker,
            answer: |bytes| Ok(bytes.to_vec()),
            loses_every: usize::MAX,
            unreachable: Vec::new(),
            points_lie: false,
            asked: Vec::new(),
            served: Vec::new(),
            done: BTreeMap::new(),
            pieces: 0,
            passed: Vec::new(),
        }
    }

    pub(crate) fn asking(bytes: Vec<u8>) -> Asking {
        let address = crate::Address::new(*World::identity().key());
        Asking { address, client: None, request: Some((80, bytes, false)) }
    }

    /// The end of an exchange.
    pub(crate) fn ask(&mut self, asking: Asking) -> Result<Vec<u8>, Failure> {
        let job = self.asker.ask(asking, self.world.now);
        for _ in 0..100 {
            self.turn();
            if let Some(end) = self.done.remove(&job) {
                return end;
            }
            self.world.run(Duration::from_secs(1));
            self.asker.handle_timeout(self.world.now);
        }
        panic!("an exchange does not end");
    }

    fn turn(&mut self) {
        while let Some(output) = self.asker.poll_output() {
            let now = self.world.now;
            match output {
                Output::Send { message, to, .. } if self.unreachable.contains(&to) => {
                    self.asker.handle_sent(message, Sent::Refused, now);
                }
                Output::Send { message, to, body, blocks } => {
                    self.asked.push((to, Ask::decode(&body).unwrap()));
                    let blocks = (0..blocks).map(|_| message.0.to_vec()).collect();
                    let epoch = self.world.epoch();
                    let _ = self.world.relays.get_mut(&to).unwrap().handle_ask(&body, blocks, epoch, now);
                    self.asker.handle_sent(message, Sent::Delivered, now);
                    self.relay(to);
                }
                Output::Solve { job, key, seed, effort, nonce } => {
                    let work = Work::make(&Equihash, &key, &seed, effort, nonce, 256);
                    self.asker.handle_work(job, work, now);
                }
                Output::Done(job, result) => drop(self.done.insert(job, result)),
            }
        }
    }

    /// Does what a relay wants, as far as the mixnet is concerned.
    fn relay(&mut self, at: NodeId) {
        while let Some(output) = self.world.relays.get_mut(&at).and_then(Relay::poll_output) {
            match output {
                relay::Output::Answer { block, piece } => self.piece(&block, piece),
                relay::Output::Pass { service, exchange, messages } => {
                    self.world.relays.get_mut(&at).unwrap().handle_passed(exchange, !self.points_lie);
                    for message in messages {
                        self.pass(at, service, message);
                    }
                }
                _ => {}
            }
        }
    }

    fn piece(&mut self, block: &[u8], mut piece: Vec<u8>) {
        self.pieces += 1;
        if !self.pieces.is_multiple_of(self.loses_every) {
            piece.resize(PIECE, 0);
            self.asker.handle_piece(MessageId(block.try_into().unwrap()), &piece, self.world.now);
        }
    }

    /// A part of a request arrives at the service, and what it answers at the relay.
    pub(crate) fn pass(&mut self, at: NodeId, circuit: Circuit, message: Message) {
        self.passed.push((at, circuit, message.clone()));
        let (command, body) = message.encode();
        let local = self.world.links[&circuit.0].local;
        let now = self.world.now;
        let _ = self.world.service.as_mut().map(|service| service.handle_message(local, command, &body, now));
        self.world.drain();
        for exchange in std::mem::take(&mut self.world.exchanges) {
            self.served.push(exchange.bytes.clone());
            let answer = (self.answer)(&exchange.bytes);
            let id = self.world.by_local[&(End::Service, exchange.circuit)];
            for part in Part::split(exchange.number, &exchange.answerer.seal(&answer)) {
                let (command, body) = Message::MixedAnswer(part).encode();
                let (epoch, now) = (self.world.epoch(), self.world.now);
                let relay = self.world.relays.get_mut(&at).unwrap();
                let _ = relay.handle_message(Circuit(id), &binding(id), command, &body, epoch, now);
            }
        }
    }

    pub(crate) fn service(&self) -> &Service {
        self.world.service.as_ref().unwrap()
    }

    /// A point of the service: its relay and its key.
    pub(crate) fn point(&self) -> (NodeId, [u8; 32]) {
        let establish =
            self.world.seen.iter().rev().find(|(_, command, _)| *command == super::command::ESTABLISH_INTRO);
        let (relay, _, body) = establish.unwrap();
        (*relay, body[..32].try_into().unwrap())
    }

    /// The service's circuits to this relay, that of the point among them.
    pub(crate) fn circuits_to(&self, relay: NodeId) -> Vec<Circuit> {
        let links = self.world.links.iter().filter(|(_, link)| link.relay == relay && link.end == End::Service);
        links.map(|(id, _)| Circuit(*id)).collect()
    }
}
