//! What a relay does for services and their clients: it keeps descriptors, passes introductions on, and joins circuits.
//!
//! A circuit serves one purpose: who introduces does not store, and who waits at a rendezvous does nothing else on that circuit.

mod directory;
mod exchanges;
mod introduction;
mod rendezvous;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use fog_base::{Epoch, NetworkId, NodeId, Now};

use super::{
    circuit::Circuit,
    reject::{Reject, Rejects},
    ring::Ring,
};
use crate::wire::{
    AckStatus, Introduction, Message,
    mixed::{Ask, Denial, Part, Piece, SealedRequest},
};

pub use directory::{MAX_BYTES, MAX_DESCRIPTORS};
pub use exchanges::{Block, KEPT, MAX_EXCHANGES, MAX_OPEN};
pub use introduction::{LIMIT_BURST, LIMIT_RATE, MAX_POINTS};
pub use rendezvous::{MAX_COOKIES, WAIT};

use directory::Directory;
use exchanges::{Exchanges, answers};
use introduction::IntroductionPoints;
use rendezvous::Rendezvous;

/// Circuits that are remembered for what they were used for.
pub const MAX_CIRCUITS: usize = 32_768;
/// What one circuit may do.
const STORES: u8 = 4;
const FETCHES: u8 = 8;
const INTRODUCTIONS: u8 = 3;

/// What a relay asks of its circuits. In order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message back on a circuit.
    Send(Circuit, Message),
    /// Send an introduction to a service, if its circuit takes it: a flood must not end the circuit. [`Relay::handle_offered`] follows.
    Offer {
        /// The service's circuit.
        service: Circuit,
        /// The circuit of the client, who is told.
        client: Circuit,
        /// What it says.
        introduction: Box<Introduction>,
    },
    /// Send the parts of a request that came through the mixnet to a service, if its circuit takes all of them. [`Relay::handle_passed`] follows.
    Pass {
        /// The service's circuit.
        service: Circuit,
        /// The number of the exchange.
        exchange: u64,
        /// The parts, in order.
        messages: Vec<Message>,
    },
    /// Answer by a reply block.
    Answer {
        /// The block.
        block: Block,
        /// What to say, without the zeros at the end.
        piece: Vec<u8>,
    },
    /// From now on what comes on one leaves on the other.
    Join(Circuit, Circuit),
    /// Close a circuit.
    Close(Circuit),
}

/// What a circuit was used for so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Directory { stores: u8, fetches: u8 },
    Introduces(u8),
    Introduced,
    Waits,
    Joined,
}

/// Counts for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Descriptors kept.
    pub descriptors: usize,
    /// Their bytes.
    pub descriptor_bytes: usize,
    /// Services that are introduced here.
    pub points: usize,
    /// Clients that wait here.
    pub waiting: usize,
    /// Exchanges through the mixnet, with those whose answers are kept.
    pub exchanges: usize,
}

/// A relay's part.
#[derive(Debug)]
pub struct Relay {
    network: NetworkId,
    us: NodeId,
    directory: Directory,
    points: IntroductionPoints,
    exchanges: Exchanges,
    rendezvous: Rendezvous,
    uses: BTreeMap<Circuit, Use>,
    outputs: VecDeque<Output>,
    rejects: Rejects,
}

impl Relay {
    /// Keeps nothing yet.
    pub fn new(network: NetworkId, us: NodeId, now: Now) -> Self {
        Self {
            network,
            us,
            directory: Directory::new(now.mono),
            points: IntroductionPoints::default(),
            exchanges: Exchanges::new(now.mono),
            rendezvous: Rendezvous::default(),
            uses: BTreeMap::new(),
            outputs: VecDeque::new(),
            rejects: Rejects::default(),
        }
    }

    /// The rings in which this relay may stand: of all periods that are open. Replaces those before.
    pub fn set_rings(&mut self, rings: Vec<Ring>) {
        self.directory.set_rings(rings);
    }

    /// A message on a circuit whose last hop we are; `binding` is the circuit's, `epoch` the current one.
    pub fn handle_message(
        &mut self,
        circuit: Circuit,
        binding: &[u8; 32],
        command: u8,
        body: &[u8],
        epoch: Epoch,
        now: Now,
    ) -> Result<(), Reject> {
        let result = Message::decode(command, body)
            .ok_or(Reject::Malformed)
            .and_then(|message| self.handle(circuit, binding, message, epoch, now.mono));
        result.map_err(|reason| {
            // An answer was sent where the protocol has one; who sends what is none loses the circuit.
            if matches!(reason, Reject::Malformed | Reject::Unexpected | Reject::BadSignature) {
                self.outputs.push_back(Output::Close(circuit));
            }
            self.rejects.count(reason)
        })
    }

    fn handle(
        &mut self,
        circuit: Circuit,
        binding: &[u8; 32],
        message: Message,
        epoch: Epoch,
        now: Instant,
    ) -> Result<(), Reject> {
        let used = self.admit(circuit, &message)?;
        self.uses.insert(circuit, used);
        match message {
            Message::Store(bytes) => {
                let (answer, reject) = self.directory.store(&bytes, &self.network, self.us, epoch, now);
                self.send(circuit, Message::StoreAnswer(answer));
                reject.map_or(Ok(()), Err)
            }
            Message::Fetch(key) => {
                let found = self.directory.fetch(&key, epoch);
                self.send(circuit, Message::FetchAnswer(found));
                Ok(())
            }
            Message::EstablishIntro(establish) => {
                let valid = establish.verifies(&self.network, &self.us.0, binding);
                let result =
                    if valid { self.points.establish(circuit, &establish, now) } else { Err(Reject::BadSignature) };
                self.send(circuit, Message::IntroEstablished(result.is_ok()));
                if let Some(before) = result? {
                    self.close(before);
                }
                Ok(())
            }
            Message::Introduce1(introduction) => {
                let (status, reject) = match self.points.introduce(&introduction.auth_key, now) {
                    Ok(service) => {
                        self.outputs.push_back(Output::Offer { service, client: circuit, introduction });
                        return Ok(());
                    }
                    Err(Reject::Unknown) => (AckStatus::Unknown, Reject::Unknown),
                    Err(reject) => (AckStatus::Limited, reject),
                };
                self.send(circuit, Message::IntroduceAck(status));
                Err(reject)
            }
            Message::EstablishRendezvous(cookie) => {
                let result = self.rendezvous.establish(circuit, cookie, now);
                self.send(circuit, Message::RendezvousEstablished(result.is_ok()));
                result
            }
            Message::Rendezvous1(cookie, reply) => {
                let Some(client) = self.rendezvous.take(&cookie) else {
                    self.close(circuit);
                    return Err(Reject::Unknown);
                };
                self.uses.insert(client, Use::Joined);
                self.send(client, Message::Rendezvous2(reply));
                self.outputs.push_back(Output::Join(client, circuit));
                Ok(())
            }
            Message::MixedAnswer(part) => self.handle_part(circuit, &part),
            _ => Err(Reject::Unexpected),
        }
    }

    fn handle_part(&mut self, circuit: Circuit, part: &Part) -> Result<(), Reject> {
        let leaving = self.exchanges.part(circuit, part)?;
        self.answer(leaving);
        Ok(())
    }

    /// A message that came through the mixnet, from nobody in particular, with the blocks by which it is answered.
    pub fn handle_ask(&mut self, body: &[u8], mut blocks: Vec<Block>, epoch: Epoch, now: Now) -> Result<(), Reject> {
        let asked = match Ask::decode(body) {
            Some(Ask::Fetch(key)) if self.exchanges.may_fetch(now.mono) => match self.directory.fetch(&key, epoch) {
                Some(descriptor) => {
                    self.answer(answers(&descriptor, &[], blocks));
                    return Ok(());
                }
                None => Err((Reject::Unknown, blocks.pop())),
            },
            Some(Ask::Fetch(_)) => Err((Reject::RateLimited, blocks.pop())),
            Some(Ask::Request { id, request }) => self.pass(id, &request, blocks, now.mono),
            Some(Ask::More { id, has }) => match self.exchanges.more(&id, &has, blocks) {
                Ok(leaving) => {
                    self.answer(leaving);
                    Ok(())
                }
                Err(mut blocks) => Err((Reject::Unknown, blocks.pop())),
            },
            None => Err((Reject::Malformed, None)),
        };
        asked.map_err(|(reason, block)| {
            let denial = if reason == Reject::Unknown { Denial::Unknown } else { Denial::Limited };
            self.answer(block.map(|block| (block, Piece::Denied(denial))));
            self.rejects.count(reason)
        })
    }

    /// A request for a service that is introduced here, or why not and a block to say so.
    fn pass(
        &mut self,
        id: [u8; 16],
        request: &SealedRequest,
        mut blocks: Vec<Block>,
        now: Instant,
    ) -> Result<(), (Reject, Option<Block>)> {
        if self.exchanges.has(&id) {
            return Err((Reject::Replayed, None));
        }
        let service = match self.points.introduce(&request.auth_key, now) {
            Ok(service) => service,
            Err(reason) => return Err((reason, blocks.pop())),
        };
        let begun = self.exchanges.begin(id, (request.auth_key, service), blocks, now);
        let exchange = begun.map_err(|mut blocks| (Reject::Full, blocks.pop()))?;
        let messages = Part::split(exchange, &request.encode()).into_iter().map(Message::MixedRequest).collect();
        self.outputs.push_back(Output::Pass { service, exchange, messages });
        Ok(())
    }

    /// Whether the service's circuit took a request; if not, its client is told to go elsewhere.
    pub fn handle_passed(&mut self, exchange: u64, is_taken: bool) {
        if !is_taken {
            self.rejects.count(Reject::Full);
            let leaving = self.exchanges.refused(exchange);
            self.answer(leaving);
        }
    }

    /// A piece of an answer found no room on its way out.
    pub fn handle_unanswered(&mut self) {
        self.rejects.count(Reject::Full);
    }

    fn answer(&mut self, leaving: impl IntoIterator<Item = (Block, Piece)>) {
        let output = |(block, piece): (Block, Piece)| Output::Answer { block, piece: piece.encode() };
        self.outputs.extend(leaving.into_iter().map(output));
    }

    /// What the circuit is used for after this message, if it may be.
    fn admit(&self, circuit: Circuit, message: &Message) -> Result<Use, Reject> {
        let used = self.uses.get(&circuit).copied();
        if used.is_none() && self.uses.len() >= MAX_CIRCUITS {
            return Err(Reject::Full);
        }
        match (used, message) {
            (None, Message::Store(_)) => Ok(Use::Directory { stores: 1, fetches: 0 }),
            (None, Message::Fetch(_)) => Ok(Use::Directory { stores: 0, fetches: 1 }),
            (Some(Use::Directory { stores, fetches }), Message::Store(_)) if stores < STORES => {
                Ok(Use::Directory { stores: stores + 1, fetches })
            }
            (Some(Use::Directory { stores, fetches }), Message::Fetch(_)) if fetches < FETCHES => {
                Ok(Use::Directory { stores, fetches: fetches + 1 })
            }
            (None, Message::Introduce1(_)) => Ok(Use::Introduces(1)),
            (Some(Use::Introduces(n)), Message::Introduce1(_)) if n < INTRODUCTIONS => Ok(Use::Introduces(n + 1)),
            (None, Message::EstablishIntro(_)) => Ok(Use::Introduced),
            (None, Message::EstablishRendezvous(_)) => Ok(Use::Waits),
            (Some(Use::Introduced), Message::MixedAnswer(_)) => Ok(Use::Introduced),
            (None, Message::Rendezvous1(..)) => Ok(Use::Joined),
            _ => Err(Reject::Unexpected),
        }
    }

    /// Whether the service's circuit took the introduction of this client; if not, it is lost, and the client is told to go elsewhere.
    pub fn handle_offered(&mut self, client: Circuit, is_taken: bool) {
        if !is_taken {
            self.rejects.count(Reject::Full);
        }
        self.send(client, Message::IntroduceAck(if is_taken { AckStatus::PassedOn } else { AckStatus::Limited }));
    }

    /// A circuit is gone.
    pub fn handle_closed(&mut self, circuit: Circuit) {
        self.uses.remove(&circuit);
        self.points.closed(circuit);
        self.rendezvous.closed(circuit);
        let leaving = self.exchanges.closed(circuit);
        self.answer(leaving);
    }

    /// Time passed: what is too old goes.
    pub fn handle_timeout(&mut self, epoch: Epoch, now: Now) {
        self.directory.expire(epoch);
        for _ in 0..self.exchanges.expire(now.mono) {
            self.rejects.count(Reject::TimedOut);
        }
        for circuit in self.rendezvous.expire(now.mono) {
            self.rejects.count(Reject::TimedOut);
            self.close(circuit);
        }
    }

    /// When [`Self::handle_timeout`] has something to do for a client that waits. Descriptors expire with the epochs.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.rendezvous.next_timeout()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How often what was refused.
    pub fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    /// What is held for others.
    pub fn held(&self) -> Held {
        Held {
            descriptors: self.directory.len(),
            descriptor_bytes: self.directory.bytes(),
            points: self.points.len(),
            waiting: self.rendezvous.len(),
            exchanges: self.exchanges.len(),
        }
    }

    fn send(&mut self, circuit: Circuit, message: Message) {
        self.outputs.push_back(Output::Send(circuit, message));
    }

    fn close(&mut self, circuit: Circuit) {
        self.handle_closed(circuit);
        self.outputs.push_back(Output::Close(circuit));
    }
}

#[cfg(test)]
mod tests;
